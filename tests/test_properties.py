"""Any object into every constructor and C entry point: what comes out is a value or a documented exception."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import support
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nsutil
from nsutil import _ns, _pidns, jupyter, named
from nsutil._checks import CHECKS
from nsutil._filter import compile_filter
from nsutil._idmap import fill, parse_map, text_of
from nsutil._leaks import Held
from nsutil._names import check_name
from nsutil._privilege import has_capability
from nsutil._probe import Facts
from nsutil._recipe import DEFAULTS
from nsutil._types import NAMES, each, parse_type, parse_types
from nsutil.cli import _args, lsns, unshare
from nsutil.cli.demo import _capabilities

# Under a sanitizer each example takes ten times as long.
FEWER = 8 if support.SANITIZED else 1

settings.register_profile(
    "nsutil",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60 // FEWER,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("nsutil")

BAD = (TypeError, ValueError)


class Raises:
    """Fails wherever it can be asked for anything."""

    def _fail(self, *args: object) -> Any:
        raise ZeroDivisionError

    __index__ = __int__ = __fspath__ = __iter__ = __len__ = __getitem__ = __bool__ = fileno = __float__ = _fail


class Lies:
    """Answers with what nobody may answer."""

    def __index__(self) -> Any:
        return 2**70

    def fileno(self) -> Any:
        return "3"

    def __fspath__(self) -> Any:
        return "a\0b"

    def __iter__(self) -> Any:
        return iter([self, None])


class Text(str):
    """Not quite a str."""


class Number(int):
    """Not quite an int."""


EDGES = sorted(
    {sign * (2**bits + d) for bits in (0, 7, 15, 31, 32, 33, 63, 64, 1100) for d in (-1, 0, 1) for sign in (1, -1)}
)
numbers = st.one_of(st.sampled_from(EDGES), st.integers(), st.integers(-5, 70).map(Number))
texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", ".", "..", "/", "a\0b", "\ud800", "x" * 300, "root", "auto", "none", "target", "TERM", *NAMES]
    ),
    st.sampled_from([*CHECKS, "0:0:1", "0,0,1", "64m", "CAP_KILL", "private", "allow", "/proc", "a/../b"]).map(Text),
)
simple = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.floats(),
    texts,
    st.binary(max_size=20),
    st.complex_numbers(),
    st.builds(object),
    st.builds(Lies),
    st.just(int),
    st.builds(nsutil.IdMap, st.integers(0, 9), st.integers(0, 9), st.integers(1, 3)),
    st.builds(nsutil.Proc),
)
anything = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(st.integers() | st.text(max_size=3), max_size=3),
        st.dictionaries(st.integers(-1, 20) | st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


def attempt(
    call: Callable[..., Any], *args: Any, allowed: tuple[type[BaseException], ...] = BAD, **options: Any
) -> Any:
    """The value, or None after an exception that is allowed; any other one fails the test."""
    try:
        return call(*args, **options)
    except allowed:
        return None


def round_trips(value: Any) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert hash(again) == hash(value)
    assert repr(again) == repr(value)


# ---------------------------------------------------------------- the recipe

LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "uid_map": st.lists(st.tuples(*[st.integers(0, 2**32)] * 3) | st.sampled_from(["root", "auto", "all"]), max_size=3),
    "hostname": st.text(max_size=70),
    "monotonic": numbers | st.floats(),
    "rlimits": st.dictionaries(st.integers(0, 15), st.tuples(st.integers(-1, 9), st.integers(-1, 9)), max_size=3),
    "groups": st.lists(st.integers(-1, 2**32), max_size=3),
    "ambient": st.lists(st.integers(-1, 70) | st.sampled_from(["net_admin", "CAP_KILL"]), max_size=3),
    "timeout": numbers | st.floats(),
    "propagation": st.sampled_from(["private", "slave", "shared", "unchanged"]),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_any_option(name: str) -> None:
    @settings(max_examples=40 // FEWER)
    @given(LIKELY.get(name, anything) | anything)
    def check(value: Any) -> None:
        recipe = attempt(nsutil.Namespace, nsutil.ALL, **{name: value})
        if recipe is not None and name not in ("root", "cwd", "cgroup"):
            round_trips(recipe)
        if recipe is not None:
            assert recipe.replace() == recipe

    check()


@given(st.lists(st.sampled_from(list(NAMES))), st.dictionaries(st.sampled_from(list(DEFAULTS)), anything, max_size=4))
def test_any_options_together(new: list[str], options: dict[str, Any]) -> None:
    recipe = attempt(nsutil.Namespace, new, **options)
    if recipe is not None:
        assert hash(recipe) == hash(recipe.replace())
        assert repr(recipe).startswith("Namespace(")


@given(anything)
def test_any_types(value: Any) -> None:
    for parse in parse_types, parse_type, nsutil.Namespace, nsutil.current:
        attempt(parse, value)
    types = attempt(parse_types, value)
    if types is not None:
        assert parse_types(str(t) for t in each(types)) == types
        round_trips(nsutil.Namespace(types))


ENTER = (*BAD, OSError, OverflowError)


@given(st.sampled_from(["target", "pid", "pidfd", "path", "name", "fd"]), anything, st.none() | anything)
def test_any_target(key: str, value: Any, types: Any) -> None:
    if key == "target" and isinstance(value, int) and value == os.getpid():
        return
    attempt(nsutil.enter, types=types, **{key: value}, allowed=ENTER)
    attempt(nsutil.Namespace, enter=value, allowed=ENTER)
    attempt(nsutil.open, value, types, allowed=ENTER)
    attempt(nsutil.NamespaceFile, value, allowed=ENTER)


# -------------------------------------------------------------------- values

VALUES = [nsutil.IdMap, nsutil.Bind, nsutil.Tmpfs, nsutil.Proc, nsutil.Sysfs, nsutil.Dev, nsutil.Mqueue]
VALUES += [nsutil.Overlay, nsutil.File, nsutil.Symlink, nsutil.Remount]
PATHS = st.sampled_from(["/a", "b", "/a/../b", b"/c", "64m", 64, True]) | anything


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_any_value(kind: type) -> None:
    @given(st.lists(PATHS, max_size=4))
    def check(args: list[Any]) -> None:
        value = attempt(kind, *args)
        if value is not None:
            round_trips(value)
            assert eval(repr(value), vars(nsutil)) == value

    check()


@given(st.integers(-1, 2**33), st.integers(-1, 2**33), st.integers(-1, 2**33))
def test_id_maps_are_within_the_kernel_s_range(inside: int, outside: int, count: int) -> None:
    entry = attempt(nsutil.IdMap, inside, outside, count)
    possible = count > 0 and min(inside, outside) >= 0 and max(inside, outside) + count <= 2**32 - 1
    assert (entry is not None) == possible
    if entry is not None:
        assert (
            parse_map(f"{inside}:{outside}:{count}", "uid") == parse_map([(inside, outside, count)], "uid") == (entry,)
        )


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9))), st.lists(st.integers(0, 20), unique=True, max_size=5)
)
def test_fill_overlaps_nothing(ranges: list[tuple[int, int]], taken: list[int]) -> None:
    made = fill(ranges, [nsutil.IdMap(inside, 1000 + inside) for inside in taken])
    insides = [entry.inside + i for entry in made for i in range(entry.count)]
    assert len(set(insides) | set(taken)) == len(insides) + len(taken)
    assert sum(entry.count for entry in made) == sum(count for _, count in ranges)
    assert text_of(made).count("\n") == len(made)


@given(anything)
def test_any_map(value: Any) -> None:
    stored = attempt(parse_map, value, "uid")
    if stored is not None:
        assert parse_map(stored, "uid") == stored


@given(anything, anything)
def test_any_name(name: Any, nstype: Any) -> None:
    text = attempt(check_name, name)
    if text is not None:
        assert "/" not in text
        assert 0 < len(os.fsencode(text)) <= 255
    for call in named.open, named.pids:
        attempt(call, name, nstype, allowed=(*BAD, FileNotFoundError))
    attempt(named.list, nstype)


# ------------------------------------------------------------------- filters

WORDS = "type inode nprocs command nsfs owner and or not in == != < =~ !~ ( ) , 'net' 1 2K true none ! && || eq".split()


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=12).map(" ".join) | anything)
def test_any_filter(expression: Any) -> None:
    test = attempt(compile_filter, expression)
    if test is not None:
        for info in NAMESPACES[:5]:
            assert test(info) in (True, False)


NAMESPACES = nsutil.snapshot(fds=False, sockets=False).namespaces


# ------------------------------------------------------------- C entry points

# What the C code may raise for any object at all; never SystemError.
FROM_C = (TypeError, ValueError, OverflowError, OSError, AttributeError, ZeroDivisionError, MemoryError)
wild = anything | st.builds(Raises)
OPS = ["openat", "close", "mount", "write", "setgroups", "umask", "mkdirat", "pivot", "mount_root", "ioctl", "nothing"]


@given(
    st.lists(st.tuples(st.sampled_from(OPS) | wild, st.lists(wild, max_size=6).map(tuple) | wild, wild, wild) | wild)
    | wild
)
def test_any_plan(steps: Any) -> None:
    plan = attempt(_ns.Plan, steps, allowed=FROM_C)
    if plan is not None:
        assert len(plan) == len(tuple(steps))


@pytest.mark.parametrize("name", ["openat", "mount", "setgroups", "write", "ioctl"])
def test_any_arguments(name: str) -> None:
    @given(st.lists(wild, min_size=2, max_size=5))
    def check(args: list[Any]) -> None:
        plan = attempt(_ns.Plan, [(name, tuple(args), -1, 0)], allowed=FROM_C)
        assert plan is None or len(plan) == 1

    check()


@given(wild, wild)
def test_run_any_plan(plan: Any, slots: Any) -> None:
    attempt(_ns.run_plan, plan, slots, allowed=FROM_C)
    assert attempt(_ns.run_plan, _ns.Plan([]), slots, allowed=FROM_C) is None


ASKING = [name for name in vars(_ns) if name.startswith(("get_", "mnt_get", "nsfs_", "pidfd_get"))]
# Whatever these do to their process or its descriptors happens in a child.
ACTING = ["unshare", "setns", "hold_pid", "mount_id", "swap_mount", "filtered", "open_nsfs_handle", "socket_in"]
ACTING += [
    "check_thread",
    "open_in",
    "run_apart",
    "name_create",
    "inotify",
    "await_exit",
    "collect",
    "scan",
    "scan_details",
    "send",
    "release",
    "swap",
    "open_own",
    "open_proc",
    "check_thread",
]
NOT_HERE = [
    "clone",
    "receive",
    "run",
    "spawn",
    "chrooted",
    "Plan",
    "run_plan",
    "Child",
    "Block",
    "Guard",
    "newer_calls",
]


def test_no_entry_point_is_missing() -> None:
    public = {name for name, value in vars(_ns).items() if callable(value) and not name.startswith("__")}
    assert public - {*ASKING, *ACTING, *NOT_HERE} == set()


def safe(value: Any) -> Any:
    """Not a descriptor that is open here, nor a time to wait."""
    return 10_000 if isinstance(value, int) and -1 <= value < 1000 else value


@pytest.mark.parametrize("name", ASKING)
def test_any_ioctl(name: str) -> None:
    @settings(max_examples=40 // FEWER)
    @given(st.lists(wild.map(safe), max_size=3))
    def check(args: list[Any]) -> None:
        attempt(getattr(_ns, name), *args, allowed=FROM_C)

    check()


@support.needs_root
@pytest.mark.parametrize("name", ACTING)
def test_any_call(name: str) -> None:
    @settings(max_examples=50 // FEWER)
    @given(st.lists(wild.map(safe), max_size=5))
    def check(args: list[Any]) -> None:
        attempt(getattr(_ns, name), *args, allowed=FROM_C)

    def body() -> None:
        support.private_run()
        check()

    support.in_child(body)


def _spawn_arguments() -> list[Any]:
    none = (None,) * 3
    return [(-1, -1, -1), none, (), 0, 0, 0, (b"true",), None, (b"/no/such",), -1, -1, -1, -1, ()]


@given(st.lists(st.tuples(st.integers(0, 13), wild.map(safe)), min_size=1, max_size=3))
def test_any_spawn(changes: list[tuple[int, Any]]) -> None:
    args = _spawn_arguments()
    for index, value in changes:
        args[index] = value
    # Flags would start something: there is nothing to run, so nothing stays.
    for index in 3, 4, 5:
        args[index] = 0 if isinstance(args[index], int) else args[index]
    attempt(_ns.spawn, *args, allowed=FROM_C)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@given(st.lists(wild, max_size=4), st.dictionaries(st.sampled_from(["clone_flags", "second", "watch"]), wild))
def test_any_child(args: list[Any], options: dict[str, Any]) -> None:
    child = _ns.Child()
    if args and callable(args[0]):
        args[0] = None
    attempt(child.fork, *args, **options, allowed=FROM_C + (RuntimeError,))
    child.end()
    attempt(_ns.Child, *args, allowed=FROM_C) if args else None
    attempt(partial(child.wait, *args[:1]), allowed=FROM_C + (RuntimeError,))


@given(wild, wild, wild)
def test_any_message(fd: Any, watch: Any, timeout: Any) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    attempt(_ns.receive, safe(fd), safe(watch), timeout, allowed=FROM_C)
    assert attempt(_ns.receive, reader, -1, 0 if isinstance(timeout, int) else timeout, allowed=FROM_C) is None
    os.close(reader)


@given(st.binary(max_size=40))
def test_any_bytes_as_a_message(data: bytes) -> None:
    """A peer may send what it likes, a length that no memory holds included."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    attempt(_ns.receive, reader, allowed=FROM_C)
    os.close(reader)


