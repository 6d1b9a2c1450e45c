"""Make each system call of each public operation fail, wait or be the last, once; see what is left.

    python tests/faults/harness.py [--jobs N] [--shard I/N] [--every N] [--only TEXT] [--list] [--verbose] [NAME ...]

A point is one call of one operation: the K-th openat(2), say, of the calling thread, of another thread, of a child or
of nsutil's init.  At each point the call fails once with each of the errors of faults/errors.py, is delayed, or its
process is killed.  Held: no change is left in what zygote.state() looks at, or RestoreError says which types are; no
process is left; the operation worked, or raised an exception that the contract knows; it works when done again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple, Self

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    sys.path.append(str(HERE.parent.parent))  # last: PYTHONPATH may name another build

from faults import calls, errors, notify  # noqa: E402
from faults.errors import Seen  # noqa: E402
from faults.notify import BEGIN, END, Call, Listener  # noqa: E402
from faults.operations import OPERATIONS, TOLERANT, WITHOUT_PROC  # noqa: E402

from nsutil import NSType  # noqa: E402

OUT_OF_REACH = ("pidfd_open", "ESRCH"), ("pidfd_send_signal", "EPERM"), ("pidfd_send_signal", "ESRCH")
TREES = {"run_too_long", "run_init_too_long"}  # which have to be killed
WAITED = 3  # rounds of a wait for the end of a thread: how many there are is chance
DELAY = 0.03
GIVE_UP = 80.0

KNOWN = {"OSError", "MemoryError", "RestoreError", "ChildDied", "BrokenProcessPool", "NotANamespace"}
PATHS = {"openat": 1, "newfstatat": 1, "mount": 1, "umount2": 0, "unlink": 0, "unlinkat": 1, "readlinkat": 1}
PATHS |= {"readlink": 0, "execve": 0, "stat": 0, "statx": 1, "openat2": 1, "mkdir": 0, "mkdirat": 1, "chdir": 0}


class Point(NamedTuple):
    """The occurrence-th call of that name in the role, counted from 1, and what is done to it."""

    operation: str
    role: str
    call: str
    occurrence: int
    action: str  # name of an errno, "delay" or "kill"

    def __str__(self) -> str:
        return f"{self.operation}: {self.role} {self.call}#{self.occurrence} {self.action}"


class Verdict(NamedTuple):
    point: Point
    fired: bool
    problems: list[str]
    report: dict[str, Any]
    detail: str
    seconds: float = 0.0


class Supervisor:
    """Counts the calls of one run and acts at one of them."""

    def __init__(self, listener: Listener, point: Point | None) -> None:
        self._listener = listener
        self._point = point
        self._main = self._process = 0
        self._bystanders: set[int] = set()
        self._roles: dict[int, str] = {}
        self._count: Counter[tuple[str, str]] = Counter()
        self.seen: list[Seen] = []
        self.fired = False
        self.detail = ""
        self._close = 0

    def handle(self, call: Call) -> float | None:
        if call.number == notify.MARKER:
            self._mark(call)
            return None
        if not self._main:
            self._bystanders.add(call.tid)
            self._listener.go_on(call)
            return None
        name = calls.names().get(call.number, str(call.number))
        role = self._role(call.tid)
        if name in ("execve", "execveat"):
            self._roles.pop(call.tid, None)
        if role == "program":
            self._listener.go_on(call)
            return None
        self._count[role, name] += 1
        if self._point is None:
            deaf = _is_deaf(call.tid) or _never_waits(call)
            found = (_detail(name, call), call.arguments, deaf, _file(call))
            self.seen.append(Seen(role, name, self._count[role, name], *found))
        elif not self.fired and (role, name, self._count[role, name]) == self._point[1:4]:
            return self._act(call, self._point.action, role)
        self._listener.go_on(call)
        return None

    def _mark(self, call: Call) -> None:
        if call.arguments[0] == BEGIN:
            self._main, self._process = call.tid, _process_of(call.tid)
        elif call.arguments[0] == END:
            self._main = 0
        self._listener.answer(call, self._close)

    def _act(self, call: Call, action: str, role: str) -> float | None:
        self.fired = True
        name = calls.names().get(call.number, str(call.number))
        self.detail = _detail(name, call)
        if action == "delay":
            return DELAY
        if action == "kill":
            os.kill(_process_of(call.tid), signal.SIGKILL)
            return None
        if name == "close":  # whatever it returns, the kernel has closed the descriptor
            self._listener.replace(call, call.arguments[0])
            self._close = call.arguments[0] + 1 if role in ("main", "thread") else 0
        self._listener.fail(call, calls.error_number(action))
        return None

    def _role(self, tid: int) -> str:
        if tid == self._main:
            return "main"
        role = self._roles.get(tid)
        if role is None:
            role = self._roles[tid] = self._find_role(tid)
        return role

    def _find_role(self, tid: int) -> str:
        if _process_of(tid) == self._process:
            return "thread"
        if tid in self._bystanders:
            return "program"
        try:
            program = os.readlink(f"/proc/{tid}/exe")
        except OSError:
            return "program"
        if program.startswith("/memfd:nsutil-init"):
            return "init"
        return "child" if program == os.path.realpath(sys.executable) else "program"


def _no_fd(seen: Seen) -> bool:
    return seen.arguments[0] & 0xFFFFFFFF > 0x7FFFFFFF


def _status_of(tid: int, field: str, otherwise: str) -> str:
    try:
        with open(f"/proc/{tid}/status") as file:
            return next(line.split()[1] for line in file if line.startswith(field))
    except (OSError, StopIteration):
        return otherwise


def _process_of(tid: int) -> int:
    return int(_status_of(tid, "Tgid", str(tid)))


def _is_deaf(tid: int) -> bool:
    """Whether no signal could interrupt it: SIGINT, SIGALRM and SIGTERM are blocked."""
    mask = int(_status_of(tid, "SigBlk", "0"), 16)
    return all(mask >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGALRM, signal.SIGTERM))


def _never_waits(call: Call) -> bool:
    """Whether it works on a regular file, or on a non-blocking descriptor."""
    try:
        number = call.arguments[0]
        with open(f"/proc/{call.tid}/fdinfo/{number}") as file:
            flags = next(line.split()[1] for line in file if line.startswith("flags"))
        return bool(int(flags, 8) & os.O_NONBLOCK) or stat.S_ISREG(os.stat(f"/proc/{call.tid}/fd/{number}").st_mode)
    except (OSError, StopIteration):
        return False


def _file(call: Call) -> str:
    """What the first argument is open on, if it is a descriptor: "disk" for a regular file that can be written."""
    try:
        found = os.readlink(f"/proc/{call.tid}/fd/{call.arguments[0]}")
        mode = os.lstat(f"/proc/{call.tid}/fd/{call.arguments[0]}").st_mode
    except OSError:
        return ""
    if found.startswith(("pipe:", "socket:")):
        return "pipe"
    return "disk" if found.startswith("/") and not found.startswith("/proc/") and mode & stat.S_IWUSR else ""


def _detail(name: str, call: Call) -> str:
    if name in PATHS:
        return notify.memory_text(call.tid, call.arguments[PATHS[name]])
    return ", ".join(hex(value) if value > 9 else str(value) for value in call.arguments[:4])


class Runner:
    """Runs points, one after the other, in one zygote.

    ``modules``: what the operations import, as an earlier one found out.
    """

    def __init__(self, modules: list[str] | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Whoever measures coverage writes files where a child ends.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *sys.path])
        command = [sys.executable, str(HERE / "zygote.py"), str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        self._control = ours
        ours.settimeout(GIVE_UP)
        ours.send(pickle.dumps(modules))
        answer = ours.recv(1 << 20)
        if not answer:
            raise RuntimeError("the zygote did not start")
        self.modules: list[str] = pickle.loads(answer)
        pid = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text())
        self._zygote = pid
        self._listener = Listener(notify.listener_of(pid))

    def close(self) -> None:
        os.kill(self._zygote, signal.SIGKILL)
        self._process.wait(10)
        self._control.close()
        self._listener.close()

    def run(self, operation: str, point: Point | None, apart: bool) -> tuple[dict[str, Any], Supervisor]:
        supervisor = Supervisor(self._listener, point)
        self._control.send(pickle.dumps((operation, apart)))
        for _ in notify.serve(self._listener, self._control.fileno(), supervisor.handle, time.monotonic() + GIVE_UP):
            return pickle.loads(self._control.recv(1 << 20)), supervisor
        raise RuntimeError(f"the zygote does not answer: {point or operation}")

    def record(self, operation: str) -> list[Seen]:
        """The calls of an undisturbed run, which has to hold."""
        report, supervisor = self.run(operation, None, apart=False)
        problems = list(judge(Point(operation, "", "", 0, "nothing"), report))
        # A descriptor closed twice is such a number the one time and another thread's the next.
        problems += [f"closes {seen.detail}" for seen in supervisor.seen if seen.call == "close" and _no_fd(seen)]
        if problems:
            raise RuntimeError(f"{operation} does not hold undisturbed: {problems}\n{report}")
        return supervisor.seen

    def try_point(self, point: Point) -> Verdict:
        apart = point.action == "kill" and point.role in ("main", "thread")
        report, supervisor = self.run(point.operation, point, apart)
        return Verdict(point, supervisor.fired, list(judge(point, report)), report, supervisor.detail)


def judge(point: Point, report: dict[str, Any]) -> Iterator[str]:
    """What is wrong with what came of a point."""
    kind, classes, text, types = report.get("outcome", ("", [], "", 0))
    excused = _excused(point, types)
    for what in ("broken", "hung", "left", "names"):
        if report.get(what) and what not in excused:
            yield f"{what}: {report[what]}"
    yield from _judge_outcome(point, kind, classes, text)
    for what, change in report.get("changed", {}).items():
        if what not in excused:
            yield f"changed {change}"
    if report.get("again", ("returned",))[0] != "returned":
        yield f"does not work again: {report['again'][2]}"
    if report.get("changed again"):
        yield f"changed when done again: {report['changed again']}"


def _excused(point: Point, types: int) -> set[str]:
    """What a RestoreError that names these types stands for, and a child that was said to be out of reach."""
    gone = point.action == "ECHILD" or (point.call, point.action) in OUT_OF_REACH
    # subprocess, which runs newuidmap(1), loses its program where it can't close a pipe.
    gone = gone or point[:3] == ("run_subordinate", "thread", "close")
    excused = {"children"} if gone else set()
    if point.operation in TREES and (gone or point.action == "ENOENT"):
        excused |= {"left", "fds"}  # subprocess keeps those of a child that can't be killed
    if types:
        excused.add("namespaces")
    if types & NSType.UTS:
        excused.add("host name")
    if types & NSType.CGROUP:
        excused |= {"cgroup", "mounts"}
    if types & NSType.MNT:
        excused |= {"mounts", "cwd", "root", "names"}
    return excused


def _judge_outcome(point: Point, kind: str, classes: list[str], text: str) -> Iterator[str]:
    if kind != "raised":
        return
    if point.action in ("nothing", "delay"):
        yield f"raised though nothing failed: {text}"
    elif point.action == "EINTR" and point.call != "close" and "InterruptedError" in classes:
        yield f"an interruption is no failure: {text}"
    elif not _is_known(point, classes, text):
        yield f"raised {classes[0]}: {text}"


def _is_known(point: Point, classes: list[str], text: str) -> bool:
    """Whether the contract knows such an end."""
    if "WrongResult" in classes:  # without a status that somebody else took, or what it could not look at
        missed = point.operation in TOLERANT and point.action != "EINTR"
        return missed or point.action == "ECHILD" or _is_told_away(point)
    return bool(KNOWN & set(classes)) or "can't start new thread" in text


def _is_told_away(point: Point) -> bool:
    """Whether it was told that there is nothing: no reader of its pipe, no directory, no place for /proc."""
    if point.action == "EPIPE" or (point.call, point.action) == ("getdents64", "ENOENT"):
        return True
    return point.operation in WITHOUT_PROC and point.action == "ENOENT"


def points_of(operation: str, seen: Iterable[Seen]) -> Iterator[Point]:
    """Everything that can be done to an operation."""
    for call in seen:
        if call.call == "tgkill" and call.occurrence > WAITED:
            continue
        for action in (*errors.of(call), "delay", "kill"):
            yield Point(operation, call.role, call.call, call.occurrence, action)


class Tally:
    """Counts and violations over many points."""

    def __init__(self) -> None:
        self.tried = self.held = self.missed = 0
        self.violations: list[Verdict] = []

    def add(self, verdict: Verdict) -> None:
        if not verdict.fired:
            self.missed += 1
            return
        self.tried += 1
        if verdict.problems:
            self.violations.append(verdict)
        else:
            self.held += 1

    def __iadd__(self, other: Tally) -> Self:
        self.tried += other.tried
        self.held += other.held
        self.missed += other.missed
        self.violations += other.violations
        return self

    @property
    def count(self) -> int:
        return self.tried + self.missed

    def __str__(self) -> str:
        return f"{self.tried} points tried, {self.held} held, {len(self.violations)} violated, {self.missed} not met"


class Session:
    """Points of many operations, with a new zygote where one was spoiled."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._modules: list[str] | None = None
        self._points: dict[str, list[Point]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.renew()

    def renew(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = Runner(self._modules)
            self._modules = self._runner.modules
        return self._runner

    def points(self, operation: str) -> list[Point]:
        if operation not in self._points:
            self._points[operation] = list(points_of(operation, self.runner.record(operation)))
        return self._points[operation]

    def try_point(self, point: Point) -> Verdict:
        started = time.monotonic()
        return self._try_point(point)._replace(seconds=time.monotonic() - started)

    def _try_point(self, point: Point) -> Verdict:
        try:
            verdict = self.runner.try_point(point)
            if not verdict.fired:  # processes do not always meet in the same order
                verdict = self.runner.try_point(point)
        except (RuntimeError, TimeoutError, OSError, EOFError) as error:
            self.renew()
            return Verdict(point, True, [f"harness: {error!r}"], {}, "")
        if verdict.problems:
            self.renew()
        return verdict


def sample(points: list[Point], every: int) -> list[Point]:
    """One of ``every``, the same ones each time: chosen by their names, since other calls may come and go before."""
    return [point for point in points if zlib.crc32(str(point).encode()) % max(1, every) == 0]


# ------------------------------------------------------------------ on several processors

_session = Session()  # of each worker its own


def _start_worker() -> None:
    Finalize(None, _session.renew, exitpriority=1)


def _points(operation: str) -> list[Point]:
    return _session.points(operation)


def _try_point(point: Point) -> Verdict:
    return _session.try_point(point)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("operations", nargs="*", metavar="NAME", help="default: all of them")
    processors = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=processors, metavar="N", help="points tried at a time: %(default)s")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="only the I-th part of N")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only one of N points")
    parser.add_argument("--only", default="", metavar="TEXT", help="only points with that text in them")
    parser.add_argument("--list", action="store_true", help="show the calls, try nothing")
    parser.add_argument("--verbose", action="store_true", help="show each point")
    return parser.parse_args()


