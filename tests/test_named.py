"""Named namespaces: interop with ip-netns(8), bad input, and nobody moved by any of it."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from names_support import NETNS, apart, ip, mounts_below, nsenter, wait_for
from support import (
    MS_BIND,
    as_user,
    drop_to_user,
    in_child,
    must,
    needs_program,
    needs_root,
    ns_inodes,
    own_user_namespace,
    private_run,
)

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, UTS, NSType, named
from nsutil._names import store_of

pytestmark = needs_root


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
@pytest.mark.incident("A19")
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
@pytest.mark.incident("A31")
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
        root_of_nothing()
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


def root_of_nothing() -> None:
    """Root in a user namespace of its own with its own mounts and a fresh /run."""
    drop_to_user()
    own_user_namespace()
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


def test_many_threads_at_once() -> None:
    """Each gets its own namespace and stays where it is; no descriptor can be inherited."""

    def body() -> None:
        before = ns_inodes()
        with ThreadPoolExecutor(16) as pool:
            files = list(pool.map(lambda i: named.create(f"n{i}", UTS, hostname=f"h{i}"), range(64)))
            assert all(seen == before for seen in pool.map(lambda _: ns_inodes(), range(64)))
        assert len({file.inode for file in files}) == 64
        assert not any(os.get_inheritable(file.fileno()) for file in files)
        assert nsenter("--uts=/run/nsutil/uts/n7", "hostname") == "h7"
        for file in files:
            file.close()
        named.remove(named.list(UTS), UTS)

    apart(body)


@pytest.mark.parametrize("nstype", [NET, UTS, IPC, CGROUP])
def test_where_there_is_no_way_back(nstype: NSType) -> None:
    """Root in a user namespace may leave the host's namespaces and not return to them."""

    def body() -> None:
        root_of_nothing()
        before = ns_inodes()
        with named.create("x", nstype) as file:
            assert ns_inodes() == before
            assert file.inode != before[str(nstype)]
        assert named.list(nstype) == ["x"]
        named.remove("x", nstype)

    in_child(body)


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


def test_programs_see_the_files_of_their_namespace() -> None:
    """As with ip netns exec, and nobody else sees them; /sys shows the devices of the namespace when asked to."""

    def body() -> None:
        must("mount", b"none", b"/etc", b"tmpfs", 0, None)
        os.makedirs("/etc/netns/blue")
        Path("/etc/resolv.conf").write_text("outside")
        Path("/etc/netns/blue/resolv.conf").write_text("inside")
        named.create("blue").close()
        shown = nsutil.run(
            ["sh", "-c", "cat /etc/resolv.conf; ls /sys/class/net"],
            enter=named.open("blue"),
            etc_netns=True,
            mounts=[nsutil.Sysfs("/sys")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.split() == ["insidelo"]
        assert Path("/etc/resolv.conf").read_text() == "outside"
        named.remove("blue")

    in_child(lambda: (private_run(), body()))


@pytest.mark.incident("B5")
def test_entering_by_name_never_creates() -> None:
    def body() -> None:
        with pytest.raises(FileNotFoundError):
            nsutil.enter(name="typo")
        assert not NETNS.exists()

    apart(body)
