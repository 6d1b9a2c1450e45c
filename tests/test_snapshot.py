"""snapshot(): against lsns, and what lsns does not see."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    as_user,
    in_child,
    lacks,
    needs_kernel,
    needs_program,
    needs_root,
    no_leaks,
    ns_inodes,
    open_fds,
    paused,
    private_mounts,
    standing,
    unsanitized,
)

import nsutil
from nsutil import ALL, IPC, MNT, NET, PID, TIME, USER, UTS, Holder, NamespaceInfo, NSType, Snapshot, snapshot

# What other tests open and end meanwhile would show.
pytestmark = pytest.mark.serial

IDS_ALONE: dict[str, Any] = {"tasks": False, "fds": False, "sockets": False, "mounts": False}
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 1 << 18, 0x1000


@pytest.fixture(params=["new calls", "old calls"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as the kernel allows, once without what is newer than Linux 6.8."""
    monkeypatch.delenv("NSUTIL_NO_NEW_CALLS", raising=False)
    if request.param == "old calls":
        monkeypatch.setenv("NSUTIL_NO_NEW_CALLS", "1")


def old_calls() -> bool:
    return "NSUTIL_NO_NEW_CALLS" in os.environ


def find(snap: Snapshot, inode: int) -> NamespaceInfo | None:
    return next((info for info in snap.namespaces if info.inode == inode), None)


def get(snap: Snapshot, inode: int) -> NamespaceInfo:
    info = find(snap, inode)
    assert info is not None, f"{inode} is not in {snap.namespaces}"
    return info


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def own(name: str) -> int:
    inode = ns_inodes()[name]
    assert inode is not None
    return inode


