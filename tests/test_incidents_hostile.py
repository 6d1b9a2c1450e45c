"""Attacks that were tried on nsutil itself (section D of docs/explanation/incidents.toml)."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import encodings
import errno
import inspect
import linecache
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support
import support_cli
from support import in_child, must, needs_root
from test_incidents_attacks import SECRET_SIZE, _stalk, secret

import nsutil
import nsutil.aio
from nsutil import IPC, MNT, NET, PID, TIME, USER, UTS, IdMap, Namespace, NSType, Tmpfs, enter, named
from nsutil import _preload as preload_module

RANGE = [IdMap(0, 100000, 1000)]


# D1: the owner of a namespace that is being made


def _stalked(start: Callable[[int], object]) -> str:
    """What a process of an ordinary user gets of this one's children while start(user) runs again and again."""

    def body() -> str:
        reader, writer = os.pipe()
        secret.raw = (b"-" * SECRET_SIZE) + b"\0"
        victim = os.getpid()
        attacker = support.fork()
        if attacker == 0:
            try:
                _stalk(victim, support.USER_ID, writer)
            finally:
                os._exit(0)
        assert os.read(reader, 1) == b"r"
        secret.raw = b"of the outside alone".ljust(SECRET_SIZE) + b"\0"
        for _ in range(40):
            start(support.USER_ID)
        os.kill(attacker, signal.SIGTERM)
        os.waitpid(attacker, 0)
        os.close(writer)
        return os.read(reader, 100).decode()

    return in_child(body, timeout=60)


def _owned(user: int, types: NSType, **options: Any) -> Namespace:
    return Namespace(types, owner=(user, user), uid_map=RANGE, gid_map=RANGE, **options)


@needs_root
@pytest.mark.incident("D1", "A2")
@pytest.mark.parametrize("types", [USER, USER | PID | MNT, support.with_time(USER | TIME | PID | MNT)], ids=str)
def test_d01_the_owner_gets_nothing_of_a_program_on_its_way(types: NSType) -> None:
    offsets = {"monotonic": 5} if types & TIME else {}
    assert _stalked(lambda user: _owned(user, types, **offsets).run(["/bin/true"], cwd="/")) == ""


@needs_root
@pytest.mark.incident("D1", "A2")
@pytest.mark.parametrize("types", [USER | UTS, USER | PID | MNT], ids=str)
def test_d01_the_owner_gets_nothing_of_a_function(types: NSType) -> None:
    assert _stalked(lambda user: _owned(user, types).call(int)) == ""


@needs_root
@support.needs_kernel("time")
@pytest.mark.incident("D1")
def test_d01_an_owner_has_its_clocks() -> None:
    box = _owned(support.USER_ID, USER | TIME | PID | MNT, monotonic=5, boottime=-7)
    said = box.run(["cat", "/proc/self/timens_offsets"], capture_output=True, text=True, cwd="/").stdout.split()
    assert said == ["monotonic", "5", "0", "boottime", "-7", "0"]
    assert box.call(lambda: Path("/proc/self/timens_offsets").read_text().split()) == said


# D2, D3: code of the inside in the process of a function, or of a block


def _fail() -> None:
    raise ValueError("on purpose")


@needs_root
@pytest.mark.incident("D2")
@pytest.mark.parametrize("way", ["call", "executor"])
def test_d02_a_traceback_runs_no_code_of_the_inside(tmp_path: Path, way: str) -> None:
    """Where the source of a function lies there is a file whose first line names a codec, which lies there, too."""
    root = tmp_path / "root"
    source = root / Path(__file__).relative_to("/")
    codec = root / Path(encodings.__path__[0]).relative_to("/") / "hostile.py"
    for path in source, codec:
        path.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("# coding: hostile\n" * 200)
    codec.write_text("import os\nos._exit(99)\n")
    box = Namespace(PID | MNT, root=root)
    with pytest.raises(ValueError, match="on purpose") as info:
        if way == "call":
            box.call(_fail)
        else:
            with box.executor() as pool:
                pool.submit(_fail).result()
    # The line that is shown was read outside.
    assert 'raise ValueError("on purpose")' in str(info.value.__cause__)


