"""More attacks that were tried on nsutil itself (section D of docs/explanation/incidents.toml)."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import support
import support_cli
from support import in_child, must, needs_root

import nsutil
from nsutil import (
    CGROUP,
    IPC,
    MNT,
    NET,
    PID,
    USER,
    UTS,
    Bind,
    Dev,
    File,
    IdMap,
    Namespace,
    Popen,
    Symlink,
    Tmpfs,
    named,
)

_libc = ctypes.CDLL(None, use_errno=True)
FIRST = 100000
RANGE = [IdMap(0, FIRST, 65536)]
RENAME_EXCHANGE = 2


# D8: names that change while mounts are made


def _swap_for_ever(pairs: Sequence[tuple[Path, Path]], user: int | None) -> None:
    """Exchange the names of each pair, until killed."""
    support.prctl(1, signal.SIGKILL)
    if user is not None:
        support.drop_to_user(user)
    names = [(os.fsencode(one), os.fsencode(two)) for one, two in pairs]
    while True:
        for one, two in names:
            _libc.renameat2(-100, one, -100, two, RENAME_EXCHANGE)


@contextlib.contextmanager
def _swapping(pairs: Sequence[tuple[Path, Path]], user: int | None) -> Iterator[None]:
    pid = support.fork()
    if pid == 0:
        try:
            _swap_for_ever(pairs, user)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _content(directory: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found.append((str(path), status.st_mode, status.st_ino, status.st_size))
    return found


@needs_root
@pytest.mark.incident("D8", "A5", "A9")
@pytest.mark.parametrize("user", [None, FIRST], ids=["root", "user"])
@pytest.mark.parametrize("calls", ["newer", "older"])
def test_d08_names_in_the_root_that_change_all_the_time(tmp_path: Path, user: int | None, calls: str) -> None:
    """Directories of the root become links to the outside and back, by a process of whoever owns the root."""
    outside, root, source = tmp_path / "outside", tmp_path / "root", tmp_path / "source"
    for name in ("x/t", "x/b", "dev", "proc", "own"):
        (outside / name).mkdir(parents=True)
    (outside / "x/f").write_text("of the outside")
    for name in ("a/t", "a/b", "dev", "proc", "own", "links"):
        (root / name).mkdir(parents=True)
    (root / "a/f").write_text("")
    source.mkdir()
    targets = {
        "a": "../../outside/x",
        "dev": f"{outside}/dev",
        "proc": "../../../../../../../../../.." + f"{outside}/proc",
        "own": f"/proc/1/root{outside}/own",
    }
    for name, target in targets.items():
        (root / "links" / name).symlink_to(target)
    if user is not None:
        for path in (root, *root.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
    mounts = [
        *(Tmpfs("/own"), File("/own/x", "data"), Tmpfs("/a/t"), File("/a/t/deep/file", "data")),
        *(Symlink("anywhere", "/a/t/link"), Bind(source, "/a/b"), Dev("/dev"), Bind("/etc/passwd", "/a/f")),
    ]
    maps: dict[str, Any] = {} if user is None else {"uid_map": RANGE, "gid_map": RANGE}
    box = Namespace(PID | MNT | UTS | (USER if user else 0), root=root, mounts=mounts, **maps)
    at = box.replace(cwd="/a")

    def body() -> bool:
        if calls == "older":
            os.environ["NSUTIL_NO_NEW_CALLS"] = "1"
            support.refuse_calls("openat2", error=38)
        before = _content(outside), _content(source), support.mounts()
        with _swapping([(root / name, root / "links" / name) for name in targets], user):
            for _ in range(40):
                for act in (lambda: at.run(["/nonexistent"]), lambda: box.create().close()):
                    with contextlib.suppress(OSError):  # also that there is no program
                        act()
        return before == (_content(outside), _content(source), support.mounts())

    assert in_child(body, timeout=100)


# D9: names that others reach for


@needs_root
@pytest.mark.incident("D9")
def test_d09_a_link_in_the_place_of_a_name_leads_nowhere(tmp_path: Path) -> None:
    """Whoever may write in the directory of names may remove them, but no more."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")

    def body() -> list[str]:
        support.private_run()
        named.create("first", UTS).close()
        directory = Path("/run/nsutil/uts")
        (directory / "link").symlink_to(victim)
        (directory / "dangling").symlink_to(tmp_path / "made")
        told = []
        for name in ("link", "dangling"):
            for act in (named.create, named.open, lambda name, kind: named.attach(name, os.getpid(), kind)):
                try:
                    act(name, UTS)
                    told.append(f"{name}: done")
                except (FileExistsError, ValueError):
                    pass
            named.remove(name, UTS)
        told += [mount for mount in support.mounts() if str(victim) in mount]
        return [*told, *named.list(UTS), victim.read_text()]

    assert in_child(body) == ["first", "untouched"]
    assert not (tmp_path / "made").exists()


