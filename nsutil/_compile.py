"""Recipe to steps, for each of the places where a recipe can run.

The order inside a child is fixed by what the kernel allows: join, unshare,
maps, clock offsets, names, mounts and root, and last what gives rights away.
"""

from __future__ import annotations

import errno
import os

from ._options import CAPABILITIES, NANOSECONDS
from ._plan import PlanBuilder, Slots, close_all, open_offsets, pairs, write_offsets
from ._types import CGROUP, MNT, NET, PID, TIME, USER, NSType, each, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._idmap import MapWriter
    from ._plan import HasFileno, Slot, Steps
    from ._recipe import Namespace
    from ._target import Join, Process

CLONE_FS = 0x200
MS_REC = 0x4000
PROPAGATION_FLAGS = {"private": 0x40000, "slave": 0x80000, "shared": 0x100000}
TIOCSCTTY = 0x540E
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
O_NSDIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
UNCHANGED = 2**32 - 1  # for setresuid(2)
ANY_ERROR = -1


class ChildPlan:
    """What a child runs, in the order of its attributes.

    ``clone_flags``: types the first clone makes itself; ``enter``: joins and
    unshares, in the first process; ``maps``: how the id maps get written, or
    None; ``setup``: in the process that is PID 1; ``credentials``: in the
    program's own.  ``second``: another process is needed after ``enter`` to be
    inside.  ``init``: nsutil's init is PID 1.  ``join_time``: the TIME target
    of the second exec stage.  ``hides``: whether others have rights over the
    child before it is a program: foreign namespaces are joined, or another user
    becomes the owner of a new one.
    ``keep``: descriptors that stay open until the child has started.
    """

    __slots__ = (
        "clone_flags",
        "credentials",
        "enter",
        "hides",
        "init",
        "join_time",
        "keep",
        "maps",
        "second",
        "setup",
        "slots",
    )

    clone_flags: int
    enter: Steps
    maps: MapWriter | None
    setup: Steps
    credentials: Steps
    second: bool
    init: bool
    join_time: Join | None
    hides: bool
    slots: Slots
    keep: list[int]

    def close(self) -> None:
        """Close what was opened for this run."""
        close_all(self.keep)


def among_other_files(recipe: Namespace) -> bool:
    """Whether what is inside sees other files than this process, somebody else's perhaps."""
    return bool(recipe.joined & MNT or recipe.root is not None or recipe.mounts)


# ------------------------------------------------------------ on a thread


def thread_steps(recipe: Namespace, context: tuple[str, ...] = ("thread",)) -> Steps:
    """The way in for a thread: a ``with`` block's, whose way back is the guard's, or a fresh one's."""
    if among_other_files(recipe):
        from ._preload import preload

        preload()
    builder = PlanBuilder(Slots(context))
    if recipe.joined & MNT:
        builder.add("unshare", CLONE_FS, label="unshare(CLONE_FS)")
    for join in recipe.enter:
        builder.add("setns", builder.keep(join.handle), int(join.types), label=join.label, filename=_object_of(join))
    if recipe.new or recipe._options:
        _unshare(builder, recipe.new)
        if offsets := _clock_offsets(recipe):
            write_offsets(builder, offsets, open_offsets(builder))
        _names_and_links(builder, recipe)
        _file_systems(builder, recipe, child=False)
    return builder.build()


# -------------------------------------------------------------- in a child


def compile_child(recipe: Namespace) -> ChildPlan:
    """All that a child of this recipe does up to its program or function.

    Kept in the recipe where it will be the same next time: that saves most of
    what a call costs beyond its fork, after which every page written is copied.
    """
    ids = ids_for(recipe)
    plan = recipe._kept.plans.get(ids)
    if plan is None:
        plan = _compile_child(recipe)
        if _is_lasting(recipe, plan):
            recipe._kept.plans[ids] = plan
    return plan


_USER = int(USER)


def ids_for(recipe: Namespace) -> tuple[int, int] | None:
    """The ids of this process, where they go into the maps of a new USER namespace."""
    return (os.geteuid(), os.getegid()) if recipe._types & _USER else None


def _is_lasting(recipe: Namespace, plan: ChildPlan) -> bool:
    """Whether nothing but the recipe and the caller's ids went in."""
    looks_around = recipe.joined & MNT or "target" in (recipe.uid, recipe.gid) or recipe.etc_netns
    looks_around = looks_around or not isinstance(recipe.root, (str, type(None)))
    return not looks_around and not plan.keep and (plan.maps is None or plan.maps.self_write is not None)


