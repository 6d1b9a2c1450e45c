"""NamespaceFile, open, current, NamespaceReference, NamespaceSet."""

from __future__ import annotations

import builtins
import contextlib
import copy
import ctypes
import gc
import os
import pickle
import platform
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support

import nsutil
from nsutil import (
    ALL,
    IPC,
    MNT,
    NET,
    PID,
    TIME,
    USER,
    UTS,
    NamespaceFile,
    NamespaceReference,
    NamespaceSet,
    NotANamespace,
    NSType,
    StaleReference,
    WrongNamespaceType,
    _handle,
)

# pytest's watchdog is a thread, and forking with threads makes Python 3.12 and later warn.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
each_type = pytest.mark.parametrize("name", [support.with_time(name) if name == "time" else name for name in NAMES])
SO_NETNS_COOKIE = 71


@pytest.fixture(params=["", "no new calls"], ids=["", "old"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs twice: with what this kernel has, and with the fallbacks of older ones."""
    if request.param:
        monkeypatch.setenv("NSUTIL_NO_NEW_CALLS", "1")
    return str(request.param)


def caught(func: Callable[..., object], *args: Any, **options: Any) -> type[BaseException] | None:
    try:
        func(*args, **options)
    except Exception as e:
        return type(e)
    return None


# open: what it takes


@each_type
def test_open_by_pid(name: str, calls: str, leak_check: None) -> None:
    with nsutil.open(os.getpid(), name) as file:
        assert file.type == NSType[name.upper()]
        assert file.inode == os.stat(f"/proc/self/ns/{name}").st_ino


@support.needs_root
@support.needs_kernel("time")
@each_type
def test_open_by_pid_of_another(name: str, calls: str, leak_check: None) -> None:
    with support.paused(ALL & ~USER) as pid, nsutil.open(pid, name) as file, nsutil.current(name) as own:
        assert file.inode == os.stat(f"/proc/{pid}/ns/{name}").st_ino
        assert (file == own) == (name == "user")


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "path"])
def test_open_by_path(kind: Callable[[str], Any], calls: str, leak_check: None) -> None:
    with nsutil.open(kind("/proc/self/ns/net"), NET) as file, nsutil.current(NET) as own:
        assert file == own
    with nsutil.open(kind("/proc/self/ns/uts")) as file:
        assert file.type is UTS


def test_open_by_descriptor(calls: str, leak_check: None) -> None:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    with nsutil.open(fd=fd) as file, nsutil.open(fd=fd, type="net") as typed:
        assert file == typed
        assert file.fileno() not in (fd, typed.fileno())
        with nsutil.open(file) as again, builtins.open("/proc/self/ns/net") as plain, nsutil.open(plain, NET) as other:
            assert file == again == other
    os.fstat(fd)  # still the caller's
    os.close(fd)


def test_open_takes_descriptor_0() -> None:
    def child() -> bool:
        with nsutil.current(UTS) as file:
            os.dup2(file.fileno(), 0)
            with nsutil.open(fd=0) as same, NamespaceFile(0) as zero:
                return same == zero == file and zero.fileno() == 0

    assert support.in_child(child)


@support.needs_root
def test_open_by_pidfd(calls: str, leak_check: None) -> None:
    with support.paused(UTS) as pid:
        pidfd = os.pidfd_open(pid)
        with nsutil.open(fd=pidfd, type=UTS) as file, nsutil.open(Fileno(pidfd), "uts") as same:
            assert file.inode == same.inode == os.stat(f"/proc/{pid}/ns/uts").st_ino
        os.fstat(pidfd)
    assert caught(nsutil.open, fd=pidfd, type=UTS) is ProcessLookupError
    os.close(pidfd)


class Fileno:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


@support.needs_root
def test_open_by_popen(calls: str, leak_check: None) -> None:
    with subprocess.Popen(["unshare", "-u", "sleep", "60"]) as process:
        wait_for(lambda: nsutil.open(process, UTS) != nsutil.current(UTS))
        with nsutil.open(process, UTS) as file:
            assert file.inode == os.stat(f"/proc/{process.pid}/ns/uts").st_ino
        process.kill()
        process.wait()
        assert caught(nsutil.open, process, UTS) is ProcessLookupError


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        select.select([], [], [], 0.01)
    raise AssertionError("never came true")


@support.needs_kernel("pidfd-thread")
def test_open_by_thread_id(calls: str) -> None:
    def child() -> bool:
        ready, done = threading.Event(), threading.Event()
        found = []

        def work() -> None:
            nsutil.unshare(UTS)
            found.append((threading.get_native_id(), support.ns_inodes()["uts"]))
            ready.set()
            done.wait()

        thread = threading.Thread(target=work)
        thread.start()
        ready.wait()
        tid, inode = found[0]
        with nsutil.open(tid, UTS) as file, nsutil.open(os.getpid(), UTS) as main:
            result = file.inode == inode != main.inode
        done.set()
        thread.join()
        return result

    if os.geteuid() == 0:
        assert support.in_child(child)


@support.needs_root
@support.needs_kernel("time")
def test_open_for_children(calls: str) -> None:
    def child() -> tuple[bool, ...]:
        before = nsutil.current(PID)
        nsutil.unshare(TIME)
        inside = nsutil.open(os.getpid(), "time_for_children")
        return (
            inside.type is TIME,
            inside != nsutil.open(os.getpid(), "time"),
            inside == nsutil.current("time_for_children"),
            nsutil.current("pid_for_children") == before,
        )

    assert support.in_child(child) == (True,) * 4


@support.needs_root
def test_open_for_children_before_the_first(calls: str) -> None:
    """A pidfd shows the PID namespace at once, /proc only when somebody is inside."""

    def child() -> list[object]:
        before = nsutil.current(PID)
        nsutil.unshare(PID)
        found: list[object] = []
        for look in (lambda: nsutil.current("pid_for_children"), lambda: nsutil.open(os.getpid(), "pid_for_children")):
            try:
                found.append(look() == before)
            except FileNotFoundError:
                found.append("not yet")
        return found

    old = bool(calls) or support.lacks("pidfd-namespaces")
    lacking = [old or support.lacks("pidfd-thread"), old]
    assert support.in_child(child) == ["not yet" if each else False for each in lacking]


# open: what it refuses


def test_open_of_the_dead(calls: str, leak_check: None) -> None:
    with support.paused() as pid:
        pass
    for name in NAMES:
        assert caught(nsutil.open, pid, name) is ProcessLookupError


def test_open_of_a_zombie(calls: str, leak_check: None) -> None:
    pid = nsutil.clone()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    for name in NAMES:
        assert caught(nsutil.open, pid, name) is ProcessLookupError
    os.waitpid(pid, 0)


def test_open_of_a_zombie_that_nobody_may_look_at(calls: str) -> None:
    """Once it is dead that is said, and not that a right is missing: a new user namespace's first process is so."""

    def child() -> list[object]:
        if (pid := os.fork()) == 0:
            support.prctl(4, 0)  # PR_SET_DUMPABLE
            signal.pause()
        wait_for(lambda: caught(nsutil.open, pid, UTS) is PermissionError)
        alive = caught(nsutil.open, pid, UTS)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        dead = [caught(nsutil.open, pid, name) for name in NAMES]
        os.waitpid(pid, 0)
        return [alive, *dead]

    found = support.as_user(child) if os.geteuid() == 0 else support.in_child(child)
    assert found == [PermissionError] + [ProcessLookupError] * len(NAMES)


def test_open_while_a_process_ends(calls: str) -> None:
    """Its namespaces go before it is a zombie; as long as a thread lives on its first one stays there in between."""

    def leader() -> None:
        threading.Thread(target=signal.pause).start()
        number = 60 if platform.machine() == "x86_64" else 93  # exit(2), which ends this thread alone
        ctypes.CDLL(None).syscall(ctypes.c_long(number), 0)

    def child() -> object:
        if (pid := os.fork()) == 0:
            leader()
        wait_for(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text())
        found = caught(nsutil.open, pid, UTS)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return found

    assert support.in_child(child) is ProcessLookupError


@support.needs_root
def test_open_of_strangers(calls: str) -> None:
    def child(pid: int) -> tuple[object, ...]:
        with pytest.raises(PermissionError) as denied:
            nsutil.open(pid, NET)
        error: Any = denied.value
        return error.filename, error.step, error.hint, caught(nsutil.open, f"/proc/{pid}/ns/net", NET)

    filename, step, hint, by_path = support.as_user(child, os.getpid())
    assert filename == f"/proc/{os.getpid()}/ns/net"
    assert step == f"open the net namespace of process {os.getpid()}"
    assert "CAP_SYS_PTRACE" in str(hint)
    assert by_path is PermissionError


BAD = {
    "nothing": ((), {}, TypeError),
    "no target": ((None, NET), {}, TypeError),
    "two": ((1, NET), {"fd": 1}, TypeError),
    "pid 0": ((0, NET), {}, ValueError),
    "negative pid": ((-1, NET), {}, ValueError),
    "huge pid": ((2**40, NET), {}, ValueError),
    "bool": ((True, NET), {}, TypeError),
    "float": ((1.0, NET), {}, TypeError),
    "list": (([1], NET), {}, TypeError),
    "pid without type": ((1,), {}, TypeError),
    "unknown type": ((1, "network"), {}, ValueError),
    "empty type": ((1, ""), {}, ValueError),
    "two types": ((1, NET | UTS), {}, ValueError),
    "no type": ((1, 0), {}, ValueError),
    "no bit of a type": ((1, 1), {}, ValueError),
    "negative type": ((1, -1), {}, ValueError),
    "type of float": ((1, 1.0), {}, TypeError),
    "type of list": ((1, ["net"]), {}, TypeError),
    "negative fd": ((), {"fd": -1}, ValueError),
    "huge fd": ((), {"fd": 2**40}, ValueError),
    "fd of str": ((), {"fd": "0"}, TypeError),
    "fd of bool": ((), {"fd": True}, TypeError),
    "closed fd": ((), {"fd": 1000}, OSError),
    "closed fd with type": ((), {"fd": 1000, "type": NET}, OSError),
    "missing path": (("/nowhere/net", NET), {}, FileNotFoundError),
    "empty path": (("", NET), {}, FileNotFoundError),
    "path with NUL": (("/proc\0", NET), {}, ValueError),
    "another keyword": ((1, NET), {"name": "x"}, TypeError),
}


@pytest.mark.parametrize(("args", "options", "expected"), BAD.values(), ids=BAD)
def test_open_bad_input(args: Any, options: Any, expected: type[Exception], calls: str, leak_check: None) -> None:
    with pytest.raises(expected):
        nsutil.open(*args, **options)


@pytest.mark.parametrize("type", ["network", "", NET | UTS, 0, 1, None, 1.0, b"net"], ids=repr)
def test_current_bad_input(type: Any, leak_check: None) -> None:
    with pytest.raises(ValueError if isinstance(type, (str, int)) else TypeError):
        nsutil.current(type)


def test_open_of_what_is_no_namespace(tmp_path: Path, calls: str, leak_check: None) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch(mode=0)
    for path in ("/", "/dev/null", "/proc/self/stat", "/proc/self/ns", tmp_path / "fifo", tmp_path / "file"):
        with pytest.raises(NotANamespace, match="no namespace file"):
            nsutil.open(path, NET)
    reader, writer = os.pipe()
    with socket.socket() as sock, builtins.open("/proc/self/stat") as file:
        for target in (sock, file, Fileno(reader)):
            with pytest.raises(NotANamespace):
                nsutil.open(target, NET)
    directory = os.open("/proc/self", os.O_RDONLY)
    assert caught(nsutil.open, fd=directory, type=NET) is NotANamespace
    only_path = os.open("/proc/self/ns/net", os.O_PATH)
    with pytest.raises(NotANamespace, match="O_PATH"):
        nsutil.open(fd=only_path)
    for fd in (reader, writer, directory, only_path):
        os.close(fd)


def test_open_of_another_type(calls: str, leak_check: None) -> None:
    with builtins.open("/proc/self/ns/net") as file, nsutil.current(NET) as handle:
        for target in ("/proc/self/ns/net", file, handle, handle.reference()):
            with pytest.raises(WrongNamespaceType, match=r"net:\[\d+\] is a net namespace, not a uts namespace"):
                nsutil.open(target, UTS)
    assert issubclass(WrongNamespaceType, ValueError)
    assert issubclass(NotANamespace, ValueError)


# current


@each_type
def test_current(name: str, calls: str, leak_check: None) -> None:
    with nsutil.current(name) as file, nsutil.current(NSType[name.upper()]) as same:
        assert file.inode == os.stat(f"/proc/thread-self/ns/{name}").st_ino
        assert file == same


@support.needs_root
@pytest.mark.incident("C3")
def test_current_is_the_threads_own(calls: str) -> None:
    """16 threads at once: each handle is of the thread that asked."""

    def child() -> list[bool]:
        results: list[bool] = []
        barrier = threading.Barrier(16)

        def work() -> None:
            barrier.wait()
            for _ in range(5):
                nsutil.unshare(UTS | NET)
                with nsutil.current(UTS) as uts, nsutil.current(NET) as net:
                    own = support.ns_inodes()
                    results.append((uts.inode, net.inode) == (own["uts"], own["net"]))

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    assert support.in_child(child) == [True] * 80


@support.needs_root
@support.needs_kernel("pidfd-thread", "pidfd-namespaces")
def test_current_without_proc() -> None:
    def child() -> bool:
        before = nsutil.current(NET)
        os.chroot("/usr")
        return nsutil.current(NET) == before

    assert support.in_child(child)


# What a file knows


@support.needs_kernel("ns-id")
def test_identity(leak_check: None) -> None:
    with nsutil.current(NET) as file:
        status = os.fstat(file.fileno())
        assert (file.inode, file.device) == (status.st_ino, status.st_dev)
        assert isinstance(file.type, NSType)
        assert file.id == nsutil.ioctl.get_id(file)
        assert repr(file) == str(file) == os.readlink("/proc/self/ns/net")
        assert not os.get_inheritable(file.fileno())


def test_id_is_none_without_newer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSUTIL_NO_NEW_CALLS", "1")
    with nsutil.current(NET) as net, nsutil.current(MNT) as mnt:
        assert (net.id, mnt.id) == (None, None)


def test_equality_and_hash() -> None:
    net, again, uts = nsutil.current(NET), nsutil.current(NET), nsutil.current(UTS)
    assert net == again
    assert hash(net) == hash(again)
    assert net != uts
    assert len({net, again, uts}) == 2
    assert (net == net.inode, net == "net", net is None) == (False, False, False)
    net.close()
    again.close()
    assert net == again
    assert net in {again}


def test_closing(leak_check: None) -> None:
    file = nsutil.current(NET)
    with file as entered:
        assert entered is file
        assert bool(file.closed) is False
    assert file.closed
    file.close()  # twice is fine
    with pytest.raises(ValueError, match=r"net:\[\d+\] is closed"):
        file.fileno()
    assert repr(file).startswith("net:[")
    assert (file.inode, file.type) == (os.stat("/proc/self/ns/net").st_ino, NET)
    for use in (
        file.owner,
        file.reference,
        file.socket,
        file.__enter__,
        lambda: file.owner_uid,
        lambda: file.bind("/"),
    ):
        assert caught(use) is ValueError
    assert caught(nsutil.open, file) is ValueError
    assert caught(nsutil.setns, file) is ValueError


def test_dropped_files_are_closed(leak_check: None) -> None:
    for _ in range(10):
        nsutil.current(NET)
        nsutil.open(os.getpid(), UTS).owner()


def test_dropped_files_warn_in_dev_mode() -> None:
    code = "import nsutil; nsutil.open('/proc/self/ns/net')"
    options: Any = {"capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": str(support.PACKAGE)}}
    result = subprocess.run([sys.executable, "-X", "dev", "-c", code], **options)
    assert "ResourceWarning: unclosed namespace net:[" in result.stderr
    assert subprocess.run([sys.executable, "-c", code], **options).stderr == ""


def test_no_pickle_no_copy() -> None:
    with nsutil.current(NET) as file:
        for func in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=r"use \.reference\(\)"):
                func(file)