def mount(source: str, target: str, fstype: str | None, flags: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(source.encode(), target.encode(), fstype and fstype.encode(), flags, None)
    if done < 0:
        raise OSError(ctypes.get_errno(), "mount", target)


@contextlib.contextmanager
def moved_back(flags: int) -> Iterator[None]:
    """New namespaces for a moment; this thread is where it was afterwards."""
    entry = {NET: "net", UTS: "uts", IPC: "ipc"}[NSType(flags)]
    saved = os.open(f"/proc/thread-self/ns/{entry}", os.O_RDONLY)
    nsutil.unshare(flags)
    try:
        yield
    finally:
        nsutil.setns(saved, flags)
        os.close(saved)


# Against lsns


def lsns() -> dict[int, dict[str, Any]]:
    columns = "NS,TYPE,PATH,NPROCS,PID,PPID,COMMAND,UID,USER,NETNSID,NSFS,PNS,ONS"
    for _ in range(20):  # it fails where a process ends under its eyes
        done = subprocess.run(["lsns", "-J", "-l", "-o", columns], capture_output=True, text=True)
        if done.returncode == 0:
            break
    rows = {row["ns"]: row for row in json.loads(done.stdout)["namespaces"]}
    for row in rows.values():
        if (row["command"] or "").startswith("lsns -J"):  # itself the lowest that it may see, when pids began anew
            for name in ("path", "pid", "ppid", "command"):
                del row[name]
    return rows


def as_lsns(info: NamespaceInfo) -> dict[str, Any]:
    """A namespace as lsns shows it; lsns itself is one of the processes."""
    here = info.inode in ns_inodes("self").values()
    return {
        "ns": info.inode,
        "type": str(info.type),
        "path": info.path,
        "nprocs": info.nprocs + here,
        "pid": info.pid,
        "ppid": info.ppid,
        "command": info.command,
        "uid": info.owner_uid,
        "user": info.user,
        "netnsid": info.netnsid if info.netnsid is None else str(info.netnsid),
        "nsfs": "\n".join(info.nsfs) or None,
        "pns": info.parent.inode if info.parent else 0,
        "ons": info.owner.inode if info.owner else 0,
    }


def assert_same_as_lsns(**options: bool) -> None:
    """Processes come and go meanwhile: each value must be the same at least once."""
    wrong: dict[tuple[int, str], tuple[object, object]] | None = None
    for _ in range(40):
        ours = {info.inode: as_lsns(info) for info in snapshot(**options).namespaces}
        found = {
            (inode, name): (ours.get(inode, {}).get(name, "missing"), value)
            for inode, row in lsns().items()
            for name, value in row.items()
            if ours.get(inode, {}).get(name, "missing") != value
        }
        wrong = found if wrong is None else {key: found[key] for key in wrong.keys() & found.keys()}
        if not wrong:
            return
        time.sleep(0.05)
    raise AssertionError(f"(snapshot, lsns): {wrong}")


@needs_program("lsns")
@pytest.mark.parametrize("options", [{}, IDS_ALONE], ids=["all", "ids alone"])
@pytest.mark.usefixtures("calls")
def test_lsns_lists_nothing_else(options: dict[str, bool]) -> None:
    with paused(UTS | IPC if os.geteuid() == 0 else USER | UTS):
        assert_same_as_lsns(**options)


@needs_root
@needs_program("lsns")
def test_lsns_agrees_on_users_titles_and_nesting() -> None:
    def other() -> None:
        nsutil.unshare(UTS | NET)
        os.setresuid(1234, 1234, 1234)

    with standing(other), paused(USER | PID), standing(nsutil.unshare, USER), odd_command():
        assert_same_as_lsns()


@contextlib.contextmanager
def odd_command() -> Iterator[int]:
    """A process in its own UTS namespace whose arguments are awkward: empty, with spaces, newlines, quotes."""
    code = "import nsutil, sys, time; nsutil.unshare(nsutil.UTS); print(flush=True); time.sleep(60)"
    arguments = [sys.executable, "-c", code, "", "two  words", 'a"b', "line\nbreak", ""]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


@needs_root
@needs_program("lsns")
@needs_program("ip")
def test_lsns_agrees_on_mounted_namespaces() -> None:
    """nsfs and netnsid: a named network namespace, and one that a link gave an id."""
    name = f"nsutil-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "netns", "set", name, "auto"], check=True)
        snap = snapshot()
        info = next(info for info in snap.filter("type == 'net'") if f"/run/netns/{name}" in info.nsfs)
        assert isinstance(info.netnsid, int)
        assert info.netnsid >= 0
        assert (info.nprocs, info.pid, info.ppid, info.command) == (0, None, None, None)
        assert info.path == f"/run/netns/{name}"
        assert (info.owner_uid, info.user) == (0, "root")
        assert get(snap, own("net")).netnsid == "unassigned"
        assert Holder("mount", os.getpid(), None, None, f"/run/netns/{name}") in info.holders
        with subprocess.Popen(["ip", "netns", "exec", name, "sleep", "60"]) as process:
            try:
                wait_until(lambda: ns_inodes(str(process.pid))["net"] == info.inode)
                assert_same_as_lsns()
                assert lsns()[info.inode]["nsfs"] == f"/run/netns/{name}"
            finally:
                process.kill()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    assert find(snapshot(), info.inode) is None


# What a process is in


@needs_root
@pytest.mark.parametrize("options", [{}, IDS_ALONE], ids=["all", "ids alone"])
@pytest.mark.usefixtures("calls")
def test_fields_of_a_process_in_new_namespaces(options: dict[str, bool]) -> None:
    with standing(nsutil.unshare, ALL & ~TIME & ~PID) as (pid, _):
        snap = snapshot(**options)
        of = snap.of(pid)
        assert {str(t): info.inode for t, info in of.items()} == {
            name: inode for name, inode in ns_inodes(str(pid)).items() if not name.endswith("children")
        }
        here = {nstype: find(snap, own(str(nstype))) for nstype in of}
        for nstype, info in of.items():
            with nsutil.open(pid, nstype) as handle:
                assert (info.type, info.device, info.inode) == (nstype, handle.device, handle.inode)
                if not old_calls():
                    assert info.id == handle.id
                assert info == handle
                assert snap.holders(handle) == info.holders
            if nstype in TIME | PID:
                assert info == here[nstype]
                continue
            assert (info.nprocs, info.pid, info.ppid) == (1, pid, os.getpid())
            assert (info.owner_uid, info.path) == (os.geteuid(), f"/proc/{pid}/ns/{nstype}")
            assert info.command == Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
            assert info.holders == [Holder("process", pid, None, None, f"/proc/{pid}/ns/{nstype}")]
            assert info.owner == (here[USER] if nstype is USER else of[USER])
            assert info.parent == (here[USER] if nstype is USER else None)
            assert info.netnsid == ("unassigned" if nstype is NET else None)
            assert info.nsfs == []


@needs_root
def test_a_snapshot_is_no_holder_of_what_it_looks_at() -> None:
    """It keeps an owner open while it reads its own descriptors, after a process with a smaller pid in there."""

    def after(pid: int) -> None:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid))

    def look() -> list[Holder]:
        after(100)
        with standing(nsutil.unshare, USER | UTS) as (pid, _):
            assert pid < os.getpid()
            return snapshot().of(pid)[USER].holders

    def body() -> list[str]:
        after(1000)
        return [holder.kind for holder in in_child(look)]

    assert nsutil.Namespace(PID | MNT).call(body) == ["process"]


def test_own_namespaces() -> None:
    snap = snapshot()
    of = snap.of(os.getpid())
    assert list(of) == sorted(of, key=str)
    assert {str(t): info.inode for t, info in of.items()} == {
        name: inode for name, inode in ns_inodes("self").items() if not name.endswith("children")
    }
    for info in of.values():
        assert os.getpid() in [holder.pid for holder in info.holders if holder.kind == "process"]
        assert info.nprocs == sum(holder.kind == "process" for holder in info.holders)
    assert snap.of(2**30) == {}


