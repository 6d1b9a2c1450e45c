"""``nsutil unshare``: run a program in new namespaces, as unshare(1) of util-linux."""

from __future__ import annotations

import os
import select
import signal

from .._plan import AT_FDCWD, PlanBuilder, open_offsets, write_offsets
from .._types import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, NSType, each, name_of
from ._args import Arguments, CommandError, UsageError, signed, unsigned
from ._program import Helper, Program, child, exit_like, seal_imports, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Singles = dict[str, tuple[int, int]]

PROG = "nsutil unshare"
HELP = """\
Usage: nsutil unshare [OPTIONS] [PROGRAM [ARGUMENT...]]

Run a program (by default $SHELL) in new namespaces.

Namespaces; with =FILE the namespace stays, bound to that file:
  -m, --mount[=FILE]         mounts
  -u, --uts[=FILE]           host name and domain name
  -i, --ipc[=FILE]           System V IPC, POSIX message queues
  -n, --net[=FILE]           network
  -p, --pid[=FILE]           process ids (use with --fork)
  -U, --user[=FILE]          user ids, group ids, capabilities
  -C, --cgroup[=FILE]        control groups
  -T, --time[=FILE]          monotonic and boot-time clocks

Id maps; each implies --user:
  -r, --map-root-user        map the current user and group to root
  -c, --map-current-user     map the current user and group to themselves
      --map-user UID|NAME    map the current user to UID
      --map-group GID|NAME   map the current group to GID
      --map-users INNER:OUTER:COUNT|auto|subids|all
                             map a range of users; may be given several times
      --map-groups INNER:OUTER:COUNT|auto|subids|all
                             map a range of groups; may be given several times
      --map-auto             --map-users=auto --map-groups=auto
      --map-subids           --map-users=subids --map-groups=subids
      --owner UID:GID        the owner of the new user namespace
      --setgroups allow|deny  allow or deny setgroups(2)

Processes and signals:
  -f, --fork                 run the program as a child
      --forward-signals      pass SIGTERM and SIGINT on to it (implies --fork)
      --kill-child[=SIGNAL]  when this ends send it SIGKILL (implies --fork)

File systems:
      --mount-proc[=DIR]     mount proc on /proc (implies --mount)
      --mount-binfmt[=DIR]   mount binfmt_misc (implies --user --mount)
  -l, --load-interp STRING   register a binary format (implies --mount-binfmt)
      --propagation private|slave|shared|unchanged
                             what other mount namespaces see; default private
  -R, --root DIR             run the program with this root directory
  -w, --wd DIR               run the program in this directory

Credentials, clocks, environment:
  -S, --setuid UID           set the user id
  -G, --setgid GID           set the group id, drop supplementary groups
      --keep-caps            keep the capabilities of a new user namespace
      --monotonic SECONDS    offset of the monotonic clock (needs --time)
      --boottime SECONDS     offset of the boot-time clock (needs --time)
      --clear-env            run the program with an empty environment
      --whitelist-env LIST   keep these variables (separated by commas) alone

  -h, --help                 show this help
  -V, --version              show the version
      --debug                show a traceback with errors

Exit status: the program's; a signal that killed it kills this too;
127 no such program, 126 it cannot be run, 1 any other failure.

Examples:
  nsutil unshare --user --map-root-user id
  nsutil unshare --fork --pid --mount-proc ps
  nsutil unshare --time --boottime 86400 uptime
  touch box && nsutil unshare --uts=box hostname box
  nsutil nsenter --uts=box hostname
"""
TYPES = {"mount": MNT, "uts": UTS, "ipc": IPC, "net": NET, "pid": PID, "user": USER, "cgroup": CGROUP, "time": TIME}
PROPAGATIONS = {"private": 0x40000, "slave": 0x80000, "shared": 0x100000, "unchanged": 0}
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_NOSUID_NODEV_NOEXEC = 0xE
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS = 1, 8
EINVAL = 22
BINFMT = "/proc/sys/fs/binfmt_misc"
HELD_BACK = (signal.SIGINT, signal.SIGTERM)