def _compile_child(recipe: Namespace) -> ChildPlan:
    plan = ChildPlan()
    plan.slots = slots = Slots((*_context(recipe), "child"))
    plan.keep = []
    plan.hides = bool(recipe.enter or recipe.owner)
    plan.join_time = next((join for join in recipe.enter if join.types & TIME), None)
    plan.clone_flags = _clone_flags(recipe)
    plan.second = bool(recipe.joined & PID or recipe.new & PID & ~NSType(plan.clone_flags))
    plan.init = bool(recipe.new & PID) and recipe.init is not False
    plan.maps = _maps(recipe, slots)
    plan.enter = _enter_steps(recipe, plan)
    plan.setup = _setup_steps(recipe, plan)
    plan.credentials = _credential_steps(recipe, plan)
    return plan


def _clone_flags(recipe: Namespace) -> int:
    """Types that clone(2) can make at once: all but TIME, for which the old
    call has no flag, and CGROUP where its root is to be another cgroup."""
    if recipe.enter or recipe.owner:
        return 0
    late = TIME | CGROUP if recipe.cgroup is not None else TIME
    return int(recipe.new & ~late)


def _maps(recipe: Namespace, slots: Slots) -> MapWriter | None:
    if not recipe.new & USER:
        return None
    from ._idmap import map_writer

    return map_writer(recipe.uid_map, recipe.gid_map, recipe.setgroups, slots, recipe.owner)


def _enter_steps(recipe: Namespace, plan: ChildPlan) -> Steps:
    builder = PlanBuilder(plan.slots)
    _join_cgroup(builder, recipe, plan)
    if recipe.enter:
        _join(builder, recipe)
    offsets = _clock_offsets(recipe)
    # With the rights held now: an owner, who must not get to know our memory, can't open its own.
    opened = open_offsets(builder) if offsets else None
    if recipe.owner:
        uid, gid = recipe.owner
        builder.add("drop_groups", label="drop supplementary groups")
        builder.add("setresgid", gid, gid, gid, label=f"set gid {gid}")
        builder.add("setresuid", uid, uid, uid, label=f"set uid {uid}")
    _unshare(builder, NSType(recipe.new & ~plan.clone_flags))
    # Here rather than in the set-up: the first fork enters, and freezes them.
    if opened:
        write_offsets(builder, offsets, opened)
    return builder.build()


def _setup_steps(recipe: Namespace, plan: ChildPlan) -> Steps:
    builder = PlanBuilder(plan.slots)
    if recipe.joined & USER or (plan.maps and plan.maps.adopt_root):
        builder.add("adopt_root", label="become root of the user namespace")
    _names_and_links(builder, recipe)
    _file_systems(builder, recipe, child=True)
    _target_root(builder, recipe, plan)
    return builder.build()


def _credential_steps(recipe: Namespace, plan: ChildPlan) -> Steps:
    builder = PlanBuilder(plan.slots)
    if recipe.new_session is not False:
        builder.add("setsid", label="start a new session")
    if not isinstance(recipe.new_session, bool):
        terminal = builder.keep(recipe.new_session)
        builder.add(
            "ioctl", terminal, TIOCSCTTY, 0, label="take the terminal", filename=f"descriptor {recipe.new_session}"
        )
    for resource, soft, hard in recipe._options.get("rlimits", ()):
        limits = soft.to_bytes(8, "little", signed=True) + hard.to_bytes(8, "little", signed=True)
        builder.add("prlimit64", 0, resource, limits, None, label=f"set resource limit {resource} to {soft}, {hard}")
    if recipe.umask is not None:
        builder.add("umask", recipe.umask, label="set umask")
    where = _working_directory(recipe, plan)
    if where is not None:
        first = builder.slot()
        _chdir(builder, where, ok=ANY_ERROR, out=first)
    _identity(builder, recipe)
    if where is not None:
        _chdir(builder, where, ok=0 if recipe.cwd is not None else ANY_ERROR, earlier=first)
        builder.add(
            "check_cwd", label="check that the working directory is below the root", filename=str(recipe.cwd or ".")
        )
    return builder.build()


# -------------------------------------------------------------- the pieces


def _context(recipe: Namespace) -> tuple[str, ...]:
    """For the hints of failures."""
    return tuple(map(str, each(recipe.types)))


