"""Names: interop with ip-netns(8), races, crashes, and nobody moved by any of it."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support import as_user, drop_to_user, in_child, needs_program, needs_root, no_leaks, ns_inodes

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, TIME, USER, UTS, NSType, _ns, named
from nsutil._names import store_of

T = TypeVar("T")
NETNS = Path("/run/netns")
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20

pytestmark = needs_root


def must(op: str, *args: object) -> None:
    failed = _ns.run_plan(_ns.Plan([(op, args, -1, 0)]))
    assert failed is None, (op, args, os.strerror(failed[1]))


def private_run() -> None:
    """A mount namespace of our own, with nothing in /run."""
    must("unshare", int(MNT))
    must("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    for directory in (NETNS, Path("/run/nsutil")):  # what the machine has there, if it may be taken away
        subprocess.run(["umount", "-R", "-l", directory], check=False, stderr=subprocess.DEVNULL)
    must("mount", b"none", b"/run", b"tmpfs", 0, b"mode=755")


def apart(func: Callable[..., T], *args: Any, timeout: float = 60.0) -> T:
    """func in a child with a /run of its own; it must leave no fd, child, thread or namespace changed."""

    def body() -> T:
        private_run()
        before = ns_inodes()
        with no_leaks():
            result = func(*args)
            for nstype in nsutil.NSType.ALL:
                directory = store_of(nstype).directory
                if os.path.isdir(directory):
                    subprocess.run(["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)
        assert ns_inodes() == before
        return result

    return in_child(body, timeout=timeout)


def ip(*args: str) -> str:
    return subprocess.run(["ip", "netns", *args], check=True, capture_output=True, text=True, timeout=20).stdout


def mounts_below(top: str) -> list[str]:
    """mountinfo without what differs from run to run: ids and inode numbers."""
    found = []
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4].startswith(top):
            root = fields[3].split("[")[0]
            optional = [field.split(":")[0] for field in fields[6 : fields.index("-")]]
            found.append(" ".join([root, fields[4], fields[5], *optional, *fields[fields.index("-") :]]))
    return found


# ---------------------------------------------------------------- as ip-netns(8)


@needs_program("ip")
def test_same_files_and_mounts_as_ip() -> None:
    def by_ip() -> object:
        ip("add", "a")
        ip("add", "b")
        return look()

    def by_nsutil() -> object:
        named.create("a").close()
        named.create("b", loopback=False).close()
        return look()

    def look() -> object:
        modes = [oct(path.lstat().st_mode) for path in (NETNS, NETNS / "a")]
        shown = mounts_below("/run")
        must("umount2", b"/run/netns/a", 2)
        return modes, oct((NETNS / "a").lstat().st_mode), shown

    assert apart(by_nsutil) == apart(by_ip)


@needs_program("ip")
def test_ip_sees_ours_and_we_see_theirs() -> None:
    def body() -> None:
        ours = named.create("ours")
        ip("add", "theirs")
        assert {line.split()[0] for line in ip("list").splitlines()} == {"ours", "theirs"}
        assert named.list() == ["ours", "theirs"]
        assert ip("exec", "ours", "readlink", "/proc/self/ns/net").strip() == repr(ours)
        with named.open("theirs") as theirs:
            assert ip("exec", "theirs", "readlink", "/proc/self/ns/net").strip() == repr(theirs)
            assert theirs != ours
        with subprocess.Popen(["ip", "netns", "exec", "ours", "sleep", "60"]) as sleeper:
            wait_for(lambda: named.identify(sleeper.pid) == ["ours"])
            assert ip("identify", str(sleeper.pid)).split() == ["ours"]
            assert named.pids("ours") == [int(pid) for pid in ip("pids", "ours").split()] == [sleeper.pid]
            assert named.pids("theirs") == []
            assert named.identify(os.getpid()) == []
            sleeper.kill()
        ip("del", "ours")
        named.remove("theirs")
        assert named.list() == []
        assert list(NETNS.iterdir()) == []
        ours.close()

    apart(body)


def wait_for(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@needs_program("unshare")
@needs_program("nsenter")
def test_unshare_and_nsenter() -> None:
    def body() -> None:
        named.create("ours").close()
        (NETNS / "theirs").touch()
        subprocess.run(["unshare", "--net=/run/netns/theirs", "true"], check=True)
        for name in ("ours", "theirs"):
            with named.open(name) as file:
                shown = subprocess.check_output(
                    ["nsenter", f"--net=/run/netns/{name}", "readlink", "/proc/self/ns/net"], text=True
                )
                assert shown.strip() == repr(file)
        named.remove(named.list())
        assert named.list() == []

    apart(body)


@needs_program("ip")
def test_loopback_is_up_unless_told_otherwise() -> None:
    def body() -> None:
        named.create("up").close()
        named.create("down", loopback=False).close()
        assert "LOOPBACK,UP" in ip("exec", "up", "ip", "link", "show", "lo")
        assert "UP" not in ip("exec", "down", "ip", "link", "show", "lo")

    apart(body)


def test_attach_names_the_namespace_of_a_process() -> None:
    def body() -> None:
        with named.create("one") as one:
            with subprocess.Popen(["nsenter", "--net=/run/netns/one", "sleep", "60"]) as sleeper:
                wait_for(lambda: bool(named.identify(sleeper.pid)))
                named.attach("two", sleeper.pid)
                assert named.identify(sleeper.pid) == ["one", "two"]
                with pytest.raises(FileExistsError):
                    named.attach("two", os.getpid())
                sleeper.kill()
            with named.open("two") as two:
                assert two == one
        with pytest.raises(ProcessLookupError):
            named.attach("three", 2**22 + 1)
        assert named.list() == ["one", "two"]

    apart(body)


# ---------------------------------------------------------------- bad input, bad luck


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "x" * 300, "ä" * 128, "nul\0"])
def test_bad_names(name: str) -> None:
    for act in (named.create, named.open, named.remove, named.pids, lambda n: named.attach(n, 1)):
        with pytest.raises(ValueError, match="a name must"):
            act(name)
    with pytest.raises(ValueError, match="a name must"):
        named.remove(["fine", name])


def test_bad_types() -> None:
    for name in (5, None, b"bytes"):
        with pytest.raises(TypeError):
            named.create(name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown namespace type"):
        named.create("x", "nett")
    with pytest.raises(ValueError, match="exactly one"):
        named.create("x", NET | UTS)
    for options in ({"hostname": "x"}, {"uid": 5}, {"enter": 1}, {"cwd": "/"}, {"timeout": 5}):
        with pytest.raises(ValueError):
            named.create("x", NET, **options)
    with pytest.raises(TypeError):
        named.create("x", NET, no_such_option=1)
    with pytest.raises(TypeError):
        named.create("x", UTS, hostname=["unhashable"])
    with pytest.raises(ValueError):
        named.identify(0)


def test_long_name() -> None:
    def body() -> None:
        name = "ä" * 127 + "x"
        named.create(name).close()
        assert named.list() == [name]
        named.remove(name)

    apart(body)


@pytest.mark.parametrize("nstype", [NET, UTS, MNT])
def test_existing_name(nstype: NSType) -> None:
    def body() -> None:
        first = named.create("x", nstype)
        before = ns_inodes()
        with pytest.raises(FileExistsError) as caught:
            named.create("x", nstype)
        assert ns_inodes() == before
        assert caught.value.filename == f"{store_of(nstype).directory}/x"
        with named.open("x", nstype) as again:
            assert again == first
        first.close()
        assert named.list(nstype) == ["x"]
        named.remove("x", nstype)

    apart(body)


@pytest.mark.parametrize("nstype", [NET, IPC, MNT])
def test_stale_file(nstype: NSType) -> None:
    def body() -> None:
        named.create("other", nstype).close()
        stale = Path(store_of(nstype).directory, "stale")
        stale.touch(0)
        with pytest.raises(nsutil.NotANamespace, match="stale"):
            named.open("stale", nstype)
        with pytest.raises(nsutil.NotANamespace, match="stale"):
            named.pids("stale", nstype)
        with pytest.raises(FileExistsError) as caught:
            named.create("stale", nstype)
        assert "without a namespace" in caught.value.__notes__[0]
        assert named.list(nstype) == ["other", "stale"]
        named.remove("stale", nstype)
        assert named.list(nstype) == ["other"]
        named.remove("other", nstype)

    apart(body)


def test_symlink_is_never_followed() -> None:
    def body() -> None:
        named.create("real").close()
        (NETNS / "link").symlink_to("real")
        (NETNS / "dangling").symlink_to("/nowhere/at/all")
        with pytest.raises(nsutil.NotANamespace, match="symlink"):
            named.open("link")
        with pytest.raises(FileExistsError):
            named.create("dangling")
        assert named.identify(os.getpid()) == []
        named.remove("link")
        named.remove("dangling")
        named.open("real").close()
        assert named.list() == ["real"]

    apart(body)


def test_wrong_type() -> None:
    def body() -> None:
        named.create("x").close()
        (NETNS / "uts").touch()
        must("mount", b"/proc/self/ns/uts", b"/run/netns/uts", None, MS_BIND, None)
        with pytest.raises(nsutil.WrongNamespaceType, match="is a uts namespace, not a net namespace"):
            named.open("uts")
        named.remove(["x", "uts"])

    apart(body)


def test_missing_name() -> None:
    def body() -> None:
        for act in (named.open, named.remove, named.pids):
            with pytest.raises(FileNotFoundError):
                act("nothing")
        assert named.list() == []
        assert not NETNS.exists()  # looking makes nothing
        named.create("x").close()
        with pytest.raises(FileNotFoundError) as caught:
            named.remove(["x", "nothing"])
        assert caught.value.filename == "/run/netns/nothing"
        named.open("x").close()  # untouched

    apart(body)


def test_a_failure_leaves_no_file() -> None:
    """ENOSPC in a user namespace that allows no NET, through both ways of making one."""

    def body(threads: int) -> None:
        uid_map(own_user_namespace=True)
        Path("/proc/sys/user/max_net_namespaces").write_text("0")
        Path("/proc/sys/user/max_mnt_namespaces").write_text("0")
        for nstype, label in ((NET, "unshare(NET)"), (MNT, "unshare(MNT)")):
            with pytest.raises(OSError) as caught:
                with extra_threads(threads):
                    named.create("x", nstype)
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.step == label  # type: ignore[attr-defined]
            assert caught.value.hint.startswith(f"limit: /proc/sys/user/max_{nstype}_namespaces is 0")  # type: ignore[attr-defined]
            assert named.list(nstype) == []

    for threads in (0, 1):
        in_child(body, threads)


def uid_map(own_user_namespace: bool) -> None:
    """Root in a user namespace of its own with its own mounts and a fresh /run."""
    drop_to_user()
    uid, gid = os.geteuid(), os.getegid()
    must("unshare", int(USER))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    private_run()


class extra_threads:
    """Threads that only wait, so that the process has more than one."""

    def __init__(self, count: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._stop.wait) for _ in range(count)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_ordinary_user_is_told() -> None:
    def body() -> None:
        with pytest.raises(PermissionError):
            named.create("x")

    as_user(body)


# ---------------------------------------------------------------- nobody moves


@pytest.mark.parametrize("threads", [0, 1])
def test_nobody_moves(threads: int) -> None:
    """With one thread, and with another that watches the main one all the time."""

    def body() -> None:
        seen: set[str] = set()
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                seen.update(os.readlink(f"/proc/self/ns/{name}") for name in ("net", "uts"))

        before = ns_inodes()
        watcher = threading.Thread(target=look)
        if threads:
            watcher.start()
        for i in range(20):
            for nstype in (NET, UTS):
                named.create(f"n{i}", nstype).close()
                assert ns_inodes() == before
        stop.set()
        if threads:
            watcher.join()
            assert len(seen) == 2
        for nstype in (NET, UTS):
            named.remove(named.list(nstype), nstype)

    apart(body)


@pytest.mark.parametrize("nstype", [NET, UTS, IPC, CGROUP])
def test_where_there_is_no_way_back(nstype: NSType) -> None:
    """Root in a user namespace may leave the host's namespaces and not return to them."""

    def body() -> None:
        uid_map(own_user_namespace=True)
        before = ns_inodes()
        with named.create("x", nstype) as file:
            assert ns_inodes() == before
            assert file.inode != before[str(nstype)]
        assert named.list(nstype) == ["x"]
        named.remove("x", nstype)

    in_child(body)


