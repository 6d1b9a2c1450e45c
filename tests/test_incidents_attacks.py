"""What code inside tries against the outside, after incidents of other tools (docs/explanation/incidents.toml).

Tests of the same incidents stand in the files of their subjects; each is marked with its rows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from support import in_child, must, needs_root

import nsutil
from nsutil import ALL, IPC, MNT, NET, PID, TIME, USER, UTS, IdMap, Namespace, enter

_libc = ctypes.CDLL(None, use_errno=True)
SECRET_SIZE = 24
secret = ctypes.create_string_buffer(b"-" * SECRET_SIZE)
RANGE = [IdMap(0, 100000, 1000)]


# A2: root of a namespace that is joined reaches for those who join


class _Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _read_memory(pid: int) -> bytes:
    """process_vm_readv(2) of where the secret lies in the process that this one was forked from."""
    buffer = ctypes.create_string_buffer(SECRET_SIZE)
    here = _Piece(ctypes.addressof(buffer), SECRET_SIZE)
    there = _Piece(ctypes.addressof(secret), SECRET_SIZE)
    _libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return buffer.raw


def _attack(pid: int) -> set[str]:
    """What root inside gets of a process that has not yet become its program."""
    got = set()
    if b"outside" in _read_memory(pid):
        got.add("memory")
    with contextlib.suppress(OSError):
        if "python" in os.readlink(f"/proc/{pid}/exe"):
            got.add("program")
            if os.listdir(f"/proc/{pid}/fd"):
                got.add("descriptors")
            os.readlink(f"/proc/{pid}/cwd")
            got.add("directory")
    return got


def _lie_in_wait(answer: int) -> None:
    """PID 1 of the target: attack every process that appears, until told to stop by SIGTERM."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    got: set[str] = set()
    met: set[int] = set()
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    os.write(answer, b"r")
    while not stop:
        for name in os.listdir("/proc"):
            if name.isdecimal() and name != "1":
                met.add(int(name))
                got |= _attack(int(name))
    os.write(answer, f"{len(met)} {' '.join(sorted(got))}".encode())


@contextlib.contextmanager
def hostile_root() -> Iterator[tuple[int, Callable[[], tuple[int, set[str]]]]]:
    """The pid of a container whose root attacks; a function that ends it and says how many it met and what it got."""
    reader, writer = os.pipe()
    ready, go = os.pipe()
    secret.raw = (b"-" * SECRET_SIZE) + b"\0"
    pid = nsutil.clone(USER | PID | MNT | UTS)
    if pid == 0:
        try:
            os.read(ready, 1)
            support.prctl(4, 1)
            must("mount", b"proc", b"/proc", b"proc", 0, None)
            _lie_in_wait(writer)
        finally:
            os._exit(0)
    for kind in ("uid", "gid"):
        Path(f"/proc/{pid}/{kind}_map").write_text("0 100000 1000")
    os.write(go, b"g")
    inner = _pid_inside(pid)
    assert os.read(reader, 1) == b"r"
    secret.raw = b"of the outside alone".ljust(SECRET_SIZE) + b"\0"

    def end() -> tuple[int, set[str]]:
        os.kill(inner, signal.SIGTERM)
        count, *got = os.read(reader, 1000).decode().split()
        return int(count), set(got)

    try:
        yield inner, end
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (reader, writer, ready, go):
            os.close(fd)


