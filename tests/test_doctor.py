"""The doctor: each cause that can be made here is made for real in a child, and recognised."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from support import (
    MS_BIND,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    as_user,
    drop_to_user,
    in_child,
    must,
    needs_kernel,
    needs_root,
    no_leaks,
    own_user_namespace,
    preload,
    private_mounts,
    system_call,
    with_time,
)

import nsutil
from nsutil import IPC, MNT, NET, PID, USER, UTS, doctor
from nsutil._errors import step_error

CAP_SYS_ADMIN = 21
NUMBERS = {
    "x86_64": {"unshare": 272, "clone": 56, "clone3": 435, "kexec_load": 246},
    "aarch64": {"unshare": 97, "clone": 220, "clone3": 435, "kexec_load": 104},
}.get(platform.machine(), {})


def seccomp_filter(
    numbers: list[int], err: int = errno.EPERM, action: int = 0x00050000, masked_clone: int | None = None
) -> None:
    """From now on these system calls answer err (seccomp(2), a BPF program).

    masked_clone: the number of clone, refused only with CLONE_NEW* flags, as container runtimes do.
    """
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    steps = [(load, 0, 0, 0)]  # the number
    for number in numbers:
        steps += [(equal, 0, 1, number), (answer, 0, 0, action | err)]
    if masked_clone is not None:
        # The number, then the low half of the first argument: its flags.
        steps += [
            (equal, 0, 3, masked_clone),
            (load, 0, 0, 16),
            (any_bit, 0, 1, 0x7E020000),
            (answer, 0, 0, action | err),
        ]
    steps.append((answer, 0, 0, 0x7FFF0000))  # allow
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
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
    seccomp_filter([NUMBERS["unshare"]], err)
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
        seccomp_filter([NUMBERS["kexec_load"]])  # kexec_load
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
@pytest.mark.incident("B8")
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


@needs_root
@pytest.mark.parametrize(
    ("file", "value", "cause"),
    [
        ("unprivileged_userns_clone", "0", "userns-disabled"),
        ("apparmor_restrict_unprivileged_userns", "1", "apparmor"),
    ],
)
@pytest.mark.incident("A38")
def test_hint_settings_of_other_kernels(file: str, value: str, cause: str) -> None:
    """Debian's and Ubuntu's settings, which this kernel may not have: files in their place say what they would."""

    def body(text: str) -> list[str | None]:
        private_mounts()
        must("mount", b"none", b"/proc/sys/kernel", b"tmpfs", 0, b"mode=755")
        Path("/proc/sys/kernel", file).write_text(text)
        drop_to_user()
        steps = ["unshare(USER|NET)", "write '0 65534 1' to uid_map", "mount tmpfs on /x"]
        return [doctor.hint(errno.EPERM, step, ("user", "net", "child")) for step in steps]

    told = in_child(body, value + "\n")
    assert told[0] is not None
    assert told[0].startswith(f"{cause}: /proc/sys/kernel/{file} is {value}")
    if cause == "apparmor":
        assert all(text is not None and text.startswith("apparmor: ") for text in told)
    off = in_child(body, "1\n" if value == "0" else "0\n")
    assert not any(text is not None and text.startswith(cause) for text in off)


def test_hint_unknown_step_is_none() -> None:
    assert doctor.hint(errno.EIO, "read the tea leaves") is None
    assert doctor.hint(0, "") is None
    filtered = "\nSeccomp:\t2" in Path("/proc/self/status").read_text()
    if os.geteuid() == 0 and not filtered:
        assert doctor.hint(errno.EPERM, "mount proc on /proc", ("no such type",)) is None


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


# ---------------------------------------------------------------- check


def verdict(new: object, **options: Any) -> tuple[bool, list[str], str, str]:
    """Whether it works, the causes, and all that the report says; pickles."""
    report = doctor.check(new, **options)
    known = set(doctor.CAUSES)
    assert {finding.cause for finding in report.findings} <= known
    assert all(finding.evidence and finding.remedy and finding.step for finding in report.findings)
    evidence = "; ".join(finding.evidence for finding in report.findings)
    return bool(report), [finding.cause for finding in report.findings], evidence, str(report)


@pytest.mark.parametrize(
    "new", ["net", "uts", ["user", "net"], ["user", "mnt", "pid"], with_time(["user", "time", "cgroup", "ipc"])]
)
def test_check_finds_nothing_where_nothing_is_wrong(new: object) -> None:
    """As root with each, as an ordinary user with all that USER makes possible; nothing is left behind."""

    def body() -> tuple[bool, list[str], str, str]:
        verdict("uts" if os.geteuid() == 0 else "user")
        with no_leaks():
            return verdict(new)

    if os.geteuid() == 0:
        works, causes, _, text = in_child(body)
        assert works, text
        assert causes == []
        assert text.endswith(": works")
    if "user" in new:  # type: ignore[operator]
        works, causes, _, text = as_user(body)
        assert works, text
        assert causes == []


@needs_root
@needs_kernel("time")
def test_check_of_everything_works_here() -> None:
    assert in_child(verdict, nsutil.ALL)[0]


def test_check_refuses_bad_options_as_a_recipe_does() -> None:
    with pytest.raises(ValueError, match="UTS"):
        doctor.check("net", hostname="x")
    with pytest.raises(TypeError):
        doctor.check("net", no_such_option=1)


def test_check_capability() -> None:
    works, causes, evidence, text = as_user(verdict, "net")
    assert not works
    assert causes == ["capability"]
    assert evidence.startswith("CAP_SYS_ADMIN missing (/proc/self/status: CapEff: 0000000000000000)")
    assert "what helps: add USER" in text


@needs_root
def test_check_capability_dropped() -> None:
    def body() -> object:
        drop_caps(CAP_SYS_ADMIN)
        return verdict("net")[:2], verdict(["user", "net"])[:2]

    assert in_child(body) == ((False, ["capability"]), (True, []))


def test_check_limit_and_nesting() -> None:
    def limited() -> object:
        own_user_namespace()
        Path("/proc/sys/user/max_uts_namespaces").write_text("0")
        return verdict(["user", "net", "uts", "ipc"]), verdict(["user", "net"])

    (works, causes, evidence, _), fine = as_user(limited)
    assert not works
    assert causes == ["limit"]
    assert evidence == "/proc/sys/user/max_uts_namespaces is 0"
    assert fine[0], fine

    def nested() -> object:
        for _ in range(33):
            if system_call("unshare", 0) == 0 and doctor_depth_reached():
                break
        return verdict(["user", "uts"])[:3]

    works, causes, evidence = as_user(nested)  # type: ignore[misc]
    assert not works
    assert causes == ["nesting"]
    assert "33 deep" in evidence


def doctor_depth_reached() -> bool:
    """One user namespace further in; True when there is no further."""
    uid, gid = os.geteuid(), os.getegid()
    if system_call("unshare", int(USER)):
        return True
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return False


@needs_root
@pytest.mark.parametrize("numbers", [["unshare"], ["clone", "clone3", "unshare"]])
@pytest.mark.parametrize("err", [errno.EPERM, errno.ENOSYS])
def test_check_seccomp(numbers: list[str], err: int) -> None:
    """A filter of unshare alone leaves run() possible, but not call() and with: that is no "works"."""

    def body() -> tuple[bool, list[str], str, str]:
        calls = [NUMBERS[name] for name in numbers if name != "clone"]
        seccomp_filter(calls, err, masked_clone=NUMBERS["clone"] if "clone" in numbers else None)
        return verdict("uts")

    works, causes, evidence, text = in_child(body)
    assert not works
    assert causes == ["seccomp"], text
    assert errno.errorcode[err] in evidence


@needs_root
def test_check_seccomp_that_kills() -> None:
    def body() -> tuple[bool, list[str], str, str]:
        seccomp_filter([NUMBERS["unshare"]], 0, action=0x80000000)
        return verdict("uts")

    works, causes, evidence, _ = in_child(body)
    assert not works
    assert causes == ["seccomp"]
    assert "SIGSYS" in evidence


@needs_root
def test_check_chroot(tmp_path: Path) -> None:
    def body(user: bool) -> tuple[bool, list[str], str, str]:
        private_mounts()
        preload()
        (tmp_path / "proc").mkdir(exist_ok=True)
        must("mount", b"proc", bytes(tmp_path / "proc"), b"proc", 0, None)
        must("chroot", bytes(tmp_path))
        os.chdir("/")
        if user:
            drop_to_user()
        return verdict(["user", "uts"])

    for user in (False, True):
        works, causes, evidence, text = in_child(body, user)
        assert not works
        assert causes == ["chroot"], text
        assert "chroot" in evidence


def test_check_unmapped_id() -> None:
    def body() -> tuple[bool, list[str], str, str]:
        must("unshare", int(USER))
        return verdict(["user"])

    works, causes, evidence, _ = as_user(body)
    assert not works
    assert causes == ["unmapped-id"]
    assert "65534 is not in /proc/self/uid_map (empty)" in evidence


@needs_root
@pytest.mark.parametrize("what", ["tmpfs over /proc/sys", "read-only"])
def test_check_masked_proc(what: str) -> None:
    def body() -> object:
        private_mounts()
        if what == "read-only":
            must("mount", b"/proc", b"/proc", None, MS_BIND | MS_REC, None)
            must("mount", None, b"/proc", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
        else:
            must("mount", b"none", b"/proc/sys", b"tmpfs", 0, None)
        drop_to_user()
        return verdict(["user", "mnt", "pid"]), verdict(["user", "mnt", "pid"], mount_proc=False)[:2]

    (works, causes, evidence, text), without = in_child(body)
    assert not works
    assert causes == ["masked-proc"], text
    if what == "read-only":  # the maps cannot be written through it
        assert evidence == "/proc is mounted read-only (/proc/self/mountinfo)"
        assert without == (False, ["masked-proc"])
    else:
        assert evidence.startswith("tmpfs lies over /proc/sys")
        assert without == (True, [])


@needs_root
def test_check_locked_mount() -> None:
    def body() -> tuple[bool, list[str], str, str]:
        private_mounts()
        must("mount", b"none", b"/mnt", b"tmpfs", MS_RDONLY | MS_NOSUID, None)
        drop_to_user()
        own_user_namespace()
        return verdict("mnt", mounts=[nsutil.Remount("/mnt", readonly=False)])

    works, causes, _, text = in_child(body)
    assert not works
    assert causes == ["locked-mount"], text


def test_check_setgroups() -> None:
    def body() -> tuple[bool, list[str], str, str]:
        own_user_namespace()
        return verdict("uts", groups=[0])

    works, causes, evidence, text = as_user(body)
    assert not works
    assert causes == ["setgroups"], text
    assert evidence.startswith("/proc/self/setgroups is deny")


def test_check_maps() -> None:
    """An ordinary user may map its own id, no other."""

    def body() -> object:
        maps = [nsutil.IdMap(0, 100000, 10)]
        os.environ["PATH"] = "/nowhere"
        return verdict("user", uid_map="root"), verdict("user", uid_map=maps, gid_map="root")

    root, many = as_user(body)
    assert root[0], root
    assert not many[0]
    assert many[1] == ["newuidmap"]
    assert "newuidmap is not in PATH (/nowhere)" in many[2]


@needs_root
def test_check_subordinate_ids() -> None:
    """No range; no_new_privs; a nosuid mount; a helper without rights; and when all is well, it works."""
    if not all(map(os.path.exists, ("/etc/subuid", "/etc/subgid", "/usr/bin/newuidmap"))):
        pytest.skip("needs newuidmap and /etc/subuid")

    def body(subid: str, mount_flags: int, mode: int, no_new_privs: bool) -> tuple[bool, list[str], str, str]:
        private_mounts()
        must("mount", b"none", b"/mnt", b"tmpfs", mount_flags, b"mode=755")
        for name in ("newuidmap", "newgidmap"):
            Path("/mnt", name).write_bytes(Path("/usr/bin", name).read_bytes())
            Path("/mnt", name).chmod(mode)
        Path("/mnt/subid").write_text(subid)
        for name in ("/etc/subuid", "/etc/subgid"):
            must("mount", b"/mnt/subid", name.encode(), None, MS_BIND, None)
        os.environ["PATH"] = "/mnt"
        drop_to_user()
        if no_new_privs:
            must("prctl", 38, 1, 0, 0, 0)
        return verdict("user", uid_map="auto")

    line = "65534:100000:65536\n"
    assert in_child(body, line, 0, 0o4755, False)[:2] == (True, [])
    cases = {
        "subuid": ("", 0, 0o4755, False),
        "no-new-privs": (line, 0, 0o4755, True),
        "nosuid": (line, MS_NOSUID, 0o4755, False),
        "newuidmap": (line, 0, 0o755, False),
    }
    for cause, arguments in cases.items():
        works, causes, _, text = in_child(body, *arguments)
        assert not works
        assert causes == [cause], text


def test_check_beside_threads() -> None:
    """Threads are no obstacle to what is done in a child."""

    def body() -> tuple[bool, list[str], str, str]:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            return verdict(["user", "uts"])
        finally:
            stop.set()
            thread.join()

    assert as_user(body)[:2] == (True, [])


def test_report_shows_itself() -> None:
    def body() -> tuple[str, str, str]:
        report = doctor.check("mnt", mounts=[nsutil.Bind("/<script>&", "/mnt")])
        return report.to_json(), report._repr_html_(), repr(report)

    data, html, text = as_user(body)
    report = json.loads(data)
    assert report["works"] is False
    assert set(report["findings"][0] if report["findings"] else doctor.Finding._fields) == set(doctor.Finding._fields)
    assert "<script>" not in html
    assert "&lt;script&gt;&amp;" in html
    assert "Report" in text
