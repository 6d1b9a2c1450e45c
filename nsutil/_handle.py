"""A namespace held by an open file."""

from __future__ import annotations

import builtins
import errno
import os
import sys
import threading

from . import _ns
from ._errors import NotANamespace, step_error
from ._types import MNT, NET, PID, TIME, USER, UTS, NSType, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as _socket
    from collections.abc import Callable
    from typing import IO, Any, Self

    from _typeshed import StrOrBytesPath

    from ._mountinfo import Mount
    from ._reference import NamespaceReference

_MS_BIND = 4096
newer_calls = _ns.newer_calls


class NamespaceFile:
    """A namespace held by an open file: it lives at least as long as this.

    ``type`` (NSType), ``inode``, ``device`` and ``id`` (64 bits, never used again; Linux 6.18, for
    MNT 6.11; None before) identify it, also after ``close()``.  Two files are equal when they are
    the same namespace.  Made by :func:`nsutil.open`, :func:`nsutil.current` and the methods here.
    """

    __slots__ = ("__weakref__", "_fd", "_origin", "device", "id", "inode", "type")

    type: NSType
    inode: int
    device: int
    id: int | None

    def __init__(self, fd: int, origin: int | str | None = None) -> None:
        """Take over an open namespace file; NotANamespace leaves fd to the caller.

        origin is the pid or the absolute path that led to it.
        """
        self._fd = -1
        nstype, self.device, self.inode, self.id = _ns.nsfs_identity(fd, newer_calls())
        if nstype <= 0:
            why = " (it was opened with O_PATH)" if nstype else ""
            raise NotANamespace(f"descriptor {fd} is no namespace file{why}")
        self.type = NSType(nstype)
        self._origin = origin
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor; ValueError when closed."""
        if self._fd < 0:
            raise ValueError(f"{self!r} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Let go of the namespace; what this file knows about it stays.  Closing twice is no error."""
        fd: int = _ns.swap(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        self.fileno()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # The modules may be gone when the interpreter ends.
    def __del__(self, close: Callable[[int], None] = os.close, dev_mode: bool = sys.flags.dev_mode) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            if dev_mode:
                import warnings

                warnings.warn(f"unclosed namespace {self!r}", ResourceWarning, stacklevel=2, source=self)
            close(fd)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NamespaceFile):
            return NotImplemented
        return (self.device, self.inode) == (other.device, other.inode)

    def __hash__(self) -> int:
        return hash((self.device, self.inode))

    def __repr__(self) -> str:
        return f"{name_of(self.type)}:[{self.inode}]"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a NamespaceFile holds an open file and cannot be pickled or copied; use .reference()")

    # Relations

    def owner(self) -> NamespaceFile | None:
        """The user namespace that owns this one; None where the kernel shows none to the caller.

        For USER it is the parent.  ValueError when closed.  Linux 4.9, NS_GET_USERNS of ioctl_nsfs(2).
        """
        return self._relative(_ns.get_userns, "owner")

    def parent(self) -> NamespaceFile | None:
        """The parent of a PID or USER namespace; None where the kernel shows none to the caller.

        ValueError for other types.  Linux 4.9, NS_GET_PARENT of ioctl_nsfs(2).
        """
        self._only("parent()", PID | USER)
        return self._relative(_ns.get_parent, "parent")

    @property
    def owner_uid(self) -> int | None:
        """The uid that owns the namespace: its own owner for USER, else that of ``owner()``.

        As seen from the caller's user namespace; None where ``owner()`` is None.
        Linux 4.11, NS_GET_OWNER_UID of ioctl_nsfs(2).
        """
        if self.type == USER:
            return _ns.get_owner_uid(self.fileno())
        owner = self.owner()
        if owner is None:
            return None
        with owner:
            return _ns.get_owner_uid(owner.fileno())

    def bind(self, path: StrOrBytesPath) -> None:
        """Bind-mount the namespace on an existing file, so that it lives on without a process.

        FileNotFoundError when there is no such file (it is not created), PermissionError without
        CAP_SYS_ADMIN.  EINVAL: a mount namespace at or above the one that it would be mounted in,
        or a file on a shared mount.  mount(2), MS_BIND.
        """
        sys.audit("nsutil.bind", self.fileno(), path)
        source = f"/proc/thread-self/fd/{self.fileno()}".encode()
        plan = _ns.Plan([("mount", (source, os.fsencode(path), None, _MS_BIND, None), -1, 0)])
        failure = _ns.run_plan(plan)
        if failure is not None:
            raise step_error(failure[1], f"bind {self!r} on a file", os.fsencode(path))

    def reference(self) -> NamespaceReference:
        """What finds this namespace again without keeping it alive; picklable.

        ValueError when closed.  By its nsfs file handle (Linux 6.18), else by process or path.
        """
        from ._reference import refer

        return refer(self, _handle_of(self.fileno()), self._origin)

    def _relative(self, ask: Callable[[int], int], what: str) -> NamespaceFile | None:
        try:
            return adopt(ask(self.fileno()))
        except PermissionError:
            return None
        except OSError as e:
            raise step_error(e.errno or 0, f"find the {what} of {self!r}") from None

    def _only(self, what: str, types: NSType) -> None:
        if not self.type & types:
            raise ValueError(f"{what} is for {types} namespaces, this is {self!r}")

    # PID

    def pid_in(self, pid: int) -> int:
        """The number that process or thread `pid` of the caller has inside this PID namespace.

        ProcessLookupError when it has none there, ValueError for other types.
        NS_GET_PID_IN_PIDNS of ioctl_nsfs(2), Linux 6.11; before that from /proc.
        """
        self._only("pid_in()", PID)
        return self._translate(pid, _ns.get_pid_in_pidns, "pid_in")

    def pid_from(self, pid: int) -> int:
        """The number for the caller of what is process or thread `pid` inside this PID namespace.

        ProcessLookupError when there is no such process or the caller has no number for it,
        ValueError for other types.  NS_GET_PID_FROM_PIDNS of ioctl_nsfs(2), Linux 6.11; before
        that from /proc.
        """
        self._only("pid_from()", PID)
        return self._translate(pid, _ns.get_pid_from_pidns, "pid_from")

    def _translate(self, pid: int, ask: Callable[[int, int], int], name: str) -> int:
        check_pid(pid)
        fd = self.fileno()
        try:
            if newer_calls():
                return ask(fd, pid)
        except OSError as e:
            if e.errno != errno.ENOTTY:
                raise step_error(e.errno or 0, f"translate pid {pid} of {self!r}") from None
        from . import _pidns

        translate: Callable[[NamespaceFile, int], int] = getattr(_pidns, name)
        return translate(self, pid)

    # MNT

    def mounts(self) -> list[Mount]:
        """The mounts of this mount namespace, in the order of proc_pid_mountinfo(5).

        Needs the right to enter it, unless it is the caller's own; ValueError for other types.
        """
        self._only("mounts()", MNT)
        from ._mountinfo import parse

        with self._open_mountinfo() as file:
            return [parse(line) for line in file]

    def _open_mountinfo(self) -> IO[str]:
        """The file shows the mounts of whoever opens it, so a thread inside does that.

        /proc is the caller's: there may be none inside.
        """
        if self._is_own():
            return builtins.open("/proc/thread-self/mountinfo", errors="surrogateescape", newline="\n")
        from ._plan import close_all

        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = self._open_inside(b"thread-self/mountinfo", os.O_RDONLY, 0, proc)
        finally:
            close_all([proc])
        return builtins.open(fd, errors="surrogateescape", newline="\n")

    def next(self) -> NamespaceFile | None:
        """The mount namespace with the next higher id; None after the last.

        PermissionError without CAP_SYS_ADMIN in the initial user namespace and, on newer kernels,
        outside of the initial PID namespace, ValueError for other types.  Linux 6.12,
        NS_MNT_GET_NEXT of ioctl_nsfs(2).
        """
        return self._neighbour(_ns.mnt_get_next, "next")

    def previous(self) -> NamespaceFile | None:
        """The mount namespace with the next lower id; None before the first.

        Errors as :meth:`next`.  Linux 6.12, NS_MNT_GET_PREV of ioctl_nsfs(2).
        """
        return self._neighbour(_ns.mnt_get_prev, "previous")

    def _neighbour(self, ask: Callable[[int], tuple[int, int, int]], name: str) -> NamespaceFile | None:
        self._only(f"{name}()", MNT)
        try:
            return adopt(ask(self.fileno())[0])
        except FileNotFoundError:
            return None
        except OSError as e:
            raise step_error(e.errno or 0, f"find the {name} mount namespace of {self!r}") from None

    def open(
        self,
        path: StrOrBytesPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open a file of this mount namespace, as builtins.open does; the caller stays where it is.

        A relative path starts at the root of the namespace; its symlinks are followed inside.
        PermissionError without CAP_SYS_ADMIN and CAP_SYS_CHROOT to enter it, ValueError for other
        types.  A thread made for this enters and opens.
        """
        self._only("open()", MNT)
        self.fileno()
        return builtins.open(path, mode, buffering, encoding, errors, newline, opener=self._opener)

    def _opener(self, path: str | bytes, flags: int) -> int:
        name = os.path.join(b"/", os.fsencode(path))
        if self._is_own():
            return os.open(name, flags, 0o666)
        return self._open_inside(name, flags, 0o666, -1)

    def _open_inside(self, name: bytes, flags: int, mode: int, start: int) -> int:
        try:
            return _ns.open_in(self.fileno(), name, flags, mode, start)
        except OSError as e:
            raise self._visit_error(e, "open a file", name) from None

    # NET

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> _socket.socket:
        """A socket of this network namespace, as socket.socket makes it; the caller stays where it is.

        The defaults are those of socket.socket: AF_INET, SOCK_STREAM, 0.  PermissionError without
        CAP_SYS_ADMIN to enter the namespace, ValueError for other types.  A thread made for this
        enters and makes the socket.
        """
        self._only("socket()", NET)
        import socket as module

        family = module.AF_INET if family == -1 else family
        kind = module.SOCK_STREAM if type == -1 else type
        proto = 0 if proto == -1 else proto
        if self._is_own():
            return module.socket(family, kind, proto)
        try:
            fd = _ns.socket_in(self.fileno(), family, kind, proto)
        except OSError as e:
            raise self._visit_error(e, "open a socket") from None
        return module.socket(family, kind, proto, fileno=fd)

    def _visit_error(self, error: OSError, what: str, filename: bytes | None = None) -> OSError:
        """Either the way in has failed, which names the descriptor, or what was done there."""
        if isinstance(error.filename, int):
            return step_error(error.errno or 0, f"join {self!r}")
        return step_error(error.errno or 0, f"{what} in {self!r}", filename)

    def _is_own(self) -> bool:
        """Whether the calling thread is in it: nobody needs a privilege to stay."""
        self.fileno()
        from ._file import current

        with current(self.type) as here:
            return here == self


_pidfds_join: bool | None = None


def pidfds_join() -> bool:
    """Whether setns(2) takes a pidfd (Linux 5.8); tried once, in a way that moves no thread.

    A pidfd of this process stands for its first thread, which may be elsewhere
    than the calling one: that one asks for TIME as well, which is refused to
    every process of several threads (EUSERS), and with it all of the call.
    """
    global _pidfds_join
    if _pidfds_join is None:
        types = UTS | NET if threading.get_native_id() == os.getpid() else UTS | TIME
        pidfd = os.pidfd_open(os.getpid())
        try:
            failed = _ns.run_plan(_ns.Plan([("setns", (pidfd, int(types)), -1, 0)]))
        finally:
            os.close(pidfd)
        # EPERM: it would be understood.
        _pidfds_join = failed is None or failed[1] != errno.EINVAL
    return _pidfds_join and newer_calls()


def check_pid(pid: object) -> int:
    """The pid, if it can be one."""
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise TypeError(f"a pid must be an int, not {pid!r}")
    if not 0 < pid < 2**31:
        raise ValueError(f"a pid must be between 1 and {2**31 - 1}, not {pid}")
    return pid


def check_fd(fd: object) -> int:
    """The number of a descriptor or of what has fileno(), if it can be one."""
    number = fd.fileno() if hasattr(fd, "fileno") else fd
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"fd must be an int or have fileno(), not {fd!r}")
    if not 0 <= number < 2**31:
        raise ValueError(f"fd must be between 0 and {2**31 - 1}, not {number}")
    return number


def _handle_of(fd: int) -> bytes | None:
    try:
        return _ns.nsfs_handle(fd) if newer_calls() else None
    except OSError:
        return None


def adopt(fd: int, origin: int | str | None = None) -> NamespaceFile:
    """A NamespaceFile of a descriptor that is closed when it is none."""
    try:
        return NamespaceFile(fd, origin)
    except BaseException:
        os.close(fd)
        raise


def open_handle(handle: bytes | None) -> NamespaceFile:
    """The namespace of an nsfs file handle; OSError when it is gone or cannot be found in this way."""
    if handle is None or not newer_calls():
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    try:
        return adopt(_ns.open_nsfs_handle(handle))
    except PermissionError:  # from a seccomp filter: it says nothing about this namespace
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from None
