"""``nsutil demo``: the eight types, outside against inside, and the proof that outside nothing changed."""

from __future__ import annotations

import os
import socket
import sys
import time

from .. import __version__
from .._recipe import Namespace
from .._status import status_field
from .._types import NAMES, NSType, parse_type
from ._args import Arguments, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Rows = dict[str, str]

HELP = """\
Usage: nsutil demo [OPTIONS] [TYPE...]

Show each namespace type (or only those named: cgroup ipc mnt net pid time user
uts) as a process outside and one inside see it. Needs no privileges where user
namespaces are allowed.

Options:
      --color WHEN  always, never or auto (on a terminal, unless NO_COLOR is
                    set)
  -h, --help        show this help
  -V, --version     show the version
      --debug       show a traceback with errors

Examples:
  nsutil demo
  nsutil demo net time
"""
WIDTH = 24
IPC_PRIVATE = 0
TEN_YEARS = 10 * 365 * 86400


class Scene:
    """One type: what it separates, the recipe's options, and what to look at.

    ``look`` is called on both sides, ``act`` before it, inside only.
    """

    def __init__(
        self, what: str, options: dict[str, Any], look: Callable[[], Rows], act: Callable[[], object] | None = None
    ) -> None:
        self.what = what
        self.options = options
        self.look = look
        self.act = act

    def inside(self, nstype: NSType) -> Rows:
        """The rows of a process inside."""
        if self.act:
            self.act()
        return self.outside(nstype)

    def outside(self, nstype: NSType) -> Rows:
        """The rows of whoever calls it."""
        return {"namespace": os.readlink(f"/proc/thread-self/ns/{nstype}"), **self.look()}


# ------------------------------------------------------------ what is looked at


def host_name() -> Rows:
    """What uname(2) says."""
    return {"host name": socket.gethostname()}


def make_queue() -> None:
    """A System V message queue; it ends with its namespace."""
    import ctypes

    if ctypes.CDLL(None).msgget(IPC_PRIVATE, 0o600) < 0:
        raise OSError("msgget(2) failed")


def queues() -> Rows:
    """How many System V message queues there are."""
    with open("/proc/sysvipc/msg") as file:
        return {"message queues": str(len(file.readlines()) - 1)}


def write_file() -> None:
    """A file that only this mount namespace has: on a tmpfs of its own."""
    with open("/tmp/only-inside", "w") as file:
        file.write("hello")


def temporary_files() -> Rows:
    """What /tmp is and holds."""
    names = os.listdir("/tmp")
    return {"files in /tmp": ", ".join(names) if len(names) == 1 else str(len(names)), "mounts": str(_mounts())}


def _mounts() -> int:
    with open("/proc/thread-self/mountinfo", "rb") as file:
        return len(file.readlines())


