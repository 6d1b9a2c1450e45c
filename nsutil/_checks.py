"""What a recipe may say: the check of each option and of their combinations."""

from __future__ import annotations

from functools import partial

from . import _options as option
from ._types import CGROUP, MNT, NET, PID, TIME, USER, UTS, NSType, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._recipe import Namespace
    from ._target import Join


def _id_map(which: str, value: object) -> object:
    from ._idmap import parse_map

    return parse_map(value, which)


def _mounts(value: object) -> object:
    from ._mounts import parse_mounts

    return parse_mounts(value)


def _mount_proc(value: object) -> object:
    return value if isinstance(value, bool) else option.path("mount_proc")(value)


def _owner(value: object) -> tuple[int, int]:
    items = option._items("owner", value)
    if len(items) != 2:
        raise ValueError(f"owner must be (uid, gid), not {value!r}")
    return option.integer("owner", 0, option.MAX_ID, items[0]), option.integer("owner", 0, option.MAX_ID, items[1])


CHECKS: dict[str, Callable[[Any], object]] = {
    "uid_map": partial(_id_map, "uid"),
    "gid_map": partial(_id_map, "gid"),
    "setgroups": option.choice("setgroups", ("allow", "deny")),
    "uid": option.uid,
    "gid": option.gid,
    "groups": option.groups,
    "keep_caps": option.flag("keep_caps"),
    "ambient": option.capabilities("ambient"),
    "bounding": option.capabilities("bounding"),
    "no_new_privs": option.flag("no_new_privs"),
    "hostname": option.hostname("hostname"),
    "domainname": option.hostname("domainname"),
    "loopback": option.flag("loopback"),
    "monotonic": option.offset("monotonic"),
    "boottime": option.offset("boottime"),
    "propagation": option.choice("propagation", option.PROPAGATIONS),
    "mounts": _mounts,
    "mount_proc": _mount_proc,
    "root": option.path_or_fd("root"),
    "cwd": option.path_or_fd("cwd"),
    "cgroup": option.path_or_fd("cgroup"),
    "rlimits": option.rlimits,
    "umask": option.umask,
    "init": option.flag("init"),
    "kill_child": option.signal_or_flag,
    "new_session": option.session,
    "timeout": option.seconds,
    "strict": option.flag("strict"),
    "allow_main_mnt": option.flag("allow_main_mnt"),
    "env": option.choice("env", ("target",)),
    "owner": _owner,
    "etc_netns": option.flag("etc_netns"),
}

# Options that mean nothing unless that type is new.
NEEDS_NEW: dict[str, NSType] = {
    "uid_map": USER,
    "gid_map": USER,
    "setgroups": USER,
    "owner": USER,
    "hostname": UTS,
    "domainname": UTS,
    "loopback": NET,
    "monotonic": TIME,
    "boottime": TIME,
    "propagation": MNT,
    "mounts": MNT,
    "etc_netns": MNT,
    "init": PID,
}

# What a block on the calling thread cannot do, since it could not be undone
# or would touch the whole process.
CHILD_ONLY = (
    "uid_map gid_map setgroups uid gid groups keep_caps ambient bounding no_new_privs mount_proc root cwd "
    "cgroup rlimits umask init kill_child new_session timeout env owner etc_netns monotonic boottime"
).split()


# Types that a thread cannot leave again, at least when they are new.
_LASTING = int(USER | PID | TIME)


def check_options(options: dict[str, Any], new: NSType, joins: tuple[Join, ...]) -> dict[str, Any]:
    """The options in their normal form; TypeError or ValueError for bad ones."""
    from ._recipe import DEFAULTS

    checked = {name: CHECKS[name](value) for name, value in options.items() if value is not None}
    checked = {name: value for name, value in checked.items() if value != DEFAULTS[name] or name in ("root", "cwd")}
    _check_types(int(new), joins)
    if checked:
        _check_needed_types(checked, new)
        _check_pairs(checked, new)
        _check_target_options(checked, joins)
    return checked


def _check_types(new: int, joins: tuple[Join, ...]) -> None:
    seen = 0
    for join in joins:
        twice = seen & int(join.types)
        if twice:
            raise ValueError(f"{NSType(twice)} is joined twice: {', '.join(j.label for j in joins)}")
        seen |= int(join.types)
    both = seen & new & ~int(USER)
    if both:
        raise ValueError(f"{NSType(both)} is both new and in enter=: a namespace is either made or joined")


