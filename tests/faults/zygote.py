"""The process that runs one operation at a time, each in a fork of itself, under the supervisor of harness.py.

It is PID 1 of a PID namespace of its own, so that nothing that an operation leaves behind can hide or outlive it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import support
from faults import operations
from faults.notify import BEGIN, END, install, mark

PATIENCE = 4.0  # for what is ending anyway
HUNG = 25.0
PR_SET_CHILD_SUBREAPER = 36
PR_GET = {"timer slack": 30, "keep capabilities": 7, "secure bits": 27}
PR_GET_BY_ADDRESS = {"death signal": 2, "subreaper": 37}
LASTING = ("mounts", "children", "threads")  # what a killed process could leave changed


# ------------------------------------------------------------------ in the fork


def state() -> dict[str, Any]:
    """What an operation must leave as it was; all mounts but those that the stores make of their directories."""
    found = support.process_state()
    found["names"] = operations.names()
    found["mounts"] = dict(Counter(_mounts()))
    found["cgroup"] = Path("/proc/self/cgroup").read_text()
    status = Path("/proc/thread-self/status").read_text().splitlines()
    found["capabilities"] = [line for line in status if line.startswith(("Cap", "NoNewPrivs", "Groups"))]
    found["signals"] = dict(_signals(status))
    found["limits"] = Path("/proc/self/limits").read_text()
    found["host name"] = os.uname()[1], Path("/proc/sys/kernel/domainname").read_text()
    found["process"] = _attributes(status[0])
    return found


def _signals(status: list[str]) -> Iterator[tuple[str, int]]:
    """What is pending, ignored and caught, without the two signals that are the C library's own."""
    for line in status:
        if line.startswith(("SigPnd", "ShdPnd", "SigIgn", "SigCgt")):
            yield line[:6], int(line.split()[1], 16) & ~(3 << 31)


def _attributes(name: str) -> dict[str, object]:
    """What belongs to a process or thread beside all that."""
    found: dict[str, object] = {what: support.prctl(option) for what, option in PR_GET.items()}
    for what, option in PR_GET_BY_ADDRESS.items():
        value = ctypes.c_int()
        support.prctl(option, ctypes.addressof(value))
        found[what] = value.value
    found["processors"] = os.sched_getaffinity(0)
    return {**found, "name": name, "group": os.getpgid(0), "session": os.getsid(0)}


def _mounts() -> Iterator[str]:
    """All mounts but those that the stores make of their directories; of a name the place alone."""
    with open("/proc/thread-self/mountinfo") as file:
        for line in file:
            fields = line.split()
            place = fields[4]
            if _is_name(place):
                yield place
            elif place != "/run/netns" and not place.startswith("/run/nsutil/"):
                yield " ".join([fields[0], fields[1], *fields[3:]])


def _is_name(place: str) -> bool:
    return place.startswith("/run/netns/") or (place.startswith("/run/nsutil/") and place.count("/") == 4)


def difference(before: dict[str, Any], patience: float = PATIENCE) -> dict[str, tuple[Any, Any]]:
    """What changed and stays changed."""
    deadline = time.monotonic() + patience
    while True:
        gc.collect()
        changed = support._left_behind(before, state())
        if not changed or time.monotonic() > deadline:
            return changed
        time.sleep(0.02)


def attempt(body: operations.Body) -> tuple[str, list[str], str, int]:
    """How it ended: "returned" or "raised", the exception's classes, its text, the types of a RestoreError."""
    try:
        body()
    except Exception as error:
        import nsutil

        kinds = [kind.__name__ for kind in type(error).__mro__]
        types = int(error.types or 0) if isinstance(error, nsutil.RestoreError) else 0
        return "raised", kinds, _text(error), types
    return "returned", [], "", 0


def _text(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))[-1500:]


def perform(name: str, report: dict[str, Any]) -> None:
    """The operation with the fault in it, a look around, and once more without."""
    generator = operations.make(name)
    body = next(generator)
    before = state()
    mark(BEGIN)
    report["outcome"] = attempt(body)
    close = mark(END)
    if close > 0:  # the kernel closes a descriptor whatever close(2) returns
        with contextlib.suppress(OSError):  # closed twice, as subprocess does
            os.close(close - 1)
    generator.send(report["outcome"][0] == "returned")
    lost = "RestoreError" in report["outcome"][1]
    report["changed"] = in_words(difference(before, 0.1 if lost else PATIENCE))
    if not lost:
        before = state() if report["changed"] else before
        report["again"] = attempt(body)
        generator.send(report["again"][0] == "returned")
        report["changed again"] = in_words(difference(before))
    reap_zombies()
    generator.close()