@needs_root
@pytest.mark.incident("D2")
def test_d02_source_files_are_text_inside(tmp_path: Path) -> None:
    """Whoever asks for source lines, as pytest and inspect do, gets those inside, and no codec of there."""
    source = tmp_path / "source.py"
    source.write_bytes(b"# coding: hostile\nx = '\xff'\n" + "y = 'ü'\n".encode())
    os.mkfifo(tmp_path / "fifo.py")
    box = Namespace(MNT, mounts=[Tmpfs("/mnt")])

    def look(path: Path) -> list[str]:
        return linecache.getlines(str(path))

    assert box.call(look, source) == ["# coding: hostile\n", "x = '\ufffd'\n", "y = 'ü'\n"]
    assert box.call(look, tmp_path / "fifo.py") == []
    assert box.call(look, tmp_path) == []
    assert box.call(lambda: inspect.getsource(_fail)).endswith('raise ValueError("on purpose")\n')


@needs_root
@pytest.mark.incident("D2")
def test_d02_every_frame_has_its_line_once(tmp_path: Path) -> None:
    def group() -> None:
        try:
            _fail()
        except ValueError as error:
            raise ExceptionGroup("both", [error, KeyError(1)]) from error

    with pytest.raises(ExceptionGroup) as far:
        Namespace(MNT, root=tmp_path).call(group)
    with pytest.raises(ExceptionGroup) as near:
        Namespace(MNT).call(group)
    lines = [[line for line in str(e.value.__cause__).splitlines() if "^^^" not in line] for e in (far, near)]
    assert lines[0] == lines[1]


@contextlib.contextmanager
def _hostile_mounts(directory: Path, marker: Path) -> Iterator[int]:
    """A process in a mount namespace where that directory has other modules, which leave a mark when they are run."""

    def prepare() -> None:
        support.private_mounts()
        names = [path.name for path in directory.glob("*.py")]
        must("mount", b"hostile", os.fsencode(directory), b"tmpfs", 0, None)
        for name in names:
            (directory / name).write_text(f"open({str(marker)!r}, 'a').write(__name__ + ' ')\n")

    with support.standing(prepare) as (pid, _):
        yield pid