@needs_root
@pytest.mark.incident("D9")
def test_d09_users_can_neither_make_nor_take_names() -> None:
    def body() -> list[str]:
        support.private_run()
        named.create("mine").close()
        named.create("mine", UTS).close()

        def attack() -> list[str]:
            got = []
            for directory in ("/run/netns", "/run/nsutil", "/run/nsutil/uts"):
                for act in (
                    lambda path: os.mkdir(f"{path}/new"),
                    lambda path: os.symlink("/etc", f"{path}/link"),
                    lambda path: os.unlink(f"{path}/mine"),
                    lambda path: os.rename(f"{path}/mine", f"{path}/other"),
                    lambda path: os.rename(path, f"{path}.old"),
                ):
                    with contextlib.suppress(PermissionError, FileNotFoundError):
                        act(directory)
                        got.append(directory)
            return got

        got = support.as_user(attack)
        return [*got, *named.list(), *named.list(UTS)]

    assert in_child(body) == ["mine", "mine"]


# D10: descriptors of every kind


def _inheritable() -> list[int]:
    """Descriptors that would give much away, as somebody careless opens them."""
    calls = {"userfaultfd": (323, 1, 0, 0), "io_uring_setup": (425, 4, ctypes.create_string_buffer(120), 0)}
    calls |= {
        "fanotify_init": (300, 0, 0, 0),
        "bpf": (321, 0, ctypes.create_string_buffer(b"\2\0\0\0\4\0\0\0\4\0\0\0\1", 120), 120),
    }
    found = [_libc.syscall(*map(_as_argument, call)) for call in calls.values()]
    found += [os.open("/", os.O_RDONLY), os.memfd_create("x", 0), *os.pipe(), os.pidfd_open(os.getpid())]
    found = [fd for fd in found if fd >= 0]
    for fd in found:
        os.set_inheritable(fd, True)
    return found


def _as_argument(value: Any) -> Any:
    return ctypes.c_long(value) if isinstance(value, int) else value


LIST = ["ls", "/proc/self/fd"]  # 3 is its own


@needs_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="system calls by their numbers on x86_64")
@pytest.mark.incident("D10", "A20")
@pytest.mark.parametrize("new", [UTS, PID | MNT, USER | PID | MNT | IPC], ids=str)
def test_d10_no_descriptor_of_any_kind_is_inherited(new: nsutil.NSType) -> None:
    def body() -> tuple[int, list[str]]:
        opened = _inheritable()
        maps: dict[str, Any] = {"uid_map": RANGE, "gid_map": RANGE} if new & USER else {}
        box = Namespace(new, **maps)
        said = [box.run(LIST, capture_output=True, text=True, cwd="/").stdout]
        with Popen(LIST, new=new, stdout=subprocess.PIPE, text=True, cwd="/", **maps) as process:
            said.append(process.communicate()[0])
        return len(opened), said

    count, said = in_child(body)
    assert count >= 5
    assert said == ["0\n1\n2\n3\n"] * 2


