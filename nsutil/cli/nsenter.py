"""``nsutil nsenter``: run a program in existing namespaces, as nsenter(1) of util-linux."""

from __future__ import annotations

import os
import signal
import time

from .. import _ns
from .._plan import AT_FDCWD, PlanBuilder, pairs
from .._types import CGROUP, IPC, MNT, NAMES, NET, PID, TIME, USER, UTS, NSType, each
from ._args import Arguments, CommandError, UsageError, unsigned
from ._program import Program, child, exit_like, parse_environment, seal_imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._plan import Steps
    from .._target import Process

PROG = "nsutil nsenter"
HELP = """\
Usage: nsutil nsenter [OPTIONS] [PROGRAM [ARGUMENT...]]

Run a program (by default $SHELL) in namespaces of another process, or in
those that a file or a number stands for.

What to enter; without =FILE or =:ID (of nsfs, as NS_GET_ID says) the target's:
  -t, --target PID[:INODE]  take everything from this process (or only when
                            its pidfd has this inode number)
  -a, --all                 all namespaces of the target that are not ours
  -m[FILE], --mount[=FILE]  mounts
  -u[FILE], --uts[=FILE]    host name and domain name
  -i[FILE], --ipc[=FILE]    System V IPC, POSIX message queues
  -n[FILE], --net[=FILE]    network
  -N, --net-socket FD       the network of the target's socket FD
  -p[FILE], --pid[=FILE]    process ids
  -C[FILE], --cgroup[=FILE]  control groups
  -U[FILE], --user[=FILE]   user ids, group ids, capabilities
      --user-parent         the user namespace above that of the others
  -T[FILE], --time[=FILE]   monotonic and boot-time clocks

Credentials; in a user namespace both ids are 0 unless said otherwise:
  -S, --setuid UID|follow   set the user id (follow: the target's)
  -G, --setgid GID|follow   set the group id, drop supplementary groups
      --preserve-credentials  leave ids and groups as they are
      --keep-caps           keep the capabilities of the user namespace

Directories and the rest:
  -r[DIR], --root[=DIR]     set the root directory (the target's)
  -w[DIR], --wd[=DIR]       set the working directory, as seen from outside
  -W[DIR], --wdns[=DIR]     set the working directory, as seen from inside
  -e, --env                 take the target's environment
  -c, --join-cgroup         join the target's cgroup
  -F, --no-fork             do not fork before running the program
  -Z, --follow-context      take the target's SELinux context

  -h, --help                show this help
  -V, --version             show the version
      --debug               show a traceback with errors

Exit status: the program's; a signal that killed it kills this too;
127 no such program, 126 it cannot be run, 1 any other failure.

Examples:
  nsutil nsenter --target 1234 --all
  nsutil nsenter --net=/run/netns/blue ip address
  nsutil nsenter -t 1234 --user --mount --preserve-credentials ls
"""
TYPES = {"mount": MNT, "uts": UTS, "ipc": IPC, "net": NET, "pid": PID, "cgroup": CGROUP, "user": USER, "time": TIME}
SIOCGSKNS = 0x894C
PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 4, 8
ANY_ERROR = -1
O_PATH = os.O_PATH | os.O_CLOEXEC
TARGETS = True  # an option without a value: the target's


class Request:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.target: str | None = None
        self.all = False
        self.types = NSType(0)
        self.files: dict[NSType, str] = {}
        self.socket: int | None = None
        self.user_parent = False
        self.uid: int | str | None = None
        self.gid: int | str | None = None
        self.preserve = self.keep_caps = False
        self.root: str | bool | None = None
        self.directory: str | bool | None = None
        self.inside: str | bool | None = None
        self.env = self.cgroup = self.no_fork = self.context = False

    def check(self) -> None:
        """What is missing or contradicts itself is told before anything happens."""
        if self.inside is not None and self.directory is not None:
            raise UsageError("mutually exclusive arguments: --wdns --wd")
        if not (self.types or self.files or self.all or self.socket is not None or self.user_parent):
            raise UsageError("no namespace specified")
        wanted = self._needs_target()
        if wanted and self.target is None:
            raise UsageError(f"no target PID specified for {wanted[0]}")

    def _needs_target(self) -> list[str]:
        """The options that take something from the target."""
        names = [f"--{name}" for name, nstype in TYPES.items() if nstype & self.types and nstype not in self.files]
        flags = {
            "--all": self.all,
            "--net-socket": self.socket is not None,
            "--root": self.root is TARGETS,
            "--wd": self.directory is TARGETS,
            "--wdns": self.inside is TARGETS,
            "--env": self.env,
            "--join-cgroup": self.cgroup,
            "--follow-context": self.context and _selinux(),
            "--setuid": self.uid == "follow",
            "--setgid": self.gid == "follow",
        }
        return names + [name for name, on in flags.items() if on]