def _pid_inside(pid: int) -> int:
    """The process inside: clone(PID) may put a waiter before it."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(below[0]) if below else pid


@needs_root
@pytest.mark.incident("A2")
@support.needs_kernel("pidfd-setns")
def test_a02_the_attack_works_on_who_is_not_careful() -> None:
    """Without this the tests below would prove nothing."""

    def join(target: int) -> None:
        pidfd = os.pidfd_open(target)
        child = support.fork()
        if child == 0:
            try:
                nsutil.setns(pidfd, USER | PID | MNT | UTS)
                if support.fork() == 0:
                    time.sleep(0.5)
            finally:
                os._exit(0)
        os.close(pidfd)
        os.waitpid(child, 0)
        time.sleep(0.3)

    def body() -> tuple[int, set[str]]:
        with hostile_root() as (target, end):
            join(target)
            return end()

    count, got = in_child(body)
    assert count > 0
    assert "memory" in got


@needs_root
@pytest.mark.incident("A2")
@pytest.mark.parametrize("types", [USER | PID | MNT | UTS, PID | MNT, USER | PID], ids=str)
def test_a02_a_program_that_joins_is_out_of_reach(types: nsutil.NSType) -> None:
    def body() -> tuple[int, set[str]]:
        with hostile_root() as (target, end):
            box = enter(target, types)
            for _ in range(150):
                box.run(["/bin/true"], cwd="/")
            return end()

    count, got = in_child(body, timeout=60)
    assert count > 5  # it did meet some of them
    assert got == set()


@needs_root
@pytest.mark.incident("A2")
def test_a02_a_function_that_joins_is_out_of_reach() -> None:
    def body() -> tuple[int, set[str]]:
        with hostile_root() as (target, end):
            for _ in range(20):
                enter(target, USER | PID | MNT).call(time.sleep, 0.01)
            return end()

    count, got = in_child(body, timeout=60)
    assert count >= 10
    assert got == set()


def _stalk(victim: int, user: int, answer: int) -> None:
    """As that user, attack every child of the victim, until told to stop by SIGTERM."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    support.drop_to_user(user)
    got: set[str] = set()
    os.write(answer, b"r")
    while not stop:
        with contextlib.suppress(OSError):
            for name in Path(f"/proc/{victim}/task/{victim}/children").read_text().split():
                if int(name) != os.getpid():
                    got |= _attack(int(name))
    os.write(answer, " ".join(sorted(got)).encode())


@needs_root
@pytest.mark.incident("A2")
def test_a02_a_program_on_its_way_to_another_user_is_out_of_reach() -> None:
    """Whoever has the user id that the program gets may trace it, but not as long as it uses our memory."""

    def body() -> str:
        reader, writer = os.pipe()
        secret.raw = (b"-" * SECRET_SIZE) + b"\0"
        user, victim = support.USER_ID, os.getpid()
        attacker = support.fork()
        if attacker == 0:
            try:
                _stalk(victim, user, writer)
            finally:
                os._exit(0)
        assert os.read(reader, 1) == b"r"
        secret.raw = b"of the outside alone".ljust(SECRET_SIZE) + b"\0"
        for _ in range(150):
            Namespace(UTS, uid=user, gid=user).run(["/bin/true"], cwd="/")
            nsutil.run(["/bin/true"], new=UTS, user=user, group=user, extra_groups=[], cwd="/")
        os.kill(attacker, signal.SIGTERM)
        os.waitpid(attacker, 0)
        os.close(writer)
        return os.read(reader, 100).decode()

    assert in_child(body, timeout=60) == ""


# A3: the way out by directories and descriptors

LOOK_AROUND = """
for place in / .. /proc/1/root /proc/1/cwd /proc/self/cwd /proc/self/fd/* /proc/[0-9]*/fd/* /proc/[0-9]*/cwd; do
    for mark in "$place/$1" "$place/../$1" "$place/../../../../../../../..$2"; do
        [ -e "$mark" ] && echo "out by $mark"
    done
done
readlink /proc/self/cwd
"""


@needs_root
@pytest.mark.incident("A3")
@pytest.mark.parametrize("new", [PID | MNT, PID | MNT | USER], ids=str)
def test_a03_nothing_inside_leads_out(tmp_path: Path, new: nsutil.NSType) -> None:
    (tmp_path / "mark").touch()
    root = tmp_path / "root"
    names = [name for name in ("bin", "lib", "lib64", "usr") if Path("/", name).is_dir()]
    for name in (*names, "proc"):
        (root / name).mkdir(parents=True)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    maps = {"uid_map": RANGE, "gid_map": RANGE, "uid": 0, "gid": 0} if new & USER else {}
    box = Namespace(new, root=root, mounts=[nsutil.Bind(f"/{name}", f"/{name}") for name in names], **maps)
    try:
        done = box.run(["/bin/sh", "-c", LOOK_AROUND, "sh", "mark", str(tmp_path / "mark")], capture_output=True)
    finally:
        os.close(fd)
    assert (done.stdout.decode(), done.stderr.decode()) == ("/\n", "")