def test_namespaces_are_by_type_and_inode() -> None:
    keys = [(str(info.type), info.inode) for info in snapshot().namespaces]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize(
    ("types", "names"), [("net", {"net"}), (["uts", USER], {"uts", "user"}), (PID | MNT, {"pid", "mnt"})]
)
@pytest.mark.parametrize("options", [{}, IDS_ALONE], ids=["all", "ids alone"])
def test_types_limit_the_list(types: Any, names: set[str], options: dict[str, bool]) -> None:
    snap = snapshot(types, **options)
    assert {str(info.type) for info in snap.namespaces} == names
    assert {str(nstype) for nstype in snap.of(os.getpid())} == names
    owner = snap.namespaces[0].owner
    if owner is not None:  # counted all the same
        assert owner.type is USER
        assert owner.nprocs > 0
        assert owner.pid is not None


@pytest.mark.parametrize("options", [{}, IDS_ALONE], ids=["all", "ids alone"])
def test_a_zombie_is_seen_by_what_it_still_has(options: dict[str, bool]) -> None:
    def leave_a_zombie() -> int:
        nsutil.unshare(USER | PID | UTS)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    with standing(leave_a_zombie) as (parent, zombie):
        expected = {name: inode for name in ("user", "pid") if (inode := ns_inodes(str(zombie))[name])}
        if not expected:
            pytest.skip("this kernel shows no namespace of a zombie")
        snap = snapshot(**options)
        of = {str(nstype): info for nstype, info in snap.of(zombie).items()}
        assert {name: info.inode for name, info in of.items()} == expected
        if "pid" in of:
            info = of["pid"]
            assert (info.nprocs, info.pid, info.ppid, info.parent) == (1, zombie, parent, find(snap, own("pid")))
            assert info.command == Path(f"/proc/{zombie}/comm").read_text().strip()
        if "user" in of:
            assert [holder.pid for holder in of["user"].holders] == [parent, zombie]


@needs_root
def test_a_pid_namespace() -> None:
    def nest() -> int:
        nsutil.unshare(PID)
        pid = os.fork()
        while pid == 0:
            signal.pause()
        return pid

    with standing(nest) as (parent, pid):
        snap = snapshot()
        info = snap.of(pid)[PID]
        assert (info.nprocs, info.pid, info.ppid) == (1, pid, parent)
        assert info.parent == get(snap, own("pid"))
        assert info.owner == get(snap, own("user"))
        assert [holder.kind for holder in info.holders] == ["process", "children"]


# What else holds a namespace


@needs_root
def test_a_thread() -> None:
    def leave_a_thread() -> tuple[int, int, int]:
        found: list[int] = []
        ready = threading.Event()

        def body() -> None:
            nsutil.unshare(UTS | NET)
            found.extend((threading.get_native_id(), own("uts"), own("net")))
            ready.set()
            signal.pause()

        threading.Thread(target=body, daemon=True).start()
        ready.wait()
        return found[0], found[1], found[2]

    with standing(leave_a_thread) as (pid, (tid, uts, net)):
        snap = snapshot()
        for nstype, inode in (("uts", uts), ("net", net)):
            info = get(snap, inode)
            assert (str(info.type), info.nprocs, info.pid, info.command) == (nstype, 0, None, None)
            assert info.holders == [Holder("thread", pid, tid, None, f"/proc/{pid}/task/{tid}/ns/{nstype}")]
            assert info.owner == get(snap, own("user"))
            assert info.path is not None
            assert os.stat(info.path).st_ino == inode
        assert find(snapshot(tasks=False), uts) is None


@needs_root
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH], ids=["open", "O_PATH"])
@pytest.mark.usefixtures("calls")
def test_a_descriptor(flags: int) -> None:
    def leave_a_descriptor() -> tuple[int, int]:
        with moved_back(NET):
            fd = os.open("/proc/thread-self/ns/net", flags)
        return fd, os.fstat(fd).st_ino

    with standing(leave_a_descriptor) as (pid, (fd, inode)):
        snap = snapshot()
        info = get(snap, inode)
        assert (info.type, info.nprocs, info.pid) == (NET, 0, None)
        assert info.holders == [Holder("fd", pid, None, fd, f"/proc/{pid}/fd/{fd}")]
        assert info.path == f"/proc/{pid}/fd/{fd}"
        assert os.stat(info.path).st_ino == inode
        assert info.owner == get(snap, own("user"))
        assert (info.owner_uid, info.user) == (0, "root")
        assert snap.holders(inode) == snap.holders(info) == info.holders
        assert find(snapshot(fds=False), inode) is None


@needs_root
@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "detached"])
def test_a_descriptor_opened_where_the_namespace_is_mounted(tmp_path: Path, mounted: bool) -> None:
    """Its link shows a path, not "net:[...]"; "/" once the mount is gone."""

    def leave_a_descriptor() -> tuple[int, int]:
        nsutil.unshare(MNT)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        (tmp_path / "ns").touch()
        with moved_back(NET):
            mount("/proc/thread-self/ns/net", str(tmp_path / "ns"), None, MS_BIND)
        fd = os.open(tmp_path / "ns", os.O_RDONLY)
        if not mounted:
            subprocess.run(["umount", "-l", str(tmp_path / "ns")], check=True)
        return fd, os.fstat(fd).st_ino

    with standing(leave_a_descriptor) as (pid, (fd, inode)):
        holders = snapshot(mounts=False).holders(inode)
        assert holders == [Holder("fd", pid, None, fd, f"/proc/{pid}/fd/{fd}")]