# ---------------------------------------------------------------- the other types


def nsenter(option: str, *program: str) -> str:
    return subprocess.run(["nsenter", option, *program], check=True, capture_output=True, text=True).stdout.strip()


@needs_program("nsenter")
def test_each_type_keeps_what_it_was_made_with() -> None:
    def body() -> None:
        named.create("x", UTS, hostname="boxy", domainname="dom").close()
        assert nsenter("--uts=/run/nsutil/uts/x", "hostname") == "boxy"
        named.create("x", TIME, monotonic=1000.5, boottime=-3).close()
        offsets = nsenter("--time=/run/nsutil/time/x", "cat", "/proc/self/timens_offsets").split()
        assert offsets == ["monotonic", "1000", "500000000", "boottime", "-3", "0"]
        for nstype, option in ((IPC, "ipc"), (CGROUP, "cgroup"), (MNT, "mount")):
            with named.create("x", nstype) as file:
                path = f"/run/nsutil/{nstype}/x"
                shown = nsenter(f"--{option}={path}", "readlink", f"/proc/self/ns/{nstype}")
                assert shown == repr(file)
                assert file.inode != ns_inodes()[str(nstype)]
        for nstype in (UTS, TIME, IPC, CGROUP, MNT):
            assert named.list(nstype) == ["x"]
            named.remove("x", nstype)
            assert named.list(nstype) == []

    apart(body)


