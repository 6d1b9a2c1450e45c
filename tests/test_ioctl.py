"""nsutil.ioctl: ints in, ints out, OSError as the kernel says."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import support

import nsutil
from nsutil import MNT, NET, PID, USER, UTS, NSType, ioctl

NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
NSFS = [
    "get_userns",
    "get_parent",
    "get_nstype",
    "get_owner_uid",
    "get_mntns_id",
    "get_id",
    "mnt_get_info",
    "mnt_get_next",
    "mnt_get_prev",
]
PIDS = ["get_pid_from_pidns", "get_tgid_from_pidns", "get_pid_in_pidns", "get_tgid_in_pidns"]

# What older kernels lack, by the names of older_kernel.FEATURES.
NEWER = dict.fromkeys(PIDS, "pid-translation") | dict.fromkeys(NSFS[-3:], "mnt-next")
NEWER |= {"get_mntns_id": "mnt-id", "get_id": "ns-id"}
ALL_NAMES = [
    pytest.param(name, marks=support.needs_kernel(NEWER[name])) if name in NEWER else name for name in NSFS + PIDS
]


@pytest.fixture
def fds(leak_check: None) -> Iterator[dict[str, int]]:
    """A descriptor of each of this process's namespaces."""
    opened = {name: os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in NAMES}
    yield opened
    for fd in opened.values():
        os.close(fd)


def call(name: str, fd: Any) -> object:
    function = getattr(ioctl, name)
    return function(fd, 1) if name in PIDS else function(fd)


def errno_of(func: Callable[..., object], *args: object) -> int | None:
    with pytest.raises(OSError) as caught:
        func(*args)
    return caught.value.errno


def is_cloexec(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)


def test_every_function_is_there() -> None:
    assert set(NSFS + PIDS) | {"pidfd_get_namespace", "MountNamespaceInfo"} == set(ioctl.__all__)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_bad_descriptors(name: str, leak_check: None) -> None:
    assert errno_of(call, name, -1) == errno.EBADF
    assert errno_of(call, name, 1000) == errno.EBADF
    assert errno_of(call, name, -(2**31)) == errno.EBADF
    with open("/proc/self/stat") as file:
        assert errno_of(call, name, file) == errno.ENOTTY
    directory = os.open("/", os.O_RDONLY)
    assert errno_of(call, name, directory) == errno.ENOTTY
    os.close(directory)


@pytest.mark.parametrize("name", NSFS + PIDS)
def test_bad_types(name: str) -> None:
    for value in ("net", None, 1.0, [1], b"x"):
        with pytest.raises(TypeError):
            call(name, value)
    with pytest.raises(OverflowError):
        call(name, 2**40)
    with pytest.raises(TypeError):
        getattr(ioctl, name)()


def test_errors_name_the_descriptor() -> None:
    with pytest.raises(OSError) as caught:
        ioctl.get_nstype(-1)
    assert caught.value.filename == -1


def test_get_nstype(fds: dict[str, int]) -> None:
    for name, fd in fds.items():
        assert ioctl.get_nstype(fd) == NSType[name.upper()]
        assert type(ioctl.get_nstype(fd)) is int


def test_objects_with_fileno() -> None:
    with nsutil.current("net") as file:
        assert ioctl.get_nstype(file) == NET


def test_get_userns_gives_the_owner(fds: dict[str, int]) -> None:
    for name in ("net", "uts", "mnt", "ipc", "pid", "cgroup", "time"):
        owner = ioctl.get_userns(fds[name])
        assert ioctl.get_nstype(owner) == USER
        assert is_cloexec(owner)
        assert os.fstat(owner).st_ino == os.fstat(fds["user"]).st_ino
        os.close(owner)


@support.needs_root
def test_relations_across_user_namespaces(leak_check: None) -> None:
    with support.paused(USER) as pid, open(f"/proc/{pid}/ns/user") as inner, open("/proc/self/ns/user") as own:
        parent, owner = ioctl.get_parent(inner), ioctl.get_userns(inner)
        assert os.fstat(parent).st_ino == os.fstat(owner).st_ino == os.fstat(own.fileno()).st_ino
        assert is_cloexec(parent)
        assert ioctl.get_owner_uid(inner) == os.geteuid()
        os.close(parent)
        os.close(owner)


def test_relations_end_where_the_caller_sees_no_further() -> None:
    def child() -> list[int | None]:
        nsutil.unshare(USER)
        with open("/proc/self/ns/user") as own, open("/proc/self/ns/net") as net:
            return [
                errno_of(ioctl.get_parent, own),
                errno_of(ioctl.get_userns, own),
                errno_of(ioctl.get_userns, net),
            ]

    assert support.as_user(child) == [errno.EPERM] * 3