@needs_root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX, socket.AF_NETLINK], ids=str)
def test_a_socket(family: int) -> None:
    def leave_a_socket() -> tuple[int, int]:
        with moved_back(NET):
            kept = socket.socket(family, socket.SOCK_DGRAM)
            inode = own("net")
        return kept.detach(), inode

    with standing(leave_a_socket) as (pid, (fd, inode)):
        snap = snapshot()
        info = get(snap, inode)
        assert (info.type, info.nprocs, info.path) == (NET, 0, None)
        assert info.holders == [Holder("socket", pid, None, fd, f"/proc/{pid}/fd/{fd}")]
        assert info.owner == get(snap, own("user"))
        assert find(snapshot(sockets=False), inode) is None


@needs_root
def test_descriptors_of_several_processes_are_in_order() -> None:
    """By kind first, though each process is looked at once."""

    def leave_open() -> tuple[int, int, int, int]:
        with moved_back(NET):
            kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            file = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        pid = os.fork()
        while pid == 0:
            signal.pause()
        return pid, kept.detach(), file, os.fstat(file).st_ino

    with standing(leave_open) as (parent, (child, sock, file, inode)):
        assert snapshot().holders(inode) == [
            Holder(kind, pid, None, fd, f"/proc/{pid}/fd/{fd}")
            for kind, fd in (("fd", file), ("socket", sock))
            for pid in sorted((parent, child))
        ]


@needs_root
def test_sockets_of_the_own_namespace_are_no_news() -> None:
    with socket.socket() as plain:
        kinds = [(holder.kind, holder.fd) for holder in snapshot().holders(own("net")) if holder.pid == os.getpid()]
        assert ("socket", plain.fileno()) not in kinds
        assert ("process", None) in kinds


def mounted_elsewhere(directory: Path, *names: str) -> list[int]:
    """Move to a new mount namespace where network namespaces are mounted that nothing else holds."""
    nsutil.unshare(MNT)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", str(directory), "tmpfs", 0)
    inodes = []
    for name in names:
        (directory / name).touch()
        with moved_back(NET):
            mount("/proc/thread-self/ns/net", str(directory / name), None, MS_BIND)
            inodes.append(own("net"))
    return inodes


@needs_root
@pytest.mark.usefixtures("calls")
def test_a_mount_in_another_mount_namespace(tmp_path: Path) -> None:
    names = ("plain", "a b\tc\nd\\e")
    with standing(mounted_elsewhere, tmp_path, *names) as (pid, inodes):
        snap = snapshot()
        for name, inode in zip(names, inodes, strict=True):
            info = get(snap, inode)
            assert (info.type, info.nprocs, info.nsfs) == (NET, 0, [])
            assert info.holders == [Holder("mount", pid, None, None, str(tmp_path / name))]
            assert info.path == f"/proc/{pid}/root{tmp_path / name}"
            assert os.stat(info.path).st_ino == inode
            assert info.owner == get(snap, own("user"))
        assert find(snapshot(mounts=False), inodes[0]) is None


@needs_root
@pytest.mark.usefixtures("calls")
def test_a_mount_where_only_a_thread_is(tmp_path: Path) -> None:
    def leave_a_thread() -> tuple[int, int]:
        found: list[int] = []
        ready = threading.Event()

        def body() -> None:
            found.extend((threading.get_native_id(), *mounted_elsewhere(tmp_path, "ns")))
            ready.set()
            signal.pause()

        threading.Thread(target=body, daemon=True).start()
        ready.wait()
        return found[0], found[1]

    with standing(leave_a_thread) as (pid, (tid, inode)):
        assert snapshot().holders(inode) == [Holder("mount", pid, tid, None, str(tmp_path / "ns"))]


@needs_root
def test_a_mount_in_a_mount_namespace_that_nobody_is_in(tmp_path: Path) -> None:
    """listmount() needs no process; without it, unseen says what is missing."""

    def leave_a_descriptor() -> tuple[int, int]:
        home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
        (inode,) = mounted_elsewhere(tmp_path, "ns")
        fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
        nsutil.setns(home, MNT)
        os.close(home)
        return os.fstat(fd).st_ino, inode

    with standing(leave_a_descriptor) as (pid, (mntns, inode)):
        snap = snapshot()
        assert [holder.kind for holder in snap.holders(mntns)] == ["fd"]
        unseen = [line for line in snap.unseen if str(mntns) in line]
        if find(snap, inode) is None:
            assert unseen
            pytest.skip("this kernel cannot list the mounts of another mount namespace")
        assert unseen == []
        assert snap.holders(inode) == [Holder("mount", None, None, None, str(tmp_path / "ns"))]
        assert get(snap, inode).path is None
        assert pid


