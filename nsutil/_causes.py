"""From a failed step and its errno to the cause: the doctor's table.

Each function answers for one cause: a Finding with what was read as evidence,
or None where nothing that can be read supports it.  RULES says which causes a
kind of step and an errno can have, the surest first.
"""

from __future__ import annotations

import errno
import os

from . import _causes_mount as mounts
from ._case import Case, Finding
from ._probe import Facts, filtered
from ._types import MNT, PID, TIME, USER, each, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The first release of each type (namespaces(7)); the others are older.
_SINCE = {"cgroup": "4.6", "time": "5.6", "user": "3.8"}
_UNPRIVILEGED_CLONE = "/proc/sys/kernel/unprivileged_userns_clone"
_RESTRICT = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_MAX_INT = 2**31 - 1


def findings(case: Case) -> Iterator[Finding]:
    """The causes that the evidence supports, the surest first."""
    for kinds, numbers, rule in RULES:
        if (not kinds or case.kind in kinds) and (not numbers or case.err in numbers):
            found = rule(case)
            if found:
                yield found


# ---------------------------------------------------------------- filters

_SECCOMP_REMEDY = "allow the call in the container's seccomp profile (Docker: --security-opt seccomp=unconfined)"
_CALLS = {"create": ("unshare", "clone"), "join": ("setns",), "mount": ("mount",), "umount": ("umount2",)}


def seccomp(case: Case) -> Finding | None:
    if (case.facts.status("Seccomp") or "2") != "2":
        return None
    calls = _CALLS.get(case.kind, ())
    for call in [call for call in calls if call in case.step] or calls:
        err = filtered(call, int(case.types))
        if err and err == case.err:
            return case.found(
                "seccomp",
                f"a seccomp filter answers {call} with {errno.errorcode.get(err, err)} (/proc/self/status: Seccomp: 2)",
                _SECCOMP_REMEDY,
            )
    return None


def seccomp_likely(case: Case) -> Finding | None:
    """The last resort: a filter is there, and nothing else explains the refusal."""
    if case.facts.status("Seccomp") != "2":
        return None
    return case.found(
        "seccomp",
        "a seccomp filter is active (/proc/self/status: Seccomp: 2) and no other reason shows",
        _SECCOMP_REMEDY,
    )


def apparmor(case: Case) -> Finding | None:
    if not case.facts.lacks("CAP_SYS_ADMIN") and not case.facts.confinement():
        return None
    if case.with_user and case.facts.number(_RESTRICT):
        return case.found(
            "apparmor",
            f"{_RESTRICT} is 1: user namespaces made by unconfined programs get no capabilities",
            "set it to 0, or give this program an AppArmor profile with 'userns,'",
        )
    label = case.facts.confinement()
    if label is None:
        return None
    return case.found(
        "apparmor",
        f"this program is confined by AppArmor: {label}",
        "allow it in that profile (Docker: --security-opt apparmor=unconfined)",
    )


def userns_disabled(case: Case) -> Finding | None:
    if not case.types & USER:
        return None
    if case.facts.number(_UNPRIVILEGED_CLONE) == 0 and case.facts.lacks("CAP_SYS_ADMIN"):
        return case.found(
            "userns-disabled",
            f"{_UNPRIVILEGED_CLONE} is 0: only root may make user namespaces",
            "sysctl kernel.unprivileged_userns_clone=1, or run as root",
        )
    if case.facts.has_proc and not os.path.lexists("/proc/thread-self/ns/user"):
        return case.found(
            "userns-disabled",
            "/proc/self/ns/user does not exist: this kernel has no user namespaces",
            "use a kernel with CONFIG_USER_NS",
        )
    return None


# ---------------------------------------------------------------- limits


def limit(case: Case) -> Finding | None:
    """A namespace limit that is visible from here (namespaces(7))."""
    read = {name_of(t): case.facts.number(f"/proc/sys/user/max_{name_of(t)}_namespaces") for t in each(case.types)}
    zero = [name for name, value in read.items() if value == 0]
    if not zero and (case.types & (USER | PID) and not case.facts.in_initial_user and not _any_set(read)):
        return None
    worth = zero or [name for name, value in read.items() if value is not None]
    if not worth:
        return None
    shown = ", ".join(f"/proc/sys/user/max_{name}_namespaces is {read[name]}" for name in worth)
    where = "" if zero or case.facts.in_initial_user else " here, and an outer user namespace may allow fewer"
    sysctl = " ".join(f"user.max_{name}_namespaces" for name in worth)
    return case.found("limit", f"{shown}{where}", f"raise {sysctl} with sysctl, or end namespaces that are not used")