@support.needs_root
def test_get_parent_of_pid() -> None:
    def child() -> tuple[bool, object]:
        with support.paused(PID) as pid, open(f"/proc/{pid}/ns/pid") as inner:
            parent = ioctl.get_parent(inner)
            return is_cloexec(parent), os.fstat(parent).st_ino == os.stat("/proc/self/ns/pid").st_ino

    assert support.in_child(child) == (True, True)


@support.needs_kernel("mnt-id", "mnt-next", "pid-translation")
def test_other_types_are_refused(fds: dict[str, int]) -> None:
    for name, fd in fds.items():
        if name not in ("pid", "user"):
            assert errno_of(ioctl.get_parent, fd) == errno.EINVAL, name
        if name != "user":
            assert errno_of(ioctl.get_owner_uid, fd) == errno.EINVAL, name
        if name != "mnt":
            for function in (ioctl.get_mntns_id, ioctl.mnt_get_info):
                assert errno_of(function, fd) == errno.EINVAL, name
            for function in (ioctl.mnt_get_next, ioctl.mnt_get_prev):  # who may not go on is told that first
                assert errno_of(function, fd) == (errno.EINVAL if support.sees_all_namespaces() else errno.EPERM), name
        if name != "pid":
            for pid_function in PIDS:
                assert errno_of(getattr(ioctl, pid_function), fd, 1) == errno.EINVAL, name


def test_get_owner_uid_may_be_large() -> None:
    def child() -> int:
        nsutil.unshare(USER)
        with open("/proc/self/ns/user") as own:
            return ioctl.get_owner_uid(own)

    # Nobody is mapped: the kernel says the overflow uid.
    assert support.as_user(child, uid=3_000_000_000) == 65534


@support.needs_kernel("ns-id", "mnt-id", "mnt-next")
def test_ids(fds: dict[str, int]) -> None:
    ids = {name: ioctl.get_id(fd) for name, fd in fds.items()}
    assert len(set(ids.values())) == len(NAMES)
    assert ioctl.get_mntns_id(fds["mnt"]) == ids["mnt"]
    assert ioctl.mnt_get_info(fds["mnt"]).id == ids["mnt"]


@support.needs_root
@support.needs_kernel("ns-id")
def test_ids_are_not_used_again() -> None:
    def child() -> int:
        seen = set()
        for _ in range(20):
            nsutil.unshare(UTS)
            with open("/proc/self/ns/uts") as file:
                seen.add(ioctl.get_id(file))
        return len(seen)

    assert support.in_child(child) == 20


@support.needs_kernel("mnt-next")
def test_mnt_get_info_counts(fds: dict[str, int]) -> None:
    info = ioctl.mnt_get_info(fds["mnt"])
    assert info == (info.nr_mounts, info.id)
    with open("/proc/self/mountinfo") as file:
        visible = len(file.readlines())
    assert info.nr_mounts >= visible > 0


@support.needs_root
@support.needs_kernel("ns-id", "mnt-next")
@support.needs_all_namespaces
def test_mnt_get_next_and_prev_walk_all(leak_check: None) -> None:
    with support.paused(MNT) as pid, open(f"/proc/{pid}/ns/mnt") as inner:
        first = walk(os.dup(inner.fileno()), ioctl.mnt_get_prev)
        last = walk(os.dup(inner.fileno()), ioctl.mnt_get_next)
        ids = [*reversed(first), ioctl.get_id(inner), *last]
    assert ids == sorted(set(ids))
    with open("/proc/self/ns/mnt") as own:
        assert ioctl.get_id(own) in ids


def walk(fd: int, step: Callable[[int], tuple[int, ioctl.MountNamespaceInfo]]) -> list[int]:
    """The ids from fd on, which is closed."""
    seen: list[int] = []
    try:
        while True:
            new, info = step(fd)
            os.close(fd)
            fd = new
            assert is_cloexec(new)
            assert info.id == ioctl.mnt_get_info(new).id
            seen.append(info.id)
    except FileNotFoundError:
        return seen
    finally:
        os.close(fd)


@support.needs_kernel("mnt-next")
def test_mnt_get_next_needs_privilege() -> None:
    def child() -> list[int | None]:
        with open("/proc/self/ns/mnt") as file:
            return [errno_of(ioctl.mnt_get_next, file), errno_of(ioctl.mnt_get_prev, file)]

    assert support.as_user(child) == [errno.EPERM] * 2