class Request:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.types = NSType(0)
        self.files: dict[NSType, str] = {}
        self.maps: dict[str, list[str]] = {"uid": [], "gid": []}
        self.single: dict[str, int | None] = {"uid": None, "gid": None}
        self.owner: tuple[int, int] | None = None
        self.setgroups: str | None = None
        self.fork = self.forward = False
        self.kill: int | None = None
        self.proc: str | None = None
        self.binfmt: str | None = None
        self.interpreter: str | None = None
        self.propagation = "private"
        self.root: str | None = None
        self.directory: str | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.keep_caps = False
        self.offsets: dict[str, int] = {}
        self.keep_env: list[str] | None = None

    def check(self) -> None:
        """What contradicts itself is told before anything happens."""
        if self.offsets and not self.types & TIME:
            raise UsageError("options --monotonic and --boottime require unsharing of a time namespace (--time)")
        if self.setgroups == "allow" and self.single["gid"] is not None and not self.maps["gid"]:
            raise UsageError("options --setgroups=allow and --map-group are mutually exclusive")
        if self.gid is not None and self.single["gid"] is not None and not self.maps["gid"] and not self.owner:
            raise UsageError(
                f"--setgid={self.gid} drops supplementary groups, which the kernel denies where --map-root-user, "
                f"--map-current-user or --map-group map a single group; use --map-groups or --map-auto"
            )
        if PID in self.files and not self.fork:
            raise UsageError(f"--pid={self.files[PID]} needs --fork: only a first process makes a PID namespace")


# ------------------------------------------------------------- the options


def _id(value: str | None, which: str) -> int:
    """A number, or a user's or group's name."""
    if value and not value.isdigit():
        try:
            if which == "uid":
                import pwd

                return pwd.getpwnam(value).pw_uid
            import grp

            return grp.getgrnam(value).gr_gid
        except KeyError:
            pass
    return unsigned(value, which)


def _map_single(request: Request, uid: int, gid: int) -> None:
    request.types |= USER
    request.single.update(uid=uid, gid=gid)


def _map_one(which: str) -> Callable[[Request, str | None], None]:
    def take(request: Request, value: str | None) -> None:
        request.types |= USER
        request.single[which] = _id(value, which)

    return take


def _map_range(*which: str, word: str | None = None) -> Callable[[Request, str | None], None]:
    def take(request: Request, value: str | None) -> None:
        request.types |= USER
        for name in which:
            request.maps[name].append(word or value or "")

    return take


def _owner(request: Request, value: str | None) -> None:
    uid, colon, gid = (value or "").partition(":")
    if not colon:
        raise UsageError(f"--owner needs UID:GID, not '{value}'")
    request.types |= USER
    request.owner = unsigned(uid, "owner uid"), unsigned(gid, "owner gid")


def _kill_child(request: Request, value: str | None) -> None:
    name = (value or "KILL").upper().removeprefix("SIG")
    number = signal.Signals.__members__.get(f"SIG{name}")
    if number is None:
        raise UsageError(f"unknown signal: {value}")
    request.kill, request.fork = int(number), True


def _choice(attribute: str, allowed: tuple[str, ...], complaint: str) -> Callable[[Request, str | None], None]:
    def take(request: Request, value: str | None) -> None:
        if value not in allowed:
            raise UsageError(f"{complaint} '{value}'; one of {', '.join(allowed)}")
        setattr(request, attribute, value)

    return take


def _text(attribute: str) -> Callable[[Request, str | None], None]:
    return lambda request, value: setattr(request, attribute, value)


def _mount_proc(request: Request, value: str | None) -> None:
    request.types |= MNT
    request.proc = value or "/proc"


def _mount_binfmt(request: Request, value: str | None) -> None:
    request.types |= USER | MNT
    if value is None:
        request.proc = request.proc or "/proc"
    request.binfmt = value or BINFMT