@given(st.binary(max_size=200), st.integers(0, 63))
def test_any_bytes_as_rows(data: bytes, flags: int) -> None:
    attempt(_ns.scan_details, data, flags, allowed=FROM_C)


# -------------------------------------------------------- what this has found


@pytest.mark.parametrize("name", ["monotonic", "boottime", "timeout"])
def test_ints_beyond_floats(name: str) -> None:
    recipe = attempt(nsutil.Namespace, nsutil.TIME, **{name: 10**400})
    assert recipe is None or recipe.timeout == float("inf")


@support.needs_root
@pytest.mark.parametrize("seconds", [1e12, float("inf"), 10**400], ids=["long", "endless", "beyond floats"])
def test_any_timeout_that_never_comes(seconds: float) -> None:
    box = nsutil.Namespace(nsutil.UTS, timeout=seconds)
    assert box.run(["true"]).returncode == 0
    assert box.call(int) == 0
    with box.popen(["true"]) as process:
        assert process.wait(min(seconds, 1e300)) == 0


@pytest.mark.parametrize("value", [({},), ((1,),), ([],), ((0, 1, 2),)])
def test_rlimits_are_a_dict(value: Any) -> None:
    with pytest.raises(TypeError, match="rlimits must be a dict"):
        nsutil.Namespace(rlimits=value)