@needs_root
def test_of_two_mounts_the_own_one_is_the_path(tmp_path: Path) -> None:
    """The other one is seen through a process with a lower number."""

    def outer() -> tuple[str | None, str]:
        private_mounts()
        file = tmp_path / "name"
        file.touch()
        with paused(NET) as pid:
            mount(f"/proc/{pid}/ns/net", str(file), None, MS_BIND)
        inode = file.stat().st_ino

        def inner() -> str | None:
            nsutil.unshare(MNT)
            return get(snapshot(), inode).path

        return in_child(inner), str(file)

    path, expected = in_child(outer)
    assert path == expected


@needs_root
@pytest.mark.usefixtures("calls")
def test_a_mount_hidden_by_a_chroot(tmp_path: Path) -> None:
    """The only process of a mount namespace need not see all of it: listmount() does."""

    def hide() -> int:
        (inode,) = mounted_elsewhere(tmp_path, "ns")
        os.chroot("/usr")
        os.chdir("/")
        return inode

    with standing(hide) as (pid, inode):
        snap = snapshot()
        if find(snap, inode) is None:
            assert old_calls() or lacks("statmount"), "listmount() shows it"
        else:
            assert [(holder.kind, holder.pid) for holder in snap.holders(inode)] == [("mount", pid)]


@pytest.mark.parametrize("options", [{}, IDS_ALONE], ids=["all", "ids alone"])
def test_a_hidden_user_namespace(options: dict[str, bool]) -> None:
    """One user namespace between others, with no process in it."""

    def nest() -> int:
        uid, gid = os.geteuid(), os.getegid()
        nsutil.unshare(USER)
        middle = own("user")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        nsutil.unshare(USER)
        return middle

    with standing(nest) as (pid, inode):
        snap = snapshot(**options)
        middle = snap.of(pid)[USER].owner
        assert middle is not None
        assert middle.inode == inode
        assert snap.of(pid)[USER].parent == middle
        assert (middle.type, middle.nprocs, middle.pid, middle.holders) == (USER, 0, None, [])
        assert middle.owner == middle.parent == get(snap, own("user"))
        assert (middle.owner_uid, middle.path) == (os.geteuid(), None)
        assert (find(snap, inode) is not None) is (not options)


@needs_root
@needs_kernel("time")
def test_what_children_will_be_in() -> None:
    def expect() -> tuple[int, int]:
        nsutil.unshare(PID | TIME)
        child = os.fork()
        while child == 0:
            signal.pause()
        return own("pid_for_children"), own("time_for_children")

    with standing(expect) as (pid, (pidns, timens)):
        snap = snapshot()
        in_pid, in_time = (
            Holder("children", pid, None, None, f"/proc/{pid}/ns/{name}_for_children") for name in ("pid", "time")
        )
        assert in_pid in snap.holders(pidns)
        assert in_time in snap.holders(timens)
        assert get(snap, pidns).nprocs == 1
        assert not [holder for holder in snap.holders(own("pid")) if holder.kind == "children"]
        assert not [holder for holder in snapshot(tasks=False).holders(pidns) if holder.kind == "children"]


@needs_root
@needs_kernel("time")
def test_a_namespace_that_only_children_will_be_in() -> None:
    def expect() -> int:
        nsutil.unshare(TIME)
        return own("time_for_children")

    with standing(expect) as (pid, inode):
        info = get(snapshot(), inode)
        assert (info.type, info.nprocs) == (TIME, 0)
        assert info.path == f"/proc/{pid}/ns/time_for_children"
        assert os.stat(info.path).st_ino == inode


@needs_root
def test_a_tun_device() -> None:
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")

    def leave_a_device() -> tuple[int, int]:
        with moved_back(NET):
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"nsutil%d", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
            return fd, own("net")

    with standing(leave_a_device) as (pid, (fd, inode)):
        info = get(snapshot(), inode)
        assert info.type is NET
        assert Holder("tun", pid, None, fd, f"/proc/{pid}/fd/{fd}") in info.holders
        assert info.path is None


# What it cannot see


def test_an_ordinary_user_sees_what_is_allowed() -> None:
    def look() -> tuple[list[str], set[int], set[int], str]:
        snap = snapshot()
        mine = {inode for name, inode in ns_inodes("self").items() if inode and not name.endswith("children")}
        return snap.unseen, mine, {info.inode for info in snap.namespaces}, snap.to_json()

    with paused():
        unseen, mine, seen, text = as_user(look)
    assert mine <= seen
    assert "/proc/1/ns: Permission denied" in unseen
    assert json.loads(text)["unseen"] == unseen
    assert all(re.fullmatch(r"\S.*: \S.*", line) for line in unseen), unseen


@needs_root
def test_an_ordinary_user_sees_mounts_of_others(tmp_path: Path) -> None:
    """Whoever hides its namespaces does not hide its mounts."""
    with standing(mounted_elsewhere, tmp_path, "ns") as (pid, (inode,)):
        holders, info_id, owner = as_user(lambda: look_at(inode))
        assert holders == [Holder("mount", pid, None, None, str(tmp_path / "ns"))]
        assert (info_id, owner) == (None, None)


