"""unshare, setns and clone: what the kernel does, and what it refuses."""

from __future__ import annotations

import ctypes
import errno
import importlib
import inspect
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import support

import nsutil
from nsutil import ALL, CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, NSType

NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
BY_NAME = {name: NSType[name.upper()] for name in NAMES}
each_type = pytest.mark.parametrize("name", [support.with_time(name) if name == "time" else name for name in NAMES])
# pytest's watchdog is a thread, and forking with threads makes Python 3.12 and later warn.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
libc = ctypes.CDLL(None, use_errno=True)


def changed(before: dict[str, int | None], after: dict[str, int | None]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def entries(nstype: NSType) -> set[str]:
    """The entries of /proc/PID/ns that a child in such new namespaces has differently."""
    names = {name for name in NAMES if BY_NAME[name] & nstype}
    return names | {f"{name}_for_children" for name in names & {"pid", "time"}}


def outcome(func: Callable[..., Any], *args: Any) -> object:
    try:
        return func(*args)
    except OSError as e:
        return type(e), e.errno
    except Exception as e:
        return type(e)


# unshare


@support.needs_root
@each_type
def test_unshare_moves_to_a_new_namespace(name: str) -> None:
    def child() -> set[str]:
        before = support.ns_inodes()
        nsutil.unshare(BY_NAME[name])
        return changed(before, support.ns_inodes())

    # The caller's children are the ones that move with PID and TIME.
    moved = f"{name}_for_children" if name in ("pid", "time") else name
    assert support.in_child(child) == {moved}


@support.needs_root
def test_unshare_takes_several_types_as_int_flag_and_keyword() -> None:
    def child(flags: int) -> set[str]:
        before = support.ns_inodes()
        nsutil.unshare(flags=flags)
        return changed(before, support.ns_inodes())

    assert support.in_child(child, UTS | NET) == {"uts", "net"}
    assert support.in_child(child, 0x04000000 | 0x08000000) == {"uts", "ipc"}
    assert support.in_child(child, 0) == set()


@support.needs_root
def test_unshare_moves_the_calling_thread_alone() -> None:
    def child() -> tuple[set[str], set[str]]:
        before = support.ns_inodes()
        seen = []

        def work() -> None:
            nsutil.unshare(UTS | NET)
            seen.append(changed(before, support.ns_inodes()))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return seen[0], changed(before, support.ns_inodes())

    assert support.in_child(child) == ({"uts", "net"}, set())


def test_unshare_of_user_needs_one_thread() -> None:
    def child() -> object:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            return outcome(nsutil.unshare, USER)
        finally:
            stop.set()
            thread.join()

    assert support.in_child(child) == (OSError, errno.EINVAL)


def test_unshare_as_user() -> None:
    assert support.as_user(outcome, nsutil.unshare, UTS) == (PermissionError, errno.EPERM)
    assert support.as_user(outcome, nsutil.unshare, USER | UTS) is None


# setns


@support.needs_root
@each_type
def test_setns_joins_by_file(name: str) -> None:
    def child() -> tuple[object, bool]:
        flags = BY_NAME[name]
        with support.paused(flags) as pid, open(f"/proc/{pid}/ns/{name}") as file:
            result = outcome(nsutil.setns, file, flags)
            # Children are what moves with PID; TIME moves the caller.
            entry = "pid_for_children" if name == "pid" else name
            return result, support.ns_inodes()[entry] == support.ns_inodes(str(pid))[name]

    assert support.in_child(child) == (None, True)


@support.needs_root
@support.needs_kernel("pidfd-setns")
def test_setns_by_pidfd_joins_several_at_once() -> None:
    def child() -> tuple[object, set[str]]:
        before = support.ns_inodes()
        with support.paused(UTS | NET | IPC) as pid:
            result = outcome(nsutil.setns, os.pidfd_open(pid), UTS | NET)
            return result, changed(before, support.ns_inodes())

    assert support.in_child(child) == (None, {"uts", "net"})


@support.needs_root
def test_setns_comes_back() -> None:
    def child() -> tuple[set[str], set[str]]:
        before = support.ns_inodes()
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        nsutil.unshare(NET)
        away = changed(before, support.ns_inodes())
        nsutil.setns(fd=home, nstype=NET)
        return away, changed(before, support.ns_inodes())

    assert support.in_child(child) == ({"net"}, set())


def test_setns_names_what_failed() -> None:
    with open("/proc/self/ns/uts") as file:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            nsutil.setns(file, NET)
        assert caught.value.filename is file
    with pytest.raises(OSError) as caught:
        nsutil.setns(-1)
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, -1)