def test_weak_references() -> None:
    file = nsutil.current(NET)
    reference = weakref.ref(file)
    assert reference() is file
    del file
    gc.collect()
    assert reference() is None


def test_constructor_leaves_what_it_refuses() -> None:
    with builtins.open("/dev/null") as file:
        with pytest.raises(NotANamespace):
            NamespaceFile(file.fileno())
        os.fstat(file.fileno())


# Relations


def test_owner(leak_check: None) -> None:
    with nsutil.current(NET) as net, nsutil.current(USER) as user:
        owner = net.owner()
        assert owner == user
        assert owner is not None
        owner.close()


@support.needs_root
def test_owner_and_parent(leak_check: None) -> None:
    with support.paused(USER | PID | NET) as pid, nsutil.current(USER) as own, nsutil.current(PID) as own_pid:
        with nsutil.open(pid, USER) as user, nsutil.open(pid, NET) as net:
            assert user.parent() == user.owner() == own
            assert net.owner() == user
            assert net.owner_uid == user.owner_uid == os.geteuid()
        with nsutil.open(pid, "pid_for_children") as inner:
            assert inner.parent() == own_pid
            assert inner.owner() != own


def test_relations_out_of_sight() -> None:
    def child() -> tuple[object, ...]:
        nsutil.unshare(USER)
        user, net = nsutil.current(USER), nsutil.current(NET)
        return user.owner(), user.parent(), net.owner(), net.owner_uid, user.owner_uid

    assert support.as_user(child) == (None, None, None, None, 65534)