def _any_set(read: dict[str, int | None]) -> bool:
    """Somebody lowered a limit: a new user namespace starts with the largest int."""
    return any(value is not None and value < _MAX_INT for value in read.values())


def nesting(case: Case) -> Finding | None:
    """The depth itself cannot be read from inside: what is left when no limit shows."""
    if not case.types & (USER | PID) or case.facts.in_initial_user:
        return None
    deep = "user namespaces 33" if case.types & USER else "PID namespaces 32"
    name = "user" if case.types & USER else "pid"
    value = case.facts.number(f"/proc/sys/user/max_{name}_namespaces")
    if value is None:  # without /proc it is not known either whether this is a nested one
        return None
    return case.found(
        "nesting",
        f"this is a nested user namespace whose own /proc/sys/user/max_{name}_namespaces is {value}; "
        f"the kernel nests {deep} deep at most",
        f"nest less deeply (or raise user.max_{name}_namespaces in the outer namespaces)",
    )


def processes(case: Case) -> Finding | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    return case.found(
        "limit",
        f"no more processes are allowed: RLIMIT_NPROC is {shown}, or pids.max of the cgroup is reached",
        "raise ulimit -u or the cgroup's pids.max",
    )


def files(case: Case) -> Finding | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return case.found("limit", f"RLIMIT_NOFILE is {soft}", "close descriptors or raise ulimit -n")


# ---------------------------------------------------------------- the caller's state


def threads(case: Case) -> Finding | None:
    """Who may be moved only alone: USER and MNT by setns, TIME by setns, USER by unshare."""
    if "child" in case.words:  # which has one
        return None
    alone = USER if case.kind == "create" else USER | MNT
    needed = TIME if case.err == errno.EUSERS else alone
    count = case.facts.threads
    if not case.types & needed or count < 2:
        return None
    return case.found(
        "threads",
        f"this process has {count} threads (/proc/self/task), "
        f"and {case.types & needed} can be changed only by a process with one",
        "use run(), Popen() or call(), which do it in a child",
    )


def chroot(case: Case) -> Finding | None:
    if not case.types & USER:
        return None
    shown = case.facts.chroot()
    if shown is None:
        return None
    return case.found(
        "chroot",
        f"this process is in a chroot ({shown}), where no user namespace can be made",
        "use pivot_root instead of chroot (root= does), or run outside",
    )


def unmapped_id(case: Case) -> Finding | None:
    """An own id that the user namespace does not know."""
    if case.kind == "create" and not case.types & USER:
        return None
    for kind, number in (("uid", os.geteuid()), ("gid", os.getegid())):
        if not case.facts.is_mapped(kind, number):
            return case.found(
                "unmapped-id",
                f"the effective {kind} {number} is not in /proc/self/{kind}_map ({_map_text(case.facts, kind)})",
                f"map the {kind} of this process, or change to one that is mapped",
            )
    return None


def unmapped_target(case: Case) -> Finding | None:
    """setuid and setgid know EINVAL for nothing but an id without a mapping."""
    kind = "gid" if "gid" in case.step or "group" in case.step else "uid"
    inside = "the new user namespace" if case.with_user else f"/proc/self/{kind}_map ({_map_text(case.facts, kind)})"
    return case.found(
        "unmapped-id", f"the {kind} asked for is not mapped in {inside}", f"add it to {kind}_map or use a mapped one"
    )


def outside_map(case: Case) -> Finding | None:
    """A map can name only ids that its writer's own namespace has."""
    kind = "gid" if "gid" in case.step else "uid"
    lines = case.facts.id_lines(kind)
    if not lines or lines == [(0, 0, 2**32 - 1)] or case.facts.lacks("CAP_SETUID", "CAP_SETGID"):
        return None
    return case.found(
        "unmapped-id",
        f"only the ids of /proc/self/{kind}_map ({_map_text(case.facts, kind)}) exist here",
        "map ids that exist in this user namespace (outside= counts in it)",
    )


