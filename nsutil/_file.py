"""Handles: namespaces held by an open file.

A process is pinned by its pidfd before its namespaces are opened, so that a pid that is used again
is an error and never a stranger.
"""

from __future__ import annotations

import builtins
import errno
import os
import select
import signal
import threading
import time

from . import _ns
from ._errors import NotANamespace, WrongNamespaceType, step_error
from ._handle import NamespaceFile, adopt, check_fd, check_pid, newer_calls
from ._nsset import NamespaceSet
from ._reference import NamespaceReference, start_time, stat_field
from ._status import kernels_own
from ._types import NAMES, PID, TIME, NSType, name_of, parse_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeAlias

    from _typeshed import FileDescriptorLike, StrOrBytesPath

    class HasPid(Protocol):
        """A Popen, or what looks like one."""

        @property
        def pid(self) -> int | None: ...

    Target: TypeAlias = int | StrOrBytesPath | NamespaceReference | FileDescriptorLike | HasPid
    Type: TypeAlias = NSType | int | str

__all__ = ["NamespaceFile", "NamespaceReference", "NamespaceSet", "current", "open"]

# The entries of /proc/PID/ns and the types they stand for.
_ENTRIES = {**NAMES, "pid_for_children": PID, "time_for_children": TIME}
_PIDFD_THREAD = os.O_EXCL  # 6.9
_EXITING = 4  # PF_EXITING among the flags in /proc/PID/stat


def open(
    target: Target | None = None,
    type: Type | None = None,
    *,
    fd: FileDescriptorLike | None = None,
) -> NamespaceFile:
    """Open a namespace of a process, or a namespace file.

    target: a pid (int; a thread's id too, Linux 6.9), a path, a Popen, a NamespaceReference, or
    anything with ``fileno()``: a namespace file or a pidfd.  What was given stays the caller's.
    fd: the same as a bare descriptor.
    type: an NSType or a name, or for processes "pid_for_children", "time_for_children"; it may be
    left out where the target is itself a namespace.

    Raises ProcessLookupError for a dead process, PermissionError where the caller may not look
    (ptrace(2), PTRACE_MODE_READ), StaleReference, NotANamespace, WrongNamespaceType, ValueError
    for a closed handle or an unknown type, TypeError.
    PIDFD_GET_*_NAMESPACE, Linux 6.11; before that /proc/PID/ns while a pidfd pins the process.
    """
    entry = None if type is None else _entry_of(type)
    if target is not None and fd is None:
        file = _open_target(target, entry)
    elif target is None and fd is not None:
        file = _open_fd(check_fd(fd), entry)
    else:
        raise TypeError("open() takes either a target or fd=")
    if entry is not None and file.type != _ENTRIES[entry]:
        file.close()
        raise WrongNamespaceType(f"{file!r} is a {file.type} namespace, not a {_ENTRIES[entry]} namespace")
    return file


def current(type: Type) -> NamespaceFile:
    """The namespace of that type that the calling thread is in.

    type: an NSType or a name, or "pid_for_children", "time_for_children": those of its next child.
    Raises ValueError for an unknown type.  proc_pid_ns(5); by a pidfd of the thread, Linux 6.9; before
    that FileNotFoundError for "pid_for_children" of a PID namespace without a first process.
    """
    entry = _entry_of(type)
    try:
        fd = _ns.open_own(entry) if newer_calls() else _ns.open_proc(f"/proc/thread-self/ns/{entry}", True)
    except OSError as e:
        label = f"open the {entry} namespace of this thread"
        raise step_error(e.errno or 0, label, f"/proc/thread-self/ns/{entry}") from None
    return adopt(fd, threading.get_native_id())


def _entry_of(type: Type) -> str:
    """The entry of /proc/PID/ns for what the caller asked for."""
    if isinstance(type, str) and type in _ENTRIES:
        return type
    return name_of(parse_type(type))


def _open_target(target: Target, entry: str | None) -> NamespaceFile:
    if isinstance(target, bool):
        raise TypeError(f"a target must be a pid, a path, a Popen or a namespace, not {target!r}")
    if isinstance(target, int):
        return _open_pid(check_pid(target), _needed(entry, f"process {target}"))
    if isinstance(target, (str, bytes, os.PathLike)):
        return _open_path(target)
    if isinstance(target, NamespaceReference):
        return target.open()
    if hasattr(target, "fileno"):
        return _open_fd(check_fd(target), entry, getattr(target, "_origin", None))
    if hasattr(target, "pid"):
        return _open_process(target, _needed(entry, "a process"))
    raise TypeError(f"a target must be a pid, a path, a Popen or a namespace, not {target!r}")


def _needed(entry: str | None, what: str) -> str:
    if entry is None:
        raise TypeError(f"which namespace of {what}? a type is needed")
    return entry


def _open_path(path: StrOrBytesPath) -> NamespaceFile:
    """A namespace file by path.  Nothing else is opened for real: devices and FIFOs react to that."""
    look = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not _ns.nsfs_type(look):
            raise NotANamespace(f"{os.fsdecode(path)!r} is no namespace file")
    finally:
        os.close(look)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    return adopt(fd, os.path.abspath(os.fsdecode(path)))


