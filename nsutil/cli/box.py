"""``nsutil box``: run a program in a container."""

from __future__ import annotations

import os
import signal
import sys
import time

from .._types import NET, TIME, USER, NSType
from ._args import Arguments, CommandError, UsageError, unsigned
from ._terminal import Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._idmap import IdMap
    from .._mounts import Mount
    from .._process import Popen
    from .._recipe import Namespace

HELP = """\
Usage: nsutil box [OPTIONS] ROOT [PROGRAM [ARGUMENT...]]
       nsutil box [OPTIONS] [-- PROGRAM [ARGUMENT...]]

Run a program (by default a shell) in a container: new namespaces of all types
(TIME where a clock is set), nsutil's init as PID 1, /proc, /sys, /dev, /tmp and
/run of its own, few capabilities and no way to gain more. ROOT is a directory
with a system in it. Without it the root is that of the host, read-only, mounts
below it too.

Whoever starts it is root inside and nobody in particular outside: an ordinary
user stays that user, root becomes the first of the ids 100000 to 165535.

Files:
  -b, --bind SOURCE[:TARGET[:ro]]  show a file or directory of the host; TARGET
                                   exists in the root, or lies in /tmp or /run
      --tmpfs TARGET[:SIZE]        an empty file system in memory
      --read-only                  ROOT read-only, mounts below it too
  -w, --cwd DIR                    start in this directory; default /

Identity:
      --map MAP                    for both users and groups: root, current,
                                   auto, subids, all, INSIDE:OUTSIDE:COUNT
  -u, --user UID[:GID]             run the program as this user
      --cap-add NAME               leave the program this capability too, or all
      --cap-drop NAME              leave it this one not, or none with all
      --privileged                 no user namespace: root inside is root
      --hostname NAME              default box

Network and time:
      --net WHICH                  none (the default: lo alone), host, or the
                                   name of a network namespace
      --boottime SECONDS           offset of the boot-time clock
      --monotonic SECONDS          offset of the monotonic clock

Limits:
      --limit NAME=SOFT[:HARD]     a resource limit, as nofile=64 or cpu=10:20
      --memory SIZE                memory of all processes (64m), by a cgroup
      --pids NUMBER                how many processes, by a cgroup
      --timeout SECONDS            end everything after that time

Environment and processes:
  -e, --env NAME[=VALUE]           set a variable, or pass it on
      --keep-env                   pass all variables on
      --share-terminal             no terminal of its own: programs inside use
                                   this one, and can type into it (TIOCSTI)
      --no-init                    the program itself is PID 1
      --new-privs                  let programs gain rights, by setuid and such
      --print                      print the recipe instead

  -h, --help                       show this help
  -V, --version                    show the version
      --debug                      show a traceback with errors

Exit status: the program's; a signal that killed it kills this too;
127 no such program, 126 it cannot be run, 124 after the timeout, 1 any other
failure.

Examples:
  nsutil box
  nsutil box rootfs sh
  nsutil box --bind ~/src:/src --cwd /src rootfs make
  nsutil box --net host --timeout 60 -- pytest
"""
RANGE = (0, 100_000, 65_536)
# What container engines leave to root inside; without sys_admin the read-only root stays so.
CAPABILITIES = (
    "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod "
    "audit_write setfcap"
).split()
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("TERM", "LANG", "COLORTERM", "NO_COLOR")
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
TYPED = (signal.SIGINT, signal.SIGQUIT)  # a shared terminal sends these to the program as well
MAP_WORDS = ("root", "current", "auto", "subids", "all")
TIMED_OUT = 124
FOR_EVER = 2_000_000  # seconds; poll(2) takes no more