def test_parent_is_for_pid_and_user() -> None:
    for name in NAMES:
        with nsutil.current(name) as file:
            refused = caught(file.parent)
            assert refused is (None if name in ("pid", "user") else ValueError)


# bind


@support.needs_root
def test_bind_keeps_a_namespace(tmp_path: Path) -> None:
    def child() -> tuple[bool, ...]:
        private_mounts()
        target = tmp_path / "ns"
        target.touch()
        with support.paused(UTS) as pid, nsutil.open(pid, UTS) as file:
            file.bind(target)
            inode = file.inode
        again = nsutil.open(target)
        nsutil.setns(again)
        return again.type is UTS, again.inode == inode, support.ns_inodes()["uts"] == inode

    assert support.in_child(child) == (True,) * 3


def private_mounts() -> None:
    nsutil.unshare(MNT)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@support.needs_root
def test_bind_errors(tmp_path: Path) -> None:
    def child() -> list[tuple[type, bool, str]]:
        private_mounts()
        found = []
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(OSError) as failed:
                nsutil.current(UTS).bind(path)
            error: Any = failed.value
            found.append((type(error), error.filename == str(path), error.step))
        return found

    missing, directory = support.in_child(child)
    assert missing[:2] == (FileNotFoundError, True)
    assert missing[2].startswith("bind uts:[")
    assert directory[:2] == (NotADirectoryError, True)