@support.needs_root
@pytest.mark.parametrize(
    "name", [b"a\rb", b"a\x0bb\x0cc\x1cd", "a\x85b\u2028c\xa0d".encode(), b"a\xff\xfeb", b"a b\n#\\c"]
)
def test_any_mount_point_is_read(name: bytes) -> None:
    """The kernel escapes space, tab, newline and backslash; whatever else breaks lines in Python stays as it is."""

    def body() -> None:
        support.private_run()
        path = b"/run/" + name
        os.mkdir(path)
        support.must("mount", b"none", path, b"tmpfs", 0, None)
        with nsutil.current(nsutil.MNT) as here:
            assert os.fsdecode(path) in [mount.target for mount in here.mounts()]
        assert path.decode(errors="replace") in [mount.point for mount in Facts().mounts]
        assert Held().leaked() == []
        assert nsutil.run(["true"], enter=os.getppid(), cgroup=True).returncode == 0

    support.in_child(body)


@pytest.mark.parametrize("length", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_message_that_no_memory_holds(length: int) -> None:
    reader, writer = os.pipe()
    os.write(writer, bytes(8) + length.to_bytes(8, sys.byteorder))
    os.close(writer)
    with pytest.raises(MemoryError):
        _ns.receive(reader)
    os.close(reader)


def test_a_number_too_long_for_python() -> None:
    for parse, argv in (unshare.parse, ["-S", "9" * 5000]), (lsns.parse, ["9" * 5000]):
        with pytest.raises(_args.CommandError):
            parse(argv)


@pytest.mark.parametrize("value", ["{[]: 1}", "(" * 500, "[" * 150 + "]" * 150])
def test_what_looks_like_a_literal(value: str) -> None:
    pytest.importorskip("IPython")
    found = attempt(jupyter.parse_line, f"uts --hostname '{value}'")
    assert found is None or found[0].hostname == value


@pytest.mark.parametrize(
    "name", [b"a\rCapEff:\t0", b"a\rNSpid:\t1\t7", "a\x85CapEff:\t0".encode(), b"\xff\xfe"], ids=ascii
)
def test_a_process_s_name_forges_nothing(name: bytes) -> None:
    """The name is the first line of its status file, where the kernel escapes a newline alone."""

    def told() -> list[Any]:
        return [has_capability(1), _pidns._numbers(os.getpid()), Facts().status("CapEff"), _capabilities()]

    def body() -> None:
        before = told()
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)  # PR_SET_NAME
        assert told() == before

    support.in_child(body)


