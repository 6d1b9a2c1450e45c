"""Every public call, many times over: no descriptor, child, thread, mount or namespace more, and no memory."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from types import FrameType, ModuleType

import pytest
import support
from every_call import CALLS, NEEDS, PROGRAMS, Call, distinct, grouped
from support import needs_kernel, needs_root

import nsutil
from nsutil import MNT, UTS, Namespace, pytest_plugin
from nsutil.__main__ import COMMANDS
from nsutil._leaks import Held

pytestmark = needs_root

# Values are made, compared and shown all the time, and hold nothing.
ALWAYS = {
    f"__{name}__" for name in "init new init_subclass setattr delattr eq hash repr str dir getnewargs replace".split()
} | {"__annotate_func__"}  # of named tuples, from 3.14 on


def members(cls: type) -> Iterator[str]:
    """Methods and properties, once each; also those that syntax calls."""
    found = set()
    for base in cls.__mro__:
        if base.__module__.startswith("nsutil"):
            for name, value in vars(base).items():
                if name.startswith("_") and (not name.endswith("__") or name in ALWAYS):
                    continue
                if inspect.isroutine(value) or isinstance(value, property) or name == "__exit__":
                    found.add(name)
    yield from found


def public(module: ModuleType, prefix: str = "") -> Iterator[str]:
    """All that can be called in a module, with the methods and properties of its classes; no exceptions, no flags."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if name.startswith("_"):
            continue
        if inspect.ismodule(value):
            yield from public(value, f"{name}.")
        elif not callable(value) or (isinstance(value, type) and issubclass(value, (BaseException, int))):
            continue
        else:
            yield prefix + name
            found = members(value) if isinstance(value, type) else ()
            yield from (f"{prefix}{name}.{member}" for member in found)


def everything() -> set[str]:
    commands = {f"nsutil {name}" for name in COMMANDS}
    fixtures = {f"pytest_plugin.{name}" for name in vars(pytest_plugin) if name.startswith("ns_")}
    return {*public(nsutil), *commands, *fixtures}


def test_none_is_missing() -> None:
    assert sorted(everything() ^ (CALLS | PROGRAMS).keys()) == []


def code_of(name: str) -> object:
    """What a profile function is told when that is called; None for classes and for what C code is called by."""
    *path, last = name.split(".")
    value, where = None, nsutil
    for part in path:
        where = getattr(where, part)
    value = inspect.getattr_static(where, last) if isinstance(where, type) else getattr(where, last)
    value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    return getattr(value, "__code__", value if inspect.isbuiltin(value) else None)


def not_called(call: Call) -> list[str]:
    """Call it once; the names that it stands for and that it does not call."""
    seen: set[object] = set()

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_call"):
            seen.add(frame.f_code if event == "call" else arg)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    wanted = {name: code_of(name) for name, each in CALLS.items() if each is call}
    return [f"{name} was not called" for name, code in wanted.items() if code is not None and code not in seen]


def test_one_that_is_not_called_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def call() -> None:
        nsutil.IdMap(0, 0, 1)

    names = "IdMap", "IdMap.line", "unshare", "run", "named.list"
    for name in names:
        monkeypatch.setitem(CALLS, name, call)
    assert sorted(not_called(call)) == sorted(f"{name} was not called" for name in names[1:])


def test_a_missing_one_would_be_noticed() -> None:
    source = """
class Thing:
    def method(self): ...
    def _private(self): ...
    def __iter__(self): ...
    def __repr__(self): ...
    attribute = property()
    number = 7
    class_method = classmethod(method)

class Error(Exception): ...
def function(): ...
def _private(): ...
"""
    module = ModuleType("nsutil.added")
    exec(source, vars(module))
    names = ["Thing", "Thing.__iter__", "Thing.attribute", "Thing.class_method", "Thing.method", "function"]
    assert sorted(public(module)) == names
    package = ModuleType("nsutil.package")
    package.__dict__.update(__all__=["added", "number"], added=module, number=7)
    assert sorted(public(package)) == [f"added.{name}" for name in names]


def repeat(call: Call, times: int) -> None:
    for _ in range(times):
        call()


# coverage keeps what it counts.
BLOCKS_TELL = not support.COUNTED and sys.getallocatedblocks() > 0


def blocks() -> int:
    """Pieces of memory that Python has given out, without names that it keeps for the next look-up of an attribute."""
    gc.collect()
    gc.collect()  # without a GIL some of what the first one freed is given back here
    (getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache)()
    return sys.getallocatedblocks() if BLOCKS_TELL else 0


def blocks_kept(call: Call, times: int) -> int:
    """How many more there are after some calls."""
    before = blocks()
    repeat(call, times)
    return blocks() - before


CHEAP, COSTLY = 100, 6


