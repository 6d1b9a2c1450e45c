"""What several test files share: children, ordinary users, and everything that must not leak."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import importlib
import os
import pickle
import pkgutil
import platform
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import older_kernel
import pytest

import nsutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
# What holds the package under test: ROOT, or where a build apart lies.
PACKAGE = Path(nsutil.__file__).parent.parent

_libc = ctypes.CDLL(None, use_errno=True)

# make sanitize: the interpreter is slower, keeps what was freed, and has handlers of its own.
ADDRESS_SANITIZED, THREAD_SANITIZED = hasattr(_libc, "__asan_init"), hasattr(_libc, "__tsan_init")
SANITIZED = ADDRESS_SANITIZED or THREAD_SANITIZED or hasattr(_libc, "__ubsan_handle_builtin_unreachable")
SLOWER = 5 if SANITIZED else 1
unsanitized = pytest.mark.skipif(SANITIZED, reason="a sanitizer makes system calls of its own and keeps what was freed")

# The ordinary user of the tests: no name, no sub-ids, no groups need exist for it. Whoever is one already stays it.
USER_ID = os.geteuid() or int(os.environ.get("NSUTIL_TEST_UID", "65534"))

NS_ENTRIES = (
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
)

# make coverage
COUNTED = "coverage" in sys.modules
uncounted = pytest.mark.skipif(COUNTED, reason="coverage would be seen, or takes too long")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def needs_program(*names: str) -> pytest.MarkDecorator:
    """A mark that skips where a program is not installed, by any of its names."""
    return pytest.mark.skipif(not any(map(shutil.which, names)), reason=f"needs {' or '.join(names)}")


# Interfaces that older kernels lack, tried for real: under --older-kernel they are refused.


def _answer(call: str, *args: int) -> int:
    """The errno of a system call, 0 where it works; what it returns is closed when that is a descriptor of ours."""
    result = _libc.syscall(older_kernel.SYSTEM_CALLS[call][platform.machine() != "x86_64"], *map(ctypes.c_long, args))
    if result > 2:
        os.close(result)
    return ctypes.get_errno() if result < 0 else 0


def _ioctl_answer(path: str, request: int) -> int:
    buffer = ctypes.create_string_buffer(struct.pack("I", 16), 128)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else os.pidfd_open(os.getpid())
    try:
        return _answer("ioctl", fd, request, 0 if request >> 30 == 0 else ctypes.addressof(buffer))
    finally:
        os.close(fd)


def _setns_answer() -> int:
    pidfd = os.pidfd_open(os.getpid())
    try:
        return _answer("setns", pidfd, 0x44000000)  # NET and UTS, where we are anyway
    finally:
        os.close(pidfd)


def _time_answer() -> int:
    if not os.path.exists("/proc/self/ns/time"):
        return errno.ENOSYS
    return _answer("setns", -1, 0x80)  # the descriptor is looked at first


PROBES: dict[str, Callable[[], int]] = {
    "pidfd-setns": _setns_answer,
    "pidfd-thread": lambda: _answer("pidfd_open", threading.get_native_id(), os.O_EXCL),
    "pidfd-namespaces": lambda: _ioctl_answer("", 0xFF0A),
    "pidfd-info": lambda: _ioctl_answer("", 0xC040FF0B),
    "pid-translation": lambda: _ioctl_answer("/proc/self/ns/pid", 0x8004B706),
    "mnt-id": lambda: _ioctl_answer("/proc/self/ns/mnt", 0x8008B705),
    "mnt-next": lambda: _ioctl_answer("/proc/self/ns/mnt", 0x8010B70A),
    "ns-id": lambda: _ioctl_answer("/proc/self/ns/uts", 0x8008B70D),
    "mount-setattr": lambda: _answer("mount_setattr", -1, 0, 0, 0, 0),
    "mount-calls": lambda: _answer("open_tree", -1, 0, 0),
    "openat2": lambda: _answer("openat2", -1, 0, 0, 0),
    "close-range": lambda: _answer("close_range", 1 << 30, 1 << 30, 0),
    "statmount": lambda: _answer("statmount", 0, 0, 0, 0),
    "ns-handles": lambda: _answer("name_to_handle_at", -1, 0, 0, 0, 0),
    "pidfd-getfd": lambda: _answer("pidfd_getfd", -1, 0, 0),
    "time": _time_answer,
    "clone3": lambda: _answer("clone3", 0, 0),  # EINVAL where it is known: a structure of no size
    "memfd": lambda: _answer("memfd_create", 0, 0),
}
# EINVAL means something else where arguments are bad on purpose.
_LACKING = {errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP}


@functools.cache
def lacks(name: str) -> bool:
    """Whether this kernel, or a filter before it, has no such interface; the names are older_kernel.FEATURES."""
    answer = PROBES[name]()
    return answer in _LACKING or (answer == errno.EINVAL and name in ("pidfd-setns", "pidfd-thread", "time"))


@functools.cache
def sees_all_namespaces() -> bool:
    """Whether the kernel lets this process go from one mount namespace to the next.

    Root may, where no other user or (newer kernels) PID namespace is around it.
    """
    return _ioctl_answer("/proc/self/ns/mnt", 0x8010B70B) != errno.EPERM


def needs_kernel(*names: str) -> pytest.MarkDecorator:
    """A mark that skips where the kernel is too old for an interface."""
    missing = [name for name in names if lacks(name)]
    return pytest.mark.skipif(bool(missing), reason=f"this kernel has no {', '.join(missing)}")


needs_all_namespaces = pytest.mark.skipif(
    not sees_all_namespaces(), reason="needs a root that may see all namespaces of the machine"
)


def with_time(*values: object) -> Any:
    """Parameters of a test that makes or joins a TIME namespace."""
    return pytest.param(*values, marks=needs_kernel("time"))


def openpty() -> tuple[int, int]:
    """os.openpty(); a skip where this user may have no pseudo-terminal, as /dev/pts may be mounted."""
    try:
        return os.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal: {error}")


# Children


class ChildFailed(AssertionError):
    """A child of in_child ended without a result."""


def fork() -> int:
    """os.fork, also where other threads run, as under xdist."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(func: Callable[..., T], *args: Any, timeout: float = 30.0, **kwargs: Any) -> T:
    """func's result from a forked child; its exception is raised here, with the child's traceback as a note.

    The child has one thread, in the forking thread's namespaces. Result and exception are pickled.
    A child that is not done after `timeout` seconds is killed.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = fork()
    if pid == 0:
        _child_main(writer, func, args, kwargs)
    os.close(writer)
    deadline = time.monotonic() + timeout * SLOWER
    try:
        data = _read_message(reader, deadline)
    finally:
        os.close(reader)
        status = _reap(pid, deadline)
    if data is None:
        raise ChildFailed(f"the child sent no result: {_status_text(status)}")
    kind, value, text = pickle.loads(data)
    if kind == "error":
        value.add_note(f"in the child:\n{text}")
        raise value
    if kind == "skip":
        pytest.skip(value)
    return value  # type: ignore[no-any-return]


def _child_main(writer: int, func: Callable[..., object], args: Any, kwargs: Any) -> None:
    try:
        message = _outcome(func, args, kwargs)
        data = len(message).to_bytes(8, "little") + message
        while data:
            data = data[os.write(writer, data) :]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _outcome(func: Callable[..., object], args: Any, kwargs: Any) -> bytes:
    try:
        return pickle.dumps(("ok", func(*args, **kwargs), ""))
    except pytest.skip.Exception as skip:  # cannot be pickled
        return pickle.dumps(("skip", str(skip), ""))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            message = pickle.dumps(("error", error, text))
            pickle.loads(message)
        except Exception:
            message = pickle.dumps(("error", ChildFailed(repr(error)), text))
        return message


def _read_message(reader: int, deadline: float) -> bytes | None:
    """One length-prefixed message; None at end of file or past the deadline."""
    data, wanted = bytearray(), 8
    while len(data) < wanted:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(reader, 1 << 16) if ready else b""
        if not chunk:
            return None
        data += chunk
        if len(data) >= 8:
            wanted = 8 + int.from_bytes(data[:8], "little")
    return bytes(data[8:])


def _reap(pid: int, deadline: float) -> int | None:
    """The wait status; None where the child had to be killed."""
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _status_text(status: int | None) -> str:
    if status is None:
        return "killed after the timeout"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.WEXITSTATUS(status)}"


@contextlib.contextmanager
def paused(flags: int = 0) -> Iterator[int]:
    """The pid of a child in new namespaces that only waits, until the block ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = nsutil.clone(flags)
    while pid == 0:
        signal.pause()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def standing(func: Callable[..., T], *args: Any) -> Iterator[tuple[int, T]]:
    """The pid of a child that ran func and only waits from then on, and func's result, until the block ends.

    Whatever the child started ends with it.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _stand(writer, func, args)
    os.close(writer)
    try:
        data = _read_message(reader, time.monotonic() + 30)
        if data is None:
            raise ChildFailed("the child sent no result")
        kind, value, text = pickle.loads(data)
        if kind == "skip":
            pytest.skip(value)
        if kind == "error":
            value.add_note(f"in the child:\n{text}")
            raise value
        yield pid, value
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):  # not yet a group's leader
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _stand(writer: int, func: Callable[..., object], args: Any) -> NoReturn:
    try:
        os.setsid()
        message = _outcome(func, args, {})
        os.write(writer, len(message).to_bytes(8, "little") + message)
        os.close(writer)
        while True:
            signal.pause()
    finally:
        os._exit(1)


# Ordinary users


def drop_to_user(uid: int = USER_ID, gid: int | None = None, groups: tuple[int, ...] = ()) -> None:
    """Become an ordinary user for good: ids, groups and capabilities. Only ever call it in a child.

    Nothing happens where the tests run as an ordinary user already.
    """
    if os.geteuid() != 0:
        return
    gid = uid if gid is None else gid
    preload()
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # A process that changed its ids does not own its /proc files until it runs a program; a user's processes do.
    prctl(_PR_SET_DUMPABLE, 1)
    os.environ.update(HOME="/", USER=f"user{uid}", LOGNAME=f"user{uid}")


def as_user(func: Callable[..., T], *args: Any, uid: int = USER_ID, timeout: float = 30.0, **kwargs: Any) -> T:
    """in_child, as an ordinary user."""

    def dropped() -> T:
        drop_to_user(uid)
        return func(*args, **kwargs)

    return in_child(dropped, timeout=timeout)


def preload() -> None:
    """Import what is otherwise imported late: the interpreter may lie where only root can read."""
    names = [module.name for module in pkgutil.walk_packages(nsutil.__path__, "nsutil.")]
    names += ["asyncio", "concurrent.futures.process", "concurrent.futures.thread", "contextvars", "encodings.idna"]
    names += ["json", "logging", "multiprocessing.reduction", "socket", "subprocess", "tempfile", "threading"]
    for name in names:
        if not name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


# Raw system calls, for surroundings that nsutil itself is then tested in

MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18


def system_call(op: str, *args: object) -> int:
    """The errno of one system call by its kernel name, 0 when it worked; paths are bytes."""
    from nsutil import _ns

    failed = _ns.run_plan(_ns.Plan([(op, args, -1, 0)]))  # type: ignore[list-item]
    return failed[1] if failed else 0


def must(op: str, *args: object) -> None:
    """A system call that has to work."""
    error = system_call(op, *args)
    assert error == 0, (op, args, os.strerror(error))


def own_user_namespace() -> None:
    """Root in a new user namespace, as an ordinary user would make it. Only ever call it in a child."""
    from nsutil import USER

    uid, gid = os.geteuid(), os.getegid()
    must("unshare", int(USER))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def private_mounts() -> None:
    """A mount namespace of which nothing gets out. Only ever call it in a child."""
    from nsutil import MNT

    must("unshare", int(MNT))
    must("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def private_run() -> None:
    """private_mounts() with an empty /run: none of the machine's named namespaces. Only ever call it in a child."""
    private_mounts()
    for directory in ("/run/netns", "/run/nsutil"):
        subprocess.run(["umount", "-R", "-l", directory], check=False, stderr=subprocess.DEVNULL)
    must("mount", b"none", b"/run", b"tmpfs", 0, b"mode=755")