@support.needs_root
def test_setns_joins_one_user_namespace_not_its_own() -> None:
    fd = os.open("/proc/self/ns/user", os.O_RDONLY)
    try:
        assert support.in_child(outcome, nsutil.setns, fd, USER) == (OSError, errno.EINVAL)
    finally:
        os.close(fd)


# Bad input: the kernel's answer, or Python's before that


def closed_fd() -> int:
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    return fd


class FileLike:
    def __init__(self, value: object) -> None:
        self.value = value

    def fileno(self) -> object:
        return self.value


BAD_SETNS = {
    "negative": ((-1,), (OSError, errno.EBADF)),
    "closed": ((1000,), (OSError, errno.EBADF)),
    "huge": ((2**40,), OverflowError),
    "huge flags": ((0, 2**40), OverflowError),
    "negative flags": ((0, -1), (OSError, errno.EINVAL)),
    "name": (("net",), TypeError),
    "none": ((None,), TypeError),
    "float": ((1.0,), TypeError),
    "name as type": ((0, "net"), TypeError),
    "nothing": ((), TypeError),
    "too many": ((0, 0, 0), TypeError),
    "fileno of str": ((FileLike("x"),), TypeError),
    "fileno negative": ((FileLike(-1),), ValueError),
}


@pytest.mark.parametrize(("args", "expected"), BAD_SETNS.values(), ids=BAD_SETNS)
def test_setns_bad_input(args: tuple[Any, ...], expected: object) -> None:
    before = support.ns_inodes()
    assert outcome(nsutil.setns, *args) == expected
    assert support.ns_inodes() == before


def test_setns_refuses_what_is_no_namespace(tmp_path: Any) -> None:
    before = support.ns_inodes()
    (tmp_path / "file").touch()
    for path in ("/", tmp_path / "file", "/dev/null", "/proc/self/stat", "/proc/self"):
        fd = os.open(path, os.O_RDONLY)
        assert outcome(nsutil.setns, fd) == (OSError, errno.EINVAL), path
        os.close(fd)
    with socket.socket() as sock:
        assert outcome(nsutil.setns, sock) == (OSError, errno.EINVAL)
    assert support.ns_inodes() == before


def test_setns_to_a_dead_process() -> None:
    pid = os.fork() if sys.version_info < (3, 12) else nsutil.clone()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert outcome(nsutil.setns, pidfd, UTS) == (ProcessLookupError, errno.ESRCH)  # a zombie
    os.waitpid(pid, 0)
    assert outcome(nsutil.setns, pidfd, UTS) == (ProcessLookupError, errno.ESRCH)
    os.close(pidfd)


BAD_FLAGS = (1, 0x100000, 0x80000000 - 2**32, 2**31, -(2**31) - 1, 2**40, "net", None, 1.0, [UTS], b"x")


@pytest.mark.parametrize("flags", BAD_FLAGS, ids=repr)
@pytest.mark.parametrize("call", ["unshare", "clone"])
def test_bad_flags(call: str, flags: Any, leak_check: None) -> None:
    if not isinstance(flags, int):
        expected: object = TypeError
    elif -(2**31) <= flags < 2**31:
        expected = (OSError, errno.EINVAL)
    else:
        expected = OverflowError
    assert outcome(nsutil.unshare if call == "unshare" else clone_and_wait, flags) == expected


def test_clone_refuses_flags_that_are_no_namespace(leak_check: None) -> None:
    for name, flag in {"FS": 0x200, "FILES": 0x400, "VM": 0x100, "THREAD": 0x10000}.items():
        assert outcome(clone_and_wait, flag | UTS) == (OSError, errno.EINVAL), name


def test_signatures() -> None:
    assert str(inspect.signature(nsutil.unshare)) == "(flags)"
    assert str(inspect.signature(nsutil.setns)) == "(fd, nstype=0)"
    assert str(inspect.signature(nsutil.clone)) == "(flags=0)"
    for args, options in (((1,), {"fd": 1}), ((), {}), ((), {"nstype": 1}), ((1,), {"type": 1})):
        with pytest.raises(TypeError, match=r"setns\(\)"):
            nsutil.setns(*args, **options)


# The same as the os module from Python 3.12 on; before, as libc


def reference_unshare(flags: Any) -> None:
    if sys.version_info >= (3, 12):
        os.unshare(flags)
    elif libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "")


def reference_setns(fd: int, nstype: int = 0) -> None:
    if sys.version_info >= (3, 12):
        os.setns(fd, nstype)
    elif libc.setns(fd, nstype):
        raise OSError(ctypes.get_errno(), "")