def _load_interpreter(request: Request, value: str | None) -> None:
    if request.binfmt is None:
        _mount_binfmt(request, None)
    request.interpreter = value


def _set(**values: bool) -> Callable[[Request, str | None], None]:
    return lambda request, _: request.__dict__.update(values)


def _keep_env(request: Request, value: str | None) -> None:
    request.keep_env = [*(request.keep_env or []), *(name for name in (value or "").split(",") if name)]


ACTIONS: dict[str, Callable[[Request, str | None], None]] = {
    "fork": _set(fork=True),
    "forward-signals": _set(fork=True, forward=True),
    "kill-child": _kill_child,
    "map-root-user": lambda request, _: _map_single(request, 0, 0),
    "map-current-user": lambda request, _: _map_single(request, os.geteuid(), os.getegid()),
    "map-user": _map_one("uid"),
    "map-group": _map_one("gid"),
    "map-users": _map_range("uid"),
    "map-groups": _map_range("gid"),
    "map-auto": _map_range("uid", "gid", word="auto"),
    "map-subids": _map_range("uid", "gid", word="subids"),
    "owner": _owner,
    "setgroups": _choice("setgroups", ("allow", "deny"), "unsupported --setgroups argument"),
    "mount-proc": _mount_proc,
    "mount-binfmt": _mount_binfmt,
    "load-interp": _load_interpreter,
    "propagation": _choice("propagation", tuple(PROPAGATIONS), "unsupported propagation mode"),
    "root": _text("root"),
    "wd": _text("directory"),
    "setuid": lambda request, value: setattr(request, "uid", unsigned(value, "uid")),
    "setgid": lambda request, value: setattr(request, "gid", unsigned(value, "gid")),
    "keep-caps": _set(keep_caps=True),
    "monotonic": lambda request, value: request.offsets.update(monotonic=signed(value, "monotonic offset")),
    "boottime": lambda request, value: request.offsets.update(boottime=signed(value, "boottime offset")),
    "clear-env": lambda request, _: _keep_env(request, None),
    "whitelist-env": _keep_env,
}


def parse(argv: list[str]) -> tuple[Request, list[str]]:
    """The command line as a request and the program's own command line."""
    request = Request()
    arguments = Arguments(HELP, argv)
    for name, value in arguments:
        if name in TYPES:
            request.types |= TYPES[name]
            if value:
                request.files[TYPES[name]] = value
        else:
            ACTIONS[name](request, value)
    request.check()
    return request, arguments.rest


# --------------------------------------------------------------- the steps


def enter(request: Request) -> None:
    """Make the namespaces."""
    steps = PlanBuilder()
    if request.owner:
        uid, gid = request.owner
        steps.add("setgroups", 0, None, label="drop supplementary groups for --owner")
        steps.add("setresgid", gid, gid, gid, label=f"set gid {gid} for --owner")
        steps.add("setresuid", uid, uid, uid, label=f"set uid {uid} for --owner")
    if request.types:
        steps.add("unshare", int(request.types), label=f"unshare({str(request.types).upper()})")
    steps.build().run()


def set_clocks(request: Request) -> None:
    """Set the clocks of the new TIME namespace; nobody may have entered it yet."""
    if request.offsets:
        steps = PlanBuilder()
        offsets = {clock: (seconds, 0) for clock, seconds in request.offsets.items()}
        write_offsets(steps, offsets, open_offsets(steps))
        steps.build().run()