@needs_root
@pytest.mark.incident("A3")
@pytest.mark.parametrize("new", [PID | MNT, PID | MNT | USER], ids=str)
def test_a03_init_has_let_go_before_the_program_looks(tmp_path: Path, new: nsutil.NSType) -> None:
    """PID 1 begins as a process that shares our memory and descriptors."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    box = Namespace(new, **({"uid_map": "root"} if new & USER else {}))
    command = ["/bin/ls", "-l", "/proc/1/fd", "/proc/1/exe"]
    try:
        seen = [box.run(command, capture_output=True, text=True) for _ in range(60)]
    finally:
        os.close(fd)
    assert [done.stdout for done in seen if str(tmp_path) in done.stdout or "python" in done.stdout] == []


@needs_root
@pytest.mark.incident("A3")
def test_a03_cwd_proc_self_fd(tmp_path: Path) -> None:
    """A descriptor of the outside by its number, whoever's it is, and by what is behind it in the target."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    (tmp_path / "root").mkdir()
    try:
        for cwd in (f"/proc/self/fd/{fd}", f"/proc/thread-self/fd/{fd}", f"/proc/{os.getpid()}/cwd", "/proc/self/cwd"):
            for new in (MNT, MNT | PID):
                box = Namespace(new, root="/usr", cwd=cwd, mount_proc=False)
                with pytest.raises(OSError):
                    box.run(["/bin/true"])
                with pytest.raises(OSError):
                    box.call(os.getcwd)
    finally:
        os.close(fd)
    assert Namespace(MNT, root="/").call(os.getcwd).startswith("/")


# A4: characters into the caller's terminal

PUSH = """
import fcntl, sys
for number in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX
    try:
        fcntl.ioctl(0, number, b"x")
        print("worked", end=" ")
    except OSError as e:
        print(e.errno, end=" ")
"""


@needs_root
@pytest.mark.incident("A4")
def test_a04_tiocsti() -> None:
    def push(new_session: bool) -> tuple[list[str], bytes]:
        _master, slave = pty.openpty()
        os.setsid()
        fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY: now it is this session's
        box = Namespace(USER, uid_map="root", new_session=new_session)
        done = box.run([sys.executable, "-I", "-S", "-c", PUSH], stdin=slave, stdout=subprocess.PIPE, text=True)
        os.set_blocking(slave, False)
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ICANON  # what was pushed can be read at once
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        with contextlib.suppress(BlockingIOError):
            return done.stdout.split(), os.read(slave, 10)
        return done.stdout.split(), b""

    legacy = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if not legacy.exists() or legacy.read_text() == "1\n":
        assert in_child(push, False) == (["worked", str(errno.ENOTTY)], b"x")
    outcome, pushed = in_child(push, True)
    assert int(outcome[0]) in (errno.EPERM, errno.EIO, errno.ENOTTY)
    assert int(outcome[1]) in (errno.EPERM, errno.ENOTTY)
    assert pushed == b""


# A8: a forged /proc


def _forge_proc() -> None:
    """A tmpfs with everything that set-up writes to, on /proc."""
    must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    for task in ("self", "thread-self", str(os.getpid())):
        folder = Path("/mnt", task)
        folder.mkdir()
        for name in ("uid_map", "gid_map", "setgroups", "timens_offsets"):
            (folder / name).write_text("")
        (folder / "ns").mkdir()
        for name in support.NS_ENTRIES:
            (folder / "ns" / name).write_text("")
    must("mount", b"/mnt", b"/proc", None, support.MS_BIND, None)


@needs_root
@pytest.mark.incident("A8")
@pytest.mark.parametrize(
    "recipe",
    [
        Namespace(USER),
        Namespace(USER, uid_map="root"),
        Namespace(USER, uid_map=RANGE, gid_map=RANGE),
        Namespace(TIME, monotonic=10),
    ],
    ids=["current", "root", "range", "offsets"],
)
def test_a08_forged_proc(recipe: Namespace) -> None:
    def body() -> tuple[list[str], list[str]]:
        support.private_mounts()
        support.preload()
        _forge_proc()
        ended = []
        for start in (lambda: recipe.run(["/bin/true"]), lambda: recipe.call(os.getpid)):
            try:
                start()
                ended.append("worked")
            except OSError as error:
                ended.append(str(error.errno))
        written = [str(path) for path in Path("/mnt").rglob("*") if path.is_file() and path.read_bytes()]
        return ended, written

    ended, written = in_child(body)
    assert written == []
    assert "worked" not in ended


