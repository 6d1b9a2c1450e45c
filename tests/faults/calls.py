"""System calls by name and number."""

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


# Never made to fail: they have no error that a correct call can get, or libc ends the process on one.  They are not
# even looked at, so that they can't stop the process for the supervisor to answer.
UNSEEN = """
    futex rt_sigreturn restart_syscall exit exit_group rt_sigprocmask rt_sigaction sched_yield brk munmap madvise getpid
    gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getsid clock_gettime gettimeofday
    getrandom rseq set_robust_list set_tid_address umask arch_prctl sigaltstack sched_getaffinity uname mincore getcpu
    time kill
""".split()


def error_number(name: str) -> int:
    return getattr(errno, name)  # type: ignore[no-any-return]
