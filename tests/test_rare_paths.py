"""Ways through the code that nobody takes on purpose: what is dropped, refused, or older than this kernel."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import in_child, needs_root, ns_inodes

from nsutil import IPC, UTS, Namespace, RestoreError

pytestmark = needs_root


def moved(before: dict[str, int | None]) -> set[str]:
    return {name for name, inode in ns_inodes().items() if inode != before[name]}


def on_thread(func: Callable[[], object]) -> None:
    thread = threading.Thread(target=func)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


# Blocks that are entered by hand, as `with` does, and dropped


def enter_by_hand(types: Any = UTS) -> list[Any]:
    """All there is of a block that was entered: its exit, to be called or dropped."""
    box = Namespace(types)
    leave = box.__exit__
    box.__enter__()
    return [leave]


def test_dropped_block_is_left() -> None:
    before = ns_inodes()
    held = enter_by_hand(UTS | IPC)
    assert moved(before) == {"uts", "ipc"}
    held.clear()
    assert moved(before) == set()


def test_block_dropped_on_another_thread_is_left_by_its_owners_next() -> None:
    before = ns_inodes()
    held = enter_by_hand()
    on_thread(held.clear)
    assert moved(before) == {"uts"}, "another thread cannot leave it"
    with Namespace(IPC):
        assert moved(before) == {"ipc"}
    assert moved(before) == set()


def test_block_dropped_in_a_forked_child_is_left_by_nobody() -> None:
    """The child stays where it was forked, and has no descriptor of the block's left; the parent's block holds."""

    def child(drop: Callable[[Callable[[], object]], object]) -> set[str]:
        count = len(os.listdir("/proc/self/fd"))
        drop(held.clear)
        with Namespace(IPC):
            pass
        assert len(os.listdir("/proc/self/fd")) == count - 1
        return moved(before)

    before = ns_inodes()
    held = enter_by_hand()
    assert in_child(child, lambda func: func()) == {"uts"}
    assert in_child(child, on_thread) == {"uts"}
    assert moved(before) == {"uts"}
    held.clear()
    assert moved(before) == set()


def test_dropped_block_that_cannot_be_left_is_shown_and_marks_the_thread() -> None:
    def body() -> tuple[str, str, str]:
        shown = []
        sys.unraisablehook = shown.append
        held = enter_by_hand()
        for name in os.listdir("/proc/self/fd"):
            if "uts:[" in _target(name):
                os.close(int(name))
        try:
            raise KeyError("on the way when it is dropped")
        except KeyError as error:
            held.clear()
            kept = repr(error)
        with pytest.raises(RestoreError) as info, Namespace(IPC):
            pass
        return type(shown[0].exc_value).__name__, str(info.value), kept

    kind, text, kept = in_child(body)
    assert kind == "RestoreError"
    assert "uts" in text
    assert "on the way" in kept


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_exit_without_a_block_says_so(leak_check: None) -> None:
    box = Namespace(UTS)
    with pytest.raises(RuntimeError, match="not entered"):
        box.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="no block of this recipe"):
        Namespace.__exit__(box, None, None, None)
    with pytest.raises(TypeError, match="recipe"):
        Namespace.__exit__()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no arguments"):
        box.__enter__(1)  # type: ignore[call-arg]


def test_exit_by_name_leaves_the_innermost_block() -> None:
    before, box = ns_inodes(), Namespace(UTS)
    with box:
        outer = ns_inodes()
        with box:
            assert moved(outer) == {"uts"}
            Namespace.__exit__(box, None, None, None)
            assert moved(outer) == set()
            box.__enter__()
    assert moved(before) == set()