# ------------------------------------------------------------- the options


def _target(request: Request, value: str | None) -> None:
    if request.target is not None:
        raise UsageError("option '--target' is given twice")
    request.target = value


def _directory(attribute: str) -> Callable[[Request, str | None], None]:
    return lambda request, value: setattr(request, attribute, TARGETS if value is None else _past_equals(value))


def _past_equals(value: str) -> str:
    """-u=FILE as --uts=FILE: since util-linux 2.42."""
    return value.removeprefix("=")


def _ids(attribute: str) -> Callable[[Request, str | None], None]:
    def take(request: Request, value: str | None) -> None:
        setattr(request, attribute, "follow" if value == "follow" else unsigned(value, attribute))

    return take


def _flag(attribute: str) -> Callable[[Request, str | None], None]:
    return lambda request, _: setattr(request, attribute, True)


ACTIONS: dict[str, Callable[[Request, str | None], None]] = {
    "target": _target,
    "all": _flag("all"),
    "net-socket": lambda request, value: setattr(request, "socket", unsigned(value, "file descriptor", 2**31 - 1)),
    "user-parent": _flag("user_parent"),
    "setuid": _ids("uid"),
    "setgid": _ids("gid"),
    "preserve-credentials": _flag("preserve"),
    "keep-caps": _flag("keep_caps"),
    "root": _directory("root"),
    "wd": _directory("directory"),
    "wdns": _directory("inside"),
    "env": _flag("env"),
    "join-cgroup": _flag("cgroup"),
    "no-fork": _flag("no_fork"),
    "follow-context": _flag("context"),
}


def parse(argv: list[str]) -> tuple[Request, list[str]]:
    """The command line as a request and the program's own command line."""
    request = Request()
    arguments = Arguments(HELP, argv)
    for name, value in arguments:
        if name not in TYPES:
            ACTIONS[name](request, value)
        elif value is None:
            request.types |= TYPES[name]
        else:
            request.files[TYPES[name]] = _past_equals(value)
    request.check()
    return request, arguments.rest


# -------------------------------------------------------------- the target


def open_target(text: str) -> Process:
    """PID or PID:INODE, pinned; the inode number is that of the pidfd."""
    from .._target import Process

    number, colon, inode = text.partition(":")
    pid = unsigned(number, "pid", 2**31 - 1)
    if pid == 0:
        raise CommandError(f"failed to parse pid: '{number}'")
    process = Process.of_pid(pid)
    found = os.fstat(process.fileno()).st_ino
    if colon and found != unsigned(inode, "pidfd inode", 2**64 - 1):
        raise CommandError(f"process {pid} is another one: its pidfd has inode {found}, not {inode}")
    return process


def differing(process: Process) -> NSType:
    """--all: the types in which the target differs from us.

    MNT also counts when only the root directory differs: joining brings us to
    the root of the mount namespace.
    """
    types = NSType(0)
    for name, nstype in NAMES.items():
        try:
            same = _is_ours(process, name)
        except FileNotFoundError:
            continue
        if not same or (nstype == MNT and not os.path.samefile(process.path("root"), "/")):
            types |= nstype
    process.check_alive()
    return types


def _is_ours(process: Process, name: str) -> bool:
    return os.path.samestat(os.stat(process.path(f"ns/{name}")), os.stat(f"/proc/self/ns/{name}"))


def open_id(nstype: NSType, text: str) -> int:
    """A namespace by its 64-bit id: by a handle of nsfs (Linux 6.19), else among those of all processes."""
    number = unsigned(text, "namespace id", 2**64 - 1)
    try:
        return _ns.open_nsfs_handle(number.to_bytes(8, "little") + bytes(8))
    except OSError:
        pass
    from .._file import open as open_namespace

    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open_namespace(int(name), nstype) as file:
                    if file.id == number:
                        return os.dup(file.fileno())
            except (OSError, ValueError):
                continue
    raise CommandError(f"no process here is in a {nstype} namespace with id {number}")


