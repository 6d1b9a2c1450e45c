"""System calls by name and number, and the errors that each is made to fail with."""

from __future__ import annotations

import errno
import re
import subprocess
from functools import lru_cache

# What the headers may be too old for.
NEWER = {"cachestat": 451, "fchmodat2": 452, "statmount": 457, "listmount": 458, "listns": 470}


@lru_cache(maxsize=1)
def numbers() -> dict[str, int]:
    """Every system call of this machine, as the kernel's headers name it."""
    source = "#include <sys/syscall.h>\n"
    text = subprocess.run(["cc", "-E", "-dM", "-"], input=source, check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"#define __NR_(\w+) (\d+)", text))
    return {**NEWER, **{name: int(number) for name, number in found.items()}}


@lru_cache(maxsize=1)
def names() -> dict[int, str]:
    return {number: name for name, number in numbers().items()}


# Never made to fail: they have no error that a correct call can get, or libc ends the process on one. Those of the
# first list are not even looked at, so that they can't stop the process for the supervisor to answer.
UNSEEN = """
    futex rt_sigreturn restart_syscall exit exit_group rt_sigprocmask rt_sigaction sched_yield brk munmap madvise getpid
    gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getsid clock_gettime gettimeofday
    getrandom rseq set_robust_list set_tid_address umask arch_prctl sigaltstack sched_getaffinity uname mincore getcpu
    time kill
""".split()
SPARED = "lseek fcntl_getfl membarrier".split()