def _map_text(facts: Facts, kind: str) -> str:
    lines = facts.id_lines(kind)
    return ", ".join(" ".join(map(str, line)) for line in lines) if lines else "empty"


def capability(case: Case) -> Finding | None:
    """Rights that the caller itself needs where no user namespace gives them."""
    if case.with_user and case.kind in ("create", "mount", "umount", "time", "names", "net"):
        return None
    needed = _NEEDED.get(case.kind, ("CAP_SYS_ADMIN",))
    if case.kind == "join" and case.types & MNT:
        needed = ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT")
    missing = case.facts.lacks(*needed)
    if not missing:
        return None
    value = case.facts.status("CapEff") or "unknown"
    return case.found(
        "capability",
        f"{' and '.join(missing)} missing (/proc/self/status: CapEff: {value})",
        _how_to_get(case),
    )


def _how_to_get(case: Case) -> str:
    """What can be done where it failed: a thread can't leave a user namespace again, nor a name have one with it."""
    ways = _IN_A_THREAD if "thread" in case.words else _HOW_TO_GET
    return ways.get("name" if "name" in case.words else case.kind, "run as root (Docker: --cap-add)")


_NEEDED = {
    "ids": ("CAP_SETUID", "CAP_SETGID"),
    "setgroups": ("CAP_SETGID",),
    "time": ("CAP_SYS_TIME",),
    "caps": ("CAP_SETPCAP",),
    "net": ("CAP_NET_ADMIN",),
    "rlimit": ("CAP_SYS_RESOURCE",),
}
_HOW_TO_GET = {
    "create": "add USER to the new namespaces, or run as root (Docker: --cap-add SYS_ADMIN)",
    "join": "join the target's user namespace as well, or run as root (Docker: --cap-add SYS_ADMIN)",
    "name": "run as root: names are the machine's (Docker: --cap-add SYS_ADMIN)",
    "mount": "add USER and MNT to the new namespaces, or run as root (Docker: --cap-add SYS_ADMIN)",
}
_IN_A_THREAD = {
    "create": "use run() or call() with USER among the types, or run as root (Docker: --cap-add SYS_ADMIN)",
    "join": "use run() or call() with the target's user namespace too, or run as root (Docker: --cap-add SYS_ADMIN)",
    "mount": "use run() or call() with USER and MNT among the types, or run as root (Docker: --cap-add SYS_ADMIN)",
}


def join_owner(case: Case) -> Finding | None:
    if case.facts.lacks("CAP_SYS_ADMIN", "CAP_SYS_CHROOT"):
        return None
    return case.found(
        "capability",
        "this process has CAP_SYS_ADMIN in its own user namespace (/proc/self/status: CapEff), "
        "so the one that owns the target does not give it",
        ("use run() or call() and " if "thread" in case.words else "")
        + "join the target's user namespace as well (add USER to the types)",
    )


def looking(case: Case) -> Finding | None:
    """Whose namespaces one may see (ptrace(2), PTRACE_MODE_READ)."""
    if not case.facts.lacks("CAP_SYS_PTRACE"):
        return None
    return case.found(
        "capability",
        "CAP_SYS_PTRACE missing (/proc/self/status: CapEff), and the process is another user's, "
        "in another user namespace, or not dumpable",
        "run as the user of that process, or as root (Docker: --cap-add SYS_PTRACE)",
    )


# ---------------------------------------------------------------- id maps


def map_setgroups(case: Case) -> Finding | None:
    if "gid" not in case.step:
        return None
    if case.facts.id_lines("gid") == []:  # this thread is inside already
        outside = "the writer is inside (/proc/self/gid_map is empty)"
    elif case.facts.lacks("CAP_SETGID"):
        outside = "CAP_SETGID missing (/proc/self/status: CapEff)"
    else:
        return None
    return case.found(
        "setgroups",
        f"{outside}, so a gid_map can be written only after 'deny' to setgroups",
        'leave setgroups unset or "deny"',
    )


def map_rights(case: Case) -> Finding | None:
    """Without CAP_SETUID in the parent only the own id; for id 0 CAP_SETFCAP too."""
    cap = "CAP_SETGID" if "gid" in case.step else "CAP_SETUID"
    missing = case.facts.lacks(cap, "CAP_SETFCAP")
    if not missing:
        return None
    what = "only the own id may be mapped" if cap in missing else "id 0 of the outer namespace may not be mapped"
    return case.found(
        "capability",
        f"{missing[0]} missing (/proc/self/status: CapEff): {what}",
        'map the own id ("current", "root"), or ranges of /etc/subuid by newuidmap ("auto", "subids")',
    )