@needs_root
@pytest.mark.incident("A8")
def test_a08_forged_namespaces_of_this_thread() -> None:
    """What a block saves has to be namespaces: else it could not come back."""

    def body() -> tuple[str, bool]:
        support.private_mounts()
        support.preload()
        uts = os.uname().nodename
        _forge_proc()
        try:
            with Namespace(UTS, hostname="inside"):
                pass
        except (OSError, ValueError, nsutil.RestoreError) as error:
            return type(error).__name__, os.uname().nodename == uts
        return "worked", os.uname().nodename == uts

    ended, same = in_child(body)
    assert same
    assert ended != "worked" or not support.lacks("pidfd-namespaces")


# A12, A13, A33: who it runs as, what it trusts, whether it is inside at all


@pytest.mark.incident("A12")
@pytest.mark.parametrize("option", ["uid", "gid"])
@pytest.mark.parametrize("value", ["10a:20", "0:0", "", "-1", " 1", "1 ", "+1", "0x0", "4294967296", "no such user"])
def test_a12_ids_as_text(option: str, value: str) -> None:
    with pytest.raises(ValueError):
        Namespace(UTS, **{option: value})


@pytest.mark.incident("A12")
@pytest.mark.parametrize("option", ["uid", "gid"])
@pytest.mark.parametrize("value", [-1, 2**32 - 1, 2**32, 2**64])
def test_a12_ids_out_of_range(option: str, value: int) -> None:
    with pytest.raises(ValueError):
        Namespace(UTS, **{option: value})


@needs_root
@pytest.mark.incident("A13")
def test_a13_joining_reads_nothing_of_the_target() -> None:
    """Every file that a name or a policy could be looked up in is a FIFO in there: to open one would hang."""

    def hostile() -> None:
        support.private_mounts()
        must("mount", b"none", b"/etc", b"tmpfs", 0, None)
        for name in ("passwd", "group", "subuid", "subgid", "nsswitch.conf", "login.defs", "hosts", "localtime"):
            os.mkfifo(f"/etc/{name}")
        must("mount", b"none", b"/run", b"tmpfs", 0, None)

    def body() -> tuple[bytes, int]:
        with support.standing(hostile) as (pid, _):
            box = enter(pid, uid="nobody", timeout=15)
            done = box.run(["/bin/sh", "-c", 'cat /proc/self/status | grep ^Uid; [ -p /etc/passwd ] && echo "there"'],
                           stdout=subprocess.PIPE)  # fmt: skip
            return done.stdout, box.call(os.getuid)

    import pwd

    nobody = pwd.getpwnam("nobody").pw_uid
    out, uid = in_child(body)
    assert out.split() == [b"Uid:", *[str(nobody).encode()] * 4, b"there"]
    assert uid == nobody


@needs_root
@pytest.mark.incident("A33")
@pytest.mark.parametrize("types", [UTS, UTS | NET | IPC, PID, PID | MNT, USER | UTS], ids=str)
def test_a33_a_failed_join_runs_nothing(tmp_path: Path, types: nsutil.NSType) -> None:
    def body() -> list[str]:
        ended = []
        with support.paused(types) as pid:
            box = enter(pid, types)
            support.refuse_calls("setns", error=errno.EPERM)
            for start in (
                lambda: box.run(["/bin/touch", str(tmp_path / "program")]),
                lambda: box.call((tmp_path / "function").touch),
                lambda: box.thread((tmp_path / "thread").touch).result(),
                lambda: box.executor().submit((tmp_path / "job").touch).result(),
            ):
                try:
                    start()
                    ended.append("worked")
                except (OSError, ValueError) as error:
                    ended.append(type(error).__name__)
        return ended

    ended = in_child(body)
    assert os.listdir(tmp_path) == []
    assert set(ended) <= {"PermissionError", "ValueError"}
    assert ended.count("PermissionError") >= 3 - bool(types & USER)


# A32: a pid that was used again


