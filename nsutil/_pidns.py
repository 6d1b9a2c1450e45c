"""Pids across PID namespaces for kernels without the ioctls of Linux 6.11."""

from __future__ import annotations

import errno
import os

from ._status import status_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._handle import NamespaceFile


def pid_in(namespace: NamespaceFile, pid: int) -> int:
    """The number of the caller's `pid` in a PID namespace, from the NSpid line of its status."""
    from . import _file

    with _file.open(pid, "pid") as own:
        depth = _levels_between(own, namespace)
        numbers = _numbers(pid)
    if depth is None or depth >= len(numbers):
        raise _no_such(pid, namespace)
    return numbers[-1 - depth]


def pid_from(namespace: NamespaceFile, pid: int) -> int:
    """The caller's number of what is `pid` in a PID namespace: each process in sight is asked."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and _is(namespace, int(name), pid):
            return int(name)
    raise _no_such(pid, namespace)


def _is(namespace: NamespaceFile, candidate: int, pid: int) -> bool:
    try:
        return pid in _numbers(candidate) and pid_in(namespace, candidate) == pid
    except OSError:
        return False


def _no_such(pid: int, namespace: NamespaceFile) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, f"no process {pid} in {namespace!r}")


def _numbers(pid: int) -> list[int]:
    """The numbers of a process, the caller's first, the innermost last."""
    return [int(number) for number in (status_field(pid, "NSpid") or "").split()]


def _levels_between(inner: NamespaceFile, outer: NamespaceFile) -> int | None:
    """How many levels inner lies below outer; None when it does not."""
    level, found = 0, inner
    while found != outer:
        above = found.parent()
        if found is not inner:
            found.close()
        if above is None:
            return None
        level, found = level + 1, above
    if found is not inner:
        found.close()
    return level
