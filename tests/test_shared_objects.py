"""Objects that several threads use, and drop, at the same time: an error at worst, also without a GIL."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import support

import nsutil
from nsutil import NET, UTS, Namespace, _ns

THREADS = 4
ROUNDS = 60


def at_once(*bodies: Callable[[], object]) -> list[BaseException | None]:
    """Run each on a thread of its own, all from the same moment on: what they raised."""
    barrier = threading.Barrier(len(bodies))
    raised: list[BaseException | None] = [None] * len(bodies)

    def run(i: int, body: Callable[[], object]) -> None:
        barrier.wait()
        try:
            body()
        except BaseException as e:
            raised[i] = e

    threads = [threading.Thread(target=run, args=item) for item in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised


def on_thread(body: Callable[[], object]) -> BaseException | None:
    return at_once(body)[0]


def place() -> str:
    return os.readlink("/proc/thread-self/ns/uts")


DROPPED = """
import threading
from nsutil import Namespace, UTS

box = Namespace(UTS)
held = [box.__exit__]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
inside = box.__enter__()
others = [box.__exit__ for _ in range(5)]
assert all(inside is not other for other in others)
assert inside._active
inside()
"""


@support.needs_root
def test_way_out_that_another_thread_drops_before_the_way_in() -> None:
    """The next block found its guard where that had been."""
    done = subprocess.run([sys.executable, "-c", DROPPED], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@support.needs_root
def test_ways_that_are_called_by_name_again_and_again(leak_check: None) -> None:
    """The way out that was looked up for one round is none that keeps the next one."""
    box, before = Namespace(UTS), place()
    for _ in range(3):
        box.__enter__()
        assert place() != before
        box.__exit__(None, None, None)
        assert place() == before


@support.needs_root
def test_way_out_that_is_never_used_is_kept_no_longer_than_its_thread(leak_check: None) -> None:
    class Watched(Namespace):
        pass

    gone = threading.Event()

    def body() -> None:
        box = Watched(UTS)
        weakref.finalize(box, gone.set)
        assert callable(box.__exit__)

    assert on_thread(body) is None
    gc.collect()
    assert gone.wait(10)


@support.needs_root
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_block_of_a_thread_that_has_ended_keeps_nothing_open(leak_check: None) -> None:
    """A generator stopped inside, its thread ended: nobody can leave that block, and its descriptors were kept."""
    started: list[Iterator[None]] = []
    ids: list[int] = []

    def inside() -> Iterator[None]:
        with Namespace(UTS):
            yield

    def body() -> None:
        ids.append(threading.get_native_id())
        started.append(inside())
        next(started[0])

    assert on_thread(body) is None
    deadline = time.monotonic() + 30
    while ids[0] in support.threads() and time.monotonic() < deadline:  # join() does not wait for that
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="thread"):
        started.pop().close()  # type: ignore[attr-defined]


@support.needs_root
def test_block_that_two_threads_leave(leak_check: None) -> None:
    """The one that entered it leaves it, whatever the others do to it meanwhile."""
    before = place()
    box = Namespace(UTS)

    def meddle(shared: list[Any], stop: threading.Event) -> None:
        while not stop.is_set():
            for guard in list(shared):
                assert not guard._active
                with pytest.raises(RuntimeError):
                    guard(None, None, None)
                with suppress(ValueError, OSError, AttributeError):
                    assert guard.uts.type == UTS

    def enter(shared: list[Any], stop: threading.Event) -> None:
        try:
            for i in range(ROUNDS):
                with ExitStack() as stack:
                    if i % 2:
                        shared[:] = [stack.enter_context(box)]
                    else:
                        with box as inside:
                            shared[:] = [inside]
                            assert inside.uts.type == UTS
                            del inside
                assert place() == before
        finally:
            stop.set()

    shared: list[Any] = []
    stop = threading.Event()
    raised = at_once(lambda: enter(shared, stop), *[lambda: meddle(shared, stop)] * (THREADS - 1))
    assert raised == [None] * THREADS
    shared.clear()
    gc.collect()


@support.needs_root
def test_guard_that_dies_on_another_thread_while_its_block_is_left_by_name() -> None:
    before = place()
    box = Namespace(UTS)

    def enter(shared: list[Any]) -> None:
        for _ in range(ROUNDS):
            shared.append(box.__exit__)
            box.__enter__()
            with suppress(RuntimeError):  # it died before, and the block is an orphan
                box.__exit__(None, None, None)
            with box:
                pass
            assert place() == before

    def drop(shared: list[Any], stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(IndexError):
                shared.pop()

    shared: list[Any] = []
    stop = threading.Event()

    def enter_and_stop() -> None:
        try:
            enter(shared)
        finally:
            stop.set()

    assert at_once(enter_and_stop, lambda: drop(shared, stop)) == [None, None]


@support.needs_root
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="without a GIL the thread that made an object is often the one that frees it",
)
def test_block_whose_guard_died_on_another_thread_cannot_be_left_by_name() -> None:
    before, box = place(), Namespace(UTS)
    held = [box.__exit__]
    box.__enter__()
    assert on_thread(held.clear) is None
    with pytest.raises(RuntimeError, match="not entered, or was left already"):
        box.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="no block of this recipe"):
        Namespace.__exit__(box, None, None, None)
    with box:
        pass
    assert place() == before


@support.needs_root
def test_first_blocks_of_several_threads(leak_check: None) -> None:
    for _ in range(10):
        box = Namespace(UTS, hostname="x")

        def body(box: Namespace = box) -> None:
            before = place()
            with box as inside:
                assert inside.uts == nsutil.current(UTS)
            assert place() == before

        assert at_once(*[body] * THREADS) == [None] * THREADS
    gc.collect()


def test_child_that_several_threads_wait_for_and_end(leak_check: None) -> None:
    for i in range(10):
        child = _ns.Child()
        child.fork(int, (None,) * 4)
        bodies = [child.end, child.wait, lambda child=child: child.wait(0.005), child.end]
        raised = at_once(*bodies[i % 2 :], child.end)
        assert set(raised) == {None}
        assert (child.pid, child.pidfd, child.channel) == (0, -1, -1)


def test_child_that_several_threads_fork(leak_check: None) -> None:
    child = _ns.Child()
    raised = at_once(*[lambda: child.fork(int, (None,) * 4)] * THREADS)
    assert [type(e) for e in raised].count(RuntimeError) == THREADS - 1
    assert raised.count(None) == 1
    assert child.wait() == 0
    child.end()


def test_descriptors_that_several_threads_close_are_closed_once(leak_check: None) -> None:
    for _ in range(ROUNDS):
        file = nsutil.current(NET)
        opened: list[int] = []

        def body(file: nsutil.NamespaceFile = file, opened: list[int] = opened) -> None:
            file.close()
            opened.append(os.open("/dev/null", os.O_RDONLY))

        assert at_once(*[body] * THREADS) == [None] * THREADS
        for fd in opened:
            os.close(fd)  # fails where somebody else has closed it


def test_set_that_several_threads_close_ends_once(leak_check: None) -> None:
    for _ in range(ROUNDS):
        ended: list[int] = []
        group = nsutil.NamespaceSet({NET: nsutil.current(NET)}, lambda ended=ended: ended.append(1))
        assert at_once(*[group.close] * THREADS) == [None] * THREADS
        assert ended == [1]


def test_plan_of_a_list_that_changes() -> None:
    numbers = list(range(100_000, 100_060))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            numbers.clear()
            numbers.extend(range(100_000, 100_060))

    def plan() -> None:
        try:
            for _ in range(500):
                _ns.Plan([("setgroups", (len(numbers), numbers), -1, 0)])
        finally:
            stop.set()

    assert at_once(plan, change) == [None, None]


def test_message_from_no_descriptor() -> None:
    """poll(2) takes -1 for a reason to wait."""
    for fd in -1, -7:
        with pytest.raises(OSError, match="Bad file descriptor") as info:
            _ns.receive(fd)
        assert info.value.errno == errno.EBADF