@needs_root
@pytest.mark.incident("D3")
@pytest.mark.parametrize("way", ["block", "thread"])
def test_d03_a_block_elsewhere_loads_nothing_from_there(tmp_path: Path, way: str) -> None:
    package = Path(nsutil.__file__).parent
    marker = tmp_path / "marker"
    code = f"""
import sys, threading
sys.path[:0] = {sys.path!r}
import nsutil
from nsutil import MNT, UTS, enter
box = enter(pid=int(sys.argv[1]), types=MNT)

def look():
    for act in (
        lambda: nsutil.current(MNT).reference(),
        lambda: nsutil.run(["/bin/true"], new=UTS),
        lambda: nsutil.run(["/nonexistent"], new=UTS),
        lambda: nsutil.call(int, "7", new=UTS),
        lambda: nsutil.snapshot("uts").to_json(),
        lambda: nsutil.named.list(),
        lambda: nsutil.doctor.check(new="uts"),
    ):
        try:
            act()
        except OSError as error:
            assert error.filename == "/nonexistent", error

def in_block():
    with box as inside:
        inside.mnt.inode
        look()

def main():
    if sys.argv[2] == "thread":
        box.thread(look).result()
    else:
        in_block()

failed = []
threading.excepthook = lambda args: failed.append(args)
thread = threading.Thread(target=main)
thread.start()
thread.join()
sys.exit(f"failed: {{failed}}" if failed else 0)
"""
    with _hostile_mounts(package, marker) as pid:
        quiet = ["-W", "ignore::DeprecationWarning"]  # from 3.12 on call() warns beside threads
        command = [sys.executable, *quiet, "-c", code, str(pid), way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not marker.exists()


@needs_root
@pytest.mark.incident("D3")
def test_d03_a_module_that_cannot_be_read_outside_stops_nobody() -> None:
    """As in a process that has become another user, whose home directory its Python does not lie in."""
    code = """
import importlib, sys, nsutil
from nsutil import MNT, Namespace, Tmpfs
class Unreadable:
    def find_spec(name, path=None, target=None):
        if name in ("grp", "unicodedata", "html", "nsutil._netnsid"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Unreadable)
for name in ("grp", "unicodedata", "html"):
    sys.modules.pop(name, None)
print(Namespace(MNT, mounts=[Tmpfs("/mnt")]).call(int))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.incident("D3")
def test_d03_what_is_loaded_late_is_on_the_list() -> None:
    package = Path(nsutil.__file__).parent
    needed: set[str] = set()
    for path in package.glob("*.py"):
        if path.stem in preload_module._OWN:
            needed |= _imported(ast.parse(path.read_text()))
    never = {"__future__", "builtins", "os", "re", "sys", "concurrent.futures.process", "concurrent.futures"}
    # Those that a program asks for by name, if it wants them.
    extra = {"nsutil._preload", "nsutil._ns", "nsutil.jupyter"}
    listed = {*preload_module._OTHERS, *(f"nsutil.{name}" for name in preload_module._OWN)}
    assert needed - never - extra <= listed


def _imported(tree: ast.AST) -> set[str]:
    """What a module imports, also in its functions; not what only a type checker sees."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module))
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {f"nsutil.{name}" for name in names}
        found |= _imported(node)
    return found


# D4: what is merely called cgroup.procs


@needs_root
@pytest.mark.incident("D4")
@pytest.mark.parametrize("trap", ["symlink", "link", "fifo", "file"])
@pytest.mark.parametrize("by_descriptor", [False, True], ids=["path", "fd"])
def test_d04_only_a_cgroup_is_written_to(tmp_path: Path, trap: str, by_descriptor: bool) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "cgroup"
    victim.write_text("untouched")
    directory.mkdir()
    procs = directory / "cgroup.procs"
    if trap == "symlink":
        procs.symlink_to(victim)
    elif trap == "link":
        procs.hardlink_to(victim)
    elif trap == "fifo":
        os.mkfifo(procs)
    else:
        procs.write_text("untouched")
    fd = os.open(directory, os.O_RDONLY) if by_descriptor else -1
    try:
        for act in (
            lambda: nsutil.run(["true"], new=UTS, cgroup=fd if by_descriptor else directory),
            lambda: nsutil.call(int, new=UTS, cgroup=fd if by_descriptor else directory),
        ):
            with pytest.raises(OSError) as info:
                act()
            assert info.value.errno in (errno.ELOOP, errno.ENODEV, errno.ENXIO)
    finally:
        if fd >= 0:
            os.close(fd)
    assert victim.read_text() == "untouched"
    assert trap != "file" or procs.read_text() == "untouched"


def _files_of_cgroups() -> list[str]:
    """Those that this process holds open, and the cgroup it is in."""
    held = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of the listing
            held.append(os.readlink(f"/proc/self/fd/{fd}"))
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return [path for path in held if "cgroup" in path] + [line for line in lines if line.startswith("0::")]


@needs_root
@pytest.mark.incident("D4")
@pytest.mark.parametrize("new", [UTS, PID | MNT])
def test_d04_a_function_in_a_cgroup_does_not_hold_its_file(new: NSType) -> None:
    group = f"/mnt/nsutil-held-{os.getpid()}"

    def body() -> list[list[str]]:
        support.private_mounts()
        must("mount", b"none", b"/mnt", b"cgroup2", 0, None)
        os.mkdir(group)
        try:
            box = Namespace(new, cgroup=group)
            with box.executor() as pool:
                return [box.call(_files_of_cgroups), pool.submit(_files_of_cgroups).result()]
        finally:
            os.rmdir(group)

    assert in_child(body) == [[f"0::{group.removeprefix('/mnt')}"]] * 2


# D5: audit hooks see everything before it is done


def _in_block() -> None:
    with Namespace(UTS):
        pass


def _in_executor(kind: Any) -> None:
    with Namespace(UTS).executor(kind=kind) as pool:
        pool.submit(int).result()


def _create() -> None:
    Namespace(NET | IPC).create().close()


def _create_pid() -> None:
    Namespace(PID).create().close()


def _named(nstype: NSType) -> Callable[[], None]:
    return lambda: named.create("audited", nstype).close()


OPERATIONS: dict[str, Callable[[], object]] = {
    "block": _in_block,
    "thread": lambda: Namespace(UTS).thread(int).result(),
    "run": lambda: nsutil.run(["true"], new=UTS),
    "run captured": lambda: nsutil.run(["true"], new=UTS, capture_output=True),
    "run joined": lambda: enter(pid=1, types=UTS | NET).run(["true"]),
    "call": lambda: nsutil.call(int, new=UTS),
    "call pid": lambda: nsutil.call(int, new=PID),
    "executor": lambda: _in_executor("process"),
    "executor threads": lambda: _in_executor("thread"),
    "create": _create,
    "create pid": _create_pid,
    "named net": _named(NET),
    "named pid": _named(PID),
    "named mnt": _named(MNT),
    "named user": _named(USER),
    "attach": lambda: named.attach("audited", os.getpid(), UTS),
    "remove": lambda: named.remove("there", UTS),
    "unshare": lambda: nsutil.unshare(UTS),
    "clone": lambda: os.waitpid(pid, 0) if (pid := nsutil.clone(UTS)) else os._exit(0),
    "snapshot": lambda: nsutil.snapshot("uts"),
}
FORBIDDEN = ("nsutil.", "subprocess.Popen")


@needs_root
@pytest.mark.incident("D5")
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_d05_a_hook_sees_and_prevents(name: str) -> None:
    def body() -> tuple[list[str], str, bool]:
        support.private_run()
        named.create("there", UTS).close()
        forbidding = False
        seen: list[str] = []

        def hook(event: str, args: object) -> None:
            if event.startswith(FORBIDDEN) and event != "nsutil.plan":
                seen.append(event)
                if forbidding:
                    raise LookupError(event)

        sys.addaudithook(hook)
        before = support.ns_inodes(), support.children(), support.mounts(), named.list(UTS), threading.active_count()
        forbidding = True
        try:
            OPERATIONS[name]()
            outcome = "done"
        except LookupError as error:
            outcome = str(error)
        after = support.ns_inodes(), support.children(), support.mounts(), named.list(UTS), threading.active_count()
        return seen, outcome, before == after

    seen, outcome, same = in_child(body)
    assert seen
    assert seen[0] in outcome
    assert same


@pytest.mark.incident("D5")
def test_d05_no_system_call_is_made_ready_unseen() -> None:
    def body() -> list[Any]:
        seen: list[Any] = []
        sys.addaudithook(lambda event, args: seen.append(args[0]) if event == "nsutil.plan" else None)
        from nsutil import _ns

        steps = (("sethostname", (b"x", 1), -1, 0),)
        _ns.Plan(iter(steps))
        return [seen == [steps]]

    assert in_child(body) == [True]


# D6: what a hostile process can say about itself


def _point_environment_at(size: int) -> None:
    """Let /proc/self/environ be that much untouched memory (PR_SET_MM_MAP, prctl(2), which takes no right)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    start = libc.mmap(None, size, 1, 0x4022, -1, 0)
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    code = [int(stat[n - 3]) for n in (26, 27, 45, 46, 47)]
    # start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end env_start env_end
    brk = libc.sbrk
    brk.restype = ctypes.c_void_p
    words = [*code, brk(0), int(stat[28 - 3]), start, start + size, start, start + size]
    fields = (ctypes.c_uint64 * 13)(*words, 0, 0xFFFFFFFF << 32)  # no auxv, exe_fd -1
    if libc.prctl(35, 14, ctypes.byref(fields), 104, 0) < 0:
        pytest.skip(f"PR_SET_MM_MAP: {os.strerror(ctypes.get_errno())}")


@needs_root
@pytest.mark.incident("D6")
def test_d06_no_more_is_read_of_a_process_than_there_can_be() -> None:
    def hostile() -> None:
        must("unshare", int(UTS))
        _point_environment_at(1 << 30)

    with support.standing(hostile) as (pid, _):
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert len(file.read(10 << 20)) == 10 << 20
        with pytest.raises(OSError, match="more than") as info:
            enter(pid=pid, types=UTS, env="target").run(["true"])
        assert info.value.errno == errno.E2BIG


@needs_root
@pytest.mark.incident("D7")
def test_d07_a_number_that_is_a_strangers_by_now_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a process of the tree had ended, and its number been given away, after it was looked up."""
    from nsutil import _fork

    real = _fork._children
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        monkeypatch.setattr(_fork, "_children", lambda pid: [*real(pid), stranger.pid])
        with pytest.raises(subprocess.TimeoutExpired):
            nsutil.run(["sleep", "100"], new=UTS, timeout=0.2)
        assert stranger.poll() is None
        assert "T" not in Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[0]
    finally:
        stranger.kill()
        stranger.wait()


# Hints that can be followed, and times that are some


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return "; ".join(getattr(error, "__notes__", ["no hint"]))
    return "done"


def _in(box: Namespace) -> None:
    with box:
        pass


@needs_root
def test_a_hint_for_a_thread_says_what_can_be_done_there() -> None:
    def hints() -> dict[str, str]:
        acts = {
            "block": lambda: _in(Namespace(UTS)),
            "thread": lambda: Namespace(NET).thread(int).result(),
            "run": lambda: nsutil.run(["true"], new=UTS),
        }
        return {name: _outcome(act) for name, act in acts.items()}

    found = support.as_user(hints)
    assert "use run() or call() with USER among the types" in found["block"]
    assert "use run() or call() with USER among the types" in found["thread"]
    assert "add USER to the new namespaces" in found["run"]


@needs_root
@pytest.mark.parametrize("there", [False, True], ids=["none", "made"])
@pytest.mark.parametrize("nstype", [NET, UTS, PID, MNT], ids=str)
def test_a_user_is_told_that_names_are_the_machines(there: bool, nstype: NSType) -> None:
    def body() -> list[str]:
        support.private_run()
        if there:
            named.create("there", nstype).close()
        said = support.as_user(
            lambda: [
                _outcome(lambda: named.create("mine", nstype)),
                _outcome(lambda: named.attach("mine", os.getpid(), nstype)),
            ]
        )
        if there:  # PID 1 of a named PID namespace lives as long as its name, in this MNT namespace too
            named.remove("there", nstype)
        return said

    for hint in in_child(body):
        assert "names are the machine's" in hint


def _timed(value: float) -> list[Callable[[], object]]:
    return [
        lambda: nsutil.run(["sleep", "60"], timeout=value),
        lambda: Namespace().run(["sleep", "60"], timeout=value),
        lambda: asyncio.run(nsutil.aio.run(["sleep", "60"], timeout=value)),
    ]


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("-inf")])
def test_a_timeout_is_a_time(value: float) -> None:
    acts: list[Callable[[], object]] = [lambda: Namespace(timeout=value), lambda: nsutil.call(int, timeout=value)]
    for act in acts + (_timed(value) if value != value else []):
        with pytest.raises(ValueError, match="timeout must be seconds from 0 up"):
            act()


@pytest.mark.parametrize("value", [0, -1, -0.5, float("-inf")])
def test_a_time_that_is_over_is_due_at_once(value: float) -> None:
    """As subprocess and asyncio take what is left until a deadline."""
    for act in _timed(value):
        with pytest.raises(subprocess.TimeoutExpired):
            act()


@pytest.mark.parametrize("value", ["nan", "-1", "-inf", "x", ""])
def test_box_takes_a_time_as_its_timeout(value: str) -> None:
    done = support_cli.nsutil("box", f"--timeout={value}", "--", "true")
    assert done.status == 1
    assert "--timeout needs seconds" in done.err
    assert done.err.count("\n") <= 2


@needs_root
@pytest.mark.parametrize("value", ["inf", "1e300"])
@support.needs_kernel("mount-setattr")
def test_box_may_wait_for_ever(value: str) -> None:
    assert support_cli.nsutil("box", f"--timeout={value}", "--", "true").status == 0