def set_up(request: Request) -> None:
    """What happens in the program's process: mounts, root, directory, credentials."""
    steps = PlanBuilder()
    if request.types & MNT and PROPAGATIONS[request.propagation]:
        _remount(steps, "/", PROPAGATIONS[request.propagation], f"make / recursively {request.propagation}")
    interpreter = request.interpreter
    if interpreter and request.root is not None and "F" in interpreter.rpartition(":")[2]:
        _mount(steps, "binfmt_misc", BINFMT)  # F: the interpreter is opened now, outside the new root
        _register(steps, BINFMT, interpreter)
        interpreter = None
    _change_root(steps, request)
    if request.proc:
        if request.propagation != "private":
            _remount(steps, request.proc, MS_PRIVATE, f"make {request.proc} private", ok=EINVAL)
        _mount(steps, "proc", request.proc)
    if request.binfmt:
        _mount(steps, "binfmt_misc", request.binfmt)
        if interpreter:
            _register(steps, request.binfmt, interpreter)
    _credentials(steps, request)
    steps.build().run()


def _remount(steps: PlanBuilder, target: str, propagation: int, label: str, ok: int = 0) -> None:
    flags = propagation | MS_REC
    steps.add("mount", b"none", os.fsencode(target), None, flags, None, label=label, filename=target, ok=ok)


def _mount(steps: PlanBuilder, kind: str, target: str) -> None:
    name, path, label = kind.encode(), os.fsencode(target), f"mount {kind} on {target}"
    steps.add("mount", name, path, name, MS_NOSUID_NODEV_NOEXEC, None, label=label, filename=target)


def _register(steps: PlanBuilder, directory: str, interpreter: str) -> None:
    path, data, fd = f"{directory}/register", os.fsencode(interpreter), steps.slot()
    flags = os.O_WRONLY | os.O_CLOEXEC
    steps.add("openat", AT_FDCWD, os.fsencode(path), flags, 0, label=f"open {path}", filename=path, out=fd)
    steps.add("write", fd, data, len(data), label=f"register the binary format {interpreter}", filename=path)
    steps.add("close", fd, label=f"close {path}")


def _change_root(steps: PlanBuilder, request: Request) -> None:
    if request.root is not None:
        steps.add("chroot", os.fsencode(request.root), label=f"change root directory to '{request.root}'")
    directory = "/" if request.directory is None and request.root is not None else request.directory
    if directory is not None:
        steps.add("chdir", os.fsencode(directory), label=f"change directory to '{directory}'")