def interfaces() -> Rows:
    """The network interfaces, and whether port 80 is free."""
    names = [name for _, name in socket.if_nameindex()]
    return {"interfaces": ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")}


def processes() -> Rows:
    """Our number, and how many processes there are."""
    return {"own pid": str(os.getpid()), "processes": str(sum(name.isdigit() for name in os.listdir("/proc")))}


def identity() -> Rows:
    """Who we are, and what that is one user namespace up."""
    with open("/proc/self/uid_map") as file:
        inside, outside, count = file.readline().split()
    return {"uid": str(os.getuid()), "uid map": f"{inside} {outside} {count}", "capabilities": str(_capabilities())}


def _capabilities() -> int:
    return int(status_field("thread-self", "CapEff") or "0", 16).bit_count()


def control_groups() -> Rows:
    """The path of our control group, of the first hierarchy where that is not the root."""
    with open("/proc/self/cgroup", errors="backslashreplace") as file:
        paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
    longest = max(paths, key=len, default="/")
    return {"cgroup": longest if len(longest) <= WIDTH else "..." + longest[3 - WIDTH :]}


def clocks() -> Rows:
    """How long the machine is up."""
    days, seconds = divmod(int(time.clock_gettime(time.CLOCK_BOOTTIME)), 86400)
    return {"up": (f"{days} days " if days else "") + f"{seconds // 3600}:{seconds // 60 % 60:02}"}


def _scenes() -> dict[str, Scene]:
    from .._idmap import IdMap
    from .._mounts import Tmpfs

    uid = os.geteuid()
    user: dict[str, Any] = {"uid_map": IdMap(1000, 0)} if uid == 0 else {"uid_map": "root"}
    return {
        "uts": Scene("host name and domain name", {"hostname": "box"}, host_name),
        "ipc": Scene("System V IPC and POSIX message queues", {}, queues, make_queue),
        "mnt": Scene("mounts", {"mounts": [Tmpfs("/tmp")]}, temporary_files, write_file),
        "net": Scene("network interfaces, addresses, ports, firewall", {}, interfaces),
        "pid": Scene("process ids", {}, processes),
        "user": Scene("user ids, group ids, capabilities", user, identity),
        "cgroup": Scene("the root of the control groups", {}, control_groups),
        "time": Scene("the monotonic and boot-time clocks", {"boottime": TEN_YEARS}, clocks),
    }


def recipe(name: str, options: dict[str, Any]) -> Namespace:
    """The namespaces of a scene; PID with a /proc that shows it, and USER first where we are not root."""
    types = [name, "mnt"] if name == "pid" else [name]
    if os.geteuid() != 0 and name != "user":
        types, options = ["user", *types], {"uid_map": "root", **options}
    return Namespace(types, **options)


# ------------------------------------------------------------- the outside


def state() -> Rows:
    """What a careless namespace program would have changed by now."""
    entries = sorted(os.listdir("/proc/thread-self/ns"))
    own = {name: os.readlink(f"/proc/thread-self/ns/{name}") for name in entries}
    own |= host_name() | queues() | identity() | control_groups()
    own["pid"] = str(os.getpid())
    own["descriptors"] = str(len(os.listdir("/proc/thread-self/fd")))
    own["device of /tmp"] = f"{os.stat('/tmp').st_dev:#x}"
    own["/tmp/only-inside"] = "there" if os.path.exists("/tmp/only-inside") else "not there"
    own["children"] = _children() or "none"
    offset = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    own["clocks"] = f"{abs(offset):.0f} s apart"
    return own


def _children() -> str:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return file.read().strip()
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return ""


# ------------------------------------------------------------- the drawing


class Screen:
    """Text on a terminal or in a pipe."""

    def __init__(self, when: str) -> None:
        terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.color = when == "always" or (when == "auto" and terminal)

    def paint(self, code: str, text: str) -> str:
        """Text in a colour or weight."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def title(self, number: int, name: str, scene: Scene, box: Namespace) -> None:
        """The heading of a scene."""
        print(f"{self.paint('1', f'{number}  {name.upper():<7}')} {scene.what}")
        print(f"   {self.paint('2', repr(box))}\n")

    def table(self, outside: Rows, inside: Rows) -> None:
        """Both sides; what differs stands out inside."""
        print("   " + self.paint("2", f"{'':15}{'outside':<{WIDTH}}  inside"))
        for label, before in outside.items():
            after = inside[label]
            shown = self.paint("1;32", after) if after != before else after
            print(f"   {label:<15}{before:<{WIDTH}}  {shown}")
        print()

    def verdict(self, before: Rows, after: Rows) -> bool:
        """Whether outside all is as it was, thing by thing."""
        print(self.paint("1", "Outside, now as before"))
        for label, was in before.items():
            same = after[label] == was
            mark = self.paint("32", "same") if same else self.paint("1;31", f"was {was}")
            print(f"   {label:<19}{after[label]:<26}{mark}")
        same = before == after
        print()
        print(
            self.paint("1;32", "Nothing has changed outside.") if same else self.paint("1;31", "Something has changed.")
        )
        return same


def main(argv: list[str]) -> int:
    """Show the scenes; 0 when all could be shown and nothing changed outside."""
    when, arguments = "auto", Arguments(HELP, argv, permute=True)
    for _, value in arguments:
        if value not in ("always", "never", "auto"):
            raise ValueError(f"--color must be always, never or auto, not {value!r}")
        when = value
    chosen = [str(parse_type(name)) for name in arguments.rest]
    screen, scenes = Screen(when), _scenes()
    uname, who = os.uname(), "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    print(screen.paint("1", f"nsutil {__version__} on {uname.sysname} {uname.release}, as {who}") + "\n")
    before, failed = state(), 0
    for number, name in enumerate(chosen or scenes, 1):
        failed += not show(screen, number, name, scenes[name])
    same = screen.verdict(before, state())
    if failed:
        print(f"{failed} of {number} could not be shown here; nsutil doctor says why.")
    return 0 if same and not failed else 1


def show(screen: Screen, number: int, name: str, scene: Scene) -> bool:
    """One scene; False where it is not possible, with the reason."""
    nstype, box = NAMES[name], recipe(name, scene.options)
    screen.title(number, name, scene, box)
    try:
        screen.table(scene.outside(nstype), box.call(scene.inside, nstype))
    except (OSError, RuntimeError) as error:
        print(f"   {screen.paint('1;31', 'not possible here')}: {describe(error)}\n")
        return False
    return True
