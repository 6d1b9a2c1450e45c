"""The errors that each system call is made to fail with: all that its man page lists, and the kernel's own where it
has none.

Left out is what only a wrong argument causes: EBADF, EFAULT, ENAMETOOLONG, ENOTSOCK, ESPIPE and the like, and EINVAL
where it says no more than that; and EINTR of what never waits, as opening a file of procfs.  What depends on the
arguments is added by `of`.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Seen(NamedTuple):
    """A call of a recorded run.

    deaf: no signal can interrupt it.  file: what its first argument is open on, "disk", "pipe" or "".
    """

    role: str
    call: str
    occurrence: int
    detail: str
    arguments: tuple[int, ...]
    deaf: bool
    file: str


_LOOKUP = "EACCES EIO ELOOP ENOENT ENOMEM ENOTDIR"  # path_resolution(7)
_CHANGE = f"{_LOOKUP} EPERM EROFS"
_CREATE = f"{_CHANGE} EDQUOT EEXIST ENOSPC"
_OPEN = "EMFILE ENFILE ENOMEM"
_MOUNT = f"{_LOOKUP} EBUSY EINVAL EPERM"  # EINVAL: the tree is another one by now, or locked

ERRORS = {
    "accept4": f"{_OPEN} ECONNABORTED EINTR ENOBUFS EPERM",
    "access": f"{_LOOKUP} EROFS",
    "capget": "EPERM",
    "capset": "EPERM",
    "chdir": _LOOKUP,
    "chmod": _CHANGE,
    "chroot": f"{_LOOKUP} EPERM",
    "clock_nanosleep": "EINTR",
    "clone": "EAGAIN EINVAL ENOMEM ENOSPC EPERM EUSERS",  # EINVAL: the kernel lacks that type
    "clone3": "EAGAIN EINVAL ENOMEM ENOSPC ENOSYS EPERM EUSERS",
    "close": "EINTR EIO",
    "close_range": "EMFILE ENOMEM ENOSYS",
    "connect": "EACCES EADDRNOTAVAIL EAGAIN ECONNREFUSED EINTR ENETUNREACH EPERM ETIMEDOUT",
    "dup": "EMFILE",
    "dup2": "EBUSY EINTR EMFILE",
    "dup3": "EBUSY EINTR EMFILE",
    "epoll_create1": _OPEN,
    "epoll_ctl": "ENOMEM ENOSPC EPERM",
    "epoll_wait": "EINTR",
    "eventfd2": f"{_OPEN} ENODEV",
    "execve": f"{_LOOKUP} E2BIG EAGAIN EINVAL EISDIR ELIBBAD EMFILE ENFILE ENOEXEC EPERM ETXTBSY",
    "execveat": f"{_LOOKUP} E2BIG EAGAIN EINVAL EISDIR ELIBBAD EMFILE ENFILE ENOEXEC EPERM ETXTBSY",
    "faccessat": f"{_LOOKUP} EROFS",
    "fchdir": "EACCES EIO ENOMEM",
    "fchmod": "EIO EPERM EROFS",
    "fchown": "EIO EPERM EROFS",
    "fcntl": "",
    "flock": "EINTR ENOLCK",
    "fork": "EAGAIN ENOMEM",
    "fsconfig": f"{_LOOKUP} EBUSY EINVAL EOPNOTSUPP EPERM ENODEV ENOTBLK",
    "fsmount": f"{_OPEN} EBUSY EINVAL ENOSPC EPERM",
    "fsopen": f"{_OPEN} ENODEV ENOSYS EPERM",
    "fstat": "ENOMEM EOVERFLOW",
    "fstatfs": "EINTR EIO ENOMEM ENOSYS EOVERFLOW",
    "ftruncate": "EFBIG EINTR EIO EPERM",
    "getcwd": "EACCES ENOENT ENOMEM",
    "getdents64": "EIO ENOENT",
    "getsockname": "ENOBUFS",
    "getsockopt": "ENOBUFS ENOPROTOOPT",
    "getxattr": f"{_LOOKUP} ENODATA ENOTSUP",
    "inotify_add_watch": "EACCES ENOENT ENOMEM ENOSPC ENOTDIR",
    "inotify_init1": _OPEN,
    "ioctl": "ENOTTY EPERM",
    "linkat": f"{_CREATE} EMLINK EXDEV",
    "listmount": "ENOENT ENOMEM ENOSYS EPERM",
    "listns": "ENOSYS EPERM",
    "lstat": f"{_LOOKUP} EOVERFLOW",
    "memfd_create": f"{_OPEN} EACCES EINVAL ENOSYS",  # EINVAL: MFD_EXEC is unknown before 6.3
    "mkdir": f"{_CREATE} EMLINK",
    "mkdirat": f"{_CREATE} EMLINK",
    "mknodat": _CREATE,
    "mlock": "EAGAIN ENOMEM EPERM",
    "mmap": "EAGAIN ENFILE ENOMEM EPERM",
    "mount": f"{_MOUNT} EMFILE ENODEV ENOTBLK ENXIO EROFS",
    "mount_setattr": "EBUSY EINVAL ENOENT ENOMEM ENOSPC ENOSYS EPERM",
    "move_mount": f"{_MOUNT} ENOSPC ENOSYS",
    "mprotect": "EACCES ENOMEM",
    "mremap": "EAGAIN ENOMEM",
    "name_to_handle_at": "ENOENT ENOTDIR EOPNOTSUPP EOVERFLOW",
    "nanosleep": "EINTR",
    "newfstatat": f"{_LOOKUP} EOVERFLOW",
    "open": f"{_LOOKUP} EINTR EMFILE ENFILE ENXIO",
    "open_by_handle_at": "ELOOP ENOENT ENOTDIR EOPNOTSUPP EPERM ESTALE",
    "open_tree": f"{_LOOKUP} EINVAL EMFILE ENFILE ENOSPC ENOSYS EPERM",
    "openat": f"{_LOOKUP} EINTR EMFILE ENFILE ENXIO",
    "openat2": f"{_LOOKUP} EAGAIN EMFILE ENFILE ENOSYS ENXIO EPERM EXDEV",
    "pidfd_getfd": "EMFILE ENFILE EPERM ESRCH",
    "pidfd_open": f"{_OPEN} ENODEV ESRCH",
    "pidfd_send_signal": "EPERM ESRCH",
    "pipe": "EMFILE ENFILE",
    "pipe2": "EMFILE ENFILE",
    "pivot_root": "EBUSY EINVAL ENOTDIR EPERM",
    "poll": "EINTR ENOMEM",
    "ppoll": "EINTR ENOMEM",
    "prctl": "EINVAL EPERM",
    "pread64": "EINTR EIO",
    "prlimit64": "EPERM",
    "pwrite64": "EINTR EIO ENOSPC",
    "read": "EINTR EIO",
    "readlink": _LOOKUP,
    "readlinkat": _LOOKUP,
    "recvfrom": "ECONNREFUSED EINTR ENOMEM",
    "recvmsg": "ECONNREFUSED EINTR ENOMEM",
    "rename": f"{_CREATE} EBUSY EMLINK EXDEV",
    "rt_sigtimedwait": "EINTR",
    "sched_setaffinity": "EINVAL EPERM",
    "sendmsg": "ECONNRESET EINTR ENOBUFS ENOMEM EPIPE",
    "sendto": "ECONNRESET EINTR ENOBUFS ENOMEM EPIPE",
    "setdomainname": "EPERM",
    "setgid": "EPERM",
    "setgroups": "ENOMEM EPERM",
    "sethostname": "EPERM",
    "setns": "EINVAL ENOMEM EPERM ESRCH",
    "setpgid": "EACCES EPERM ESRCH",
    "setresgid": "EAGAIN EPERM",
    "setresuid": "EAGAIN EPERM",
    "setsid": "EPERM",
    "setsockopt": "ENOBUFS ENOPROTOOPT",
    "signalfd4": f"{_OPEN} ENODEV",
    "socket": f"{_OPEN} EACCES EAFNOSUPPORT ENOBUFS EPROTONOSUPPORT",
    "socketpair": "EAFNOSUPPORT EMFILE ENFILE",
    "stat": f"{_LOOKUP} EOVERFLOW",
    "statfs": f"{_LOOKUP} EINTR ENOSYS EOVERFLOW",
    "statmount": "ENOENT ENOMEM ENOSYS EOVERFLOW EPERM",
    "statx": _LOOKUP,
    "symlinkat": _CREATE,
    "tgkill": "EAGAIN EPERM ESRCH",
    "tkill": "EAGAIN EPERM ESRCH",
    "umount2": "EBUSY EINVAL ENOENT ENOMEM EPERM",
    "unlink": f"{_CHANGE} EBUSY EISDIR",
    "unlinkat": f"{_CHANGE} EBUSY EISDIR",
    "unshare": "EINVAL ENOMEM ENOSPC EPERM EUSERS",
    "utimensat": f"{_CHANGE} ESRCH",
    "vfork": "EAGAIN ENOMEM",
    "wait4": "ECHILD EINTR",
    "waitid": "ECHILD EINTR",
    "write": "EINTR EIO ENOSPC EPERM",
    "writev": "EINTR EIO ENOSPC EPERM",
}

# They have no error that a correct call can get.
SPARED = "lseek membarrier".split()

_DUPLICATES, _ADD_SEALS = (0, 1030), 1033
_DUMPABLE = (3, 4)  # PR_GET_DUMPABLE, PR_SET_DUMPABLE
_ISATTY, _LOCK_NB, _AT_EMPTY_PATH = 0x5401, 4, 0x1000
_NSFS, _PIDFD, _PIDFD_INFO = 0xB7, 0xFF, 11
# ioctl_ns(2), and of pidfds what the kernel answers.
_OF_NSFS = "EINVAL EMFILE ENFILE ENOMEM ENOTTY EPERM"
_OF_PIDFD = "EACCES EMFILE ENFILE ENOMEM ENOTTY EOPNOTSUPP EPERM ESRCH"
_OF_PIDFD_INFO = "EINVAL ENOTTY EPERM ESRCH"


def of(seen: Seen) -> tuple[str, ...]:
    """The errors that a call can get, as far as they can come from what it is asked."""
    if seen.call in SPARED:
        return ()
    found = set(_listed(seen).split())
    if seen.deaf or (seen.call == "waitid" and seen.arguments[3] & os.WNOHANG):
        found.discard("EINTR")
    if seen.role in ("child", "init"):  # whose children nobody else can reap
        found.discard("ECHILD")
    return tuple(sorted(found))


def _listed(seen: Seen) -> str:
    special = _BY_ARGUMENTS.get(seen.call)
    listed = ERRORS.get(seen.call, "EPERM")
    return listed if special is None else special(seen, listed)


def _mmap(seen: Seen, listed: str) -> str:
    return "" if seen.role == "thread" else listed  # Thread.start() waits for ever for one that had no memory


def _prctl(seen: Seen, listed: str) -> str:
    return "" if seen.arguments[0] in _DUMPABLE else listed


def _fcntl(seen: Seen, listed: str) -> str:
    command = seen.arguments[1]
    return "EMFILE" if command in _DUPLICATES else "EBUSY EPERM" if command == _ADD_SEALS else listed


def _ioctl(seen: Seen, listed: str) -> str:
    request = seen.arguments[1]
    if request == _ISATTY:  # answers ENOTTY anyway
        return ""
    magic, number = request >> 8 & 0xFF, request & 0xFF
    if magic == _PIDFD:
        return _OF_PIDFD_INFO if number == _PIDFD_INFO else _OF_PIDFD
    return _OF_NSFS if magic == _NSFS else listed


def _signal(seen: Seen, listed: str) -> str:
    # Who is told ESRCH so need not kill, and waits for the end.
    return listed if seen.arguments[1] == 0 else "EPERM"


def _open(seen: Seen, listed: str) -> str:
    flags = seen.arguments[2 if seen.call == "openat" else 1]
    if flags & os.O_CREAT:
        listed += " EDQUOT EEXIST ENOSPC EROFS"
    if flags & os.O_ACCMODE != os.O_RDONLY:
        listed += " EPERM EROFS"
    slow = seen.detail.startswith("/") and not seen.detail.startswith("/proc")
    waits = slow and not flags & (os.O_PATH | os.O_DIRECTORY)
    return listed if waits else listed.replace("EINTR", "")


def _status(seen: Seen, listed: str) -> str:
    flags = seen.arguments[3 if seen.call == "newfstatat" else 2]
    return "ENOMEM" if flags & _AT_EMPTY_PATH and not seen.detail else listed


def _statfs(seen: Seen, listed: str) -> str:
    return listed if seen.file == "disk" else listed.replace("EINTR", "")


def _flock(seen: Seen, listed: str) -> str:
    return f"{listed} EWOULDBLOCK" if seen.arguments[1] & _LOCK_NB else listed


def _close(seen: Seen, listed: str) -> str:
    return f"{listed} EDQUOT ENOSPC" if seen.file == "disk" else listed


def _write(seen: Seen, listed: str) -> str:
    return f"{listed} EDQUOT EFBIG" if seen.file == "disk" else f"{listed} EPIPE" if seen.file == "pipe" else listed


_BY_ARGUMENTS = {
    "mmap": _mmap,
    "prctl": _prctl,
    "fcntl": _fcntl,
    "ioctl": _ioctl,
    "pidfd_send_signal": _signal,
    "open": _open,
    "openat": _open,
    "newfstatat": _status,
    "statx": _status,
    "fstatfs": _statfs,
    "flock": _flock,
    "close": _close,
    "write": _write,
    "writev": _write,
}