def _check_needed_types(options: dict[str, Any], new: NSType) -> None:
    for name, needed in NEEDS_NEW.items():
        if name in options and not new & needed:
            raise ValueError(
                f"{name}={spelled(name, options[name])!r} needs {str(needed).upper()} among the new types, "
                f"which are {new or 'none'}"
            )


def _check_pairs(options: dict[str, Any], new: NSType) -> None:
    if options.get("setgroups") == "allow" and new & USER:
        from ._idmap import needs_deny

        if needs_deny(options.get("uid_map"), options.get("gid_map")):
            raise ValueError(
                f"setgroups='allow' contradicts gid_map={options.get('gid_map')!r}: "
                f"a gid map that the child writes itself requires 'deny' (user_namespaces(7))"
            )
    if options.get("init") is False and options.get("kill_child") not in (None, False, True, 9) and new & PID:
        raise ValueError(
            f"kill_child={options['kill_child']!r} contradicts init=False: a PID 1 without a handler ignores "
            f"every signal but SIGKILL"
        )
    missing = set(options.get("ambient", ())) - set(options.get("bounding", options.get("ambient", ())))
    if missing:
        names = ", ".join(option.CAPABILITIES[number] for number in sorted(missing))
        raise ValueError(f"ambient has {names}, which bounding leaves out")
    if options.get("mount_proc") and not new & MNT:
        raise ValueError(f"mount_proc={options['mount_proc']!r} needs MNT among the new types")
    if options.get("env") == "target" and "root" in options and options["root"] is not True:
        raise ValueError("env='target' contradicts root=: the target's environment belongs to its own root")


def _check_target_options(options: dict[str, Any], joins: tuple[Join, ...]) -> None:
    """Options that take something over from the target need a process."""
    wanted = [name for name in ("root", "cwd", "cgroup") if options.get(name) is True]
    wanted += [name for name in ("env", "uid", "gid") if options.get(name) == "target"]
    if wanted and not any(join.process for join in joins):
        raise ValueError(f"{wanted[0]}={options[wanted[0]]!r} needs a process as target of enter=")


def check_block(recipe: Namespace) -> None:
    """ValueError when a ``with`` block cannot do what the recipe says."""
    own = [t for t in (USER, PID, TIME) if recipe.new & t] if recipe._types & _LASTING else []
    joined = [t for t in (USER, TIME) if recipe.joined & t] if recipe._types & _LASTING else []
    if own or joined:
        types = "|".join(str(t).upper() for t in own + joined)
        raise ValueError(
            f"a thread cannot leave a {types} namespace again: use .run(), .popen() or .call()"
            + ("" if USER in own + joined else ", or .thread()")
        )
    refused = [name for name in CHILD_ONLY if name in recipe._options]
    if refused:
        raise ValueError(
            f"{', '.join(refused)} cannot be undone at the end of a with block: use .run(), .popen() or .call()"
        )


def check_thread(recipe: Namespace) -> None:
    """ValueError when a fresh thread cannot do what the recipe says."""
    if recipe.types & USER:
        raise ValueError(
            "a thread cannot enter a USER namespace, only a single-threaded process can: use .run() or .call()"
        )
    if recipe.joined & TIME:
        raise ValueError(
            "a thread cannot join a TIME namespace, only a single-threaded process can: use .run() or .call()"
        )
    allowed = {"monotonic", "boottime"}
    refused = [name for name in CHILD_ONLY if name in recipe._options and name not in allowed]
    if refused:
        raise ValueError(f"{', '.join(refused)} would change the whole process: use .run(), .popen() or .call()")


def spelled(name: str, value: Any) -> Any:
    """A stored option as its user would write it."""
    if name in ("monotonic", "boottime"):
        whole, rest = divmod(value, option.NANOSECONDS)
        return value / option.NANOSECONDS if rest else whole
    if name == "rlimits":
        return {resource: (soft, hard) for resource, soft, hard in value}
    return value


__all__ = ["CGROUP", "CHECKS", "check_block", "check_options", "check_thread", "each", "spelled"]