def _unshare(builder: PlanBuilder, types: NSType) -> None:
    if types:
        builder.add("unshare", int(types), label=f"unshare({str(types).upper()})")


def _object_of(join: Join) -> str:
    return str(join.handle)


def _join(builder: PlanBuilder, recipe: Namespace) -> None:
    """Two passes, then a look at what the thread really is in."""
    own = builder.slot()
    builder.add("open_proc", b"/proc/thread-self/ns", O_NSDIR, label="open /proc/thread-self/ns", out=own)
    targets = [(builder.keep(join), int(join.types & ~TIME)) for join in recipe.enter if join.types & ~TIME]
    label = ", ".join(join.label for join in recipe.enter)
    objects = ", ".join(_object_of(join) for join in recipe.enter)
    builder.add("join", len(targets), pairs(targets), label=label, filename=objects)
    for join in recipe.enter:
        for number, _, inode in join.identity:
            if number != TIME:
                entry = "pid_for_children" if number == PID else name_of(number)
                builder.add(
                    "verify_ns", own, entry.encode(), inode, label=f"verify: {join.label}", filename=_object_of(join)
                )
    builder.add("close", own, label="close /proc/thread-self/ns")


def _clock_offsets(recipe: Namespace) -> dict[str, tuple[int, int]]:
    stored = recipe._options
    return {clock: divmod(stored[clock], NANOSECONDS) for clock in ("monotonic", "boottime") if clock in stored}


def _names_and_links(builder: PlanBuilder, recipe: Namespace) -> None:
    for op, name in (("sethostname", recipe.hostname), ("setdomainname", recipe.domainname)):
        if name is not None:
            data = os.fsencode(name)
            builder.add(op, data, len(data), label=f"{op}({name!r})")
    if recipe.new & NET and recipe.loopback:
        builder.add("ifup", b"lo", label="set the loopback interface up", filename="lo")


def _file_systems(builder: PlanBuilder, recipe: Namespace, child: bool) -> None:
    """Propagation first: nothing below may be seen by the namespace outside."""
    flags = PROPAGATION_FLAGS.get(recipe.propagation)
    if recipe.new & MNT and flags is not None:
        builder.add("propagation", flags | MS_REC, label=f"make / recursively {recipe.propagation}", filename="/")
    proc = recipe.mount_proc
    if proc is None:
        proc = child and bool(recipe.new & PID and recipe.new & MNT)
    if recipe.mounts or proc or recipe.root not in (None, True) or recipe.etc_netns:
        from ._mounts import compile_mounts

        compile_mounts(builder, recipe, proc)
    if recipe.mounts and recipe.root is None and recipe.cwd is None:
        builder.add("cwd_again", label="go to the working directory as it is inside")


def _process_target(recipe: Namespace) -> Process:
    return next(join.process for join in recipe.enter if join.process)


def _join_cgroup(builder: PlanBuilder, recipe: Namespace, plan: ChildPlan) -> None:
    """Before CGROUP is unshared, so that this cgroup becomes its root."""
    if recipe.cgroup is None:
        return
    directory = _cgroup_of(_process_target(recipe)) if recipe.cgroup is True else recipe.cgroup
    fd = _open_cgroup(directory)
    plan.keep.append(fd)
    slot = builder.keep(fd)
    builder.add("join_cgroup", slot, label="join the cgroup", filename=str(directory))
    # It has the rights of who opened it: no function inside gets it.
    builder.add("close", slot, label="join the cgroup", filename=str(directory))


def _open_cgroup(directory: str | int | HasFileno) -> int:
    # Not to wait should it be a FIFO: that it is a cgroup's file is checked where it is written to.
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if isinstance(directory, str):
        return os.open(os.path.join(directory, "cgroup.procs"), flags)
    fd = directory if isinstance(directory, int) else directory.fileno()
    return os.open("cgroup.procs", flags, dir_fd=fd)


def _cgroup_of(process: Process) -> str:
    """The target's directory in the cgroup v2 hierarchy, wherever that is mounted."""
    from ._probe import lines_of

    for line in lines_of(os.fsdecode(process.read("cgroup"))):
        hierarchy, _, path = line.split(":", 2)
        if hierarchy == "0":
            return _cgroup2_mount() + path
    raise ValueError(f"{process} is in no cgroup v2 hierarchy")