def test_bind_needs_privilege(tmp_path: Path) -> None:
    (tmp_path / "ns").touch()

    def child() -> object:
        return caught(nsutil.current(UTS).bind, "/dev/null"), caught(nsutil.current(UTS).bind, 5)

    assert support.as_user(child) == (PermissionError, TypeError)


# References


def test_reference_leads_back(calls: str, leak_check: None) -> None:
    for name in NAMES:
        with nsutil.current(name) as file:
            reference = file.reference()
            assert isinstance(reference, NamespaceReference)
            assert (reference.type, reference.inode, reference.device) == (file.type, file.inode, file.device)
            assert reference.id == file.id
            with reference.open() as again, nsutil.open(reference) as opened, nsutil.open(reference, name) as typed:
                assert again == opened == typed == file


def test_reference_travels(calls: str) -> None:
    with nsutil.current(UTS) as file:
        reference = file.reference()
        copied = pickle.loads(pickle.dumps(reference))
        assert copied == reference == copy.copy(reference)
        assert hash(copied) == hash(reference)
        assert str(copied) == repr(file)
        assert repr(copied) == f"<NamespaceReference {file!r}>"
        assert copied != nsutil.current(NET).reference()
        assert support.in_child(lambda: copied.open().inode) == file.inode


@support.needs_root
@pytest.mark.incident("A32")
def test_reference_to_the_dead(calls: str, leak_check: None) -> None:
    with support.paused(UTS) as pid:
        with nsutil.open(pid, UTS) as file:
            reference = file.reference()
        reference.open().close()
    with pytest.raises(StaleReference) as stale:
        reference.open()
    assert isinstance(stale.value, OSError)
    assert stale.value.errno == 116  # ESTALE
    assert caught(nsutil.open, reference) is StaleReference
    with pytest.raises(StaleReference) as came_back:
        nsutil.call(reference.open)
    assert vars(came_back.value) == vars(stale.value)
    assert (came_back.value.args, came_back.value.filename) == (stale.value.args, stale.value.filename)


