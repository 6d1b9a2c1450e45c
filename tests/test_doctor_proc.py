"""What the doctor finds out where /proc is missing, covered or read-only, in a chroot and in a nested namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from support import as_user, drop_to_user, in_child, must, needs_root, own_user_namespace, preload, private_mounts

from nsutil import doctor
from nsutil._probe import Facts

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
MAP = "write '0 0 1' to uid_map"


def ready() -> None:
    """With all of the doctor loaded, and mounts of its own."""
    preload()
    doctor.hint(errno.EPERM, "unshare net", ("net",))
    private_mounts()


def without_proc() -> None:
    ready()
    must("mount", b"none", b"/proc", b"tmpfs", 0, None)


def with_readonly_proc() -> None:
    ready()
    must("mount", None, b"/proc", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def without_proc_as_user() -> None:
    without_proc()
    drop_to_user()


def in_chroot() -> None:
    ready()
    must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    os.mkdir("/mnt/proc")
    must("mount", b"/proc", b"/mnt/proc", None, MS_BIND | MS_REC, None)
    os.chroot("/mnt")


def in_directory() -> None:
    in_chroot()
    os.makedirs("/below/proc")
    must("mount", b"/proc", b"/below/proc", None, MS_BIND | MS_REC, None)
    os.chroot("/below")


def told(scene: Callable[[], None], err: int, step: str, *context: str) -> str | None:
    scene()
    return doctor.hint(err, step, context)


HINTS = [
    (without_proc, errno.ENOENT, MAP, "user", "masked-proc: no procfs on /proc; "),
    (without_proc, errno.EPERM, "mount proc on /proc", "user pid mnt", "masked-proc: no procfs is mounted on /proc "),
    (without_proc, errno.EAGAIN, "fork", "", "limit: no more processes are allowed: RLIMIT_NPROC is "),
    (without_proc_as_user, errno.EPERM, "unshare net", "net", "capability: CAP_SYS_ADMIN missing "),
    (with_readonly_proc, errno.EROFS, MAP, "user", "masked-proc: /proc is mounted read-only (/proc/self/mountinfo); "),
    (
        with_readonly_proc,
        errno.EPERM,
        "mount proc on /proc",
        "user pid mnt",
        "masked-proc: /proc is mounted read-only ",
    ),
    (ready, errno.EXDEV, MAP, "user", "masked-proc: something that is not procfs lies over a file of /proc; "),
    (ready, errno.ENOSPC, "mount tmpfs on /x", "mnt", "limit: /proc/sys/fs/mount-max is "),
    (ready, errno.EMFILE, "open /x", "", "limit: RLIMIT_NOFILE is "),
    (ready, errno.ENODEV, "mount overlay on /x", "", "old-kernel: Linux "),
    (in_chroot, errno.EPERM, "unshare user", "user", "chroot: this process is in a chroot (/ is not the root "),
    (in_directory, errno.EPERM, "unshare user", "user", "chroot: this process is in a chroot (/proc/self/mountinfo "),
]


@needs_root
@pytest.mark.parametrize(("scene", "err", "step", "context", "says"), HINTS)
def test_hints(scene: Callable[[], None], err: int, step: str, context: str, says: str) -> None:
    text = in_child(told, scene, err, step, *context.split())
    assert text is not None
    assert text.startswith(says)


@needs_root
@pytest.mark.parametrize("err", [errno.ENOSPC, errno.EINVAL])
def test_nothing_is_said_that_only_proc_could_tell(err: int) -> None:
    assert in_child(told, without_proc, err, "unshare user", "user") is None


@needs_root
@pytest.mark.parametrize(("scene", "lacks"), [(without_proc, []), (without_proc_as_user, ["CAP_SYS_ADMIN"])])
def test_facts_without_proc(scene: Callable[[], None], lacks: list[str]) -> None:
    def body() -> list[object]:
        scene()
        facts = Facts()
        known: list[object] = [facts.lacks("CAP_SYS_ADMIN"), facts.has_proc, facts.in_initial_user, facts.threads]
        return [*known, facts.id_lines("uid"), facts.is_mapped("uid", 5), facts.chroot(), facts.number("/proc/x")]

    assert in_child(body) == [lacks, False, False, 1, None, True, None, None]


@pytest.mark.parametrize(
    ("err", "step", "context", "says"),
    [
        (errno.ENOSPC, "unshare user", "user", "nesting: this is a nested user namespace whose own "),
        (errno.ENOSPC, "unshare pid", "pid", "nesting: this is a nested user namespace whose own "),
        (errno.EPERM, "write '0 100000 1' to uid_map", "user", "unmapped-id: only the ids of /proc/self/uid_map ("),
        (errno.EPERM, "setns mnt", "mnt", "capability: this process has CAP_SYS_ADMIN in its own user namespace "),
    ],
)
def test_hints_in_a_nested_user_namespace(err: int, step: str, context: str, says: str) -> None:
    text = as_user(told, own_user_namespace, err, step, *context.split())
    assert text is not None
    assert text.startswith(says)
