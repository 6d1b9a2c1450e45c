"""The doctor's causes for mounts and for newuidmap(1); see _causes.py."""

from __future__ import annotations

import errno
import os
import re
import shutil

from ._probe import over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._case import Case, Finding
    from ._probe import Facts

# Over these the kernel lets proc be mounted anew: directories that are always empty.
_HARMLESS_OVER_PROC = frozenset({"/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"})
# What mounting a file system in a user namespace takes: to own this type too.
_OWNER_TYPES = {"proc": "pid", "sysfs": "net", "mqueue": "ipc", "cgroup2": "cgroup", "cgroup": "cgroup"}


def mount_max(case: Case) -> Finding | None:
    value = case.facts.number("/proc/sys/fs/mount-max")
    if value is None:
        return None
    return case.found(
        "limit",
        f"/proc/sys/fs/mount-max is {value}, and /proc/self/mountinfo has {len(case.facts.mounts)} lines",
        "raise fs.mount-max with sysctl, or bind with recursive=False",
    )


def proc_missing(case: Case) -> Finding | None:
    """Not EPERM: a file of procfs that must be written is not there, or not itself, or read-only."""
    if case.err == errno.EROFS:
        evidence = "/proc is mounted read-only (/proc/self/mountinfo)"
    elif case.err == errno.EXDEV:
        evidence = "something that is not procfs lies over a file of /proc"
    elif not case.facts.has_proc:
        evidence = "no procfs on /proc"
    else:
        return None
    return case.found("masked-proc", evidence, "mount proc on /proc before, or make it writable")


def masked_proc(case: Case) -> Finding | None:
    """A new proc in a user namespace takes one that is wholly visible before."""
    if not re.search(r"\bproc\b", case.step) or not (case.with_user or not case.facts.in_initial_user):
        return None
    shown = _what_masks_proc(case.facts)
    if shown is None:
        return None
    return case.found(
        "masked-proc",
        f"{shown} (/proc/self/mountinfo), and the kernel allows no new proc where the present one is masked",
        "bind /proc instead (mount_proc=False), or unmask it (Docker: --security-opt systempaths=unconfined)",
    )


def _what_masks_proc(facts: Facts) -> str | None:
    procs = [mount for mount in facts.mounts if mount.fstype == "proc" and mount.root == "/" and mount.point == "/proc"]
    if not procs:
        return "no procfs is mounted on /proc"
    if "ro" in procs[-1].options:
        return "/proc is mounted read-only"
    above = [m for m in over(facts.mounts, "/proc") if m.point not in _HARMLESS_OVER_PROC]
    return f"{above[0].fstype} lies over {above[0].point}" if above else None


def mount_owner(case: Case) -> Finding | None:
    """proc, sysfs and mqueue ask for the type that they show."""
    kind = next((t for t in _OWNER_TYPES if re.search(rf"\b{t}\b", case.step)), None)
    owner = _OWNER_TYPES.get(kind or "")
    if owner is None or owner in case.words or not case.with_user:
        return None
    return case.found(
        "capability",
        f"{kind} can be mounted only by the owner of the {owner} namespace, which is not among the new ones",
        f"add {owner.upper()} to the new namespaces",
    )


def locked_mount(case: Case) -> Finding | None:
    if not (case.with_user or not case.facts.in_initial_user):
        return None
    return case.found(
        "locked-mount",
        "mounts inherited from a more privileged mount namespace (/proc/self/mountinfo) are locked: "
        "they and their flags stay as they are, and what lies below them stays hidden",
        "bind recursively, keep ro, nosuid, nodev and noexec on a remount, and mount over instead of unmounting",
    )


def filesystem_missing(case: Case) -> Finding | None:
    return case.found(
        "old-kernel",
        f"Linux {os.uname().release} (uname -r) has no such file system (/proc/filesystems)",
        "load its module or use a kernel that has it",
    )


def overlay_version(case: Case) -> Finding | None:
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    if "overlay" not in case.step or not case.with_user or release >= (5, 11):
        return None
    return case.found(
        "old-kernel",
        f"Linux {os.uname().release} (uname -r) has no overlay mounts in user namespaces (5.11 has)",
        "use a newer kernel, or root without USER",
    )


# ---------------------------------------------------------------- newuidmap


def _helper_of(case: Case) -> tuple[str, str | None]:
    name = "newgidmap" if "gid" in case.step else "newuidmap"
    return name, shutil.which(name)


def helper_missing(case: Case) -> Finding | None:
    name, path = _helper_of(case)
    if path is None:
        return case.found(
            "newuidmap",
            f"{name} is not in PATH ({os.environ.get('PATH', '')})",
            "install it (Debian: apt install uidmap; Fedora: shadow-utils)",
        )
    if os.geteuid() == 0 or _gains_rights(path):
        return None
    return case.found(
        "newuidmap", f"{path} is neither set-user-ID root nor has file capabilities", f"chmod u+s {path} as root"
    )


def _gains_rights(path: str) -> bool:
    try:
        status = os.stat(path)
        if status.st_mode & 0o4000 and status.st_uid == 0:
            return True
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def subuid(case: Case) -> Finding | None:
    """No range of subordinate ids for this user (subuid(5))."""
    for path in ("/etc/subgid", "/etc/subuid") if "gid" in case.step else ("/etc/subuid", "/etc/subgid"):
        names = {_user_name(), str(os.getuid())}
        if not any(line.split(":")[0] in names for line in (case.facts.text(path) or "").splitlines()):
            return case.found(
                "subuid",
                f"{path} has no line for {_user_name()}",
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {_user_name()}",
            )
    return None


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def no_new_privs(case: Case) -> Finding | None:
    if case.facts.status("NoNewPrivs") != "1" or os.geteuid() == 0:
        return None
    return case.found(
        "no-new-privs",
        f"/proc/self/status: NoNewPrivs: 1, so {_helper_of(case)[0]} gets no rights when executed",
        "start without no_new_privs (systemd: NoNewPrivileges=no)",
    )


def nosuid(case: Case) -> Finding | None:
    name, path = _helper_of(case)
    mount = case.facts.mount_of(path) if path else None
    if mount is None or "nosuid" not in mount.options or os.geteuid() == 0:
        return None
    return case.found(
        "nosuid",
        f"{path} lies on {mount.point}, which is mounted nosuid (/proc/self/mountinfo), so it gets no rights",
        f"mount {mount.point} without nosuid, or install {name} elsewhere",
    )