def refuse_calls(*names: str, error: int) -> None:
    """A seccomp filter for the rest of this process's life."""
    older_kernel.install(older_kernel.Rule(name, error) for name in names)


# What must not leak


def prctl(option: int, value: int = 0) -> int:
    """prctl(2) with one argument."""
    result: int = _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def ns_inodes(task: str = "thread-self") -> dict[str, int | None]:
    """The inode of all ten entries of /proc/TASK/ns; None where there is none to see."""
    return {name: _ns_inode(f"/proc/{task}/ns/{name}") for name in NS_ENTRIES}


def _ns_inode(path: str) -> int | None:
    try:
        found = re.search(r"\[(\d+)\]", os.readlink(path))
    except OSError:
        return None
    return int(found[1]) if found else None


def open_fds() -> dict[int, str]:
    """Each open descriptor of this process and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def children() -> set[int]:
    """The pids of this process's children, zombies included."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found


def threads() -> set[int]:
    """The kernel's ids of this process's threads."""
    return {int(name) for name in os.listdir("/proc/self/task")}


def mounts() -> list[str]:
    """The calling thread's mounts as "ID MOUNTPOINT FSTYPE".

    Those of named namespaces are left out: tests on other workers come and go there.
    """
    found = []
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        fields = line.split()
        if not fields[4].startswith(("/run/netns", "/run/nsutil")):
            found.append(f"{fields[0]} {fields[4]} {fields[fields.index('-') + 1]}")
    return found