@support.needs_root
def test_reference_does_not_keep_alive(calls: str) -> None:
    def child() -> object:
        nsutil.unshare(UTS)
        reference = nsutil.current(UTS).reference()
        nsutil.unshare(UTS)
        return caught(reference.open)

    assert support.in_child(child) is StaleReference


@support.needs_root
@pytest.mark.incident("A32")
def test_reference_by_path_is_never_another_ones(tmp_path: Path, calls: str) -> None:
    """A name is removed and given again, and the inode number comes again."""

    def child() -> tuple[bool, set[type[BaseException] | None]]:
        private_mounts()
        target = tmp_path / "ns"
        target.touch()
        inode, reference = bind_new(target)
        found, stale = reference.open().inode == inode, set()
        for _ in range(20):  # until the number comes again, where nobody else has taken it
            subprocess.run(["umount", target], check=True)
            stale.add(caught(reference.open))
            again, _ = bind_new(target)
            stale.add(caught(reference.open))
            if again == inode:
                break
        return found, stale

    def bind_new(target: Path) -> tuple[int, NamespaceReference]:
        with support.paused(UTS) as pid, nsutil.open(pid, UTS) as file:
            file.bind(target)
        with nsutil.open(target) as file:
            return file.inode, file.reference()

    assert support.in_child(child) == (True, {StaleReference})


@support.needs_root
@pytest.mark.incident("A32")
def test_reference_compares_more_than_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ids: when the process was started, and when the bound file came to be."""
    monkeypatch.setenv("NSUTIL_NO_NEW_CALLS", "1")

    def child() -> tuple[list[bool], list[type[BaseException] | None]]:
        private_mounts()
        (tmp_path / "ns").touch()
        with support.paused(UTS) as pid, nsutil.open(pid, UTS) as file:
            file.bind(tmp_path / "ns")
            with nsutil.open(tmp_path / "ns") as bound:
                by_pid, by_path = file.reference(), bound.reference()
            before = [by_pid.open() == file, by_path.open() == file]
            assert by_pid._process is not None
            assert by_path._place is not None
            by_pid._process = (by_pid._process[0], by_pid._process[1] + 1)
            by_path._place = (by_path._place[0], by_path._place[1] + 1)
            return before, [caught(by_pid.open), caught(by_path.open)]

    assert support.in_child(child) == ([True, True], [StaleReference] * 2)


def test_reference_of_another_boot() -> None:
    reference = nsutil.current(UTS).reference()
    reference.boot = "00000000-0000-0000-0000-000000000000"
    assert caught(reference.open) is StaleReference


@support.needs_root
def test_reference_may_be_out_of_reach() -> None:
    """Alive, but not for this user: the reason is the permission."""
    with support.paused(UTS) as pid, nsutil.open(pid, UTS) as file:
        reference = file.reference()
        assert support.as_user(caught, reference.open) is PermissionError


@support.needs_root
@support.needs_kernel("ns-handles")
def test_reference_by_handle_needs_no_process() -> None:
    with support.paused(UTS) as pid:
        file = nsutil.open(pid, UTS)
        reference = file.reference()
    with file, reference.open() as again:
        assert again == file


@support.needs_root
def test_reference_where_handles_are_forbidden() -> None:
    """Docker's filter does that; it must not look as if the namespace were there and out of reach."""

    def child() -> tuple[bool, object]:
        support.refuse_calls("open_by_handle_at", error=1)
        with support.paused(UTS) as pid, nsutil.open(pid, UTS) as file:
            reference = file.reference()
            alive = reference.open() == file
        file.close()
        return alive, caught(reference.open)

    assert support.in_child(child) == (True, StaleReference)