def look_at(inode: int) -> tuple[list[Holder], int | None, int | None]:
    info = get(snapshot(), inode)
    return info.holders, info.id, info.owner.inode if info.owner else None


@needs_root
def test_refusals_are_named() -> None:
    """A process that hides from us: its namespaces, descriptors and sockets are each named once."""

    def drop() -> None:
        os.setresuid(1234, 1234, 1234)

    with standing(drop) as (pid, _):
        unseen = as_user(lambda: snapshot().unseen)
        assert [line for line in unseen if line.startswith(f"/proc/{pid}/")] == [
            f"/proc/{pid}/ns: Permission denied",
            f"/proc/{pid}/fd: Permission denied",
        ]
        alone = as_user(lambda: snapshot(**IDS_ALONE).unseen)
        assert [line for line in alone if line.startswith(f"/proc/{pid}/")] == [f"/proc/{pid}/ns: Permission denied"]


@needs_root
def test_in_a_pid_namespace_it_says_what_is_out_of_sight(tmp_path: Path) -> None:
    def inside() -> tuple[list[str], list[int]]:
        nsutil.unshare(PID | MNT)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        return in_child(look_inside, str(tmp_path))

    unseen, pids = in_child(inside)
    assert pids == [1]
    assert [line for line in unseen if "other PID namespace" in line]


def look_inside(directory: str) -> tuple[list[str], list[int]]:
    mount("proc", "/proc", "proc", 0)
    snap = snapshot()
    return snap.unseen, [holder.pid or 0 for holder in snap.holders(own("uts"))]


@needs_root
def test_hidden_processes_are_mentioned() -> None:
    def look() -> tuple[list[str], bool]:
        nsutil.unshare(MNT)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        subprocess.run(["mount", "-t", "proc", "-o", "hidepid=invisible", "proc", "/proc"], check=True)
        return as_user(lambda: (snapshot().unseen, os.path.exists("/proc/1")))

    unseen, shown = in_child(look)
    assert not shown
    assert "/proc: processes of other users are not shown: mounted with hidepid" in unseen
    assert not [line for line in snapshot().unseen if "hidepid" in line]


@needs_root
def test_somebody_elses_proc_is_never_mistaken_for_ours() -> None:
    """/proc of the outer PID namespace numbers processes otherwise: sockets cannot be asked there."""

    def inside() -> tuple[int, list[str], int]:
        nsutil.unshare(PID)
        return in_child(look)

    def look() -> tuple[int, list[str], int]:
        with moved_back(NET):
            kept = socket.socket()
            inode = own("net")
        snap = snapshot()
        kept.close()
        return len(snap.holders(inode)), snap.unseen, len(snap.namespaces)

    holders, unseen, count = in_child(inside)
    assert holders == 0
    assert [line for line in unseen if "another PID namespace" in line]
    assert not [line for line in unseen if "are not shown" in line]
    assert count >= 8


@needs_root
def test_without_proc_it_says_so() -> None:
    def look() -> tuple[str | None, str]:
        nsutil.unshare(MNT)
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", "/proc", "tmpfs", 0)
        with pytest.raises(OSError, match="list the namespaces") as caught:
            snapshot()
        return caught.value.filename, caught.value.step  # type: ignore[attr-defined]

    assert in_child(look) == ("/proc", "list the namespaces")


# One moment among many


@needs_root
@pytest.mark.slow
def test_a_storm_of_processes() -> None:
    """Processes start and end, with threads, descriptors and sockets, while 100 snapshots are taken."""

    def storm() -> None:
        pid = os.fork()
        if pid:
            return
        while True:
            children = []
            for _ in range(6):
                child = nsutil.clone(UTS | IPC | NET)
                if child == 0:
                    kept = [os.open("/proc/self/ns/net", os.O_RDONLY), socket.socket().detach()]
                    threading.Thread(target=nsutil.unshare, args=(UTS,)).start()
                    time.sleep(0.002 * len(kept))
                    os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)

    with standing(storm):
        before = open_fds()
        for round_ in range(100):
            snap = snapshot() if round_ % 2 else snapshot(**IDS_ALONE)
            inodes = [info.inode for info in snap.namespaces]
            assert len(inodes) == len(set(inodes))
            for info in snap.namespaces:
                assert len(info.holders) == len(set(info.holders))
                assert info.nprocs == sum(holder.kind == "process" for holder in info.holders)
                assert (info.pid is None) is (info.nprocs == 0)
            json.loads(snap.to_json())
            for kind in ("owner", "parent", "process"):
                assert len(list(snap.tree(kind))) == len(inodes)
        assert open_fds() == before


def test_what_is_read_late_is_never_a_strangers() -> None:
    """The process ended before its owner and command were asked for."""
    with paused(USER | UTS) as pid:
        snap = snapshot(**IDS_ALONE)
        info = snap.of(pid)[UTS]
    assert (info.pid, info.nprocs) == (pid, 1)
    assert (info.command, info.ppid, info.owner, info.id) == (None, None, None, None)
    assert (info.owner_uid, info.user) == (None, None)