def fstype(path: Path) -> str:
    """The type of the file system that a path is on."""
    lines = [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    above = [fields for fields in lines if path.resolve().is_relative_to(fields[4])]
    deepest = max(above, key=lambda fields: len(fields[4]))
    return deepest[deepest.index("-") + 1]


def process_state() -> dict[str, object]:
    """Everything that an operation must leave as it found it."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "namespaces": ns_inodes(),
        "fds": open_fds(),
        "children": children(),
        "threads": threads(),
        "mounts": mounts(),
        "cwd": _identity("/proc/thread-self/cwd"),
        "root": _identity("/proc/thread-self/root"),
        "umask": umask,
        "signal mask": {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])},
        # SIGALRM is pytest-timeout's, which takes it back where a test fails.
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals() if number != signal.SIGALRM},
        "dumpable": prctl(_PR_GET_DUMPABLE),
        "ids": (os.getresuid(), os.getresgid(), os.getgroups()),
    }


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def no_leaks(settle: float = 2.0) -> Iterator[None]:
    """Fail where the block leaves anything of process_state() changed.

    Threads and children that are ending anyway get `settle` seconds for it.
    """
    gc.collect()  # what earlier code left in cycles is not for this block to answer for
    before = process_state()
    yield
    gc.collect()
    after = process_state()
    deadline = time.monotonic() + settle
    while _left_behind(before, after) and time.monotonic() < deadline:
        time.sleep(0.01)
        after = process_state()
    assert (changed := _left_behind(before, after)) == {}, "left changed: " + "; ".join(_differences(changed))


def _differences(changed: dict[str, tuple[Any, Any]]) -> Iterator[str]:
    """Each change in words; of a table only the entries that differ."""
    for name, (old, new) in changed.items():
        if isinstance(old, dict):
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            old, new = ({key: table.get(key) for key in keys} for table in (old, new))
        yield f"{name}: {old} -> {new}"


def _left_behind(before: dict[str, object], after: dict[str, object]) -> dict[str, tuple[object, object]]:
    """What changed. Threads and children of before that were ending are not held against the block."""
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    for name in ("threads", "children"):
        if after[name] <= before[name]:  # type: ignore[operator]
            changed.pop(name, None)
    return changed
