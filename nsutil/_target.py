"""What ``enter`` joins: targets resolved and pinned, so that they stay the same.

A process is pinned by its pidfd, everything else by the descriptor of its
namespace file; a pid that is used again by a stranger is an error.
"""

from __future__ import annotations

import os
from errno import E2BIG, EINVAL, ENOENT, ESRCH
from operator import index

from . import _ns
from ._plan import close_all
from ._types import NAMES, USER, NSType, each, name_of, parse_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._file import NamespaceFile, NamespaceReference
    from ._types import Types


# Of a file in /proc/PID.  Arguments and environment of a program have 6 MiB together at most (execve(2)); a process can
# say that they lie anywhere in its memory, and be hostile.
_MOST = 8 << 20
_ENV_END = 51 - 3  # of the fields in /proc/PID/stat from the third on, see proc_pid_stat(5)


class Process:
    """A process held by its pidfd: it can end, but never turn into another."""

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd

    @classmethod
    def of_pid(cls, pid: int) -> Process:
        """Pin a pid; ProcessLookupError when there is no such process."""
        from ._handle import check_pid

        check_pid(pid)
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError as e:
            # What is just being reaped may look like a thread that leads no process.
            gone = e.errno in (EINVAL, ENOENT) and not os.path.exists(f"/proc/{pid}")
            number = ESRCH if gone else e.errno or 0
            raise OSError(number, os.strerror(number), f"process {pid}") from None

    @classmethod
    def of_pidfd(cls, pidfd: int) -> Process:
        """A process by a pidfd of somebody else; a duplicate is kept."""
        from ._file import pid_of
        from ._handle import check_fd

        number = check_fd(pidfd)
        return cls(pid_of(number), os.dup(number))

    def fileno(self) -> int:
        """The pidfd."""
        return self.pidfd

    def __str__(self) -> str:
        return f"process {self.pid}"

    def __del__(self, close: Callable[[list[int]], None] = close_all) -> None:
        close([self.pidfd])

    def open(self, nstype: NSType) -> NamespaceFile:
        """The namespace file of that type."""
        from ._file import open_pinned

        return open_pinned(self.pidfd, name_of(nstype), self.pid)

    def path(self, name: str) -> str:
        """/proc/PID/name; only valid while ``check_alive()`` holds afterwards."""
        return f"/proc/{self.pid}/{name}"

    def read(self, name: str) -> bytes:
        """The content of /proc/PID/name, of this process and no other."""
        with open(self.path(name), "rb") as file:
            data = file.read(_MOST + 1)
        self.check_alive()
        if len(data) > _MOST:
            raise OSError(E2BIG, f"more than {_MOST} bytes", self.path(name))
        return data

    def environment(self) -> bytes:
        """The content of /proc/PID/environ, which is empty while exec(2) has not yet put it there."""
        import time

        for _ in range(100):
            final = self._has_program()
            if (data := self.read("environ")) or final:
                break
            time.sleep(0.001)
        return data

    def _has_program(self) -> bool:
        """Whether exec(2) is over: it lets go of who started the program before it notes the environment's end."""
        fields = self.read("stat").rpartition(b")")[2].split()
        return fields[0] in b"ZX" or fields[_ENV_END] != b"0"

    def open_path(self, name: str) -> int:
        """An O_PATH descriptor of /proc/PID/name, of this process and no other."""
        fd = os.open(self.path(name), os.O_PATH | os.O_CLOEXEC)
        try:
            self.check_alive()
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check_alive(self) -> None:
        """ProcessLookupError once the process is gone (its pid may be another's)."""
        import signal

        signal.pidfd_send_signal(self.pidfd, 0)


class Join:
    """Types to join and the descriptor to join them by.

    ``process`` is the process they were found through, when there was one.
    """

    __slots__ = ("handle", "identity", "process", "types")

    def __init__(
        self,
        handle: Process | NamespaceFile,
        types: NSType,
        identity: tuple[tuple[int, int, int], ...],
        process: Process | None = None,
    ) -> None:
        self.handle = handle
        self.types = types
        self.identity = identity
        self.process = process

    def fileno(self) -> int:
        """For setns(2); ValueError when the handle was closed."""
        return self.handle.fileno()

    @property
    def label(self) -> str:
        """For the error of a failed join."""
        return f"join {self.types} of {self.process}" if self.process else f"join {self.handle}"

    def files(self) -> Iterator[NamespaceFile]:
        """A namespace file for each type."""
        if isinstance(self.handle, Process):
            for nstype in each(self.types):
                yield self.handle.open(NSType(nstype))
        else:
            yield self.handle

    def __eq__(self, other: object) -> bool:
        return self.identity == other.identity if isinstance(other, Join) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"{self.process.pid}" if self.process else repr(self.handle)

    def __reduce__(self) -> tuple[Callable[..., tuple[Join, ...]], tuple[object, ...]]:
        # A process does not travel, its namespaces do: one join for each.
        return _rejoin, (tuple(file.reference() for file in self.files()),)