def test_what_is_read_late_is_asked_of_who_is_left() -> None:
    def start_two() -> tuple[int, int]:
        nsutil.unshare(USER | UTS)
        pids = []
        for _ in range(2):
            pids.append(os.fork())
            while pids[-1] == 0:
                signal.pause()
        return pids[0], pids[1]

    with standing(start_two) as (_, pids):
        snap = snapshot(**IDS_ALONE)
        info = snap.of(pids[0])[UTS]
        assert info.nprocs == 3
        assert info.pid is not None
        os.kill(info.pid, signal.SIGKILL)
        wait_until(lambda: ns_inodes(str(info.pid))["uts"] is None)
        assert info.owner == snap.of(pids[0])[USER]


@needs_root
def test_what_is_read_late_is_not_of_a_process_that_moved_on() -> None:
    def pause_in_turns(reader: int, writer: int) -> None:
        nsutil.unshare(UTS)
        os.write(writer, b".")
        os.read(reader, 1)
        nsutil.unshare(UTS)
        os.write(writer, b".")

    down, up = os.pipe(), os.pipe()
    with standing(os.getpid) as (_, _), contextlib.ExitStack() as stack:
        for fd in (*down, *up):
            stack.callback(os.close, fd)
        child = os.fork()
        if child == 0:
            pause_in_turns(down[0], up[1])
            signal.pause()
        stack.callback(os.waitpid, child, 0)
        stack.callback(os.kill, child, signal.SIGKILL)
        os.read(up[0], 1)
        snap = snapshot("uts", **IDS_ALONE)
        info = snap.of(child)[UTS]
        os.write(down[1], b".")
        os.read(up[0], 1)
        assert info.owner is None
        assert info.command is None


def test_nothing_is_left_behind() -> None:
    snapshot().to_json()
    with no_leaks():
        for _ in range(5):
            snap = snapshot()
            snap.to_json()
            snap.to_html()
            str(snap.tree("process"))
            pickle.dumps(snap)
        snapshot(**IDS_ALONE).to_json()


@needs_root
@unsanitized
def test_memory_does_not_grow() -> None:
    def grow() -> int:
        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        for _ in range(20):
            snapshot().to_json()
        before = resident()
        for _ in range(60):
            snapshot().to_json()
        return resident() - before

    assert in_child(grow) < 2 << 20


# Data


JSON_TYPES: dict[str, tuple[type, ...]] = {
    "type": (str,),
    "inode": (int,),
    "device": (int,),
    "id": (int, type(None)),
    "owner": (int, type(None)),
    "parent": (int, type(None)),
    "owner_uid": (int, type(None)),
    "user": (str, type(None)),
    "nprocs": (int,),
    "pid": (int, type(None)),
    "ppid": (int, type(None)),
    "command": (str, type(None)),
    "path": (str, type(None)),
    "netnsid": (int, str, type(None)),
    "nsfs": (list,),
    "holders": (list,),
}


@pytest.mark.parametrize("options", [{}, IDS_ALONE], ids=["all", "ids alone"])
def test_json(options: dict[str, bool]) -> None:
    snap = snapshot(**options)
    data = json.loads(snap.to_json())
    assert list(data) == ["namespaces", "unseen"]
    assert data["unseen"] == snap.unseen
    assert [(row["type"], row["inode"]) for row in data["namespaces"]] == [
        (str(info.type), info.inode) for info in snap
    ]
    for row, info in zip(data["namespaces"], snap.namespaces, strict=True):
        assert list(row) == list(JSON_TYPES)
        for name, value in row.items():
            assert isinstance(value, JSON_TYPES[name]), (name, value)
        assert row["owner"] == (info.owner and info.owner.inode)
        assert [Holder(**holder) for holder in row["holders"]] == info.holders


def test_pickle() -> None:
    for options in ({}, IDS_ALONE):
        snap = snapshot(**options)
        text = snap.to_json()
        copy = pickle.loads(pickle.dumps(snap))
        assert isinstance(copy, Snapshot)
        assert copy.to_json() == text
        assert str(copy.tree("process")) == str(snap.tree("process"))
        assert pickle.loads(pickle.dumps(snap.namespaces[0])) == snap.namespaces[0]
        assert copy.filter("type == 'net'").namespaces == snap.filter("type == 'net'").namespaces


def test_a_pickle_knows_what_is_gone() -> None:
    with paused(USER | UTS) as pid:
        data = pickle.dumps(snapshot(**IDS_ALONE))
    info = pickle.loads(data).of(pid)[UTS]
    assert info.command
    assert info.ppid == os.getpid()
    assert info.owner is not None


def test_immutable() -> None:
    info = snapshot(**IDS_ALONE).namespaces[0]
    with pytest.raises(AttributeError):
        info.nprocs = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        info.colour = 3
    with pytest.raises(AttributeError):
        del info._key
    with pytest.raises(AttributeError):
        info.holders[0].pid = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        snapshot().colour = 3  # type: ignore[attr-defined]