# PID


@support.needs_root
def test_pids(calls: str, leak_check: None) -> None:
    with support.paused(PID) as pid, nsutil.open(pid, PID) as inner, nsutil.current(PID) as own:
        assert inner.pid_in(pid) == 1
        assert inner.pid_from(1) == pid
        assert own.pid_in(pid) == own.pid_from(pid) == pid
        assert caught(inner.pid_in, os.getpid()) is ProcessLookupError
        assert caught(inner.pid_from, 2) is ProcessLookupError
        for bad, error in ((0, ValueError), (-1, ValueError), (2**31, ValueError), ("1", TypeError), (True, TypeError)):
            assert caught(inner.pid_in, bad) is error
            assert caught(inner.pid_from, bad) is error


@support.needs_root
def test_pids_two_levels_down(calls: str) -> None:
    def child() -> tuple[object, ...]:
        outer = nsutil.current(PID)
        reader, writer = os.pipe()
        middle = nsutil.clone(PID)
        if middle == 0:
            innermost = nsutil.clone(PID)
            while innermost == 0:
                signal.pause()
            os.write(writer, str(innermost).encode())
            signal.pause()
        number = int(os.read(reader, 10))
        with nsutil.open(middle, PID) as level:
            innermost = level.pid_from(number)
            with nsutil.open(innermost, PID) as bottom:
                found = (
                    level.pid_in(innermost) == number,
                    bottom.pid_in(innermost),
                    bottom.pid_from(1) == innermost,
                    outer.pid_in(innermost) == innermost,
                    caught(bottom.pid_in, middle),
                )
        os.kill(middle, signal.SIGKILL)
        os.waitpid(middle, 0)
        return found

    assert support.in_child(child) == (True, 1, True, True, ProcessLookupError)


def test_methods_of_other_types() -> None:
    with nsutil.current(UTS) as file:
        uses: list[Callable[[], object]] = [
            lambda: file.pid_in(1),
            lambda: file.pid_from(1),
            file.mounts,
            file.next,
            file.previous,
            file.socket,
            lambda: file.open("/"),
            file.parent,
        ]
        for use in uses:
            with pytest.raises(ValueError, match=r"namespaces, this is uts:\["):
                use()


# MNT


def test_mounts_of_its_own() -> None:
    with nsutil.current(MNT) as file:
        mounts = file.mounts()
    with builtins.open("/proc/thread-self/mountinfo") as lines:
        assert len(mounts) == len(lines.readlines())
    proc = next(mount for mount in mounts if mount.target == "/proc" and mount.fstype == "proc")
    status = os.stat("/proc")
    assert proc.device == (os.major(status.st_dev), os.minor(status.st_dev))
    assert "rw" in proc.options


@support.needs_root
def test_mounts_of_others(tmp_path: Path, leak_check: None) -> None:
    folder = tmp_path / "a b\\c"
    folder.mkdir()
    with mounted_elsewhere(folder) as pid, nsutil.open(pid, MNT) as file, nsutil.current(MNT) as own:
        [mount] = [mount for mount in file.mounts() if mount.target == str(folder)]
        assert (mount.fstype, mount.source) == ("tmpfs", "nowhere")
        assert mount.propagation == ()
        assert str(folder) not in [mount.target for mount in own.mounts()]