# What the man pages list, without what only a wrong argument causes.
ERRORS: dict[str, tuple[str, ...]] = {
    "accept4": ("EMFILE",),
    "access": ("EACCES",),
    "capget": ("EPERM",),
    "capset": ("EPERM",),
    "chdir": ("EACCES", "ENOENT"),
    "chmod": ("EPERM", "EROFS"),
    "chroot": ("EPERM",),
    "clock_nanosleep": ("EINTR",),
    "clone": ("EAGAIN", "ENOMEM", "ENOSPC"),
    "clone3": ("EAGAIN", "ENOMEM", "ENOSYS", "EPERM"),
    "close": ("EINTR", "EIO"),
    "close_range": ("ENOMEM", "ENOSYS"),
    "connect": ("ECONNREFUSED", "EINTR"),
    "dup": ("EMFILE",),
    "dup2": ("EBUSY", "EMFILE"),
    "dup3": ("EBUSY", "EMFILE"),
    "epoll_create1": ("EMFILE", "ENOMEM"),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "epoll_wait": ("EINTR",),
    "eventfd2": ("EMFILE",),
    "execve": ("EACCES", "ENOENT", "ENOMEM"),
    "execveat": ("EACCES", "ENOENT", "ENOMEM"),
    "faccessat": ("EACCES",),
    "fchdir": ("EACCES",),
    "fchmod": ("EPERM",),
    "fchown": ("EPERM",),
    "fcntl": ("EMFILE", "EPERM"),
    "flock": ("EINTR", "ENOLCK"),
    "fork": ("EAGAIN", "ENOMEM"),
    "fstat": ("ENOMEM",),
    "fstatfs": ("ENOSYS",),
    "ftruncate": ("EINTR",),
    "getcwd": ("ENOENT",),
    "getdents64": ("EIO",),
    "getsockopt": ("ENOBUFS",),
    "getxattr": ("ENOTSUP",),
    "inotify_add_watch": ("ENOSPC",),
    "inotify_init1": ("EMFILE",),
    "ioctl": ("ENOTTY", "EPERM"),
    "linkat": ("EACCES",),
    "listmount": ("ENOSYS", "EPERM"),
    "lstat": ("EACCES", "ENOENT"),
    "memfd_create": ("EACCES", "EMFILE", "ENOSYS"),
    "mkdir": ("EACCES", "ENOSPC"),
    "mkdirat": ("EACCES", "ENOSPC"),
    "mknodat": ("EPERM",),
    "mlock": ("ENOMEM",),
    "mmap": ("ENOMEM",),
    "mount": ("EBUSY", "ENOMEM", "EPERM"),
    "mount_setattr": ("EPERM",),
    "move_mount": ("EPERM",),
    "mprotect": ("ENOMEM",),
    "mremap": ("ENOMEM",),
    "nanosleep": ("EINTR",),
    "newfstatat": ("EACCES", "ENOMEM"),
    "open": ("EACCES", "EMFILE"),
    "open_by_handle_at": ("EPERM", "ESTALE"),
    "open_tree": ("EPERM",),
    "openat": ("EACCES", "EMFILE", "ENOENT"),
    "openat2": ("EACCES", "EAGAIN", "EMFILE"),
    "pidfd_getfd": ("EMFILE", "EPERM"),
    "pidfd_open": ("EMFILE", "ESRCH"),
    "pidfd_send_signal": ("EPERM", "ESRCH"),
    "pipe": ("EMFILE",),
    "pipe2": ("EMFILE", "ENFILE"),
    "pivot_root": ("EBUSY", "EPERM"),
    "poll": ("EINTR", "ENOMEM"),
    "ppoll": ("EINTR", "ENOMEM"),
    "prctl": ("EINVAL", "EPERM"),
    "pread64": ("EIO",),
    "prlimit64": ("EPERM",),
    "pwrite64": ("EIO",),
    "read": ("EINTR", "EIO"),
    "readlink": ("EACCES", "ENOENT"),
    "readlinkat": ("EACCES", "ENOENT"),
    "recvfrom": ("EINTR", "ENOMEM"),
    "recvmsg": ("EINTR", "ENOMEM"),
    "rename": ("EACCES",),
    "rt_sigtimedwait": ("EINTR",),
    "sched_setaffinity": ("EPERM",),
    "sendmsg": ("EINTR", "ENOBUFS"),
    "sendto": ("EINTR", "ENOBUFS"),
    "signalfd4": ("EMFILE", "ENOMEM"),
    "setdomainname": ("EPERM",),
    "setgid": ("EPERM",),
    "setgroups": ("ENOMEM", "EPERM"),
    "sethostname": ("EPERM",),
    "setns": ("EINVAL", "ENOMEM", "EPERM"),
    "setpgid": ("EPERM",),
    "setresgid": ("EPERM",),
    "setresuid": ("EAGAIN", "EPERM"),
    "setsid": ("EPERM",),
    "setsockopt": ("ENOBUFS",),
    "socket": ("EMFILE", "ENOBUFS"),
    "socketpair": ("EMFILE", "ENFILE"),
    "stat": ("EACCES", "ENOENT"),
    "statfs": ("EACCES",),
    "statmount": ("ENOSYS", "EPERM"),
    "statx": ("EACCES", "ENOMEM"),
    "symlinkat": ("EACCES",),
    "tgkill": ("ESRCH",),
    "tkill": ("ESRCH",),
    "umount2": ("EBUSY", "EPERM"),
    "unlink": ("EACCES", "EBUSY"),
    "unlinkat": ("EACCES", "EBUSY"),
    "unshare": ("EINVAL", "ENOMEM", "ENOSPC", "EPERM"),
    "vfork": ("EAGAIN", "ENOMEM"),
    "wait4": ("ECHILD", "EINTR"),
    "waitid": ("ECHILD", "EINTR"),
    "write": ("EINTR", "EIO", "ENOSPC"),
    "writev": ("EINTR", "EIO"),
}


def errors_of(name: str) -> tuple[str, ...]:
    """The errors that a call is made to fail with; none for a call that is spared."""
    if name in SPARED:
        return ()
    return ERRORS.get(name, ("EPERM",))


def error_number(name: str) -> int:
    return getattr(errno, name)  # type: ignore[no-any-return]