class Request:
    """What the command line asks for."""

    def __init__(self, argv: list[str]) -> None:
        self.root: str | None = None
        self.binds: list[tuple[str, str, bool]] = []
        self.tmpfs: list[tuple[str, str | None]] = []
        self.map: str | None = None
        self.user: tuple[int, int] | None = None
        self.caps = set(CAPABILITIES)
        self.hostname, self.net, self.cwd = "box", "none", "/"
        self.offsets: dict[str, float] = {}
        self.rlimits: dict[int, tuple[int, int]] = {}
        self.cgroup: dict[str, str] = {}
        self.timeout: float | None = None
        self.env: dict[str, str] = {}
        self.read_only = self.privileged = self.keep_env = self.share_terminal = False
        self.no_init = self.new_privs = self.print = False
        arguments = Arguments(HELP, argv)
        for name, value in arguments:
            self._take(name, value or "")
        self.program = arguments.rest
        if self.program and not arguments.ended:
            self.root = self.program.pop(0)
        self._check()

    def _take(self, name: str, value: str) -> None:
        attribute = name.replace("-", "_")
        if name in ACTIONS:
            ACTIONS[name](self, value)
        elif isinstance(getattr(self, attribute), bool):
            setattr(self, attribute, True)
        else:
            setattr(self, attribute, value)

    def _check(self) -> None:
        if self.privileged and self.map is not None:
            raise UsageError("--privileged and --map exclude each other: without a user namespace there is no map")
        if self.read_only and self.root is None:
            raise UsageError("--read-only needs ROOT; the host's own root is read-only anyway")
        if self.root is not None and not os.path.isdir(self.root):
            raise UsageError(f"'{self.root}' is no directory; a program without a root directory goes after '--'")


# ------------------------------------------------------------- the options


def _bind(request: Request, value: str) -> None:
    source, _, rest = value.partition(":")
    target, _, mode = rest.partition(":")
    if not source or mode not in ("", "ro", "rw"):
        raise UsageError(f"--bind needs SOURCE[:TARGET[:ro]], not '{value}'")
    request.binds.append((source, target or os.path.abspath(source), mode == "ro"))


def _tmpfs(request: Request, value: str) -> None:
    target, _, size = value.partition(":")
    request.tmpfs.append((target, size or None))


def _user(request: Request, value: str) -> None:
    uid, _, gid = value.partition(":")
    request.user = unsigned(uid, "user"), unsigned(gid or uid, "group")


def _seconds(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"--{name} needs seconds, not '{value}'") from None


def _timeout(request: Request, value: str) -> None:
    from .._options import seconds

    given = _seconds("timeout", value)
    try:
        seconds(given)
    except ValueError:
        raise UsageError(f"--timeout needs seconds from 0 up, not '{value}'") from None
    request.timeout = given if given < FOR_EVER else None


def _offset(name: str) -> Callable[[Request, str], None]:
    return lambda request, value: request.offsets.update({name: _seconds(name, value)})


def _limit(request: Request, value: str) -> None:
    import resource

    name, equals, numbers = value.partition("=")
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if not equals or number is None:
        known = sorted(item[7:].lower() for item in dir(resource) if item.startswith("RLIMIT_"))
        raise UsageError(f"--limit needs NAME=SOFT[:HARD], not '{value}'; names are {', '.join(known)}")
    soft, colon, hard = numbers.partition(":")
    request.rlimits[number] = _limit_value(soft), _limit_value(hard if colon else soft)


def _limit_value(text: str) -> int:
    return -1 if text == "unlimited" else unsigned(text, "limit", 2**63 - 1)


def _env(request: Request, value: str) -> None:
    name, equals, text = value.partition("=")
    if equals:
        request.env[name] = text
    elif name in os.environ:
        request.env[name] = os.environ[name]


def _caps(request: Request, value: str, add: bool) -> None:
    from .._options import CAPABILITIES as ALL
    from .._options import capability

    names = set(ALL) if value.lower() == "all" else {ALL[capability(value)]}
    request.caps = request.caps | names if add else request.caps - names