class mounted_elsewhere:
    """A process whose mount namespace has a tmpfs on a folder, with a file in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> int:
        reader, writer = os.pipe()
        self.pid = nsutil.clone(MNT)
        if self.pid == 0:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "nowhere", self.folder], check=True)
            (self.folder / "file").write_text("inside")
            (self.folder / "link").symlink_to(self.folder / "file")
            os.write(writer, b"x")
            while True:
                signal.pause()
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return self.pid

    def __exit__(self, *exc: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@support.needs_root
def test_open_inside(tmp_path: Path, leak_check: None) -> None:
    path = tmp_path / "file"
    with mounted_elsewhere(tmp_path) as pid, nsutil.open(pid, MNT) as file:
        assert not path.exists()
        for name in (path, str(path), os.fsencode(path), str(path)[1:], tmp_path / "link"):
            with file.open(name) as stream:
                assert stream.read() == "inside"
                assert not os.get_inheritable(stream.fileno())
        with file.open(path, "ab") as stream:
            stream.write(b"!")
        with file.open(tmp_path / "new", "x", encoding="utf-8") as stream:
            stream.write("ö")
        with file.open(tmp_path / "new", encoding="utf-8") as stream:
            assert stat.S_IMODE(os.fstat(stream.fileno()).st_mode) == 0o644
            assert stream.read() == "ö"
        with file.open(path, buffering=0, mode="rb") as raw:
            assert raw.read() == b"inside!"
        with pytest.raises(FileNotFoundError) as missing:
            file.open(tmp_path / "nothing")
        assert missing.value.filename == str(tmp_path / "nothing")
        assert caught(file.open, tmp_path / "new", "x") is FileExistsError
        assert caught(file.open, tmp_path) is IsADirectoryError
        assert caught(file.open, "a\0b") is ValueError
        assert caught(file.open, 1.5) is TypeError
        assert caught(file.open, path, "q") is ValueError
    assert not path.exists()


def test_open_inside_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with nsutil.current(MNT) as own, own.open(tmp_path / "file") as stream:
        assert stream.read() == "here"
    assert support.as_user(lambda: nsutil.current(MNT).open("/etc/passwd").read()) != ""


@support.needs_root
@support.needs_kernel("mnt-next")
def test_open_inside_needs_privilege(tmp_path: Path) -> None:
    with mounted_elsewhere(tmp_path) as pid, nsutil.open(pid, MNT) as file:
        for use in (lambda: file.open("/etc/passwd"), file.mounts, file.next):
            assert support.as_user(caught, use) is PermissionError


@support.needs_root
@support.needs_kernel("mnt-next")
@support.needs_all_namespaces
def test_neighbours(leak_check: None) -> None:
    def walk(start: NamespaceFile, step: str) -> set[NamespaceFile]:
        seen: set[NamespaceFile] = set()
        while (start := getattr(start, step)()) is not None:
            seen.add(start)
        return seen

    with support.paused(MNT) as pid, nsutil.open(pid, MNT) as file, nsutil.current(MNT) as own:
        before, after = walk(file, "previous"), walk(file, "next")
        assert own in before | after
        assert file not in before | after
        assert all(other.id < file.id for other in before)  # type: ignore[operator]
        for other in before | after:
            other.close()


# NET


def cookie(sock: socket.socket) -> int:
    """The id of a socket's network namespace."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)


@support.needs_root
@support.needs_kernel("ns-id")
def test_socket_inside(leak_check: None) -> None:
    with support.paused(NET) as pid, nsutil.open(pid, NET) as file:
        with file.socket() as plain, file.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP) as sock:
            assert cookie(plain) == cookie(sock) == file.id
            assert (plain.family, plain.type, plain.proto) == (socket.AF_INET, socket.SOCK_STREAM, 0)
            assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_DGRAM)
            assert not os.get_inheritable(sock.fileno())
        with socket.socket() as own:
            assert cookie(own) != file.id
        with file.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.bind((0, 0))
            assert cookie(netlink) == file.id
        with pytest.raises(OSError, match=r"\[open a socket in net:\[\d+\]\]"):
            file.socket(12345)
        assert caught(file.socket, "x") is TypeError
        assert caught(file.socket, 2**40) is OverflowError


@support.needs_kernel("ns-id")
def test_socket_of_its_own() -> None:
    def child() -> bool:
        with nsutil.current(NET) as file, file.socket() as sock:
            return cookie(sock) == file.id

    assert support.as_user(child)


@support.needs_root
def test_socket_inside_needs_privilege() -> None:
    with support.paused(NET) as pid, nsutil.open(pid, NET) as file:

        def child() -> tuple[object, object]:
            with pytest.raises(PermissionError) as denied:
                file.socket()
            error: Any = denied.value
            return error.step, support.ns_inodes()["net"]

        assert support.as_user(child) == (f"join {file!r}", support.ns_inodes()["net"])


@support.needs_kernel("ns-id")
def test_socket_where_there_is_no_way_back() -> None:
    """Root of a user namespace may enter its own network namespace, but not the host's again."""

    def child() -> tuple[bool, bool]:
        nsutil.unshare(USER)
        before = support.ns_inodes()
        with support.paused(NET) as pid, nsutil.open(pid, NET) as file, file.socket() as sock:
            return cookie(sock) == file.id, support.ns_inodes() == before

    assert support.as_user(child) == (True, True)


@support.needs_root
@support.needs_kernel("ns-id")
def test_socket_where_no_thread_can_be_made() -> None:
    def child() -> tuple[object, ...]:
        with support.paused(NET) as pid, nsutil.open(pid, NET) as file, support.paused(MNT) as other:
            mnt = nsutil.open(other, MNT)
            nsutil.unshare(PID)
            before = support.ns_inodes()
            assert caught(threading.Thread(target=print).start) is RuntimeError
            with file.socket() as sock:
                inside = cookie(sock) == file.id
            refused = caught(lambda: mnt.open("/etc/passwd"))
            return inside, support.ns_inodes() == before, refused is not None and issubclass(refused, OSError)

    assert support.in_child(child) == (True, True, True)


