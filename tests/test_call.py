"""box.call and call: a Python function in a forked child inside namespaces."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import support

import nsutil
from nsutil import UTS, ChildDied, Namespace, call

pytestmark = pytest.mark.usefixtures("leak_check")
root_only = support.needs_root
warns_of_threads = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")


class Odd(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"odd {one} {two}")


class Stubborn(Exception):
    """Does not even pickle."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("no")


# Values


@pytest.mark.incident("B4")
def test_value_comes_back() -> None:
    assert call(lambda: {"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}


def test_function_runs_in_another_process() -> None:
    assert call(os.getpid) != os.getpid()


def test_closures_need_no_pickling() -> None:
    lock, offset = threading.Lock(), 5
    assert call(lambda n: (lock.locked(), n + offset), 2) == (False, 7)


def test_keywords_of_box_call_go_to_the_function() -> None:
    box = Namespace()
    result = box.call(lambda **kwargs: kwargs, func=1, self=2, new=3, timeout=4)
    assert result == {"func": 1, "self": 2, "new": 3, "timeout": 4}


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 65537, 1 << 20, 33_333_333])
@pytest.mark.incident("B5")
def test_any_size(size: int) -> None:
    assert call(lambda: b"x" * size) == b"x" * size


@pytest.mark.incident("B11")
def test_a_large_result_does_not_hang() -> None:
    assert len(call(lambda: b"x" * 200_000_000)) == 200_000_000


def test_arguments_are_seen_as_they_are() -> None:
    items = [1]
    assert call(lambda given: given is items, items)


@pytest.mark.parametrize("bad", [None, 3, "os.getpid"])
def test_what_is_no_function(bad: object) -> None:
    with pytest.raises(TypeError, match="takes a function"):
        call(bad)  # type: ignore[arg-type]


# Exceptions


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.incident("B4")
def test_exception_comes_back_with_the_remote_traceback() -> None:
    with pytest.raises(KeyError, match="missing") as info:
        call(fail, KeyError("missing"))
    shown = str(info.value.__cause__)
    assert "in fail" in shown
    assert "nsutil/_" not in shown
    assert "in fail" in "".join(traceback.format_exception(info.value))


def test_keyboard_interrupt_of_the_function_is_itself() -> None:
    with pytest.raises(KeyboardInterrupt):
        call(fail, KeyboardInterrupt())


def test_attributes_and_notes_survive() -> None:
    error = FileNotFoundError(2, "no such", "/nowhere")
    error.add_note("look elsewhere")
    with pytest.raises(FileNotFoundError) as info:
        call(fail, error)
    assert (info.value.errno, info.value.filename, info.value.__notes__) == (2, "/nowhere", ["look elsewhere"])


def test_exception_groups_survive() -> None:
    with pytest.raises(ExceptionGroup) as info:
        call(fail, ExceptionGroup("both", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]))
    assert info.value.subgroup(KeyError) is not None


def test_the_original_cause_is_kept_as_context() -> None:
    def chained() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    with pytest.raises(ValueError, match="second") as info:
        call(chained)
    assert isinstance(info.value.__context__, KeyError)
    assert "first" in str(info.value.__cause__)


@pytest.mark.parametrize("error", [Odd(1, 2), Stubborn("stubborn")], ids=["unpickle", "pickle"])
def test_exception_that_cannot_travel(error: Exception) -> None:
    with pytest.raises(RuntimeError, match=type(error).__name__) as info:
        call(fail, error)
    assert str(error) in str(info.value)
    assert "in fail" in str(info.value.__cause__)
    assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)


@pytest.mark.parametrize("value", [lambda: 1, threading.Lock(), sys], ids=["lambda", "lock", "module"])
def test_unpicklable_result_says_so(value: object) -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError), match=r"(?i)pickle") as info:
        call(lambda: value)
    assert "cannot be pickled" in info.value.__notes__[0]


class Broken:
    def __reduce__(self) -> tuple[object, ...]:
        return int, ("not a number",)


def test_result_that_does_not_unpickle_says_so() -> None:
    with pytest.raises(ValueError, match="not a number") as info:
        call(Broken)
    assert "cannot be unpickled" in info.value.__notes__[0]


# Ends other than a return


def die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV, 40])
def test_death_by_signal(number: int) -> None:
    with pytest.raises(ChildDied) as info:
        call(die, number)
    assert (info.value.signal, info.value.status) == (number, None)
    assert str(int(number)) in str(info.value)


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_exit_without_a_result(status: int) -> None:
    with pytest.raises(ChildDied) as info:
        call(os._exit, status)
    assert (info.value.signal, info.value.status) == (None, status)


@pytest.mark.parametrize(("argument", "status"), [(None, 0), (4, 4), (256 + 7, 7), ("message", 1)])
def test_system_exit(argument: object, status: int) -> None:
    with pytest.raises(ChildDied) as info:
        call(sys.exit, argument)
    assert info.value.status == status


def test_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0\.2 seconds"):
        call(time.sleep, 30, timeout=0.2)
    assert time.monotonic() - start < 5