@needs_program("nsenter")
def test_mnt_keeps_its_mounts() -> None:
    def body() -> None:
        os.mkdir("/run/there")
        named.create("x", MNT, mounts=[nsutil.Tmpfs("/run/there", size="1m")]).close()
        assert "/run/there" not in Path("/proc/self/mountinfo").read_text()
        assert "/run/there tmpfs" in nsenter(
            "--mount=/run/nsutil/mnt/x", "findmnt", "-n", "-o", "TARGET,FSTYPE", "/run/there"
        )
        named.remove("x", MNT)

    apart(body)


def test_mnt_on_every_cpu() -> None:
    """Where ids of namespaces are handed out per CPU, a newer one can look older: the bind is then tried elsewhere."""

    def body() -> None:
        cpus = sorted(os.sched_getaffinity(0))
        for i in range(8):
            os.sched_setaffinity(0, {random.choice(cpus)})
            must("unshare", int(MNT))
            must("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
            os.sched_setaffinity(0, set(cpus))
            named.create(f"x{i}", MNT).close()
            assert os.sched_getaffinity(0) == set(cpus)
            named.remove(f"x{i}", MNT)

    in_child(lambda: (private_run(), body()))


# ---------------------------------------------------------------- removal


def test_removing_all_removes_them_everywhere() -> None:
    """At once, also where another mount namespace shares the directory; the directory stays usable."""

    def body() -> None:
        names = [f"n{i:03}" for i in range(100)]
        for name in names:
            named.create(name, loopback=False).close()
        ready, go = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            must("unshare", int(MNT))
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            left = [line for line in mounts_below("/run/netns/") if "nsfs" in line]
            os._exit(len(left))
        os.read(ready[0], 1)
        named.remove(names)
        assert named.list() == []
        assert [line for line in mounts_below("/run/netns") if "nsfs" in line] == []
        os.write(go[1], b"x")
        assert os.waitpid(pid, 0)[1] == 0
        for fd in (*ready, *go):
            os.close(fd)
        named.create("again").close()
        assert len(mounts_below("/run/netns")) == 2
        named.remove("again")

    apart(body)


def test_removing_all_keeps_a_file_system_of_its_own() -> None:
    """/run/netns may be a mount that somebody made: it is not ours to take away."""

    def body() -> None:
        NETNS.mkdir()
        must("mount", b"own", b"/run/netns", b"tmpfs", 0, None)
        before = len(mounts_below("/run/netns"))
        for name in ("a", "b"):
            named.create(name).close()
        (NETNS / "a").lstat()
        named.remove(["a", "b"])
        assert len(mounts_below("/run/netns")) == before == 1
        assert " own " in mounts_below("/run/netns")[0]

    apart(body)


def test_removing_some_leaves_the_rest() -> None:
    def body() -> None:
        for name in ("a", "b", "c"):
            named.create(name).close()
        with named.open("c") as before:
            named.remove(["b", "a", "b"])
            with named.open("c") as after:
                assert before == after
        assert named.list() == ["c"]
        named.remove(iter(["c"]))
        named.remove([])

    apart(body)


def test_several_mounts_on_one_name() -> None:
    def body() -> None:
        for name in ("a", "b"):
            named.create(name).close()
            must("mount", f"/run/netns/{name}".encode(), f"/run/netns/{name}".encode(), None, MS_BIND, None)
        named.remove("a")
        named.create("c").close()
        named.remove(["b", "c"])
        assert named.list() == []

    apart(body)


def test_hundred_names() -> None:
    def body() -> None:
        names = [f"n{i:03}" for i in range(100)]
        files = [named.create(name, loopback=False) for name in names]
        assert len({file.inode for file in files}) == 100
        assert named.list() == names
        for name, file in zip(names, files, strict=True):
            with named.open(name) as again:
                assert again == file
            file.close()
        for name in names[:50]:
            named.remove(name)
        named.remove(names[50:])
        assert named.list() == []

    apart(body)


# ---------------------------------------------------------------- races and crashes


@needs_program("ip")
def test_first_creations_in_parallel_mount_once() -> None:
    """Twenty processes, half of them ip-netns(8), find no directory: one mount comes of it."""

    def body() -> None:
        children = []
        for i in range(20):
            pid = os.fork()
            if pid == 0:
                try:
                    if i % 2:
                        ip("add", f"n{i}")
                    else:
                        named.create(f"n{i}")
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 20
        own = [line for line in mounts_below("/run/netns") if "nsfs" not in line]
        assert len(own) == 1
        assert len(mounts_below("/run/netns")) == 21
        assert len(named.list()) == 20
        for name in named.list():
            named.open(name).close()
        named.remove(named.list())

    apart(body)


def test_same_name_in_parallel() -> None:
    """One of many wins, the others get FileExistsError, and the name is good."""

    def body() -> None:
        for _ in range(5):
            children = []
            for _ in range(6):
                pid = os.fork()
                if pid == 0:
                    try:
                        named.create("x", UTS)
                        os._exit(0)
                    except FileExistsError:
                        os._exit(7)
                    finally:
                        os._exit(1)
                children.append(pid)
            codes = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
            assert codes == [0, 7, 7, 7, 7, 7]
            named.open("x", UTS).close()
            named.remove("x", UTS)

    apart(body)


def test_creating_while_all_are_removed() -> None:
    """Every name that create() returned is either there or was removed, never half of it."""

    def body() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                for i in range(60):
                    named.create(f"n{i}", UTS).close()
                os._exit(0)
            finally:
                os._exit(1)
        removed = 0
        while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            names = named.list(UTS)
            try:
                named.remove(names, UTS)
                removed += len(names)
            except FileNotFoundError:
                pass
            for name in named.list(UTS):
                try:
                    named.open(name, UTS).close()
                except (FileNotFoundError, nsutil.NotANamespace):
                    pytest.fail("a name that nobody is making")
        assert os.waitpid(pid, 0)[1] == 0
        removed += len(named.list(UTS))
        named.remove(named.list(UTS), UTS)
        assert removed == 60
        assert len(mounts_below("/run/nsutil/uts")) == 1

    apart(body)


@pytest.mark.parametrize("nstype", [NET, MNT])
def test_killed_at_any_moment(nstype: NSType) -> None:
    """What SIGKILL leaves behind is a name, or a stale file that says so; the next call works."""

    def body() -> tuple[int, int]:
        randomly = random.Random(5)
        whole = stale = 0
        for _ in range(25):
            pid = os.fork()
            if pid == 0:
                try:
                    while True:
                        for i in range(3):
                            named.create(f"n{i}", nstype)
                        named.remove([f"n{i}" for i in range(3)], nstype)
                finally:
                    os._exit(1)
            time.sleep(randomly.uniform(0.001, 0.03))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            for name in named.list(nstype):
                try:
                    named.open(name, nstype).close()
                    whole += 1
                except nsutil.NotANamespace:
                    stale += 1
            named.remove(named.list(nstype), nstype)
            assert named.list(nstype) == []
            named.create("after", nstype).close()
            named.remove("after", nstype)
            assert len(mounts_below(store_of(nstype).directory)) <= 1
        return whole, stale

    assert sum(apart(body)) > 0


# ---------------------------------------------------------------- watch, /etc/netns


def test_watch() -> None:
    def body() -> None:
        with named.watch() as events:
            assert select.select([events], [], [], 0)[0] == []
            named.create("a").close()
            named.create("b").close()
            named.remove("a")
            (NETNS / "b.tmp").touch()
            (NETNS / "b.tmp").rename(NETNS / "c")
            assert select.select([events], [], [], 5)[0] == [events]
            seen = [next(events) for _ in range(6)]
            assert seen[0] == ("add", "a")
            assert [tuple(event) for event in seen] == [
                ("add", "a"),
                ("add", "b"),
                ("delete", "a"),
                ("add", "b.tmp"),
                ("delete", "b.tmp"),
                ("add", "c"),
            ]
            named.remove(["b", "c"])
            assert [next(events), next(events)] == [("delete", "b"), ("delete", "c")]
        with pytest.raises(ValueError, match="closed"):
            next(events)
        with named.watch(UTS) as events:
            os.rmdir("/run/nsutil/uts")
            assert list(events) == []

    apart(body)


def test_etc_netns_mounts() -> None:
    def body() -> None:
        must("mount", b"none", b"/etc/netns" if os.path.isdir("/etc/netns") else b"/mnt", b"tmpfs", 0, None)
        if not os.path.isdir("/etc/netns"):
            must("mount", b"none", b"/etc", b"tmpfs", 0, None)
            os.mkdir("/etc/netns")
        os.mkdir("/etc/netns/blue")
        Path("/etc/netns/blue/resolv.conf").write_text("nameserver 127.0.0.53\n")
        os.mkdir("/etc/netns/blue/iproute2")
        with named.create("blue") as blue, named.create("green") as green:
            expected = [
                nsutil.Bind("/etc/netns/blue/iproute2", "/etc/iproute2"),
                nsutil.Bind("/etc/netns/blue/resolv.conf", "/etc/resolv.conf"),
            ]
            assert named.etc_netns_mounts("blue") == named.etc_netns_mounts(blue) == expected
            assert named.etc_netns_mounts(green) == []

    in_child(lambda: (private_run(), body()))


def test_entering_by_name_never_creates() -> None:
    def body() -> None:
        with pytest.raises(FileNotFoundError):
            nsutil.enter(name="typo")
        assert not NETNS.exists()

    apart(body)