# D11: out by way of cgroups

ESCAPE = """
mkdir -p /tmp/cg
for type in "cgroup2 none" "cgroup -ordma" "cgroup -omemory" "cgroup -opids" "cgroup -oall"; do
    set -- $type
    if mount -t $1 ${2#none} none /tmp/cg 2>/dev/null; then
        echo "/bin/touch $MARK" > /tmp/cg/release_agent && echo "agent"
        echo $$ > /tmp/cg/cgroup.procs && echo "moved"
        mkdir /tmp/cg/escape && echo "made"
        umount /tmp/cg
    fi
done 2>/dev/null
for file in $(find / -xdev -name cgroup.procs 2>/dev/null) /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs \
    /sys/fs/cgroup/*/release_agent; do
    [ -w "$file" ] && (echo 0 > "$file") 2>/dev/null && echo "wrote $file"
done
echo end
"""


@needs_root
@pytest.mark.incident("D11")
def test_d11_no_cgroup_is_left_or_changed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    new = USER | PID | MNT | CGROUP | NET | IPC | UTS
    box = Namespace(new, uid_map=RANGE, gid_map=RANGE, mounts=[Tmpfs("/tmp")])
    done = box.run(["sh", "-c", ESCAPE], capture_output=True, text=True, cwd="/", env={**os.environ, "MARK": str(mark)})
    assert done.stdout == "end\n"
    assert not mark.exists()


# D12: programs that are looked for by name


@needs_root
@pytest.mark.incident("D12")
def test_d12_root_runs_nothing_from_path(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("newuidmap", "newgidmap", "ip", "mount", "umount", "sh"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >> {mark}\n")
        (tmp_path / name).chmod(0o755)

    def body() -> None:
        support.private_run()
        os.environ["PATH"] = str(tmp_path)
        box = Namespace(USER | PID | MNT | NET, uid_map=RANGE, gid_map=RANGE)
        box.run(["/bin/true"], cwd="/")
        box.call(int)
        box.create().close()
        named.create("x").close()
        named.create("x", USER, uid_map=RANGE, gid_map=RANGE).close()
        named.remove("x")
        nsutil.snapshot().to_html()
        nsutil.doctor.check(new=USER)

    in_child(body)
    assert not mark.exists(), mark.read_text()


# D13: what hostile processes are called


@needs_root
@pytest.mark.incident("D13")
@pytest.mark.parametrize(
    "command", [["lsns"], ["lsns", "-r"], ["lsns", "-J"], ["lsns", "-T"], ["tree"], ["tree", "--process"]]
)
def test_d13_names_do_not_steer_the_terminal(command: list[str]) -> None:
    hostile = "\033]0;evil\007\033[2J\r\n\u202e</script>\x9b31m"
    with Popen(["/bin/sh", "-c", "read x", hostile], new=UTS, stdin=subprocess.PIPE) as process:
        said = support_cli.program(*command)
        process.kill()
    assert said.status == 0
    assert "read" in said.out
    assert not set(said.out.replace("\n", "")) & set("\033\007\r\x9b\u202e")


# D14: a list of children that somebody inside wrote


@needs_root
@pytest.mark.incident("D14")
def test_d14_who_joins_kills_its_own_children_alone() -> None:
    lay_over = 'mount -t tmpfs x /proc && mkdir /proc/thread-self && echo "$0 " >/proc/thread-self/children'

    def body() -> int | None:
        support.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what is left of the caller comes to this process
        with subprocess.Popen(["sleep", "60"]) as stranger:
            script = ["/bin/sh", "-c", f"{lay_over} && echo laid && exec sleep 60", str(stranger.pid)]
            with Popen(script, new=MNT, stdout=subprocess.PIPE) as inside:
                assert inside.stdout is not None
                assert inside.stdout.readline() == b"laid\n"
                before = support.children()
                caller = support.fork()
                if caller == 0:
                    kill_caller = os.kill, os.getpid(), signal.SIGKILL
                    Namespace(enter=nsutil.open(f"/proc/{inside.pid}/ns/mnt"), kill_child=True).call(*kill_caller)
                    os._exit(1)
                assert os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1]) == -signal.SIGKILL
                for pid in support.children() - before:
                    os.waitpid(pid, 0)
                inside.kill()
            status = stranger.poll()
            stranger.kill()
        return status

    assert in_child(body) is None


