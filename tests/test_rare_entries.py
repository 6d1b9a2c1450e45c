"""The C entry points, called as nsutil itself never does, and out of memory."""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import support
from support import in_child, needs_kernel, needs_root

from nsutil import IPC, UTS, Namespace, _ns

pytestmark = needs_root

TRUE = b"/bin/true"


class Started:
    """What spawn() fills in."""

    pid = program_pid = 0
    pidfd = status = program = -1

    def reap(self) -> int:
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def spawn(child: object, **changes: Any) -> object:
    arguments: dict[str, Any] = {
        "maps": (-1, -1, -1),
        "plans": (None,) * 5,
        "slots": (),
        "flags": 0,
        "bits": 0,
        "end_signal": 0,
        "argv": (TRUE,),
        "envp": (),
        "candidates": (TRUE,),
        "time_fd": -1,
        "stdin": -1,
        "stdout": -1,
        "stderr": -1,
        "kept": (),
    }
    assert changes.keys() <= arguments.keys()
    return _ns.spawn(child, *{**arguments, **changes}.values())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"plans": (None,) * 4}, ValueError),
        ({"plans": (None, None, "plan", None, None)}, TypeError),
        ({"kept": ("0",)}, TypeError),
        ({"kept": (1 << 40,)}, OverflowError),
        ({"argv": 7}, TypeError),
        ({"argv": (1.5,)}, TypeError),
        ({"argv": (b"nul\0inside",)}, ValueError),
        ({"candidates": 7}, TypeError),
        ({"envp": 7}, TypeError),
        ({"envp": (1,)}, TypeError),
        ({"slots": ("0",)}, TypeError),
        ({"slots": 7}, TypeError),
        ({"slots": (0,) * (_ns.RUN_SLOTS + 1)}, ValueError),
        ({"maps": (-1, -1)}, TypeError),
    ],
    ids=str,
)
def test_spawn_of_nonsense_starts_nothing(changes: dict[str, Any], error: type[Exception], leak_check: None) -> None:
    child = Started()
    with pytest.raises(error):
        spawn(child, **changes)
    assert child.pid == 0


def test_spawn_itself(leak_check: None) -> None:
    child = Started()
    assert spawn(child) is None
    assert child.pid == child.program_pid > 0
    assert child.reap() == 0


@pytest.mark.parametrize(
    ("step", "error", "text"),
    [
        ("getpid", TypeError, "must be a tuple"),
        (("umask", (0,)), TypeError, "4 arguments"),
        (("umask", [0], -1, 0), TypeError, "tuple"),
        (("nosuch", (), -1, 0), ValueError, "unknown step 'nosuch'"),
        (("umask", (0,), _ns.RUN_SLOTS, 0), ValueError, "no slot"),
        (("umask", (0,), -2, 0), ValueError, "no slot"),
        (("umask", (), -1, 0), TypeError, "takes 1 arguments, not 0"),
        (("umask", ((_ns.RUN_SLOTS,),), -1, 0), ValueError, "slot must be between"),
        (("umask", ((-1,),), -1, 0), ValueError, "slot must be between"),
        (("umask", ((1 << 80,),), -1, 0), OverflowError, "int"),
        (("umask", (1 << 64,), -1, 0), OverflowError, "int"),
        (("umask", ((-1 << 63) - 1,), -1, 0), OverflowError, "below 64 bits"),
        (("umask", ("text",), -1, 0), TypeError, "int"),
        (("umask", ((b"a", 1),), -1, 0), TypeError, "bytes"),
        (("umask", ([1, "2"],), -1, 0), TypeError, "int"),
    ],
    ids=str,
)
def test_plan_says_what_is_wrong_with_a_step(step: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _ns.Plan([("umask", (0o22,), -1, 0), step])


def test_plan_of_something_else(leak_check: None) -> None:
    with pytest.raises(TypeError):
        _ns.Plan(7)  # type: ignore[arg-type]
    for use in (
        lambda: _ns.run_plan("plan"),
        lambda: _ns.run_apart(("plan",), (), 0, -1),
        lambda: _ns.name_create("/run", 0, b"/run/x", 0, "net", "plan", ()),
        lambda: _ns.Child().fork(int, ("plan",) * 4),
        lambda: _ns.Child().fork(int, (None,) * 3),
    ):
        with pytest.raises(TypeError, match=r"Plan is needed|tuple of 4"):
            use()


# Their arguments, and what of the kernel the newer ones need.
OPENERS: dict[str, tuple[Any, ...]] = {
    "fsopen": (b"tmpfs", 1),
    "open_proc": (b"/proc/self", os.O_PATH),
    "open_tree": (-100, b"/", os.O_CLOEXEC),
    "openat": (-100, b"/", os.O_PATH | os.O_CLOEXEC, 0),
    "openat2": (-100, b"/", struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0), 24),
    "pidfd_getfd": ((1,), 0, 0),
    "socket": (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0),
    "source": (b"/", 0),
}


NEWER = {"fsopen": "mount-calls", "open_tree": "mount-calls", "openat2": "openat2", "pidfd_getfd": "pidfd-getfd"}