COMPARED_FLAGS = [0, UTS, NET | IPC, CGROUP, MNT, PID, TIME, USER, ALL, 0x200, 0x400, 0x100, 0x10000, 1, -1, 1 << 20]


@pytest.mark.parametrize("user", [False, True], ids=["", "user"])
@pytest.mark.parametrize("flags", COMPARED_FLAGS, ids=lambda flags: hex(flags))
def test_unshare_as_the_reference(flags: int, user: bool) -> None:
    def child(unshare: Callable[[int], None]) -> tuple[object, set[str]]:
        before = support.ns_inodes()
        return outcome(unshare, flags), changed(before, support.ns_inodes())

    run = support.as_user if user else support.in_child
    assert run(child, nsutil.unshare) == run(child, reference_unshare)


@pytest.mark.parametrize("nstype", [0, UTS, NET, UTS | NET, 1, -1])
@pytest.mark.parametrize("path", ["/proc/self/ns/uts", "/proc/self/ns/user", "/proc/self/ns/time", "/", "/dev/null"])
def test_setns_as_the_reference(path: str, nstype: int) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        expected = support.in_child(outcome, reference_setns, fd, nstype)
        assert support.in_child(outcome, nsutil.setns, fd, nstype) == expected
    finally:
        os.close(fd)


if sys.version_info >= (3, 12):

    @pytest.mark.parametrize("args", [(), ("x",), (None,), (1.5,), (2**40,), (0, "x"), (0, 2**40), (0, 0, 0)], ids=repr)
    def test_type_errors_as_the_os_module(args: tuple[Any, ...]) -> None:
        assert outcome(nsutil.setns, *args) == outcome(os.setns, *args)
        assert outcome(nsutil.unshare, *args) == outcome(os.unshare, *args)


# clone

COMBINATIONS = [NSType(0), *BY_NAME.values(), PID | TIME, USER | PID, USER | TIME, USER | NET | MNT, ALL & ~USER, ALL]
CLONED = [support.with_time(flags) if flags & TIME else flags for flags in COMBINATIONS]


@support.needs_root
@pytest.mark.parametrize("flags", CLONED, ids=lambda flags: str(flags) or "none")
def test_clone_enters(flags: NSType, leak_check: None) -> None:
    before = support.ns_inodes()
    found = child_says(flags, lambda: changed(before, support.ns_inodes("self")))
    assert found == (entries(flags), 9)