ACTIONS: dict[str, Callable[[Request, str], None]] = {
    "cap-add": lambda request, value: _caps(request, value, True),
    "cap-drop": lambda request, value: _caps(request, value, False),
    "bind": _bind,
    "tmpfs": _tmpfs,
    "user": _user,
    "monotonic": _offset("monotonic"),
    "boottime": _offset("boottime"),
    "limit": _limit,
    "memory": lambda request, value: request.cgroup.update({"memory.max": value}),
    "pids": lambda request, value: request.cgroup.update({"pids.max": str(unsigned(value, "number"))}),
    "timeout": _timeout,
    "env": _env,
}


# -------------------------------------------------------------- the recipe


def recipe(request: Request, cgroup: str | None = None, session: bool | int = True) -> Namespace:
    """The container as a recipe of the library; ``session``: with the descriptor of its terminal."""
    from .._recipe import Namespace, enter

    new: NSType = NSType.ALL
    options = identity(request) | request.offsets
    if request.privileged:
        new &= ~USER
    if not request.offsets:
        new &= ~TIME
    if request.net != "none":
        new &= ~NET
    if request.net not in ("none", "host"):
        options["enter"] = enter(name=request.net)
    if request.no_init:
        options["init"] = False
    return Namespace(
        new,
        hostname=request.hostname,
        root=None if read_only_root(request) else request.root,
        mounts=mounts(request, bool(new & NET), None if isinstance(session, bool) else os.ttyname(session)),
        cwd=request.cwd,
        cgroup=cgroup,
        rlimits=request.rlimits or None,
        bounding=sorted(request.caps),
        no_new_privs=not request.new_privs,
        new_session=session,
        kill_child=True,
        umask=0o022,
        **options,
    )


def identity(request: Request) -> dict[str, Any]:
    """The id maps, and who the program is."""
    options: dict[str, Any] = {}
    if not request.privileged:
        options["uid_map"] = options["gid_map"] = id_map(request)
    if request.user is not None:
        options["uid"], options["gid"] = request.user
    return options


def id_map(request: Request) -> str | IdMap:
    """Root inside is nobody in particular outside."""
    from .._idmap import IdMap

    if request.map in MAP_WORDS:
        return str(request.map)
    if request.map is not None:
        numbers = request.map.split(":")
        if len(numbers) != 3:
            raise UsageError(f"--map needs {', '.join(MAP_WORDS)} or INSIDE:OUTSIDE:COUNT, not '{request.map}'")
        return IdMap(*(unsigned(number, "id") for number in numbers))
    return IdMap(*RANGE) if os.geteuid() == 0 else "root"


def mounts(request: Request, own_network: bool, terminal: str | None) -> list[Mount]:
    """The file systems of the container; without a network of its own it has the host's /sys, read-only.

    A terminal from outside has a name inside as /dev/console.
    """
    from .._mounts import Bind, Dev, Mqueue, Sysfs, Tmpfs

    found: list[Mount] = []
    if read_only_root(request):
        found.append(Bind(request.root or "/", "/", readonly=True))
    devices = Sysfs() if own_network or (request.privileged and request.net != "host") else None
    found += [devices or Bind("/sys", "/sys", readonly=True), Dev(), Mqueue(), Tmpfs("/tmp"), Tmpfs("/run", mode=0o755)]
    found += [Bind(terminal, "/dev/console")] if terminal else []
    found += [Tmpfs(target, size=size) for target, size in request.tmpfs]
    found += [Bind(source, target, readonly=readonly) for source, target, readonly in request.binds]
    return found


def read_only_root(request: Request) -> bool:
    """Then a read-only bind becomes the root, instead of root=: nothing writable may be left below it."""
    return request.root is None or request.read_only


def environment(request: Request) -> dict[str, str]:
    """A few variables, or all; then those of --env."""
    user = request.user[0] if request.user else 0
    home = "/root" if user == 0 else "/"
    chosen = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    chosen = {"PATH": PATH, "HOME": home, **chosen}
    if request.keep_env:
        chosen = dict(os.environ)
    return {**chosen, **request.env}