# D15: namespaces of somebody else where a thread looks for its own

FORGED = ("cgroup", "ipc", "net", "uts")


def _lay_over(way: str, victim: int) -> None:
    """Other namespaces, and a list of children with a stranger, on /proc or on the victim's directories there."""
    nsutil.unshare(CGROUP | IPC | NET | UTS)
    support.private_mounts()
    must("mount", b"forged", b"/mnt", b"tmpfs", 0, None)
    for task in ("thread-self", "self", str(victim)):
        for entry in FORGED:
            file = Path("/mnt", task, "ns", entry)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            must("mount", f"/proc/self/ns/{entry}".encode(), os.fsencode(file), None, support.MS_BIND, None)
        for name in ("pid", "mnt", "user", "time", "pid_for_children", "time_for_children"):
            os.mkfifo(f"/mnt/{task}/ns/{name}")
        tasks = Path("/mnt", task, "task", str(victim))
        tasks.mkdir(parents=True)
        (tasks / "children").write_text("1 ")
    over = {"proc": ["/mnt"], "directories": [f"/mnt/{victim}/ns", f"/mnt/{victim}/task"]}[way]
    places = {"proc": ["/proc"], "directories": [f"/proc/{victim}/task/{victim}/ns", f"/proc/{victim}/task"]}[way]
    for source, place in zip(over, places, strict=True):
        must("mount", source.encode(), place.encode(), None, support.MS_BIND | support.MS_REC, None)


VICTIM = """
import os, sys
sys.path[:0] = {path!r}
import nsutil
from nsutil import IPC, MNT, NET, UTS, Namespace, _fork, enter

def where():
    return {{entry: os.readlink("/proc/thread-self/ns/" + entry) for entry in os.listdir("/proc/thread-self/ns")}}

before = where()
box = enter(pid=int(input()), types=MNT)
Namespace(UTS | IPC).create().close()
found = []
with box:
    for types in (UTS, NET, UTS | IPC | NET):
        for strict in (False, True):
            try:
                with Namespace(types, strict=strict):
                    pass
            except OSError as error:
                found.append(error.errno)
        try:
            found.append(repr(nsutil.current(UTS)) == before["uts"])
        except OSError as error:
            found.append(error.errno)
    found.append(_fork._children(os.getpid()))
assert where() == before, where()
print(found)
"""


@needs_root
@pytest.mark.incident("D15")
@pytest.mark.parametrize("way", ["proc", "directories"])
@pytest.mark.parametrize("calls", ["", "1"], ids=["new", "old"])
def test_d15_a_thread_among_other_files_goes_back_to_its_own_namespaces(way: str, calls: str) -> None:
    command = [sys.executable, "-c", VICTIM.format(path=sys.path)]
    environment = {**os.environ, "NSUTIL_NO_NEW_CALLS": calls}
    if not calls:
        del environment["NSUTIL_NO_NEW_CALLS"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as victim:
        with support.standing(_lay_over, way, victim.pid) as (pid, _):
            said = victim.communicate(f"{pid}\n", timeout=60)[0]
    assert victim.returncode == 0, said
    trusted = not calls and not support.lacks("pidfd-thread") and not support.lacks("pidfd-namespaces")
    found = ast.literal_eval(said)
    assert found == ([True] * 3 if trusted else [errno.EXDEV] * 9) + [[]]
