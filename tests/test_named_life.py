"""Named namespaces of each type, their removal, races and crashes."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from names_support import NETNS, apart, ip, mounts_below, nsenter, wait_for
from support import (
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    in_child,
    must,
    needs_kernel,
    needs_program,
    needs_root,
    no_leaks,
    ns_inodes,
    own_user_namespace,
    private_run,
)

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, NSType, named
from nsutil._names import store_of

pytestmark = needs_root


# ---------------------------------------------------------------- the other types


@needs_program("nsenter")
@needs_kernel("time")
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
def test_user_keeps_its_maps() -> None:
    def body() -> None:
        here = os.readlink("/proc/self/ns/user")
        named.create("own", USER).close()
        named.create("root", USER, uid_map="root").close()
        maps = [nsutil.IdMap(0, 1000, 10), nsutil.IdMap(10, 5000, 1)]
        with named.create("many", USER, uid_map=maps, gid_map=maps, setgroups="allow") as many:
            assert many.type == USER
            assert repr(many) != here
        expected = {"own": "0 0 1", "root": "0 0 1", "many": "0 1000 10 10 5000 1"}
        for name, text in expected.items():
            shown = nsenter(f"--user=/run/nsutil/user/{name}", "cat", "/proc/self/uid_map", "/proc/self/setgroups")
            assert " ".join(shown.split()) == f"{text} {'allow' if name == 'many' else 'deny'}"
        assert os.readlink("/proc/self/ns/user") == here
        named.remove(named.list(USER), USER)
        with pytest.raises(ValueError, match="cannot be kept"):
            named.create("x", USER, uid=5)

    apart(body)


def pid_1_of(name: str) -> int:
    with named.open(name, PID) as file:
        return file.pid_from(1)


def has_ended(pidfd: int, timeout: float = 10.0) -> bool:
    return bool(select.select([pidfd], [], [], timeout)[0])


@needs_program("nsenter")
def test_pid_stays_and_can_be_entered() -> None:
    """Also when its maker is gone: PID 1 is nobody's child, reaps, and holds nothing of its maker's."""

    def body() -> None:
        keep = os.open("/dev/null", os.O_RDONLY)
        maker = os.fork()
        if maker == 0:
            with named.create("x", PID):
                os._exit(0)
        assert os.waitpid(maker, 0)[1] == 0
        init = pid_1_of("x")
        assert named.pids("x", PID) == [init]
        status = Path(f"/proc/{init}/status").read_text()
        assert f"PPid:\t{os.getpid()}" not in status
        links = [os.readlink(f"/proc/{init}/fd/{fd}") for fd in os.listdir(f"/proc/{init}/fd")]
        assert "/dev/null" not in links
        assert os.readlink(f"/proc/{init}/cwd") == "/"
        for _ in range(3):
            inside = int(nsenter("--pid=/run/nsutil/pid/x", "sh", "-c", "echo $$"))
            assert inside > 1
        done = nsutil.run(["sh", "-c", "echo $$"], enter=named.open("x", PID), capture_output=True, check=True)
        assert int(done.stdout) > inside
        named.remove("x", PID)
        os.close(keep)

    apart(body)


@needs_program("nsenter")
def test_pid_ends_with_all_its_processes() -> None:
    def body() -> None:
        for name in ("x", "y", "z"):
            named.create(name, PID).close()
        pidfds = [os.pidfd_open(pid_1_of(name)) for name in ("x", "y", "z")]
        with subprocess.Popen(["nsenter", "--pid=/run/nsutil/pid/x", "sleep", "60"]) as sleeper:
            wait_for(lambda: len(named.pids("x", PID)) == 2)
            named.remove("x", PID)
            assert has_ended(pidfds[0], 0)
            sleeper.wait(10)
        named.remove(["z", "y"], PID)
        assert all(has_ended(pidfd, 0) for pidfd in pidfds)
        for pidfd in pidfds:
            os.close(pidfd)

    apart(body)


def test_pid_ends_with_the_name_however_that_goes() -> None:
    """umount and rm are enough: there is nothing else to know about."""

    def body() -> None:
        named.create("x", PID).close()
        pidfd = os.pidfd_open(pid_1_of("x"))
        subprocess.run(["umount", "/run/nsutil/pid/x"], check=True)
        assert not has_ended(pidfd, 0.05)
        os.unlink("/run/nsutil/pid/x")
        assert has_ended(pidfd)
        os.close(pidfd)

    apart(body)


def test_attached_pid_is_left_alone() -> None:
    """Only a PID 1 that is there for the name ends with it."""

    def body() -> None:
        with nsutil.Namespace(PID).create() as held:
            init = held.pid.pid_from(1)
            named.attach("x", init, PID)
            with named.open("x", PID) as file:
                assert file == held.pid
            named.remove("x", PID)
            pidfd = os.pidfd_open(init)
            assert not has_ended(pidfd, 0.1)
        assert has_ended(pidfd)
        os.close(pidfd)

    apart(body)


def test_pid_whose_init_died() -> None:
    def body() -> None:
        named.create("x", PID).close()
        init = pid_1_of("x")
        pidfd = os.pidfd_open(init)
        os.kill(init, signal.SIGKILL)
        assert has_ended(pidfd)
        os.close(pidfd)
        named.open("x", PID).close()
        wait_for(lambda: named.pids("x", PID) == [])
        named.remove("x", PID)
        assert named.list(PID) == []

    apart(body)


def test_a_failed_pid_leaves_nothing() -> None:
    """ENOSPC from the clone, in the process between; and where no inotify instance is left it works without."""

    def limited() -> None:
        own_user_namespace()
        private_run()
        named.create("warm", PID).close()
        named.remove("warm", PID)
        Path("/proc/sys/user/max_pid_namespaces").write_text("0")
        with no_leaks():
            with pytest.raises(OSError) as caught:
                named.create("x", PID)
            assert caught.value.step == "clone(PID)"  # type: ignore[attr-defined]
            assert caught.value.hint.startswith("limit: /proc/sys/user/max_pid_namespaces is 0")  # type: ignore[attr-defined]
            assert named.list(PID) == []

    in_child(limited)

    def without_inotify() -> None:
        own_user_namespace()
        private_run()
        Path("/proc/sys/user/max_inotify_instances").write_text("0")
        named.create("x", PID).close()
        pidfd = os.pidfd_open(pid_1_of("x"))
        named.remove("x", PID)
        assert has_ended(pidfd, 0)

    in_child(without_inotify)


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


def test_without_newer_calls() -> None:
    """What Linux before 5.8 cannot tell about mounts is not needed."""

    def body() -> None:
        code = """
import os
from nsutil import named, NET, MNT
for nstype in (NET, MNT):
    for name in ("a", "b", "c"):
        named.create(name, nstype)
    named.remove("b", nstype)
    named.remove(["a", "c"], nstype)
    assert named.list(nstype) == []
    named.create("d", nstype)
    named.open("d", nstype)
"""
        env = {**os.environ, "NSUTIL_NO_NEW_CALLS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
        assert named.list() == named.list(MNT) == ["d"]
        assert len(mounts_below("/run/netns")) == len(mounts_below("/run/nsutil/mnt")) == 2

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


@pytest.mark.incident("A29")
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
@pytest.mark.incident("A30")
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


@pytest.mark.parametrize("nstype", [NET, MNT, PID])
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