@pytest.mark.parametrize(
    "op", [pytest.param(op, marks=needs_kernel(NEWER[op]) if op in NEWER else ()) for op in OPENERS]
)
def test_plan_that_fails_closes_what_it_opened(op: str, leak_check: None) -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        plan = _ns.Plan([(op, OPENERS[op], 0, 0), ("close", (-1,), -1, 0)])
        assert _ns.run_plan(plan, (-1, pidfd)) == (1, errno.EBADF)
    finally:
        os.close(pidfd)


def test_plan_that_runs_apart_is_checked_first(leak_check: None) -> None:
    plan = _ns.Plan([("umask", (0o22,), 0, 0)])
    assert _ns.run_apart((plan,), (), 0, -1) >= 0  # type: ignore[operator]
    bad = ((plan,), -1, -1), ((plan,), _ns.RUN_SLOTS, -1), ((plan,), 0, 1 << 20), ((plan,) * 100, 0, -1)
    for plans, want, cpu in bad:
        with pytest.raises(ValueError, match=r"no slot|at most"):
            _ns.run_apart(plans, (), want, cpu)
    with pytest.raises(TypeError):
        _ns.run_apart((plan,), 7, 0, -1)  # type: ignore[arg-type]


def test_look_ups_of_what_is_not_there(leak_check: None) -> None:
    with pytest.raises(FileNotFoundError) as info:
        _ns.mount_id("/nosuch/file")
    assert info.value.filename == "/nosuch/file"
    with pytest.raises(FileNotFoundError):
        _ns.inotify("/nosuch", 2)
    with pytest.raises(ValueError, match="no probe for fork"):
        _ns.filtered("fork", 0)
    with pytest.raises(ValueError, match="bytes, not 3"):
        _ns.open_nsfs_handle(b"abc")
    reader, writer = os.pipe()
    os.close(writer)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            _ns.nsfs_handle(reader)
    finally:
        os.close(reader)
    with open("/etc/passwd") as file, pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        _ns.nsfs_handle(file)


def test_child_that_was_not_forked(leak_check: None) -> None:
    child = _ns.Child()
    with pytest.raises(OSError, match="Bad file descriptor"):
        child.go()
    child.end()
    assert (child.pid, child.pidfd) == (0, -1)


def test_child_forks_once(leak_check: None) -> None:
    child = _ns.Child()
    child.fork(lambda: os._exit(3), (None,) * 4)
    with pytest.raises(RuntimeError, match="forked before"):
        child.fork(int, (None,) * 4)
    status = child.wait()
    assert status is not None
    assert os.waitstatus_to_exitcode(status) == 3
    child.end()


def test_child_whose_function_returns_or_raises_ends_all_the_same(leak_check: None) -> None:
    def fails() -> None:
        os.dup2(null, 2)
        raise KeyError

    null = os.open(os.devnull, os.O_RDWR)
    codes = []
    for serve in (int, fails):
        child = _ns.Child()
        child.fork(serve, (None,) * 4)
        codes.append(os.waitstatus_to_exitcode(child.wait() or 0))
        child.end()
    os.close(null)
    assert codes == [0, 70]


