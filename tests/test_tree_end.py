"""Trees of processes end with the process that started them, whenever that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import support
from support import in_child, needs_root
from tracing import Tree

from nsutil import MNT, PID, USER, UTS, Namespace, call, enter

# A tree that is still there after so many seconds without an event is there to stay.
PATIENCE = 30.0
POINTS = 16
NEVER = 1 << 30


def start_by_call(box: Namespace, ready: int) -> None:
    def func() -> None:
        os.write(ready, b"r")
        time.sleep(1000)

    box.call(func)


def start_in_a_thread(box: Namespace, ready: int) -> None:
    thread = threading.Thread(target=start_by_call, args=(box, ready))
    thread.start()
    thread.join()


def start_by_run(box: Namespace, ready: int) -> None:
    box.run(["/bin/sh", "-c", f"echo >&{ready}; exec sleep 1000"], pass_fds=[ready])


def end_at(
    start: Callable[[Namespace, int], None], box: Namespace, point: int, child: bool = False
) -> tuple[int, str, list[str]]:
    """The caller, or its child, is killed when the point-th system call of the tree begins or is over.

    How many there were until what was started said so, which one it was, and who was left.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    tree = Tree(lambda: start(box, writer))
    count, where, ready, first = 0, "", False, 0
    try:
        for pid in tree.stops(PATIENCE):
            count += 1
            first = first or pid
            if count == point:
                where = Path(f"/proc/{pid}/comm").read_text() + Path(f"/proc/{pid}/syscall").read_text()
                tree.end_process(first if child else tree.root)
            elif not where and not ready:
                ready = bool(_read(reader))
            if ready and not where:
                break
        return count, where, [_described(pid, tree) for pid in tree.living] if where else []
    finally:
        tree.end()
        os.close(reader)
        os.close(writer)


def _described(pid: int, tree: Tree) -> str:
    """A process that is left, and where it is."""
    about = "the caller" if pid == tree.root else str(pid)
    for name in "comm", "syscall", "wchan", "stat":
        try:
            about += " " + Path(f"/proc/{pid}/{name}").read_text().strip()
        except OSError as error:
            about += f" {error}"
    return about


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1)
    except BlockingIOError:
        return b""


SHAPES = [
    pytest.param(start_in_a_thread, {"new": PID}, id="call-PID"),
    pytest.param(start_by_call, {"new": PID | USER | MNT, "uid_map": "root"}, id="call-USER"),
    pytest.param(start_by_call, {"new": PID, "kill_child": True, "init": False}, id="call-no init"),
    pytest.param(start_in_a_thread, {"kill_child": True}, id="call-True"),
    pytest.param(start_by_call, {"new": PID, "kill_child": "TERM"}, id="call-TERM"),
    pytest.param(start_by_run, {"new": PID}, id="run-PID"),
    pytest.param(start_by_run, {"new": UTS, "kill_child": True}, id="run-True"),
]


@needs_root
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("start", "options"), SHAPES)
@pytest.mark.incident("A22")
def test_wherever_the_tree_is_when_its_caller_ends(
    start: Callable[[Namespace, int], None], options: dict[str, object]
) -> None:
    def body() -> list[object]:
        box = Namespace(**options)  # type: ignore[arg-type]
        total = end_at(start, box, NEVER)[0]
        ends = (end_at(start, box, point) for point in range(1, total, max(1, total // POINTS)))
        return [(count, where, left) for count, where, left in ends if left]

    assert in_child(body, timeout=280) == []


@needs_root
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "options", [{"new": PID, "kill_child": False}, {"new": PID, "init": False}, {"kill_child": True}], ids=str
)
@pytest.mark.incident("A22")
def test_wherever_the_tree_is_when_its_first_process_is_killed(options: dict[str, object]) -> None:
    def body() -> list[object]:
        box = Namespace(**options)  # type: ignore[arg-type]
        total = end_at(start_by_call, box, NEVER)[0]
        ends = (end_at(start_by_call, box, point, child=True) for point in range(1, total, 3))
        return [(count, where, left) for count, where, left in ends if left]

    assert in_child(body, timeout=280) == []


# A parent in an outer PID namespace is 0 to getppid(2), and its number somebody else's.


@needs_root
@pytest.mark.parametrize(
    "options",
    [{"kill_child": True}, {"new": PID}, {"new": PID, "kill_child": "TERM"}, {"new": PID, "init": False}],
    ids=str,
)
@pytest.mark.incident("A22")
def test_a_call_from_outside_of_the_childs_pid_namespace(options: dict[str, object]) -> None:
    def body() -> int:
        with Namespace(PID).create() as held, enter(held, PID):
            return call(os.getppid, **options)  # type: ignore[arg-type]

    assert in_child(body) in (0, 1, 2)


@needs_root
@pytest.mark.incident("A22")
def test_it_ends_with_a_caller_that_sits_outside_of_its_pid_namespace() -> None:
    def body() -> list[object]:
        with Namespace(PID).create() as held:
            box = Namespace(UTS, enter=enter(held, PID), kill_child=True)
            count = end_at(start_by_call, box, NEVER)[0]
            ends = [end_at(start_by_call, box, point) for point in range(count // 2, count, 5)]
        return [(where, left) for _, where, left in ends if left]

    assert in_child(body, timeout=100) == []


# An exec that gains capabilities makes the kernel forget what to send when the parent ends.


def drop_capability(number: int) -> None:
    """From the sets of this process but the bounding set: exec gives it back to root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    sets = list(struct.unpack("6I", data.raw))
    sets[:2] = [each & ~(1 << number) for each in sets[:2]]
    assert libc.capset(header, struct.pack("6I", *sets)) == 0


@needs_root
@pytest.mark.parametrize("options", [{}, {"new": PID}], ids=["plain", "PID"])
@pytest.mark.incident("A39")
def test_a_signal_for_a_caller_without_all_capabilities(options: dict[str, object], tmp_path: Path) -> None:
    def func() -> None:
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / "term").touch())
        (tmp_path / "started").touch()
        wait_for(tmp_path / "term")

    pid = support.fork()
    if pid == 0:
        try:
            drop_capability(13)  # CAP_NET_RAW
            call(func, kill_child="TERM", **options)  # type: ignore[arg-type]
        finally:
            os._exit(0)
    assert wait_for(tmp_path / "started")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert wait_for(tmp_path / "term")


def wait_for(path: Path) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.exists()