def test_timeout_error_of_the_function_is_its_own() -> None:
    with pytest.raises(TimeoutError, match="mine"):
        call(fail, TimeoutError("mine"), timeout=20)


def start_sleeper(path: str) -> None:
    """A process of which only its pid remains, in that file."""
    import subprocess

    sleeper = subprocess.Popen(["sleep", "300"], stdout=subprocess.DEVNULL)
    with open(path, "w") as file:
        file.write(str(sleeper.pid))
    time.sleep(300)


def test_timeout_kills_the_whole_tree(tmp_path: object) -> None:
    path = f"{tmp_path}/pid"
    with pytest.raises(TimeoutError):
        call(start_sleeper, path, timeout=1)
    with open(path) as file:
        assert gone(int(file.read()))


def gone(pid: int, patience: float = 5.0) -> bool:
    """Whether a process that is no child of ours ends soon, or is a zombie for somebody else."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def linger() -> int:
    """Leave a process behind that holds all our descriptors open."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid


@pytest.mark.parametrize("then", ["return", "die"])
def test_a_process_left_behind_does_not_hang_the_call(then: str) -> None:
    pids: list[int] = []
    reader, writer = os.pipe()

    def func() -> None:
        os.write(writer, str(linger()).encode())
        if then == "die":
            os._exit(5)

    start = time.monotonic()
    try:
        if then == "die":
            with pytest.raises(ChildDied):
                call(func)
        else:
            call(func)
        assert time.monotonic() - start < 20
    finally:
        pids.append(int(os.read(reader, 100)))
        os.kill(pids[0], signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_status_though_somebody_else_reaps() -> None:
    """Linux 6.15 still tells; before, the status is lost, and the call ends all the same."""

    def take_all(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def body() -> tuple[int | None, int | None]:
        signal.signal(signal.SIGCHLD, take_all)
        with pytest.raises(ChildDied) as info:
            call(os._exit, 9)
        return info.value.status, info.value.signal

    assert support.in_child(body) in {(9, None), (None, None)}


def test_other_children_are_left_alone() -> None:
    def body() -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        value = call(int, 5)
        return value, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert support.in_child(body) == (5, 7)


class Escape(BaseException):
    """Nobody but a bare except catches it."""


@pytest.mark.parametrize("error", [Escape(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_the_child_never_returns_into_the_callers_frames(error: BaseException, tmp_path: Path) -> None:
    try:
        call(fail, error)
    except BaseException:
        pass
    finally:
        with open(tmp_path / "log", "a") as log:
            log.write(f"{os.getpid()}\n")
    assert (tmp_path / "log").read_text() == f"{os.getpid()}\n"


# The process around it


def test_output_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("before ")
    call(lambda: sys.stdout.write("inside ") and None)
    sys.stdout.write("after")
    sys.stdout.flush()
    assert capfd.readouterr().out == "before inside after"


def test_atexit_is_not_run(capfd: pytest.CaptureFixture[str]) -> None:
    import atexit

    call(lambda: atexit.register(os.write, 1, b"atexit") and None)
    assert capfd.readouterr().out == ""


def test_no_signal_is_left_blocked() -> None:
    assert call(signal.pthread_sigmask, signal.SIG_BLOCK, []) == signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_context_variables_are_seen() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)
    variable.set(5)
    assert call(variable.get) == 5


def test_a_running_event_loop_is_not_the_childs() -> None:
    import asyncio

    async def main() -> tuple[bool, int]:
        return call(lambda: (asyncio._get_running_loop() is None, asyncio.run(asyncio.sleep(0, 7))))

    assert asyncio.run(main()) == (True, 7)


@warns_of_threads
def test_from_a_worker_thread() -> None:
    found: list[object] = []

    def work() -> None:
        found.append(call(lambda: (threading.current_thread() is threading.main_thread(), threading.active_count())))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(True, 1)]


@warns_of_threads
@pytest.mark.incident("B6")
def test_from_many_threads_at_once() -> None:
    def work() -> None:
        found.extend(call(lambda n: n * n, n) for n in range(10))

    found: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([n * n for n in range(10)] * 6)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="os.fork warns from 3.12 on")
def test_warns_as_os_fork_does() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.warns(DeprecationWarning, match="multi-threaded") as caught:
            call(int)
    finally:
        stop.set()
        thread.join()
    assert caught[0].filename == __file__


def test_audit() -> None:
    seen = []
    active = [True]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if active and event == "nsutil.call":
            seen.append(args)

    sys.addaudithook(hook)
    call(int)
    active.clear()
    assert seen == [(int,)]


@root_only
def test_one_new_namespace() -> None:
    outside = os.readlink("/proc/thread-self/ns/uts")
    name = socket.gethostname()
    assert call(lambda: (os.readlink("/proc/self/ns/uts"), socket.gethostname()), new=UTS, hostname="inside") != (
        outside,
        "inside",
    )
    assert socket.gethostname() == name
    assert nsutil.call is call
