"""References: a namespace named so that it can be found again, without being kept alive."""

from __future__ import annotations

import os

from ._errors import NotANamespace, StaleReference
from ._status import kernels_own
from ._types import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._handle import NamespaceFile
    from ._types import NSType

    Process = tuple[int, int]
    Place = tuple[str, int]


class NamespaceReference:
    """A namespace by its identity; nothing is held open and nothing kept alive.

    From :meth:`NamespaceFile.reference`.  Hashable, comparable, picklable: another process on the
    same machine can open it.  ``type``, ``device``, ``inode``, ``id`` are those of the file.

    It is found again by its nsfs file handle (Linux 6.18), by the process or thread that was in
    it, or by the path it was opened from.  What is found is compared with the 64-bit id where the
    kernel has one (6.18; for MNT 6.11); before that the process must be the same one (pid and
    start time), and a bind mount the same file, with the same inode number.
    """

    __slots__ = ("_handle", "_place", "_process", "boot", "device", "id", "inode", "type")

    def __init__(
        self,
        nstype: NSType,
        identity: tuple[int, int, int | None],
        boot: str,
        handle: bytes | None,
        process: Process | None,
        place: Place | None,
    ) -> None:
        self.type = nstype
        self.device, self.inode, self.id = identity
        self.boot = boot
        self._handle = handle
        self._process = process
        self._place = place

    def open(self) -> NamespaceFile:
        """That namespace, never another one.

        Raises StaleReference (errno ESTALE) when it is gone or nothing leads to it any more,
        PermissionError when what leads to it may not be looked into.
        """
        denied = None
        for route in self._routes() if self.boot == boot_id() else ():
            try:
                found = route()
            except PermissionError as e:
                denied = e
            except (OSError, NotANamespace):
                continue
            else:
                if self._is(found):
                    return found
                found.close()
        raise denied or StaleReference(f"{self} is gone, or nothing leads to it any more", str(self))

    def _is(self, file: NamespaceFile) -> bool:
        same = (file.type, file.device, file.inode) == (self.type, self.device, self.inode)
        return same and (self.id is None or file.id is None or file.id == self.id)

    def _routes(self) -> list[Callable[[], NamespaceFile]]:
        ways = [
            (self._handle, self._by_handle),
            (self._process, self._by_process),
            (self._place, self._by_path),
        ]
        return [way for known, way in ways if known is not None]

    def _by_handle(self) -> NamespaceFile:
        from ._handle import open_handle

        return open_handle(self._handle)

    def _by_process(self) -> NamespaceFile:
        from . import _file

        pid, start = self._process  # type: ignore[misc]
        found = _file.open(pid, self.type)
        # The pid may have been another's when the file was opened; then it still is.
        if start_time(pid) != start:
            found.close()
            raise ProcessLookupError(f"process {pid} is another one now")
        return found

    def _by_path(self) -> NamespaceFile:
        from . import _file

        path, changed = self._place  # type: ignore[misc]
        found = _file.open(path)
        if os.fstat(found.fileno()).st_ctime_ns != changed:
            found.close()
            raise FileNotFoundError(f"{path} is another namespace now")
        return found

    def _key(self) -> tuple[object, ...]:
        return (self.type, self.device, self.inode, self.id, self.boot)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, NamespaceReference) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        return f"{name_of(self.type)}:[{self.inode}]"

    def __repr__(self) -> str:
        return f"<NamespaceReference {self}>"

    def __reduce__(self) -> tuple[type[NamespaceReference], tuple[object, ...]]:
        identity = (self.device, self.inode, self.id)
        return NamespaceReference, (self.type, identity, self.boot, self._handle, self._process, self._place)


def boot_id() -> str:
    """Which start of this machine it is: ids and inode numbers begin anew with each."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """When a process or thread was started, in clock ticks; None: there is none."""
    return stat_field(pid, 22)


def stat_field(pid: int, number: int) -> int | None:
    """A numeric field of /proc/PID/stat, counted as proc_pid_stat(5) does; None: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", opener=kernels_own) as file:
            return int(file.read().rpartition(b")")[2].split()[number - 3])
    except (OSError, IndexError):
        return None


def refer(file: NamespaceFile, handle: bytes | None, origin: int | str | None) -> NamespaceReference:
    """The reference to an open file; origin is the pid or path that it came from."""
    process = _process_in(file, origin if isinstance(origin, int) else None)
    place = _place_of(file, origin) if isinstance(origin, str) else None
    identity = (file.device, file.inode, file.id)
    return NamespaceReference(file.type, identity, boot_id(), handle, process, place)


def _process_in(file: NamespaceFile, origin: int | None) -> Process | None:
    """A process that is in the namespace now: the one it came from, or this one."""
    from . import _file

    for pid in (origin, os.getpid()):
        start = start_time(pid) if pid is not None else None
        if pid is None or start is None:
            continue
        try:
            with _file.open(pid, file.type) as now:
                inside = now == file
        except OSError:
            continue
        if inside and start_time(pid) == start:
            return pid, start
    return None


def _place_of(file: NamespaceFile, path: str) -> Place | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (path, status.st_ctime_ns) if (status.st_dev, status.st_ino) == (file.device, file.inode) else None