def leaks_of(call: Call) -> list[str]:
    """What several more calls leave, after some for the caches. Run in a child of its own."""
    warnings.simplefilter("ignore", DeprecationWarning)
    support.private_run()
    missing = not_called(call)
    held = Held.now()
    start = time.monotonic()
    call()
    took = time.monotonic() - start
    times = CHEAP if took < 0.0005 else COSTLY if took < 0.2 else 3  # to count takes up to two pieces
    for _ in range(4):
        kept = blocks_kept(call, times)
        if kept < times:  # else it may be another cache that fills: that ends
            break
    return missing + held.leaked() + [f"{kept} pieces of memory after {times} calls"] * (kept >= times)


EACH = [
    pytest.param(call, id=name, marks=needs_kernel(*NEEDS.get(call, ())))
    for name, call in (grouped() | distinct(PROGRAMS)).items()
]


@pytest.mark.parametrize("call", EACH)
def test_nothing_is_left(call: Call) -> None:
    assert support.in_child(leaks_of, call, timeout=90) == []


KEPT: list[object] = []


def leave_descriptor() -> None:
    os.open("/dev/null", os.O_RDONLY)


def leave_child() -> None:
    if support.fork() == 0:
        os._exit(0)


def leave_thread() -> None:
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()


def leave_mount() -> None:
    support.must("mount", b"none", b"/run", b"tmpfs", 0, None)


def leave_namespace() -> None:
    KEPT.append(nsutil.current(UTS))  # or the next one but one would have its inode
    nsutil.unshare(UTS)


def leave_memory() -> None:
    KEPT.append(object())


@pytest.mark.parametrize(
    ("leave", "what"),
    [
        (leave_descriptor, "descriptor"),
        (leave_child, "child process"),
        (leave_thread, "thread"),
        (leave_mount, "mount /run"),
        (leave_namespace, "this thread in another uts namespace"),
        (leave_memory, "pieces of memory"),
    ],
)
def test_a_leak_would_be_noticed(leave: Call, what: str) -> None:
    if leave is leave_memory and not BLOCKS_TELL:
        pytest.skip("this interpreter's allocator says nothing of use")
    found = support.in_child(leaks_of, leave)
    assert any(what in line for line in found), found


@needs_kernel("ns-id")
def test_a_new_namespace_with_an_old_inode_would_be_noticed() -> None:
    def body() -> list[str]:
        nsutil.unshare(UTS)
        held = Held.now()
        for _ in range(2):
            nsutil.unshare(UTS)
        return held.leaked()

    found = support.in_child(body)
    assert len(found) == 1
    assert "this thread in another uts namespace" in found[0]


# Memory: what C allocates is not all seen by tracemalloc, what Python allocates is not all given back at once.

ROUNDS = 2000


def in_c() -> dict[str, Call]:
    from nsutil import _ns

    plan = _ns.Plan([("umask", (0o22,), 0, 0), ("close", ((1,),), -1, -1)])
    file = nsutil.current(MNT)
    rows = [("openat", (-100, b"/no", (3,), [1, 2], (b"a", b"b")), -1, 0)]
    box = Namespace(UTS)

    def bad_plan() -> None:
        with contextlib.suppress(TypeError, ValueError):
            _ns.Plan(rows)

    def bad_call() -> None:
        with contextlib.suppress(OSError):
            _ns.get_userns(-1)

    def block() -> None:
        with box:
            pass

    return {
        "Plan": lambda: _ns.Plan([("openat", (-100, b"x" * 100, (b"a",) * 20, [1, 2, 3]), -1, 0)]),
        "a bad Plan": bad_plan,
        "run_plan": lambda: _ns.run_plan(plan),
        "get_nstype": lambda: _ns.get_nstype(file),
        "a failing ioctl": bad_call,
        "nsfs_identity": lambda: _ns.nsfs_identity(file, True),
        "mnt_get_info": lambda: _ns.mnt_get_info(file),
        "mount_id": lambda: _ns.mount_id("/proc"),
        "filtered": lambda: _ns.filtered("unshare", 0),
        "a scan": lambda: _ns.scan(int(UTS), 0),
        "a block": block,
    }


def kilobytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def growth_of(call: Call) -> tuple[int, int]:
    """Bytes that Python's allocator, and kilobytes that the process has more after many rounds."""
    start = time.monotonic()
    repeat(call, 10)
    rounds = ROUNDS if time.monotonic() - start < 0.001 else ROUNDS // 20
    repeat(call, rounds // 4)
    resident = kilobytes()
    tracemalloc.start()
    repeat(call, 10)
    before = tracemalloc.get_traced_memory()[0]
    repeat(call, rounds // 4)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    repeat(call, rounds)
    return grown, kilobytes() - resident


IN_C = [pytest.param(name, marks=needs_kernel("mnt-next") if name == "mnt_get_info" else ()) for name in in_c()]


@support.unsanitized
@pytest.mark.parametrize("name", IN_C)
def test_no_memory_is_left(name: str) -> None:
    grown, resident = support.in_child(lambda: growth_of(in_c()[name]), timeout=60)
    assert grown < 16 * 1024
    assert resident < 2048