# -------------------------------------------------------------- the cgroup


class Cgroup:
    """A cgroup of this container's own, removed again; does nothing without limits."""

    def __init__(self, limits: dict[str, str]) -> None:
        self.limits = limits
        self.path: str | None = None

    def __enter__(self) -> str | None:
        if not self.limits:
            return None
        from .._compile import _cgroup2_mount

        self.path = f"{_cgroup2_mount()}/nsutil-box-{os.getpid()}"
        os.mkdir(self.path)
        try:
            for name, value in self.limits.items():
                self._limit(name, value)
        except BaseException:
            self.__exit__()
            raise
        return self.path

    def _limit(self, name: str, value: str) -> None:
        controller = name.partition(".")[0]
        try:
            self._write("../cgroup.subtree_control", f"+{controller}")
        except OSError:  # switched on already, or not to be had: the next write tells
            pass
        try:
            self._write(name, value)
        except FileNotFoundError:
            raise CommandError(f"--{controller}: cgroup v2 has no {controller} controller here ({self.path})") from None
        except PermissionError:
            raise CommandError(f"limits by cgroup need the right to write {self.path}/{name}") from None

    def _write(self, name: str, value: str) -> None:
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def __exit__(self, *exc: object) -> None:
        if self.path is not None:
            try:
                os.rmdir(self.path)
            except OSError:  # its last process is on its way out
                pass


# ------------------------------------------------------------------ the run


def main(argv: list[str]) -> int:
    """Run the program and end as it ends."""
    request = Request(argv)
    if request.print:
        print(recipe(request))
        return 0
    program = request.program or ["/bin/sh"]
    with Cgroup(request.cgroup) as cgroup, Terminal(wanted=not request.share_terminal) as terminal:
        shared = request.share_terminal and os.isatty(0)
        session: bool | int = terminal.fd if terminal.fd >= 0 else not shared
        signals = Signals(shared)
        with start(recipe(request, cgroup, session), program, environment(request), terminal) as process:
            signals.pass_to(process)
            return wait(request, process, terminal, signals.written)


class Signals:
    """Signals to us are for the program, also those that come before it runs.

    What is typed at a shared terminal reaches it by itself.
    """

    def __init__(self, shared: bool) -> None:
        self.process: Popen[Any] | None = None
        self.early: list[int] = []
        self.written, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in FORWARDED:
            ours = signal.getsignal(number)
            if ours is not signal.SIG_IGN:
                signal.signal(number, (lambda *_: None) if shared and number in TYPED else self._take)

    def _take(self, number: int, _: object) -> None:
        if self.process is None:
            self.early.append(number)
        else:
            self.process.send_signal(number)

    def pass_to(self, process: Popen[Any]) -> None:
        """The program has started."""
        self.process = process
        for number in self.early:
            process.send_signal(number)


def start(box: Namespace, program: list[str], env: dict[str, str], terminal: Terminal) -> Popen[Any]:
    """Start it; 127 and 126 when it is the program that cannot be run."""
    try:
        return box.popen(program, env=env, **terminal.streams())
    except OSError as error:
        if error.filename == program[0] or "exec" in str(getattr(error, "step", "")):
            status = 127 if isinstance(error, FileNotFoundError) else 126
            raise CommandError(f"failed to execute {program[0]}: {os.strerror(error.errno or 0)}", status) from None
        raise


def wait(request: Request, process: Popen[Any], terminal: Terminal, signalled: int) -> int:
    """Wait for the program, and end as it ended or at the timeout."""
    import subprocess

    from ._program import die_by

    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    terminal.relay(process.pidfd, signalled, deadline)
    try:
        status = process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        terminal.restore()
        print(f"nsutil box: ended after {request.timeout:g} seconds", file=sys.stderr)
        return TIMED_OUT
    terminal.restore()
    return status if status >= 0 else die_by(-status)
