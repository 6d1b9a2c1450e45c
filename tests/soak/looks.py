"""What the soak looks at: processes below this one, and all that must be as it was."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import support

from nsutil import NSType, named

WALL = 0x40000000  # __WALL of waitpid(2)
_libc = ctypes.CDLL(None, use_errno=True)


def children_by_thread(pid: int | str = "self") -> Iterator[tuple[int, int]]:
    """(thread, child) for each child of a process, zombies included."""
    with contextlib.suppress(OSError):  # it has ended
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                for child in file.read().split():
                    yield int(task), int(child)


def descendants(pid: int | str = "self") -> list[int]:
    """All processes below this one, nearest first."""
    found = [child for _, child in children_by_thread(pid)]
    for one in found:
        found += [child for _, child in children_by_thread(one) if child not in found]
    return found


def describe(pid: int) -> str:
    """One line on a process that should not be there."""
    parts = []
    for name in ("cmdline", "stat", "wchan"):
        with contextlib.suppress(OSError):
            parts.append(Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120])
    return f"{pid}: {' | '.join(parts)}"


def signal_below(parent: int | str, pid: int, *numbers: int, before: Callable[[], object] = int) -> bool:
    """Signals to a child of ``parent``, never to a stranger that has got its number; False where it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if pid not in {child for _, child in children_by_thread(parent)}:
            return False
        before()
        for number in numbers:
            signal.pidfd_send_signal(pidfd, number)
    except OSError:  # it has ended
        return False
    finally:
        os.close(pidfd)
    return True


def reap() -> dict[int, int]:
    """The statuses of all children that have ended, orphans that were left to this process among them."""
    found = {}
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG | WALL))[0]:
            found[ended[0]] = ended[1]
    return found


def names() -> list[str]:
    """Of the named namespaces that there are."""
    return [f"{nstype} {name}" for nstype in NSType for name in named.list(nstype)]


def state(directory: str) -> dict[str, Any]:
    """Everything of this process, and of its surroundings, that must be as it was when nothing is under way."""
    gc.collect()
    found = support.process_state()
    found["names"] = names()
    found["files"] = sorted(str(path) for path in Path(directory).rglob("*"))
    found["limits"] = Path("/proc/self/limits").read_text()
    found["host name"] = os.uname()[1]
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for each change; of tables and sets only what differs."""
    lines = []
    for key, old in before.items():
        new = after[key]
        if isinstance(old, dict):
            changed = {k: (old.get(k), new.get(k)) for k in {**old, **new} if old.get(k) != new.get(k)}
        elif isinstance(old, (set, list)):
            changed = {"lost": set(old) - set(new), "more": set(new) - set(old)}
            changed = {k: v for k, v in changed.items() if v}
        else:
            changed = {"": (old, new)} if old != new else {}
        if changed:
            more = [describe(pid) for pid in changed.get("more", ())] if key == "children" else ""
            lines.append(f"{key}: {changed} {more}")
    return lines


def of_thread() -> dict[str, Any]:
    """What belongs to the calling thread."""
    return {
        "namespaces": support.ns_inodes(),
        "directories": [os.stat(f"/proc/thread-self/{name}").st_ino for name in ("cwd", "root")],
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
    }


def memory() -> int:
    """Kilobytes of this process alone, once all that can be has been given back."""
    gc.collect()
    _libc.malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