@needs_root
@pytest.mark.incident("A32")
def test_a32_a_recycled_pid_is_never_entered() -> None:
    def body() -> dict[str, str]:
        first = nsutil.clone(UTS)
        while first == 0:
            signal.pause()
        box = enter(first, UTS)
        reference = nsutil.open(first, UTS).reference()
        with nsutil.open(first, UTS) as held:
            old = held.inode
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        stranger = _fork_with_pid(first, UTS)
        try:
            return {
                "same number": str(stranger == first),
                "run": _ending(lambda: box.run(["/bin/true"])),
                "call": _ending(lambda: box.call(os.getpid)),
                "there": _ending(lambda: _was(box.call(os.stat, "/proc/self/ns/uts").st_ino, old)),
                "block": _ending(lambda: box.__enter__() and None),
                "reference": _ending(lambda: _is(reference.open(), old)),
            }
        finally:
            os.kill(stranger, signal.SIGKILL)
            os.waitpid(stranger, 0)

    def _was(inode: int, before: int) -> None:
        assert inode == before

    def _is(file: nsutil.NamespaceFile, inode: int) -> None:
        _was(file.inode, inode)

    ended = Namespace(PID | MNT).call(body)
    assert ended["same number"] == "True"
    # Without a pidfd to join it is the namespace itself that is pinned.
    end = "worked" if support.lacks("pidfd-setns") else "ProcessLookupError"
    assert ended["run"] == ended["call"] == ended["there"] == ended["block"] == end
    assert ended["reference"] == "StaleReference"


def _ending(func: Callable[[], object]) -> str:
    try:
        func()
    except Exception as error:
        return type(error).__name__
    return "worked"


def _fork_with_pid(wanted: int, types: nsutil.NSType) -> int:
    """A process in new namespaces with that pid of this PID namespace."""
    for _ in range(50):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
        pid = nsutil.clone(types)
        while pid == 0:
            signal.pause()
        if pid == wanted:
            return pid
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    raise AssertionError("that pid does not come again")


# A1: PID 1 and what it runs


@needs_root
@pytest.mark.incident("A1")
@pytest.mark.parametrize("new", [PID | MNT, PID | MNT | USER], ids=str)
def test_a01_root_inside_cannot_write_to_what_runs_init(new: nsutil.NSType) -> None:
    def body() -> dict[str, Any]:
        ended = {}
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            ended[str(flags)] = _ending(lambda flags=flags: os.close(os.open("/proc/1/exe", flags)))
        return ended

    maps = {"uid_map": "root"} if new & USER else {}
    ended = Namespace(new, **maps).call(body)
    assert len(ended) == 3
    assert set(ended.values()) <= {"PermissionError", "OSError"}  # EPERM: sealed; ETXTBSY: it runs