def test_nothing_is_said_when_the_interpreter_ends() -> None:
    """Objects that live to the end outlive the modules that their methods use."""
    code = "import nsutil, builtins; cycle = [nsutil.current('net')]; cycle.append(cycle); builtins.kept = cycle"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


TARGETS = (
    "box doctor environment filter idmap lsns message mountinfo netns nsenter options subuid tree types unshare"
).split()


@pytest.mark.parametrize("target", TARGETS)
def test_targets_of_the_fuzzer(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads its seeds, and rejects nothing but by what it documents."""
    monkeypatch.syspath_prepend(str(support.ROOT / "fuzz"))
    import targets

    chosen = targets.TARGETS[target]
    for seed in chosen.seeds:
        chosen.read(seed)

    @given(st.binary(max_size=40))
    def check(data: bytes) -> None:
        chosen(data)

    check()


@pytest.mark.parametrize("number", [1 << 64, -(1 << 63) - 1, 1 << 100])
def test_an_argument_of_a_step_is_never_cut_short(number: int) -> None:
    with pytest.raises(OverflowError):
        _ns.Plan([("close", (number,), -1, 0)])


@pytest.mark.parametrize("number", [(1 << 64) - 1, 1 << 63, -1, -(1 << 63)])
def test_an_argument_of_a_step_has_64_bits(number: int) -> None:
    assert _ns.run_plan(_ns.Plan([("prctl", (number, 0, 0, 0, 0), -1, 0)])) == (0, errno.EINVAL)