def groups_denied(case: Case) -> Finding | None:
    denied = case.facts.text("/proc/thread-self/setgroups") == "deny"
    if not denied and not case.with_user:
        return None
    inside = "setgroups is denied in a user namespace that wrote its own gid_map"
    evidence = "/proc/self/setgroups is deny" if denied else inside
    return case.found("setgroups", evidence, 'leave groups= out, or use maps from newgidmap ("auto", "subids")')


# ---------------------------------------------------------------- the kernel


def type_missing(case: Case) -> Finding | None:
    absent = [
        name_of(t)
        for t in each(case.types)
        if case.facts.has_proc and not os.path.lexists(f"/proc/thread-self/ns/{name_of(t)}")
    ]
    if not absent:
        return None
    since = "".join(f", {name} is there since Linux {_SINCE[name]}" for name in absent if name in _SINCE)
    return case.found(
        "old-kernel",
        f"/proc/self/ns/{absent[0]} does not exist on this Linux {os.uname().release}{since}",
        f"use a kernel with {', '.join(absent)} namespaces, or leave them out",
    )


def call_missing(case: Case) -> Finding | None:
    return case.found(
        "old-kernel",
        f"Linux {os.uname().release} (uname -r) does not know this call, or a seccomp filter hides it",
        "use a newer kernel or an option that does without",
    )


Rule = tuple[tuple[str, ...], tuple[int, ...], "Callable[[Case], Finding | None]"]

_PRIVILEGED = ("create", "join", "mount", "umount", "ids", "setgroups", "time", "caps", "names", "net", "rlimit")
_REFUSED = (errno.EPERM, errno.EACCES)

RULES: tuple[Rule, ...] = (
    ((), (errno.EMFILE,), files),
    (("map", "setgroups", "time"), (errno.EXDEV, errno.EROFS), mounts.proc_missing),
    (("create", "join", "mount", "umount"), (), seccomp),
    (("create",), (errno.ENOSPC, errno.EUSERS), limit),
    (("create",), (errno.ENOSPC, errno.EUSERS), nesting),
    (("create", "ids"), (errno.EAGAIN,), processes),
    (("create",), (errno.EINVAL,), userns_disabled),
    (("create", "join"), (errno.EINVAL, errno.ENOENT), type_missing),
    (("create", "join"), (errno.EINVAL,), threads),
    (("join",), (errno.EUSERS,), threads),
    (("create",), (errno.EPERM,), chroot),
    (("create",), (errno.EPERM,), unmapped_id),
    (("create",), _REFUSED, userns_disabled),
    (("create", "map", "mount"), _REFUSED, apparmor),
    (("helper",), (), mounts.helper_missing),
    (("helper",), (), mounts.subuid),
    (("helper",), (), mounts.no_new_privs),
    (("helper",), (), mounts.nosuid),
    (("map",), (errno.EPERM,), outside_map),
    (("map",), (errno.EPERM,), map_setgroups),
    (("map",), (errno.EPERM,), map_rights),
    (("setgroups",), (errno.EPERM,), groups_denied),
    (("ids",), (errno.EINVAL,), unmapped_target),
    (("mount",), (errno.ENOSPC,), mounts.mount_max),
    (("mount",), (errno.EPERM,), mounts.masked_proc),
    (("mount",), (errno.EPERM,), mounts.mount_owner),
    (("mount",), (errno.EPERM,), mounts.overlay_version),
    (("mount",), (errno.ENODEV,), mounts.filesystem_missing),
    (_PRIVILEGED, (errno.EPERM,), capability),
    (("place",), _REFUSED, capability),
    (("join",), (errno.EPERM,), join_owner),
    (("mount", "umount"), (errno.EPERM, errno.EINVAL), mounts.locked_mount),
    (("other", "mount"), (errno.EOVERFLOW,), unmapped_id),
    (("map", "time"), (errno.ENOENT, errno.ENOTDIR), mounts.proc_missing),
    (("look",), _REFUSED, looking),
    (_PRIVILEGED, (errno.EPERM,), seccomp_likely),
    ((), (errno.ENOSYS, errno.ENOTTY), call_missing),
)