def child_says(flags: int, func: Callable[[], object]) -> tuple[object, int]:
    """What func returned in a child, which then exits with 9, and how it exited."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = nsutil.clone(flags)
    if pid == 0:
        try:
            os.write(writer, repr(func()).encode())
        finally:
            os._exit(9)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    return eval(text), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@support.needs_root
@pytest.mark.parametrize("flags", [NSType(0), UTS, PID, USER | PID], ids=lambda flags: str(flags) or "none")
def test_clone_child_knows_who_it_is(flags: NSType) -> None:
    def look() -> object:
        return (
            os.getpid() == threading.get_native_id(),
            os.getpid() == 1,
            threading.main_thread() is threading.current_thread(),
            threading.active_count(),
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
        )

    assert child_says(flags, look)[0] == (True, bool(flags & PID), True, 1, set())


@support.needs_root
def test_clone_from_a_worker_thread() -> None:
    def child() -> list[tuple[object, int]]:
        found = []
        thread = threading.Thread(target=lambda: found.append(child_says(PID | UTS, main_is_current)))
        thread.start()
        thread.join()
        return found

    def main_is_current() -> bool:
        return threading.main_thread() is threading.current_thread() and threading.active_count() == 1

    assert support.in_child(child) == [(True, 9)]


@support.needs_root
def test_clone_runs_the_fork_handlers() -> None:
    def child() -> tuple[list[str], object]:
        calls: list[str] = []
        os.register_at_fork(
            before=lambda: calls.append("before"),
            after_in_parent=lambda: calls.append("parent"),
            after_in_child=lambda: calls.append("child"),
        )
        return calls, child_says(USER | PID, lambda: calls)[0]

    assert support.in_child(child) == (["before", "parent"], ["before", "child"])


@support.needs_root
@support.needs_kernel("time")
def test_clone_with_time_is_inside() -> None:
    """The kernel takes offsets only until the first process is inside."""

    def offset_errno() -> int:
        try:
            with open("/proc/self/timens_offsets", "w") as file:
                file.write("boottime 5 0\n")
        except OSError as e:
            return e.errno or -1
        return 0

    assert child_says(TIME, offset_errno) == (errno.EACCES, 9)


@support.needs_root
@pytest.mark.parametrize("flags", [PID, USER | PID], ids=str)
def test_clone_hands_exits_and_signals_on(flags: NSType, leak_check: None) -> None:
    def handled() -> None:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(33))
        os.write(ready[1], b"x")
        while True:
            signal.pause()

    ready = os.pipe()
    pid = started(flags, handled)
    os.read(ready[0], 1)
    os.kill(pid, signal.SIGTERM)
    assert ended(pid) == 33
    assert ended(started(flags, lambda: os._exit(200))) == 200
    for fd in ready:
        os.close(fd)


def started(flags: int, func: Callable[[], object]) -> int:
    pid = nsutil.clone(flags)
    if pid == 0:
        try:
            func()
        finally:
            os._exit(99)
    return pid


def clone_and_wait(flags: int) -> int:
    """For calls that should fail: a child that there should not be must not go on with the test."""
    return ended(started(flags, lambda: os._exit(0)))


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@support.needs_root
def test_waiter_dies_by_the_same_signal(leak_check: None) -> None:
    pid = started(USER | PID, signal.pause)
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        child = int(file.read())
    os.kill(child, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL


@support.needs_root
def test_waiter_takes_the_child_along(leak_check: None) -> None:
    reader, writer = os.pipe()
    pid = started(USER | PID, signal.pause)
    os.close(writer)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    assert os.read(reader, 1) == b""  # the child held the other end
    os.close(reader)


@support.needs_root
def test_waiter_holds_no_descriptors(leak_check: None) -> None:
    """Else a pipe that the child closes would stay open."""
    reader, writer = os.pipe()

    def close_and_stay() -> None:
        os.close(writer)
        signal.pause()

    pid = started(USER | PID, close_and_stay)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    os.kill(pid, signal.SIGKILL)
    ended(pid)


@support.needs_root
def test_waiter_where_sigchld_is_ignored() -> None:
    def child() -> object:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        reader, writer = os.pipe()
        pid = started(USER | PID, lambda: os.write(writer, bytes([signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN])))
        os.close(writer)
        inherited = os.read(reader, 1)
        return inherited, outcome(os.waitpid, pid, 0)

    assert support.in_child(child) == (b"\1", (ChildProcessError, errno.ECHILD))


@support.needs_kernel("time")
def test_clone_as_user(leak_check: None) -> None:
    def child() -> tuple[object, ...]:
        refused = [outcome(clone_and_wait, flags) for flags in (UTS, NET, PID, TIME, PID | MNT)]
        before = support.ns_inodes()
        inside = child_says(USER | PID | NET | UTS | TIME, lambda: changed(before, support.ns_inodes("self")))
        return refused, inside, support.children(), changed(before, support.ns_inodes())

    refused, inside, children, moved = support.as_user(child)
    assert refused == [(PermissionError, errno.EPERM)] * 5
    assert inside == (entries(USER | PID | NET | UTS | TIME), 9)
    assert (children, moved) == (set(), set())


@support.needs_root
def test_clone_reports_what_fails_in_the_child(leak_check: None) -> None:
    """USER is refused in a chroot (user_namespaces(7))."""

    def child() -> tuple[object, ...]:
        before = support.open_fds()
        os.chroot("/usr")
        results = [outcome(clone_and_wait, flags) for flags in (USER, USER | PID)]
        leave_chroot()
        return results, outcome(os.waitpid, -1, 0), support.open_fds() == before

    refused = (PermissionError, errno.EPERM)
    assert support.in_child(child) == ([refused] * 2, (ChildProcessError, errno.ECHILD), True)


def leave_chroot() -> None:
    """cwd has stayed outside."""
    while os.stat("..").st_ino != os.stat(".").st_ino:
        os.chdir("..")
    os.chroot(".")


@support.needs_root
@support.needs_kernel("time")
@support.needs_kernel("pidfd-thread", "pidfd-namespaces")
def test_clone_without_proc() -> None:
    def child() -> tuple[list[bool], set[str]]:
        before = support.ns_inodes()
        os.chroot("/usr")
        inner = [child_says(flags, os.getpid)[0] == 1 for flags in (PID, PID | TIME, TIME)]
        leave_chroot()
        return inner, changed(before, support.ns_inodes())

    assert support.in_child(child) == ([True, True, False], set())


@support.needs_root
def test_clone_while_the_pid_namespace_is_undecided() -> None:
    """After unshare(PID) the next child is PID 1; as with clone(2), there cannot be another one before."""

    def child() -> object:
        nsutil.unshare(PID)
        refused = outcome(clone_and_wait, PID)
        return refused, child_says(0, os.getpid)[0]

    assert support.in_child(child) == ((OSError, errno.EINVAL), 1)


def test_clone_where_the_caller_could_not_return(leak_check: None) -> None:
    """In a user namespace below the one that owns the PID namespace, setns(2) to that is refused."""

    def child() -> tuple[object, ...]:
        nsutil.unshare(USER)
        before = support.ns_inodes()
        found = child_says(PID | UTS, lambda: (os.getpid(), changed(before, support.ns_inodes("self"))))
        return found, changed(before, support.ns_inodes())

    assert support.as_user(child) == (((1, entries(PID | UTS)), 9), set())


@support.needs_root
def test_clone_leaves_the_next_child_alone(leak_check: None) -> None:
    assert child_says(PID, os.getpid)[0] == 1
    assert child_says(0, os.getpid)[0] != 1


@support.needs_root
def test_clone_when_fork_fails() -> None:
    """The calling thread is back in its own PID namespace also then."""

    def child() -> tuple[object, object, set[str]]:
        before = support.ns_inodes()
        support.refuse_calls("clone", "clone3", "fork", error=errno.EAGAIN)
        return outcome(clone_and_wait, PID), outcome(clone_and_wait, 0), changed(before, support.ns_inodes())

    refused = (BlockingIOError, errno.EAGAIN)
    assert support.in_child(child) == (refused, refused, set())


@support.needs_root
def test_clone_when_the_way_back_fails() -> None:
    def child() -> tuple[object, object]:
        support.refuse_calls("setns", error=errno.EPERM)
        with pytest.raises(nsutil.RestoreError, match="pid") as caught:
            clone_and_wait(PID)
        return caught.value.types, outcome(os.waitpid, -1, 0)

    assert support.in_child(child) == (PID, (ChildProcessError, errno.ECHILD))


def test_clone_warns_of_threads_as_os_fork_does() -> None:
    def child() -> tuple[list[tuple[str, str]], object]:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ended(started(0, lambda: None))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            failed = outcome(lambda: ended(started(0, lambda: None)))
        stop.set()
        thread.join()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ended(started(0, lambda: None))
        return [(w.category.__name__, str(w.message)) for w in caught], failed

    caught, failed = support.in_child(child)
    text = "is multi-threaded, use of clone() may lead to deadlocks in the child."
    warned = [category for category, message in caught if text in message]
    warns = sys.version_info >= (3, 12)
    assert warned == (["DeprecationWarning"] if warns else [])
    assert failed == (DeprecationWarning if warns else 99)


def test_clone_refuses_in_a_subinterpreter() -> None:
    interpreters: Any = importlib.import_module(
        "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    )
    code = f"""