def test_wait_keeps_its_timeout_while_signals_come(leak_check: None) -> None:
    """A handler that ran often enough made it begin anew each time."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    child = _ns.Child()
    child.fork(signal.pause, (None,) * 4)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        assert child.wait(0.2) is None
        assert not _ns.await_exit(child.pidfd, 0.2)
        with pytest.raises(TimeoutError):
            _ns.receive(child.channel, child.pidfd, 0.2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        child.end()
    assert seen


@pytest.mark.parametrize("timeout", [None, 0, -5, -1e300, 10**15, 1e300, float("inf")])
def test_any_timeout_will_do_for_what_has_ended(timeout: float | None, leak_check: None) -> None:
    child = _ns.Child()
    child.fork(int, (None,) * 4)
    assert _ns.await_exit(child.pidfd, None)
    assert _ns.await_exit(child.pidfd, timeout)
    assert _ns.receive(child.channel, child.pidfd, timeout) is None
    assert child.wait(timeout) == 0
    child.end()


def test_timeout_that_is_no_number_of_seconds(leak_check: None) -> None:
    reader, writer = os.pipe()
    for wait in (_ns.Child().wait, lambda timeout: _ns.await_exit(reader, timeout), partial(_ns.receive, reader, -1)):
        with pytest.raises(ValueError, match="NaN"):
            wait(float("nan"))
        with pytest.raises(TypeError, match="real number"):
            wait("1")
    os.close(reader)
    os.close(writer)


def test_recipe_that_prepares_nonsense_is_not_entered(leak_check: None) -> None:
    """Namespace is a subclass of Block, which trusts it in nothing."""

    class Odd(_ns.Block):
        def __init__(self, answer: object) -> None:
            self.answer = answer

        def _prepare_block(self) -> object:
            return self.answer

    plan = _ns.Plan([])
    for answer in ("short", (plan, "types", (), 0, 0), ("plan", 0, (), 0, 0), (plan, 0, 7, 0, 0)):
        with pytest.raises(TypeError), Odd(answer):
            pass


# Out of memory: each allocation of each entry point fails once.


def each_allocation_fails(
    operation: Callable[[], object], undo: Callable[[Any], object], most: int = 300
) -> tuple[int, int]:
    """How often the operation had no memory, and how often it did its work though an allocation failed."""
    import _testcapi

    result = operation()
    kind = type(result)
    undo(result)
    refused = done = 0
    while refused + done < most:
        _testcapi.set_nomemory(refused + done, refused + done + 1)
        try:
            result = operation()
        except MemoryError:
            _testcapi.remove_mem_hooks()
            refused += 1
            continue
        except BaseException:
            _testcapi.remove_mem_hooks()
            raise
        _testcapi.remove_mem_hooks()
        assert type(result) is kind
        undo(result)
        done += 1
        if done > 20:
            break
    return refused, done


def make_plan() -> object:
    return _ns.Plan([("umask", (0o22,), -1, 0), VECTOR, SETGROUPS])


SETGROUPS = ("setgroups", (3, [1, 2, 3]), -1, 0)
VECTOR = ("setgroups", (2, (b"a", b"b")), -1, 0)  # of the wrong kind: it is never run


def nothing(_result: object) -> None:
    pass


CHILD = Started()
WANTED = array.array("q", [0, 1])
ARGUMENTS = (CHILD, (-1, -1, -1), (None,) * 5, (), 0, 0, 0, (TRUE,), (b"A=1",), (TRUE,), -1, -1, -1, -1, (0,))
OPERATIONS: dict[str, tuple[Callable[[], object], Callable[[Any], object]]] = {
    "plan": (make_plan, nothing),
    "child": (_ns.Child, nothing),
    "spawn": (lambda: _ns.spawn(*ARGUMENTS), lambda _: CHILD.reap()),
    "scan": (lambda: _ns.scan(UTS, 0), nothing),
    "scan_details": (lambda: _ns.scan_details(WANTED, 0), nothing),
    "mount_id": (lambda: _ns.mount_id("/proc/self"), nothing),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_memory_is_an_error_and_nothing_is_left(name: str) -> None:
    pytest.importorskip("_testcapi", reason="needs the interpreter's own test module")
    operation, undo = OPERATIONS[name]

    def body() -> tuple[int, int]:
        with support.no_leaks():
            return each_allocation_fails(operation, undo)

    refused, done = in_child(body)
    assert refused > 0
    assert done > 0


@pytest.mark.parametrize("way", ["with", "by name", "first time"])
def test_no_memory_for_a_block_leaves_the_thread_where_it_was(way: str) -> None:
    pytest.importorskip("_testcapi", reason="needs the interpreter's own test module")
    if way == "first time" and sys.version_info[:2] in ((3, 12), (3, 13)):
        pytest.skip("without memory Python 3.12 and 3.13 crash in generator expressions")

    def body() -> tuple[int, int]:
        before = support.ns_inodes()
        recipes = [Namespace(UTS | IPC, hostname=str(n)) for n in range(2000 if way == "first time" else 1)]

        def enter() -> tuple[Namespace, object]:
            box = recipes.pop() if way == "first time" else recipes[0]
            leave = None if way == "by name" else box.__exit__
            box.__enter__()
            return box, leave

        def leave(entered: tuple[Namespace, Any]) -> None:
            box, leave = entered
            if leave:
                leave(None, None, None)
            else:
                Namespace.__exit__(box, None, None, None)
            assert support.ns_inodes() == before

        result = each_allocation_fails(enter, leave, 1900)
        assert support.ns_inodes() == before
        return result

    refused, done = in_child(body)
    assert refused > 0
    assert done > 0


def test_signals_while_a_program_is_awaited_do_not_end_the_wait(leak_check: None) -> None:
    seen: list[int] = []
    box = Namespace(UTS)
    old = signal.signal(signal.SIGALRM, lambda number, _frame: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        for _ in range(3):  # the first time in another way than from then on
            seen.clear()
            assert box.run(["sleep", "0.2"]).returncode == 0
            assert seen
        assert box.popen(["sleep", "0.2"]).wait() == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


IMPORTED_ANEW = """
import gc, sys, weakref
import nsutil._ns
first = weakref.ref(nsutil._ns)
kinds = [weakref.ref(getattr(nsutil._ns, name)) for name in ("Plan", "Block", "Guard", "Child")]
del nsutil._ns, sys.modules["nsutil._ns"]
gc.collect()
print([each() for each in (first, *kinds)])
from nsutil import UTS, Namespace
with Namespace(UTS):
    pass
"""


def test_module_that_is_forgotten_goes_and_can_be_imported_anew() -> None:
    """As it does in each subinterpreter."""
    env = {**os.environ, "PYTHONPATH": str(support.PACKAGE)}
    done = subprocess.run([sys.executable, "-c", IMPORTED_ANEW], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{[None] * 5}\n", "")