@support.needs_root
def test_the_thread_is_gone_afterwards() -> None:
    """unshare(USER) needs a process of one thread, also in the eyes of the kernel."""

    def child() -> list[bool]:
        found = []
        with support.paused(NET | MNT) as pid, nsutil.open(pid, NET) as net, nsutil.open(pid, MNT) as mnt:
            for _ in range(100):
                net.socket().close()
                found.append(len(support.threads()) == 1)
                mnt.open("/etc/passwd").close()
                found.append(len(support.threads()) == 1)
            nsutil.unshare(USER)
        return found

    assert support.in_child(child) == [True] * 200


# NamespaceSet


def a_set(**options: Any) -> tuple[NamespaceSet, list[str]]:
    opened: list[str] = []

    def opener(name: str) -> Callable[[], NamespaceFile]:
        def open_now() -> NamespaceFile:
            opened.append(name)
            return nsutil.current(name)

        return open_now

    return NamespaceSet({UTS: opener("uts"), NET: opener("net"), IPC: nsutil.current(IPC)}, **options), opened


def test_set_opens_at_first_use(leak_check: None) -> None:
    inside, opened = a_set()
    assert (len(inside), inside.types, opened) == (3, UTS | NET | IPC, [])
    assert NET in inside
    assert "uts" in inside
    assert PID not in inside
    assert opened == []
    assert inside.net is inside[NET] is inside["net"]
    assert opened == ["net"]
    assert [file.type for file in inside] == [IPC, NET, UTS]
    assert opened == ["net", "uts"]
    assert nsutil.current(NET) in inside
    assert nsutil.current(PID) not in inside
    assert repr(inside) == "<NamespaceSet ipc|net|uts>"
    assert {"net", "uts", "ipc"} <= set(dir(inside))
    inside.close()


def test_set_knows_what_it_lacks() -> None:
    inside, _ = a_set()
    with inside:
        for bad, error in (
            (PID, KeyError),
            ("pid", KeyError),
            ("x", ValueError),
            (NET | UTS, ValueError),
            (1.0, TypeError),
        ):
            with pytest.raises(error):
                inside[bad]  # type: ignore[index]
        assert not hasattr(inside, "pid")
        assert not hasattr(inside, "anything")
        with pytest.raises(ValueError, match="unknown namespace type"):
            "x" in inside  # noqa: B015


def test_set_closes_what_it_opened(leak_check: None) -> None:
    ends: list[int] = []
    inside, opened = a_set(on_close=lambda: ends.append(1))
    with inside as entered:
        assert entered is inside
        net = inside.net
        assert bool(inside.closed) is False
    assert inside.closed
    assert net.closed
    assert ends == [1]
    inside.close()
    assert ends == [1]
    with pytest.raises(ValueError, match="closed"):
        inside.uts  # noqa: B018
    assert opened == ["net"]


def test_files_outlive_a_dropped_set(leak_check: None) -> None:
    ends: list[int] = []
    inside, _ = a_set(on_close=lambda: ends.append(1))
    net = inside.net
    del inside
    gc.collect()
    assert ends == [1]
    assert not net.closed
    net.close()


@pytest.mark.incident("A20")
def test_no_descriptor_is_lost_over_many() -> None:
    def child() -> bool:
        before = support.open_fds()
        for _ in range(1000):
            with nsutil.current(NET) as file:
                nsutil.open(file.reference()).close()
        return support.open_fds() == before

    assert support.in_child(child)


@support.needs_root
@support.needs_kernel("pidfd-setns", "time")
@pytest.mark.parametrize("mover", ["first thread", "calling thread"])
def test_the_look_whether_pidfds_can_be_joined_moves_no_thread(mover: str) -> None:
    """A pidfd of the process is that of its first thread, which may be in a block just then, or the caller may be."""

    def body() -> tuple[bool, bool]:
        _handle._pidfds_join = None
        started, go = threading.Event(), threading.Event()
        same: list[bool] = []

        def ask() -> None:
            started.set()
            go.wait(20)
            with nsutil.Namespace(UTS | NET) if mover == "calling thread" else contextlib.nullcontext():
                before = support.ns_inodes()
                known = _handle.pidfds_join()
                same.extend([support.ns_inodes() == before, known])

        thread = threading.Thread(target=ask)
        thread.start()
        started.wait(20)
        with nsutil.Namespace(UTS | NET) if mover == "first thread" else contextlib.nullcontext():
            go.set()
            thread.join(20)
        return same[0], same[1]

    assert support.in_child(body) == (True, True)