def _credentials(steps: PlanBuilder, request: Request) -> None:
    keep = request.keep_caps and request.types & USER
    if request.gid is not None:
        gid = request.gid
        steps.add("setgroups", 0, None, label="drop supplementary groups for --setgid")
        steps.add("setresgid", gid, gid, gid, label=f"set gid {gid}")
    if request.uid is not None:
        uid = request.uid
        if keep:
            steps.add("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0, label="keep capabilities")
        steps.add("setresuid", uid, uid, uid, label=f"set uid {uid}")
    if keep:
        steps.add("raise_ambient", 2**64 - 1, 0, label="raise ambient capabilities")


# ------------------------------------------------------------ the id maps


def map_helper(request: Request) -> Helper | None:
    """The child that writes the maps from outside, where we cannot from inside."""
    if not (any(request.maps.values()) or (request.owner and any(v is not None for v in request.single.values()))):
        return None
    from .._idmap import IdMap, MapWriter, check_entries
    from ._idranges import ranges, with_hole

    maps = {which: tuple(ranges(texts, which)) for which, texts in request.maps.items()}
    for which, one in _single_maps(request).items():
        maps[which] = with_hole(maps[which], IdMap(*one))
    for which, entries in maps.items():
        check_entries(f"{which}_map", entries)
    writer, pid = MapWriter(maps["uid"], maps["gid"], request.setgroups, os.geteuid()), os.getpid()
    return Helper(PROG, lambda: writer.writer(pid))


def _single_maps(request: Request) -> Singles:
    """For "uid" and "gid" the id inside and our own outside."""
    own = {"uid": os.geteuid(), "gid": os.getegid()}
    return {which: (inside, own[which]) for which, inside in request.single.items() if inside is not None}


def write_maps(request: Request, own: Singles) -> None:
    """The maps of our own id from inside; setgroups must be denied before the group's."""
    steps = PlanBuilder()
    if "gid" in own or request.setgroups == "deny":
        _write(steps, "setgroups", "deny")
    for which, (inside, outside) in own.items():
        _write(steps, f"{which}_map", f"{inside} {outside} 1")
    if request.setgroups == "allow":
        _write(steps, "setgroups", "allow")
    steps.build().run()


def _write(steps: PlanBuilder, name: str, text: str) -> None:
    path, data = f"/proc/self/{name}", text.encode()
    steps.add("write_proc", path.encode(), data, len(data), label=f"write '{text}' to {name}", filename=path)


# ------------------------------------------------------- persistent names


def bind(request: Request, process: str) -> None:
    """Bind the new namespaces of a process to their files."""
    steps = PlanBuilder()
    for nstype in each(request.types):
        if nstype in request.files:
            entry = name_of(nstype) + ("_for_children" if nstype & (PID | TIME) else "")
            source, target = f"/proc/{process}/ns/{entry}", request.files[nstype]
            label = f"bind {source} to {target}"
            steps.add("mount", source.encode(), os.fsencode(target), None, MS_BIND, None, label=label, filename=target)
    steps.build().run()


# ---------------------------------------------------------------- the run


def main(argv: list[str]) -> int:
    """Run the command line; the exit status of a child, without --fork there is no return."""
    request, rest = parse(argv)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # as unshare(1), also for the program
    program = Program(rest)
    if request.keep_env is not None:
        names = [os.fsencode(name) for name in request.keep_env]
        program.env = {name: program.env[name] for name in names if name in program.env}
    mapper = map_helper(request)
    own = None if mapper else _single_maps(request)
    outside = request.files and request.types & (MNT | USER)
    pid = str(os.getpid())
    binder = Helper(PROG, lambda: bind(request, pid)) if outside else None
    enter(request)
    if mapper:
        mapper.go()
    set_clocks(request)

    def persist() -> None:
        if binder:
            binder.go()
        elif request.files:
            bind(request, "self")

    if request.fork:
        return run_child(request, program, own, persist)
    persist()
    become_program(request, program, own)
    return 0


def become_program(request: Request, program: Program, own: Singles | None, parent: int = -1) -> None:
    """The rest of the way, in the program's own process; no return."""
    if request.kill:
        follow_parent(request.kill, parent)
    if request.root is not None:
        seal_imports()
    if own is not None:
        write_maps(request, own)
    set_up(request)
    if request.kill:
        follow_parent(request.kill, parent)  # a change of credentials has taken it back
    program.execute()


def run_child(request: Request, program: Program, own: Singles | None, persist: Callable[[], None]) -> int:
    """--fork: the program in a child, SIGINT and SIGTERM left to it."""
    parent = os.pidfd_open(os.getpid()) if request.kill else -1
    reader, writer = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)

    def main_of_child() -> None:
        os.close(writer)
        if os.read(reader, 1):  # the namespaces have their names
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            become_program(request, program, own, parent)

    pid = child(PROG, main_of_child)
    os.close(reader)
    try:
        persist()
        tell(writer)
    finally:
        os.close(writer)
    return exit_like(await_forwarding(pid) if request.forward else os.waitpid(pid, 0)[1])


def await_forwarding(pid: int) -> int:
    """The wait status of a child that gets what is held back.

    All of it stays blocked: a handler that runs just before a waitpid(2) would not end that.
    """
    awaited = {*HELD_BACK, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        number = signal.sigwait(awaited)
        if number != signal.SIGCHLD:
            os.kill(pid, number)


def follow_parent(number: int, parent: int) -> None:
    """Die with the parent, also when it has died already; by pidfd, since its
    number means nothing in another PID namespace."""
    steps = PlanBuilder()
    steps.add("prctl", PR_SET_PDEATHSIG, number, 0, 0, 0, label="set the signal for the parent's death")
    steps.build().run()
    poll = select.poll()
    poll.register(parent, select.POLLIN)
    if poll.poll(0):
        raise CommandError("the parent has ended")