def rights_of_init() -> tuple[list[int], str]:
    """The capability sets of PID 1 but the bounding one, and whether it can gain some.

    It becomes nsutil's init beside the function of a call().
    """
    while Path("/proc/1/comm").read_text() != "nsutil-init\n":
        time.sleep(0.01)
    status = dict(line.split(":\t") for line in Path("/proc/1/status").read_text().splitlines() if ":\t" in line)
    return [int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Amb")], status["NoNewPrivs"]


@needs_root
@pytest.mark.incident("A1")
@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_a01_init_has_nothing_that_was_taken_from_the_program(user: bool) -> None:
    """Root inside can trace PID 1, whatever else it may not do: there must be nothing in it."""
    new = PID | MNT | (USER if user else nsutil.NSType(0))
    only_kill = [0, 1 << 5, 1 << 5, 0], "1"
    maps = {"uid_map": "root"} if user else {}
    assert Namespace(new, **maps).call(rights_of_init) == only_kill
    script = "grep -E 'CapPrm|NoNew' /proc/1/status"
    done = Namespace(new, **maps).run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["CapPrm:", f"{1 << 5:016x}", "NoNewPrivs:", "1"]
    with Namespace(PID).create() as held:
        beside = Namespace(MNT, enter=enter(held, PID), mounts=[nsutil.Proc("/proc")])
        assert beside.call(rights_of_init) == only_kill


@needs_root
@pytest.mark.incident("A26")
def test_a26_init_may_signal_a_program_of_another_user() -> None:
    box = Namespace(PID | MNT, uid=support.USER_ID, gid=support.USER_ID)
    script = "trap 'exit 7' TERM; echo; while :; do sleep 0.05; done"
    with box.popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 7


# A5, A6, A9: in test_mounts.py; here all of it at once, by a user's own root


@needs_root
@pytest.mark.incident("A5", "A6")
@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_a05_every_target_below_a_link_to_the_old_root(tmp_path: Path, user: bool) -> None:
    host, root = tmp_path / "host", tmp_path / "root"
    host.mkdir(mode=0o777)
    root.mkdir()
    host.chmod(0o777)
    (host / "present").write_text("host")
    (host / "present").chmod(0o666)
    for number, target in enumerate([host, f"../../../../../../../../../..{host}", "/proc/1/root", "/proc/self/cwd"]):
        (root / f"evil{number}").symlink_to(target)
    (root / "dev").symlink_to(f"../../../../../../../../../..{host}")
    makers: dict[str, Callable[[str], Any]] = {
        "bind": lambda place: nsutil.Bind("/usr", place),
        "tmpfs": lambda place: nsutil.Tmpfs(place),
        "file": lambda place: nsutil.File(place, b"x"),
        "symlink": lambda place: nsutil.Symlink("/x", place),
        "dev": lambda place: nsutil.Dev(place),
        "mqueue": lambda place: nsutil.Mqueue(place),
        "proc": lambda place: nsutil.Proc(place),
    }
    new = MNT | PID | IPC | (USER if user else 0)

    def body() -> dict[str, str]:
        ended = {}
        for name, make in makers.items():
            places = [f"/evil{number}{rest}" for number in range(4) for rest in ("/present", "/new", "/new/deep")]
            for place in (*places, "/dev/present", "/dev/new", "/dev"):
                recipe = Namespace(new, root=root, mounts=[make(place)], mount_proc=False, init=False, cwd="/")
                ended[f"{name} {place}"] = _ending(lambda recipe=recipe: recipe.run(["/nothing"]))
        return ended

    ended = (support.as_user if user else in_child)(body, timeout=90)
    assert sorted(os.listdir(host)) == ["present"]
    assert (host / "present").read_text() == "host"
    assert not re.search(str(host), Path("/proc/self/mountinfo").read_text())
    refusals = {"OSError", "FileExistsError", "FileNotFoundError", "NotADirectoryError", "PermissionError"}
    assert set(ended.values()) <= refusals, ended


@needs_root
@pytest.mark.incident("A7")
def test_a07_a_source_that_becomes_a_link_while_it_is_mounted(tmp_path: Path) -> None:
    """What is mounted is what was found: the file or, if it came first, what the link led to; never anything else."""
    (tmp_path / "file").write_text("file")
    (tmp_path / "other").write_text("other")
    (tmp_path / "source").write_text("file")
    (tmp_path / "link").symlink_to("other")

    def exchange() -> None:
        while True:
            _libc.renameat2(-100, os.fsencode(tmp_path / "source"), -100, os.fsencode(tmp_path / "link"), 2)

    def body() -> set[bytes]:
        swapper = support.fork()
        if swapper == 0:
            try:
                exchange()
            finally:
                os._exit(0)
        seen = set()
        try:
            for _ in range(40):
                mounts = [nsutil.Tmpfs("/mnt"), nsutil.Bind(tmp_path / "source", "/mnt/here")]
                box = Namespace(MNT, mounts=mounts)
                seen.add(box.run(["/bin/cat", "/mnt/here"], stdout=subprocess.PIPE, check=True).stdout)
        finally:
            os.kill(swapper, signal.SIGKILL)
            os.waitpid(swapper, 0)
        return seen

    assert in_child(body) <= {b"file", b"other"}


@pytest.mark.incident("A10")
def test_a10_nothing_is_set_user_id() -> None:
    """Neither in the sources nor in what init is run from."""
    files = [path for folder in ("nsutil", "src") for path in (support.ROOT / folder).rglob("*") if path.is_file()]
    assert [path for path in files if path.stat().st_mode & 0o6000] == []
    if os.geteuid() == 0:
        mode = Namespace(PID | MNT).call(lambda: os.stat("/proc/1/exe").st_mode)
        assert mode & 0o6000 == 0


@needs_root
@support.needs_kernel("time")
@pytest.mark.incident("A4")
def test_a04_all_types_at_once_share_no_session() -> None:
    """new_session: not even the ids of the caller's session are seen inside."""
    box = Namespace(ALL & ~USER, new_session=True)
    done = box.run(["/bin/sh", "-c", "cut -d' ' -f5-7 /proc/$$/stat"], stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["2", "2", "0"]
