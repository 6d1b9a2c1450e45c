"""The doctor: each cause that can be made here is made for real in a child, and recognised."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import threading
from pathlib import Path

import pytest
from support import (
    MS_BIND,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    as_user,
    drop_to_user,
    in_child,
    must,
    needs_root,
    own_user_namespace,
    private_mounts,
    system_call,
)

from nsutil import IPC, MNT, NET, PID, USER, UTS, doctor
from nsutil._errors import step_error

CAP_SYS_ADMIN = 21


def seccomp_filter(numbers: list[int], err: int = errno.EPERM) -> None:
    """From now on these system calls answer err (seccomp(2), a BPF program)."""
    code = [struct.pack("=HBBI", 0x20, 0, 0, 0)]  # load the number
    for number in numbers:
        code.append(struct.pack("=HBBI", 0x15, 0, 1, number))  # equal: the next
        code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | err))  # return errno
    code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))  # allow
    program = ctypes.create_string_buffer(b"".join(code))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid():
        assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, head, 0, 0) == 0, ctypes.get_errno()


def drop_caps(*numbers: int) -> None:
    """Take capabilities out of the effective and permitted sets for good (capset(2))."""
    status = Path("/proc/self/status").read_text()
    mask = int(status.split("CapEff:")[1].split()[0], 16)
    for number in numbers:
        mask &= ~(1 << number)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    must("capset", struct.pack("=II", 0x20080522, 0), struct.pack("=6I", low, low, 0, high, high, 0))


# ---------------------------------------------------------------- hint


def hint_of(op: str, *args: object, step: str, context: tuple[str, ...] = ()) -> tuple[int, str | None]:
    err = system_call(op, *args)
    return err, doctor.hint(err, step, context)


def limit_zero() -> tuple[int, str | None]:
    own_user_namespace()
    Path("/proc/sys/user/max_uts_namespaces").write_text("0")
    return hint_of("unshare", int(UTS | IPC), step="unshare ipc|uts")


def test_hint_limit() -> None:
    err, text = as_user(limit_zero)
    assert err == errno.ENOSPC
    assert text is not None
    assert text.startswith("limit: /proc/sys/user/max_uts_namespaces is 0; raise user.max_uts_namespaces")
    assert "ipc" not in text


def nested_too_deep() -> tuple[int, str | None]:
    for _ in range(40):
        uid, gid = os.geteuid(), os.getegid()
        err, text = hint_of("unshare", int(USER), step="unshare user")
        if err:
            return err, text
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    raise AssertionError("40 user namespaces in each other")


def test_hint_nesting() -> None:
    err, text = as_user(nested_too_deep)
    assert err == errno.ENOSPC
    assert text is not None
    assert text.startswith("nesting: ")
    assert "33" in text


def filtered_unshare(err: int) -> tuple[int, str | None]:
    seccomp_filter([{"x86_64": 272, "aarch64": 97}[platform.machine()]], err)
    return hint_of("unshare", int(UTS), step="unshare uts")


@needs_root
@pytest.mark.parametrize("err", [errno.EPERM, errno.ENOSYS])
def test_hint_seccomp(err: int) -> None:
    found, text = in_child(filtered_unshare, err)
    assert found == err
    assert text is not None
    assert text.startswith("seccomp: a seccomp filter answers unshare with ")


def test_hint_seccomp_filter_of_something_else_is_not_blamed() -> None:
    """An active filter alone is no evidence: the kernel itself answers here."""

    def body() -> tuple[int, str | None]:
        seccomp_filter([{"x86_64": 246, "aarch64": 104}[platform.machine()]])  # kexec_load
        return hint_of("unshare", int(UTS), step="unshare uts")

    err, text = as_user(body)
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("capability: CAP_SYS_ADMIN missing")


def chrooted(directory: str) -> tuple[int, str | None]:
    must("chroot", directory.encode())
    os.chdir("/")
    return hint_of("unshare", int(USER | UTS), step="unshare user|uts")


@needs_root
@pytest.mark.parametrize("with_proc", [False, True])
def test_hint_chroot(tmp_path: Path, with_proc: bool) -> None:
    """Of a plain directory and of a mount point, with and without /proc inside."""

    def body(mounted: bool) -> tuple[int, str | None]:
        private_mounts()
        if mounted:
            must("mount", b"none", bytes(tmp_path), b"tmpfs", 0, None)
        if with_proc:
            (tmp_path / "proc").mkdir(exist_ok=True)
            must("mount", b"proc", bytes(tmp_path / "proc"), b"proc", 0, None)
        return chrooted(str(tmp_path))

    for mounted in (False, True):
        err, text = in_child(body, mounted)
        assert err == errno.EPERM
        assert text is not None
        assert text.startswith("chroot: this process is in a chroot"), (mounted, text)


def unmapped() -> tuple[int, str | None]:
    must("unshare", int(USER))
    return hint_of("unshare", int(USER), step="unshare user")


def test_hint_unmapped_id() -> None:
    err, text = as_user(unmapped)
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("unmapped-id: the effective uid 65534 is not in /proc/self/uid_map (empty)")


def test_hint_unmapped_target() -> None:
    def body() -> tuple[int, str | None]:
        own_user_namespace()
        return hint_of("setresuid", 5, 5, 5, step="setresuid 5", context=("user",))

    err, text = as_user(body)
    assert err == errno.EINVAL
    assert text is not None
    assert text.startswith("unmapped-id: the uid asked for is not mapped")


def with_threads(op: str, nstype: int) -> tuple[int, str | None]:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        if op == "unshare":
            return hint_of("unshare", nstype, step="unshare user")
        with open("/proc/self/ns/mnt", "rb") as file:
            return hint_of("setns", file.fileno(), nstype, step="setns mnt")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(("op", "nstype"), [("unshare", USER), ("setns", MNT)])
def test_hint_threads(op: str, nstype: int) -> None:
    if nstype == MNT and os.geteuid():
        pytest.skip("needs root")
    err, text = in_child(with_threads, op, int(nstype))
    assert err == errno.EINVAL
    assert text is not None
    assert text.startswith("threads: this process has 3 threads")
    assert "call()" in text


@needs_root
def test_hint_capability() -> None:
    def body() -> tuple[int, str | None]:
        drop_caps(CAP_SYS_ADMIN)
        return hint_of("unshare", int(NET), step="unshare net")

    err, text = in_child(body)
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("capability: CAP_SYS_ADMIN missing (/proc/self/status: CapEff: ")


def masked(path: bytes) -> tuple[int, str | None]:
    private_mounts()
    must("mount", b"none", path, b"tmpfs", 0, None)
    drop_to_user()
    own_user_namespace()
    must("unshare", int(MNT | PID))
    if os.fork() == 0:
        # Here the fork is PID 1: only the owner of its PID namespace may mount proc.
        os._exit(system_call("mount", b"proc", b"/proc", b"proc", 0, None))
    _, status = os.wait()
    err = os.WEXITSTATUS(status)
    return err, doctor.hint(err, "mount proc on /proc", ("mnt", "pid", "user"))


@needs_root
def test_hint_masked_proc() -> None:
    err, text = in_child(masked, b"/proc/sys")
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("masked-proc: tmpfs lies over /proc/sys (/proc/self/mountinfo)")


def test_hint_proc_without_pid() -> None:
    def body() -> tuple[int, str | None]:
        own_user_namespace()
        must("unshare", int(MNT))
        return hint_of(
            "mount", b"proc", b"/proc", b"proc", 0, None, step="mount proc on /proc", context=("mnt", "user")
        )

    err, text = as_user(body)
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("capability: proc can be mounted only by the owner of the pid namespace")


@needs_root
def test_hint_locked_mount() -> None:
    def body() -> list[tuple[int, str | None]]:
        private_mounts()
        must("mount", b"none", b"/mnt", b"tmpfs", MS_RDONLY | MS_NOSUID, None)
        drop_to_user()
        own_user_namespace()
        must("unshare", int(MNT))
        return [
            hint_of("umount2", b"/mnt", 0, step="umount /mnt", context=("mnt", "user")),
            hint_of("mount", None, b"/mnt", None, MS_REMOUNT | MS_BIND, None, step="remount /mnt", context=("user",)),
        ]

    results = in_child(body)
    assert [err for err, _ in results] == [errno.EINVAL, errno.EPERM]
    for _, text in results:
        assert text is not None
        assert text.startswith("locked-mount: ")


def test_hint_setgroups() -> None:
    def denied() -> tuple[int, str | None]:
        own_user_namespace()
        return hint_of("setgroups", 1, [0], step="setgroups")

    def undenied() -> tuple[int, str | None]:
        gid = os.getegid()
        must("unshare", int(USER))
        line = f"0 {gid} 1".encode()
        return hint_of("write_proc", b"/proc/self/gid_map", line, len(line), step="write gid_map", context=("user",))

    err, text = as_user(denied)
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("setgroups: /proc/self/setgroups is deny")
    err, text = as_user(undenied)
    assert err == errno.EPERM
    assert text is not None
    assert text.startswith("setgroups: the writer is inside")


def test_hint_map_without_rights() -> None:
    """The caller stays outside and has no CAP_SETUID: only its own id may be mapped."""
    text = as_user(doctor.hint, errno.EPERM, "write uid_map", ("user",))
    assert text is not None
    assert text.startswith("capability: CAP_SETUID missing")
    text = as_user(doctor.hint, errno.EPERM, "write gid_map", ("user",))
    assert text is not None
    assert text.startswith("setgroups: CAP_SETGID missing")


def test_hint_newuidmap_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    text = as_user(doctor.hint, errno.ENOENT, "newuidmap", ("user",))
    assert text is not None
    assert text.startswith("newuidmap: newuidmap is not in PATH (/nowhere)")


def executable(path: Path, mode: int) -> None:
    path.write_text("#!/bin/sh\nexit 1\n")
    os.chown(path, 0, 0)
    path.chmod(mode)


@needs_root
def test_hint_newuidmap_helper(tmp_path: Path) -> None:
    """Present, but without rights; without a range; under no_new_privs; on a nosuid mount."""

    def body(mode: int, subid: str, mount_flags: int, no_new_privs: bool) -> str | None:
        private_mounts()
        must("mount", b"none", b"/mnt", b"tmpfs", mount_flags, b"mode=755")
        executable(Path("/mnt/newuidmap"), mode)
        Path("/mnt/subid").write_text(subid)
        for name in ("/etc/subuid", "/etc/subgid"):
            must("mount", b"/mnt/subid", name.encode(), None, MS_BIND, None)
        os.environ["PATH"] = "/mnt"
        drop_to_user()
        if no_new_privs:
            must("prctl", 38, 1, 0, 0, 0)
        return doctor.hint(errno.EPERM, "newuidmap 12", ("user",))

    for name in ("/etc/subuid", "/etc/subgid"):
        if not os.path.exists(name):
            pytest.skip(f"needs {name}")
    line = "65534:100000:65536\n"
    texts = {
        "newuidmap": in_child(body, 0o755, line, 0, False),
        "subuid": in_child(body, 0o4755, "", 0, False),
        "no-new-privs": in_child(body, 0o4755, line, 0, True),
        "nosuid": in_child(body, 0o4755, line, MS_NOSUID, False),
    }
    for cause, text in texts.items():
        assert text is not None
        assert text.startswith(f"{cause}: "), (cause, text)
    assert in_child(body, 0o4755, line, 0, False) is None


def test_hint_unknown_step_is_none() -> None:
    assert doctor.hint(errno.EIO, "read the tea leaves") is None
    assert doctor.hint(0, "") is None
    assert doctor.hint(errno.EPERM, "mount proc on /proc", ("no such type",)) is None or os.geteuid() != 0


def test_hint_reaches_the_error() -> None:
    def body() -> tuple[str | None, list[str]]:
        error = step_error(errno.EPERM, "unshare net", context=("net",))
        return error.hint, error.__notes__  # type: ignore[attr-defined]

    text, notes = as_user(body)
    assert text is not None
    assert notes == [f"hint: {text}"]


def test_every_cause_has_a_rule() -> None:
    sources = Path(doctor.__file__).parent.glob("_causes*.py")
    text = "".join(path.read_text() for path in sources)
    assert [cause for cause in doctor.CAUSES if f'"{cause}"' not in text] == []