def test_equality_is_by_device_and_inode() -> None:
    first, second = snapshot(**IDS_ALONE), snapshot()
    info = first.of(os.getpid())[NET]
    assert info == second.of(os.getpid())[NET]
    assert hash(info) == hash(second.of(os.getpid())[NET])
    assert info != first.of(os.getpid())[UTS]
    assert info != "net"
    with nsutil.current(NET) as handle:
        assert info == handle
        assert hash(info) == hash(handle)


def test_repr() -> None:
    snap = snapshot(**IDS_ALONE)
    info = snap.of(os.getpid())[NET]
    assert repr(info) == f"<NamespaceInfo net:[{info.inode}]: nprocs={info.nprocs} pid={info.pid}>"
    assert str(info) == f"net:[{info.inode}]"
    assert re.fullmatch(r"<Snapshot: \d+ namespaces(, \d+ unseen)?>", repr(snap))
    assert "details" not in vars(snap._facts), "a repr reads nothing"
    assert repr(info.holders[0]).startswith("Holder(kind='process', pid=")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda snap: snapshot("nett"), ValueError),
        (lambda snap: snapshot(0), ValueError),
        (lambda snap: snapshot(3.5), TypeError),  # type: ignore[arg-type]
        (lambda snap: snap.of("1"), TypeError),
        (lambda snap: snap.of(True), TypeError),
        (lambda snap: snap.holders("net"), TypeError),
        (lambda snap: snap.holders(None), TypeError),
        (lambda snap: snap.tree("pid"), ValueError),
        (lambda snap: snap.filter(3), TypeError),
    ],
)
def test_bad_arguments(call: Callable[[Any], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call(snapshot(**IDS_ALONE))


def test_holders_of_what_is_not_there() -> None:
    assert snapshot(**IDS_ALONE).holders(1) == []


# Trees


@pytest.mark.parametrize("kind", ["owner", "parent", "process"])
def test_a_tree_draws_each_namespace_once(kind: str) -> None:
    with paused(USER | PID | UTS) as pid:
        snap = snapshot()
        drawing = str(snap.tree(kind))
        for info in snap.namespaces:
            assert drawing.count(f"{info} ") == 1
        assert len(re.findall(r"\w+:\[\d+\]", drawing)) == len(snap.namespaces)
        assert {info.inode for info in snap.tree(kind)} == {info.inode for info in snap.namespaces}
        assert pid


def test_a_tree_by_owner() -> None:
    with paused(USER | UTS) as pid:
        snap = snapshot()
        user, uts = snap.of(pid)[USER], snap.of(pid)[UTS]
        lines = str(snap.tree("owner")).splitlines()
        at = next(i for i, line in enumerate(lines) if f"{user} " in line)
        indent = len(re.match(r"[│├└─ ]*", lines[at])[0])  # type: ignore[index]
        assert f"└─{uts} 1 process" in lines[at + 1]
        assert len(re.match(r"[│├└─ ]*", lines[at + 1])[0]) == indent + 2  # type: ignore[index]


def test_a_tree_by_process() -> None:
    """A process is below its nearest ancestor in the tree: here not its parent, which is the lowest nowhere."""

    def nest() -> int:
        nsutil.unshare(USER | IPC)
        reader, writer = os.pipe()
        if os.fork() == 0:
            if os.fork() == 0:
                nsutil.unshare(UTS)
                os.write(writer, str(os.getpid()).encode())
            while True:
                signal.pause()
        return int(os.read(reader, 16))

    with standing(nest) as (outer, inner):
        snap = snapshot()
        lines = str(snap.tree("process")).splitlines()
        at = next(i for i, line in enumerate(lines) if re.match(rf"[│├└─ ]*{outer} ", line))
        below = [line for line in lines[at:] if re.match(rf"[│├└─ ]*{inner} ", line)]
        indent = lines[at].index(str(outer))
        assert below[0].index(str(inner)) == indent + 2
        names = [str(info) for info in snap.of(inner).values() if info.pid == inner]
        assert names == [str(snap.of(inner)[UTS])]
        assert any(f"└─{names[0]} 1 process" in line for line in lines[at:])


def test_a_filtered_tree_keeps_its_branches() -> None:
    """What is above may be filtered out: the nearest one left takes its place."""
    with paused(USER | UTS) as pid:
        snap = snapshot()
        user, uts = snap.of(pid)[USER], snap.of(pid)[UTS]
        part = snap.filter(f"inode == {uts.inode} or inode == {own('user')}")
        assert len(part) == 2
        lines = str(part.tree("owner")).splitlines()
        assert lines[0].startswith(f"user:[{own('user')}]")
        assert lines[1].startswith(f"└─{uts}")
        assert user not in part.namespaces


def test_a_tree_is_one_line_per_node_whatever_a_command_holds() -> None:
    with odd_command() as pid:
        snap = snapshot()
        for kind in ("owner", "process"):
            drawing = str(snap.tree(kind))
            assert "\x1b" not in drawing
            assert all(re.match(r"[│├└─ ]*(\w+:\[\d+\]|\d+ |no process)", line) for line in drawing.splitlines())
        assert pid