def _open_fd(number: int, entry: str | None, origin: int | str | None = None) -> NamespaceFile:
    """A duplicate of a namespace file, or a namespace of the process of a pidfd."""
    if _ns.nsfs_type(number):
        return adopt(os.dup(number), origin)
    try:
        signal.pidfd_send_signal(number, 0)
    except OSError as e:
        if e.errno == errno.EBADF:
            raise NotANamespace(f"descriptor {number} is neither a namespace file nor a pidfd") from None
        if e.errno == errno.ESRCH:
            raise step_error(errno.ESRCH, f"look at the process of pidfd {number}") from None
    return open_pinned(number, _needed(entry, "a pidfd"), None)


def _open_process(process: HasPid, entry: str) -> NamespaceFile:
    """A Popen or the like; its pid is nobody's once it was waited for."""
    if any(getattr(process, name, None) is not None for name in ("returncode", "exitcode")) or process.pid is None:
        raise step_error(errno.ESRCH, f"open the {entry} namespace of a process that has ended", repr(process))
    # nsutil's own Popen: the program's, not those of the init in between.
    known = getattr(process, "namespaces", None)
    if isinstance(known, NamespaceSet) and entry in NAMES and entry in known:
        return _open_fd(known[entry].fileno(), entry)
    return _open_pid(check_pid(process.pid), entry)


def _open_pid(pid: int, entry: str, flags: int = 0) -> NamespaceFile:
    try:
        pidfd = pin(pid, flags)
    except OSError as e:
        label = f"open the {entry} namespace of process {pid}"
        raise step_error(e.errno or 0, label, f"/proc/{pid}/ns/{entry}") from None
    try:
        return open_pinned(pidfd, entry, pid)
    finally:
        os.close(pidfd)


def pin(pid: int, flags: int = 0) -> int:
    """A pidfd of a process, or (Linux 6.9) of a thread where the pid is a thread's."""
    try:
        return os.pidfd_open(pid, flags)
    except OSError as e:
        # EINVAL, since 6.13 ENOENT: a thread, but not its process's first one.
        if flags or e.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        # Of what is just being reaped there is no more to see.
        if not os.path.exists(f"/proc/{pid}"):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    return os.pidfd_open(pid, _PIDFD_THREAD)


def open_pinned(pidfd: int, entry: str, pid: int | None) -> NamespaceFile:
    """A namespace of a pinned process; pid is its number where that is known."""
    while True:
        try:
            return adopt(_get_namespace(pidfd, entry, pid), pid)
        except OSError as e:
            number = e.errno or 0
        if number in (errno.EACCES, errno.ENOENT):
            starting = number == errno.EACCES and _is_starting(pidfd)
            if _is_ending(pidfd):
                number = errno.ESRCH
            elif starting:
                time.sleep(0.001)
                continue
        whose = f"process {pid}" if pid else f"the process of pidfd {pidfd}"
        where = f"/proc/{pid}/ns/{entry}" if pid else None
        raise step_error(number, f"open the {entry} namespace of {whose}", where)


def _is_starting(pidfd: int) -> bool:
    """Whether a process is so young that it may still be inside execve(2), where nobody may look at it."""
    try:
        started = start_time(pid_of(pidfd))
    except OSError:  # reaped, or there is no /proc
        return False
    return started is not None and time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK") < 0.1


def _is_ending(pidfd: int) -> bool:
    """Whether a process has ended or is about to.

    Its memory and its namespaces go before the pidfd becomes readable, and without memory it is nobody's to look at.
    """
    try:
        flags = stat_field(pid_of(pidfd), 9)
    except OSError:  # reaped, or there is no /proc
        flags = None
    # Asked last: if that was the file of another process, ours has ended.
    return bool(flags and flags & _EXITING) or _has_ended(pidfd)


def _get_namespace(pidfd: int, entry: str, pid: int | None) -> int:
    if newer_calls():
        try:
            return _ns.pidfd_get_namespace(pidfd, entry)
        except OSError as e:
            if e.errno != errno.ENOTTY:
                raise
    return _get_from_proc(pidfd, entry, pid or pid_of(pidfd))


def _get_from_proc(pidfd: int, entry: str, pid: int) -> int:
    """/proc/PID/ns/entry; only what was opened while the process lived is certainly its own."""
    fd = _ns.open_proc(f"/proc/{pid}/ns/{entry}", True)
    if _has_ended(pidfd):
        os.close(fd)
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return fd


def _has_ended(pidfd: int) -> bool:
    """A pidfd is readable from the end of its process on."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def pid_of(pidfd: int) -> int:
    """The pid behind a pidfd, as the /proc in sight numbers it."""
    try:
        with builtins.open(f"/proc/thread-self/fdinfo/{pidfd}", opener=kernels_own) as file:
            pid = next((int(line[4:]) for line in file if line.startswith("Pid:")), None)
    except FileNotFoundError:
        if not os.path.exists("/proc/thread-self/fdinfo"):
            raise
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), pidfd) from None
    if pid is None:
        raise NotANamespace(f"descriptor {pidfd} is neither a namespace file nor a pidfd")
    if pid <= 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return pid