def reap_zombies() -> None:
    """Those that a fault has kept from being reaped: the PID 1 of a target waits for all that were in there."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def in_words(changed: dict[str, tuple[Any, Any]]) -> dict[str, str]:
    return dict(zip(changed, support._differences(changed), strict=True))


def perform_apart(name: str, report: dict[str, Any]) -> None:
    """The operation in a child that will be killed in it; what stays of it is looked for here."""
    support.prctl(PR_SET_CHILD_SUBREAPER, 1)
    generator = operations.make(name)
    body = next(generator)
    before = state()
    before["mounts"] = {line: count for line, count in before["mounts"].items() if not _is_name(line)}
    pid = os.fork()
    if pid == 0:
        mark(BEGIN)
        attempt(body)
        mark(END)
        os._exit(0)
    os.waitpid(pid, 0)
    left = _reap_others(before["children"], 0.2 if name in operations.LIVES_ON else PATIENCE)
    report["names"] = operations.check_names()
    if name in operations.LIVES_ON:  # as long as the name does
        left = _reap_others(before["children"], kill=name in operations.ORPHANS)
    report["left"] = left
    report["changed"] = in_words(difference({what: before[what] for what in LASTING}))
    report["outcome"] = ("killed", [], "", 0)
    generator.close()


def _reap_others(known: set[int], patience: float = PATIENCE, kill: bool = False) -> list[str]:
    """Wait for orphans; what is left of them after a while."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        orphans = support.children() - known
        if not orphans:
            return []
        for pid in orphans:
            if kill:
                os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass
        time.sleep(0.005)
    return [describe(pid) for pid in support.children() - known]


def describe(pid: int) -> str:
    """A process in a line: what it is, and the system calls that its threads are in."""
    process = Path(f"/proc/{pid}")
    try:
        words = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80]
        where = [task.joinpath("syscall").read_text().split()[0] for task in process.joinpath("task").iterdir()]
        return f"{pid} {words.strip()} in {', '.join(where)}"
    except OSError as error:
        return f"{pid} ({error.strerror})"


def fork_main(name: str, apart: bool, result: int) -> None:
    report: dict[str, Any] = {}
    try:
        support.private_mounts()
        support.must("mount", b"none", b"/run", b"tmpfs", 0, b"mode=755")
        (perform_apart if apart else perform)(name, report)
    except BaseException as error:
        report["broken"] = _text(error)
    finally:
        os.write(result, pickle.dumps(report))
        os._exit(0)


# ------------------------------------------------------------------ PID 1


def run_one(name: str, apart: bool) -> dict[str, Any]:
    result = os.memfd_create("report")
    pid = os.fork()
    if pid == 0:
        fork_main(name, apart, result)
    status, hung = _wait(pid)
    left = [] if hung else _reap_others(set())
    report: dict[str, Any] = {}
    if not hung:
        data = os.pread(result, 1 << 20, 0)
        report = pickle.loads(data) if data else {"broken": f"no report, status {status}"}
    os.close(result)
    if hung:
        report["hung"] = hung
    if left and not (apart and name in operations.LIVES_ON):
        report.setdefault("left", []).extend(left)
    if hung or left:
        os.kill(-1, signal.SIGKILL)
        _reap_others(set())
    return report


def _wait(pid: int) -> tuple[int, list[str]]:
    deadline = time.monotonic() + HUNG
    while time.monotonic() < deadline:
        done, status = os.waitpid(-1, os.WNOHANG)
        if done == pid:
            return status, []
        if not done:  # else an orphan, which came to us as PID 1
            time.sleep(0.002)
    pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    return 0, [describe(other) for other in pids if other != 1]


def imports(make: operations.Operation) -> list[str]:
    """What an operation imports."""
    support.private_mounts()
    support.must("mount", b"none", b"/run", b"tmpfs", 0, b"mode=755")
    generator = make()
    next(generator)()
    generator.send(True)
    generator.close()
    return list(sys.modules)


def warm_up(modules: list[str] | None) -> list[str]:
    """Import whatever the operations import: what is read for that is none of their calls."""
    support.preload()
    if modules is None:
        makers = operations.OPERATIONS.values()
        modules = sorted({name for make in makers for name in support.in_child(imports, make, timeout=60)})
    for name in modules:
        if name not in sys.modules and not name.startswith("_"):
            __import__(name)
    return modules


def silence() -> None:
    """What children say when they cannot report is of no interest."""
    nothing = os.open("/dev/null", os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)


def main(control: socket.socket) -> None:
    """PID 1 from its first breath."""
    support.private_mounts()
    support.must("mount", b"proc", b"/proc", b"proc", 0, None)
    support.private_run()
    warnings.simplefilter("ignore")
    modules = warm_up(pickle.loads(control.recv(1 << 20)))
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()  # the forks look for garbage again and again: among what is theirs
    control.send(pickle.dumps(modules))
    silence()
    listener = install()
    mark(0)
    os.close(listener)
    while request := control.recv(1 << 16):
        name, apart = pickle.loads(request)
        control.send(pickle.dumps(run_one(name, apart)))


if __name__ == "__main__":
    from nsutil import IPC, MNT, NET, PID, UTS

    channel = socket.socket(fileno=int(sys.argv[1]))
    support.must("unshare", int(UTS | IPC | NET | MNT | PID))
    if child := os.fork():
        os.waitpid(child, 0)
        sys.exit()
    main(channel)