import sys
sys.path[:] = {sys.path!r}
import nsutil
try:
    nsutil.clone()
except RuntimeError as e:
    assert "subinterpreter" in str(e), e
else:
    raise AssertionError("forked")
"""
    ident = interpreters.create("legacy") if sys.version_info >= (3, 13) else interpreters.create(isolated=False)
    try:
        failure = interpreters.run_string(ident, code)
        assert failure is None, failure
    finally:
        interpreters.destroy(ident)


def test_audit_events() -> None:
    def child() -> list[tuple[str, tuple[object, ...]]]:
        seen = []
        sys.addaudithook(lambda event, args: seen.append((event, args)) if event.startswith("nsutil.") else None)
        outcome(nsutil.unshare, 0)
        outcome(nsutil.setns, 1000, NET)
        ended(started(0, lambda: None))
        return seen

    expected = [("nsutil.unshare", (0,)), ("nsutil.setns", (1000, int(NET))), ("nsutil.clone", (0,))]
    assert support.in_child(child) == expected


def test_audit_hooks_may_forbid() -> None:
    def child() -> tuple[object, set[str]]:
        def hook(event: str, args: object) -> None:
            if event.startswith("nsutil."):
                raise LookupError(event)

        before = support.ns_inodes()
        sys.addaudithook(hook)
        results = [outcome(nsutil.unshare, UTS), outcome(nsutil.setns, 0), outcome(clone_and_wait, UTS)]
        return results, changed(before, support.ns_inodes())

    assert support.in_child(child) == ([LookupError] * 3, set())


def test_clone_survives_signals(leak_check: None) -> None:
    """A timer that fires all the time: each clone comes back, each child too."""
    fired = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        codes = [ended(started(USER if i % 2 else 0, lambda: os._exit(5))) for i in range(40)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert codes == [5] * 40
    assert fired