@support.needs_root
@support.needs_kernel("pid-translation")
def test_pid_translation() -> None:
    def child() -> tuple[list[int], list[bool], list[int | None], int | None]:
        with support.paused(PID) as pid, open(f"/proc/{pid}/ns/pid") as inner:
            return (
                [ioctl.get_pid_in_pidns(inner, pid), ioctl.get_tgid_in_pidns(inner, pid)],
                [ioctl.get_pid_from_pidns(inner, 1) == pid, ioctl.get_tgid_from_pidns(inner, 1) == pid],
                [errno_of(getattr(ioctl, name), inner, number) for name in PIDS for number in (0, -1, 2**22)],
                errno_of(ioctl.get_pid_in_pidns, inner, os.getpid()),
            )

    numbers, back, refused, outside = support.in_child(child)
    assert (numbers, back, outside) == ([1, 1], [True, True], errno.ESRCH)
    assert set(refused) == {errno.ESRCH}


@support.needs_kernel("pid-translation")
def test_pid_translation_takes_ints(fds: dict[str, int]) -> None:
    for name in PIDS:
        function = getattr(ioctl, name)
        assert function(fds["pid"], os.getpid()) == os.getpid()
        for pid in ("1", None, 1.0):
            with pytest.raises(TypeError):
                function(fds["pid"], pid)
        with pytest.raises(OverflowError):
            function(fds["pid"], 2**40)
        with pytest.raises(TypeError):
            function(fds["pid"])
        with pytest.raises(TypeError):
            function(fds["pid"], 1, 2)


@pytest.fixture
def pidfd(leak_check: None) -> Iterator[int]:
    fd = os.pidfd_open(os.getpid())
    yield fd
    os.close(fd)


@support.needs_kernel("pidfd-namespaces")
@pytest.mark.parametrize("name", support.NS_ENTRIES)
def test_pidfd_get_namespace(name: str, pidfd: int) -> None:
    fd = ioctl.pidfd_get_namespace(pidfd, name)
    assert is_cloexec(fd)
    assert os.fstat(fd).st_ino == os.stat(f"/proc/self/ns/{name}").st_ino
    os.close(fd)


@support.needs_kernel("pidfd-namespaces")
def test_pidfd_get_namespace_bad_input(pidfd: int) -> None:
    for name in ("", "mount", "NET", "net\0", "user_for_children"):
        with pytest.raises(ValueError, match="one of cgroup, ipc, mnt, net, pid"):
            ioctl.pidfd_get_namespace(pidfd, name)
    bad: list[Any] = [b"net", None, NET]
    for value in bad:
        with pytest.raises(TypeError):
            ioctl.pidfd_get_namespace(pidfd, value)
    assert errno_of(ioctl.pidfd_get_namespace, -1, "net") == errno.EBADF
    with open("/proc/self/ns/net") as file:
        assert errno_of(ioctl.pidfd_get_namespace, file, "net") == errno.ENOTTY
    with pytest.raises(TypeError):
        ioctl.pidfd_get_namespace(pidfd)  # type: ignore[call-arg]


@support.needs_kernel("pidfd-namespaces")
def test_pidfd_get_namespace_of_the_dead() -> None:
    with support.paused(0) as pid:
        pidfd = os.pidfd_open(pid)
    assert errno_of(ioctl.pidfd_get_namespace, pidfd, "net") == errno.ESRCH
    os.close(pidfd)


@support.needs_root
@support.needs_kernel("pidfd-namespaces")
def test_pidfd_get_namespace_of_strangers() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert support.as_user(errno_of, ioctl.pidfd_get_namespace, pidfd, "net") == errno.EACCES
    finally:
        os.close(pidfd)


def test_audit_events() -> None:
    def child() -> list[tuple[object, ...]]:
        seen: list[tuple[object, ...]] = []
        sys.addaudithook(lambda event, args: seen.append(args) if event == "nsutil.ioctl" else None)
        with open("/proc/self/ns/net") as file:
            ioctl.get_nstype(file)
            fd = file.fileno()
        errno_of(ioctl.get_pid_in_pidns, 1000, 1)
        errno_of(ioctl.mnt_get_info, 1000)
        errno_of(ioctl.pidfd_get_namespace, 1000, "net")
        return [(args[0], args[1] == fd or args[1], *args[2:]) for args in seen]

    assert support.in_child(child) == [
        ("get_nstype", True),
        ("get_pid_in_pidns", 1000),
        ("mnt_get_info", 1000),
        ("pidfd_get_namespace", 1000, "net"),
    ]