def _rejoin(references: tuple[NamespaceReference, ...]) -> tuple[Join, ...]:
    """Unpickle; StaleReference when one of them is gone."""
    return tuple(_join_file(reference.open()) for reference in references)


def _identity(file: NamespaceFile) -> tuple[int, int, int]:
    return int(file.type), file.device, file.inode


def _join_file(file: NamespaceFile, process: Process | None = None) -> Join:
    file.fileno()  # ValueError now when it is closed
    return Join(file, NSType(file.type), (_identity(file),), process)


def _own_identity(nstype: NSType) -> tuple[int, int, int]:
    from ._file import current

    with current(nstype) as file:
        return _identity(file)


def join_process(process: Process, types: NSType | None) -> list[Join]:
    """The joins for a process; ``types=None`` means all that differ from ours."""
    chosen: list[tuple[NSType, tuple[int, int, int]]] = []
    for nstype in NAMES.values() if types is None else each(types):
        with process.open(nstype) as file:
            identity = _identity(file)
        same = identity == _own_identity(nstype)
        if same and types is not None and nstype == USER:
            raise ValueError(f"{process} is in this process's own user namespace, which cannot be joined again")
        if types is not None or not same:
            chosen.append((nstype, identity))
    from ._handle import pidfds_join

    if not pidfds_join():
        return [_join_file(process.open(nstype), process) for nstype, _ in chosen]
    every = NSType(sum(nstype for nstype, _ in chosen))
    return [Join(process, every, tuple(identity for _, identity in chosen), process)] if chosen else []


def resolve(target: object, types: Types | None = None) -> list[Join]:
    """The joins for any target that ``enter`` takes."""
    from ._file import NamespaceFile, NamespaceReference, NamespaceSet

    wanted = None if types is None else parse_types(types)
    if isinstance(target, NamespaceReference):
        target = target.open()
    if isinstance(target, NamespaceFile):
        return [_checked(target, wanted)]
    if isinstance(target, NamespaceSet):
        return [_join_file(f) for f in target if wanted is None or f.type & wanted]
    if isinstance(target, Join):
        return [target]
    if isinstance(target, (list, tuple, set, frozenset)):
        return [join for item in target for join in resolve(item, types)]
    return _resolve_process_or_file(target, wanted)


def _resolve_process_or_file(target: object, wanted: NSType | None) -> list[Join]:
    if isinstance(target, (str, bytes, os.PathLike)):
        return [_open_file(target, wanted)]
    if isinstance(target, int):
        return join_process(Process.of_pid(target), wanted)
    if hasattr(target, "pid"):
        pid = getattr(target, "program_pid", None) or target.pid
        return join_process(Process.of_pid(index(pid)), wanted)
    if hasattr(target, "fileno"):
        return resolve_fd(target, wanted)
    raise TypeError(f"a target must be a pid, a path, a Popen, a namespace file, set or reference, not {target!r}")


def resolve_fd(descriptor: object, wanted: NSType | None) -> list[Join]:
    """The joins for a bare descriptor: a namespace file or a pidfd."""
    from ._handle import check_fd

    fd = check_fd(descriptor)
    try:
        nstype = NSType(_ns.get_nstype(fd))
    except OSError as e:
        if e.errno == 9:
            raise
        return join_process(Process.of_pidfd(fd), wanted)
    from ._file import open as open_namespace

    return [_checked(open_namespace(None, nstype, fd=fd), wanted)]


def _open_file(path: str | bytes | os.PathLike[str] | os.PathLike[bytes], wanted: NSType | None) -> Join:
    """A namespace file by path; its own type is taken when none is asked for."""
    from ._file import open as open_namespace

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        nstype = _type_of(fd, path)
    finally:
        os.close(fd)
    return _checked(open_namespace(os.fsdecode(path), nstype), wanted)


def _type_of(fd: int, path: object) -> NSType:
    from ._errors import NotANamespace

    try:
        return NSType(_ns.get_nstype(fd))
    except OSError:
        raise NotANamespace(f"{path!r} is not a namespace file") from None


def _checked(file: NamespaceFile, wanted: NSType | None) -> Join:
    from ._errors import WrongNamespaceType

    join = _join_file(file)
    if wanted is not None and not file.type & wanted:
        raise WrongNamespaceType(f"{file!r} is a {name_of(file.type)} namespace, asked for {wanted}")
    if file.type == USER and join.identity[0] == _own_identity(USER):
        raise ValueError(f"{file!r} is this process's own user namespace, which cannot be joined again")
    return join