def shard(text: str) -> tuple[int, int]:
    number, count = map(int, text.split("/"))
    if not 1 <= number <= count:
        raise ValueError(text)
    return number, count


def main() -> int:
    options = arguments()
    reason = notify.supported()
    if reason:
        print(f"faults: {reason}")
        return 1
    operations = options.operations or list(OPERATIONS)
    if options.list:
        return show_calls(operations)
    with ProcessPoolExecutor(options.jobs, initializer=_start_worker) as pool:
        points = [point for found in pool.map(_points, operations) for point in found if options.only in str(point)]
        number, count = options.shard
        points = sample(points, options.every)[number - 1 :: count]
        print(f"{len(points)} points of {len(operations)} operations, {options.jobs} at a time", flush=True)
        total = try_all(pool, points, options.verbose)
    return 1 if total.violations else 0


def show_calls(operations: list[str]) -> int:
    with Session() as session:
        for operation in operations:
            for call in session.runner.record(operation):
                print(operation, *call[:4])
    return 0


def try_all(pool: ProcessPoolExecutor, points: list[Point], verbose: bool) -> Tally:
    """Try them, with a line for each operation."""
    total = Tally()
    started = time.monotonic()
    verdicts = pool.map(_try_point, points, chunksize=8)
    for operation, group in itertools.groupby(verdicts, key=lambda verdict: verdict.point.operation):
        tally = Tally()
        for verdict in group:
            tally.add(verdict)
            if verdict.problems or verbose:
                show(verdict)
        total += tally
        print(f"{total.count} of {len(points)} in {time.monotonic() - started:.0f} s; {operation}: {tally}", flush=True)
    print(f"\n{total} in {time.monotonic() - started:.0f} s")
    return total


def show(verdict: Verdict) -> None:
    outcome = verdict.report.get("outcome", ["?"])[0]
    print(f"  {verdict.point} ({verdict.detail}): {outcome}, {verdict.seconds:.2f} s", flush=True)
    for problem in verdict.problems:
        print("    " + problem.replace("\n", "\n      "), flush=True)


if __name__ == "__main__":
    sys.exit(main())