def open_file(nstype: NSType, text: str) -> int:
    """The descriptor behind =FILE or =:ID, of the right type."""
    if text.startswith(":"):
        return open_id(nstype, text[1:])
    fd = os.open(text, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = _ns.nsfs_type(fd)
    if found != nstype:
        what = f"a {NSType(found)} namespace" if found > 0 else "no namespace file"
        raise CommandError(f"{text} is {what}, not a {nstype} namespace")
    return fd


def parent_of_user(fds: dict[NSType, int]) -> int:
    """--user-parent: the owner of what is entered, or the parent of the user namespace."""
    fd = fds.get(USER) or next(iter(fds.values()))
    try:
        return _ns.get_userns(fd)
    except OSError as e:
        raise OSError(e.errno, os.strerror(e.errno or 0), "parent user namespace") from None


class Entry:
    """The joins and everything else that must be opened while we are outside."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.process = open_target(request.target) if request.target is not None else None
        types = request.types | (differing(self.process) if request.all and self.process else NSType(0))
        self.fds = {nstype: open_file(nstype, text) for nstype, text in request.files.items()}
        self.of_target = NSType(types & ~sum(self.fds))
        if request.socket is not None:
            self.of_target &= ~NET
        if request.user_parent:
            self._enter_user_parent()
        if self.of_target & USER and self.process and _is_ours(self.process, "user"):
            raise CommandError(f"{self.process} is in our own user namespace, which cannot be joined again")
        self.types = NSType(self.of_target | sum(self.fds) | (NET if request.socket is not None else 0))
        self.uid, self.gid = self._id("uid"), self._id("gid")
        self.root = self._open(request.root, "root")
        self.directory = self._open(TARGETS if request.inside is TARGETS else request.directory, "cwd")
        self.cgroup = self._open_cgroup() if request.cgroup else None

    def _open_of_target(self, nstype: NSType) -> int:
        assert self.process is not None
        fd = os.open(self.process.path(f"ns/{nstype}"), os.O_RDONLY | os.O_CLOEXEC)
        self.process.check_alive()
        return fd

    def _enter_user_parent(self) -> None:
        known = dict(self.fds)
        for nstype in [USER] if self.of_target & USER else each(self.of_target):
            known[NSType(nstype)] = self._open_of_target(NSType(nstype))
        self.fds[USER] = parent_of_user(known)
        self.of_target &= ~USER
        if os.path.samestat(os.fstat(self.fds[USER]), os.stat("/proc/self/ns/user")):
            raise CommandError("the parent user namespace is our own: Invalid argument (leave --user-parent out)")

    def _id(self, which: str) -> int | None:
        """The id to take: as said, the target's, or 0 in a user namespace."""
        value: int | str | None = getattr(self.request, which)
        if value == "follow":
            assert self.process is not None
            status = os.stat(self.process.path(""))
            self.process.check_alive()
            return status.st_uid if which == "uid" else status.st_gid
        if value is None and self.types & USER and not self.request.preserve:
            return 0
        return value  # type: ignore[return-value]

    def _open(self, value: str | bool | None, name: str) -> int | None:
        """A directory by its path outside, or the target's own."""
        if value is None:
            return None
        if isinstance(value, str):
            return os.open(value, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
        assert self.process is not None
        return self.process.open_path(name)

    def _open_cgroup(self) -> int:
        from .._compile import _cgroup_of, _open_cgroup

        assert self.process is not None
        return _open_cgroup(_cgroup_of(self.process))

    # ------------------------------------------------------------ the steps

    def joining(self) -> Steps:
        """Into the namespaces, then the cgroup, the root and the directory."""
        steps = PlanBuilder()
        # Who is inside must not reach into a process that still has our rights; exec ends this.
        steps.add("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0, label="hide from those inside")
        targets = [(steps.keep(fd), int(nstype)) for nstype, fd in self.fds.items()]
        if self.request.socket is not None:
            targets.append((self._socket(steps, self.request.socket), int(NET)))
        targets += self._targets(steps)
        label = f"join {self.types}" + (f" of {self.process}" if self.process else "")
        if targets:
            steps.add("join", len(targets), pairs(targets), label=label)
        if self.cgroup is not None:
            steps.add("write", steps.keep(self.cgroup), b"0", 1, label="join the cgroup")
        self._directories(steps)
        return steps.build()

    def _targets(self, steps: PlanBuilder) -> list[tuple[tuple[int], int]]:
        """The target's namespaces: all by its pidfd (Linux 5.8), or one by one."""
        from .._handle import pidfds_join

        if not self.of_target or self.process is None:
            return []
        if pidfds_join():
            return [(steps.keep(self.process), int(self.of_target))]
        single = [NSType(nstype) for nstype in each(self.of_target)]
        return [(steps.keep(self._open_of_target(nstype)), int(nstype)) for nstype in single]

    def _socket(self, steps: PlanBuilder, number: int) -> tuple[int]:
        assert self.process is not None
        duplicate, result = steps.slot(), steps.slot()
        pidfd, what = steps.keep(self.process), f"descriptor {number} of {self.process}"
        steps.add("pidfd_getfd", pidfd, number, 0, label=f"take {what}", out=duplicate)
        steps.add("ioctl", duplicate, SIOCGSKNS, 0, label=f"find the network namespace of {what}", out=result)
        return result

    def _directories(self, steps: PlanBuilder) -> None:
        """The root, and without another word the working directory of before."""
        inside, here = self.request.inside, None if self.directory is None else steps.keep(self.directory)
        if self.root is not None:
            if here is None and not isinstance(inside, str):
                here = steps.slot()
                steps.add("openat", AT_FDCWD, b".", O_PATH, 0, label="open the working directory", out=here)
            steps.add("fchdir", steps.keep(self.root), label="go to the root directory")
            steps.add("chroot", b".", label="change the root directory")
            steps.add("chdir", b"/", label="go to /")
        if isinstance(inside, str):
            steps.add("chdir", os.fsencode(inside), label=f"change directory to '{inside}'")
        if here is not None:
            steps.add("fchdir", here, label="change the working directory")

    def credentials(self, dropped: bool) -> Steps:
        """Groups, gid, uid and capabilities; ``dropped``: the groups went before the join."""
        steps, keep = PlanBuilder(), self.request.keep_caps and self.types & USER
        if self.gid is not None:
            ok = ANY_ERROR if dropped else 0
            steps.add("setgroups", 0, None, label="drop supplementary groups", ok=ok)
            steps.add("setresgid", self.gid, self.gid, self.gid, label=f"set gid {self.gid}")
        if self.uid is not None:
            if keep:
                steps.add("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0, label="keep capabilities")
            steps.add("setresuid", self.uid, self.uid, self.uid, label=f"set uid {self.uid}")
        if keep:
            steps.add("raise_ambient", 2**64 - 1, 0, label="raise ambient capabilities")
        return steps.build()


def _selinux() -> bool:
    """Without it -Z means nothing."""
    return os.path.isdir("/sys/fs/selinux")


def follow_context(process: Process) -> None:
    """-Z: exec as what the target's SELinux context says."""
    context = process.read("attr/current")
    with open("/proc/self/attr/exec", "wb") as file:
        file.write(context)


# ---------------------------------------------------------------- the run


def main(argv: list[str]) -> int:
    """Run the command line; the exit status of a child, or no return."""
    request, rest = parse(argv)
    entry = Entry(request)
    if request.env and entry.process:
        program = Program(rest, parse_environment(entry.process.environment()))
    else:
        program = Program(rest)
    if request.context and entry.process and _selinux():
        follow_context(entry.process)
    dropped = entry.gid is not None and bool(entry.types & USER) and _drop_groups()
    joining, credentials = entry.joining(), entry.credentials(dropped)

    def become_program() -> None:
        try:
            credentials.run()
        except OSError as e:
            if entry.types & USER and not request.preserve:
                e.hint = "--preserve-credentials leaves ids and groups as they are"  # type: ignore[attr-defined]
            raise
        program.execute()

    if entry.types & MNT or entry.root is not None:
        seal_imports()
    joining.run()
    if entry.types & PID and not request.no_fork:
        return mirror(child(PROG, become_program))
    become_program()
    return 0


def _drop_groups() -> bool:
    """Before the join, where our rights may be enough; afterwards is the other chance."""
    try:
        os.setgroups([])
    except OSError:
        return False
    return True


def mirror(pid: int) -> int:
    """Stop and continue with the child, and end as it ends."""
    while True:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        if found is None or found.si_code != os.CLD_STOPPED:
            return exit_like(os.waitpid(pid, 0)[1])
        if stays_stopped(pid):
            os.waitpid(pid, os.WUNTRACED)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(pid, signal.SIGCONT)


def stays_stopped(pid: int) -> bool:
    """Whether nobody is about to continue it.

    Ctrl-Z and fg are for us as well as for the child: we may be awake again
    before it is, and must not stop for what is over.
    """
    for _ in range(5):
        time.sleep(0.01)
        try:
            if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None:
                return False
        except ChildProcessError:  # it has ended, which was not asked for
            return False
    return True