def _cgroup2_mount() -> str:
    from ._mountinfo import parse

    with open("/proc/thread-self/mountinfo", errors="surrogateescape", newline="\n") as file:
        for mount in map(parse, file):
            if mount.fstype == "cgroup2":
                return mount.target
    raise FileNotFoundError(2, "no cgroup v2 file system is mounted", "/sys/fs/cgroup")


def _target_root(builder: PlanBuilder, recipe: Namespace, plan: ChildPlan) -> None:
    """root=True: the target's root, by a descriptor taken before the joins."""
    if recipe.root is not True:
        return
    process = _process_target(recipe)
    plan.keep.append(process.open_path("root"))
    builder.add(
        "fchdir", builder.keep(plan.keep[-1]), label=f"go to the root of {process}", filename=process.path("root")
    )
    builder.add("chroot", b".", label=f"take the root of {process}", filename=process.path("root"))


def _working_directory(recipe: Namespace, plan: ChildPlan) -> bytes | int | HasFileno | None:
    """Where to go: a path, or a descriptor; None to stay."""
    if recipe.cwd is True:
        plan.keep.append(_process_target(recipe).open_path("cwd"))
        return plan.keep[-1]
    if recipe.cwd is not None:
        return os.fsencode(recipe.cwd) if isinstance(recipe.cwd, str) else recipe.cwd
    if recipe.joined & MNT:
        try:
            return os.fsencode(os.getcwd())
        except OSError:
            return b"/"
    return None


def _chdir(
    builder: PlanBuilder,
    where: bytes | int | HasFileno,
    ok: int,
    out: Slot | None = None,
    earlier: Slot | None = None,
) -> None:
    """Go there.  ``out`` takes the result of the first try, which the second has as ``earlier``."""
    label = "change the working directory"
    if not isinstance(where, bytes):
        builder.add("fchdir", builder.keep(where), label=label, filename=f"descriptor {where}", ok=ok)
    elif earlier is None:
        builder.add("chdir", where, label=label, filename=os.fsdecode(where), ok=ok, out=out)
    else:
        builder.add("chdir_again", earlier, where, label=label, filename=os.fsdecode(where), ok=ok)


def _identity(builder: PlanBuilder, recipe: Namespace) -> None:
    """Groups, gid, uid and capabilities: the last of the rights to go."""
    uid, gid = _id_of("uid", recipe), _id_of("gid", recipe)
    groups = recipe.groups
    _bound_capabilities(builder, recipe)
    if groups is not None:
        builder.add("setgroups", len(groups), list(groups), label=f"set supplementary groups {list(groups)}")
    elif uid is not None:
        builder.add("drop_groups", label="drop supplementary groups")
    if gid is not None:
        builder.add("setresgid", gid, gid, gid, label=f"set gid {gid}")
    keep = recipe.keep_caps or recipe.ambient
    if uid is not None:
        if keep:
            builder.add("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0, label="keep capabilities")
        builder.add("setresuid", uid, uid, uid, label=f"set uid {uid}")
    if keep:
        mask = sum(1 << cap for cap in _all_or(recipe.bounding) if recipe.keep_caps or cap in recipe.ambient)
        builder.add("raise_ambient", mask, int(not recipe.keep_caps), label="raise ambient capabilities")
    else:
        builder.add("clear_inheritable", label="clear inheritable capabilities")
    if recipe.no_new_privs:
        builder.add("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, label="set no_new_privs")


def _bound_capabilities(builder: PlanBuilder, recipe: Namespace) -> None:
    """While CAP_SETPCAP is still there.  What this kernel does not know (EINVAL) needs no dropping."""
    if recipe.bounding is not None:
        for number, name in enumerate(CAPABILITIES):
            if number not in recipe.bounding:
                label = f"drop capability {name} from the bounding set"
                builder.add("prctl", PR_CAPBSET_DROP, number, 0, 0, 0, label=label, ok=errno.EINVAL)


def _all_or(chosen: tuple[int, ...] | None) -> Iterable[int]:
    return range(64) if chosen is None else chosen


def _id_of(which: str, recipe: Namespace) -> int | None:
    """The uid or gid to take; "target" is the owner of /proc/PID, as nsenter's follow."""
    value = getattr(recipe, which)
    if value != "target":
        return value  # type: ignore[no-any-return]
    process = _process_target(recipe)
    status = os.stat(process.path(""))
    process.check_alive()
    return status.st_uid if which == "uid" else status.st_gid


__all__ = ["ChildPlan", "compile_child", "thread_steps"]
