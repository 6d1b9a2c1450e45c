"""``nsutil netns``: named network namespaces, as ip-netns(8) of iproute2."""

from __future__ import annotations

import json
import os
import sys

from .. import named
from .._plan import PlanBuilder
from .._types import MNT, NAMES, NET, NSType
from ._args import Arguments, CommandError, UsageError, report, unsigned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .._plan import Steps
    from ._nsid import Route

PROG = "nsutil netns"
HELP = """\
Usage: nsutil netns [OPTIONS] [COMMAND [ARGUMENT...]]

Network namespaces with a name in /run/netns, where ip-netns(8) has them too.

Commands:
  list                       the names, with the numbers they have here (usual)
  add NAME                   make a namespace; its loopback interface is down
  attach NAME PID            give the namespace of a process a name
  delete NAME...|--all       remove names
  exec NAME|--all COMMAND    run a command inside, with a /sys of its own and
                             the files of /etc/netns/NAME over those of /etc
  identify [PID]             the names of the namespace that a process is in
  pids NAME                  the processes inside
  monitor                    print names as they come and go
  set NAME NUMBER|auto       give a namespace a number in this one
  list-id [target-nsid N] [nsid N]
                             the numbers here, or in the namespace with number N

Options:
  -a, --all         all names (also -all, as ip has it)
  -j, --json        output as JSON
  -n, --netns NAME  do it in this namespace
  -t, --type TYPE   names of another type: cgroup ipc mnt pid time user uts,
                    in /run/nsutil/TYPE
  -h, --help        show this help
  -V, --version     show the version
      --debug       show a traceback with errors

Exit status: 0, or of exec the command's (127 no such command, 126 it cannot
be run); 2 where the kernel refuses a number; 1 any other failure.

Examples:
  nsutil netns add blue
  nsutil netns exec blue ip link set lo up
  nsutil netns --type uts add box
  nsutil netns --all delete
"""
IP_SPELLINGS = {"-all": "--all", "-json": "--json", "-netns": "--netns"}
MS_SLAVE, MS_REC, MS_BIND = 0x80000, 0x4000, 0x1000
MNT_DETACH = 2
ANY_ERROR = -1


class Request:
    """Options and arguments of a command."""

    def __init__(self) -> None:
        self.all = self.json = False
        self.netns: str | None = None
        self.type = NET
        self.args: list[str] = []

    def take(self, name: str, value: str | None) -> None:
        """One option."""
        if name == "type":
            if value not in NAMES:
                raise UsageError(f"unknown namespace type: {value}; one of {', '.join(NAMES)}")
            self.type = NAMES[value]
        elif name == "netns":
            self.netns = value
        else:
            setattr(self, name, True)

    def arguments(self, usage: str) -> list[str]:
        """The arguments, as many as the usage has words."""
        missing = usage.split()[len(self.args) :]
        if missing and not missing[0].startswith("["):
            raise UsageError(f"{missing[0]} is missing")
        if len(self.args) > len(usage.split()):
            raise UsageError(f"'{self.args[len(usage.split())]}' is too much")
        return self.args


def show(request: Request, data: object, lines: list[str]) -> int:
    """Print data as JSON, or lines."""
    if request.json:
        print(json.dumps(data, separators=(",", ":")))
    elif lines:
        print("\n".join(lines))
    return 0


# --------------------------------------------------------------- the names


def list_names(request: Request) -> int:
    """list"""
    request.arguments("")
    numbers = _numbers_of_names() if request.type == NET else {}
    data, lines = [], []
    for name in named.list(request.type):
        number = numbers.get(name)
        data.append({"name": name} if number is None else {"name": name, "id": number})
        lines.append(name if number is None else f"{name} (id: {number})")
    return show(request, data, lines)


def add(request: Request) -> int:
    """add NAME"""
    (name,) = request.arguments("NAME")
    options = {"loopback": False} if request.type == NET else {}
    named.create(name, request.type, **options).close()
    return 0


def attach(request: Request) -> int:
    """attach NAME PID"""
    name, pid = request.arguments("NAME PID")
    named.attach(name, _pid(pid), request.type)
    return 0


def delete(request: Request) -> int:
    """delete NAME... or --all"""
    if request.all and request.args:
        raise UsageError(f"--all and '{request.args[0]}' exclude each other")
    if not request.all and not request.args:
        raise UsageError("NAME is missing")
    named.remove(named.list(request.type) if request.all else request.args, request.type)
    return 0


def identify(request: Request) -> int:
    """identify [PID]; without a name an empty line, as ip prints it"""
    args = request.arguments("[PID]")
    names = named.identify(_pid(args[0]) if args else os.getpid(), request.type)
    return show(request, names, names or [""])


def pids(request: Request) -> int:
    """pids NAME"""
    (name,) = request.arguments("NAME")
    found = named.pids(name, request.type)
    return show(request, found, [str(pid) for pid in found])


def monitor(request: Request) -> int:
    """monitor, until interrupted"""
    request.arguments("")
    for event, name in named.watch(request.type):
        print(json.dumps({"event": event, "name": name}) if request.json else f"{event} {name}", flush=True)
    return 0


def _pid(text: str) -> int:
    return unsigned(text, "PID", 2**31 - 1)


# ------------------------------------------------------------- the numbers


def _route() -> Route:
    from ._nsid import Route

    return Route()


def _numbers_of_names() -> dict[str, int]:
    """The numbers that names have here; what is no namespace, or out of reach, has none."""
    names = named.list(NET)
    if not names:
        return {}
    route, found = _route(), {}
    for name in names:
        try:
            with named.open(name) as file:
                number = route.number(file.fileno())
        except (OSError, ValueError):
            continue
        if number >= 0:
            found[name] = number
    return found


def set_number(request: Request) -> int:
    """set NAME NUMBER|auto"""
    from ._nsid import UNASSIGNED

    name, text = request.arguments("NAME NUMBER")
    number = UNASSIGNED if text == "auto" else unsigned(text, "netnsid", 2**31 - 1)
    with named.open(name) as file:
        try:
            _route().assign(file.fileno(), number)
        except OSError as error:
            raise CommandError(f"set nsid {text} for {name}: {error.strerror}", 2) from None
    return 0


def list_numbers(request: Request) -> int:
    """list-id [target-nsid N] [nsid N]"""
    wanted: dict[str, int] = {}
    words = iter(request.args)
    for word in words:
        if word not in ("nsid", "target-nsid"):
            raise UsageError(f"'{word}' is neither nsid nor target-nsid")
        wanted[word] = unsigned(next(words, None), word, 2**31 - 1)
    names: dict[int, str] = {}
    for name, number in _numbers_of_names().items():
        names.setdefault(number, name)
    try:
        found = _route().numbers(wanted.get("nsid"), wanted.get("target-nsid"))
    except OSError as error:
        raise CommandError(
            f"list-id {' '.join(request.args)}: {error.strerror}", 2 if "nsid" in wanted else 1
        ) from None
    rows = [_number_row(number, current, names) for number, current in found]
    return show(request, [data for data, _ in rows], [line for _, line in rows])


def _number_row(number: int, current: int | None, names: dict[int, str]) -> tuple[dict[str, int | str], str]:
    """A number as ip shows it, in JSON and as a line."""
    name = names.get(number if current is None else current)
    known = {"nsid": number, "current-nsid": -1 if current is None else current}
    data: dict[str, int | str] = {key: value for key, value in known.items() if value >= 0}
    line = f"nsid {number if number >= 0 else 'unassigned'} "
    if current is not None:
        line += f"current-nsid {current if current >= 0 else 'unassigned'} "
    if name is not None:
        data["name"] = name
        line += f"(iproute2 netns name: {name})"
    return data, line


# -------------------------------------------------------------------- exec


def execute(request: Request) -> int:
    """exec NAME COMMAND, or --all"""
    if request.all:
        if not request.args:
            raise UsageError("COMMAND is missing")
        return _execute_in_all(request)
    if len(request.args) < 2:
        raise UsageError(f"{'NAME' if not request.args else 'COMMAND'} is missing")
    _become(request.type, request.args[0], request.args[1:])
    return 0


def _execute_in_all(request: Request) -> int:
    """One after the other, whatever they return."""
    from ._program import child

    for name in named.list(request.type):
        print(f"\nnetns: {name}", flush=True)
        pid = child(PROG, lambda name=name: _become(request.type, name, request.args))  # type: ignore[misc]
        os.waitpid(pid, 0)
    return 0


def _become(nstype: NSType, name: str, argv: list[str]) -> None:
    """Run the command inside, in place of this process."""
    from ._program import Program

    if nstype != NET:
        from .._names import store_of
        from .nsenter import TYPES, main

        option = next(option for option, known in TYPES.items() if known == nstype)
        sys.exit(main([f"--{option}={store_of(nstype).path(name)}", "--", *argv]))
    program, binds = Program(argv), etc_binds(name)
    with named.open(name) as file:
        inside(file.fileno()).run()
    for bind in binds:
        try:
            bind.run()
        except OSError as error:
            report(PROG, error)
    program.execute()


def inside(fd: int) -> Steps:
    """Into a network namespace, with a /sys that shows it and mounts that stay ours."""
    steps = PlanBuilder()
    steps.add("setns", steps.keep(fd), int(NET), label="join the network namespace")
    steps.add("unshare", int(MNT), label="unshare(MNT)")
    steps.add("mount", b"none", b"/", None, MS_SLAVE | MS_REC, None, label="make / recursively slave", filename="/")
    steps.add("umount2", b"/sys", MNT_DETACH, label="unmount /sys", filename="/sys", ok=ANY_ERROR)
    flags = os.statvfs("/sys").f_flag & os.ST_RDONLY
    steps.add("mount", b"nsutil", b"/sys", b"sysfs", flags, None, label="mount sysfs on /sys", filename="/sys")
    return steps.build()


def etc_binds(name: str) -> list[Steps]:
    """Each file of /etc/netns/NAME over the one in /etc; one that is not there is reported, no more."""
    from .._names import check_name

    directory = f"/etc/netns/{check_name(name)}"
    try:
        entries = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    binds = []
    for entry in entries:
        source, target = f"{directory}/{entry}", f"/etc/{entry}"
        steps = PlanBuilder()
        label = f"bind {source} to {target}"
        steps.add("mount", os.fsencode(source), os.fsencode(target), None, MS_BIND, None, label=label, filename=target)
        binds.append(steps.build())
    return binds


# ----------------------------------------------------------------- the run

# In the order in which their beginnings are tried, as ip does.
COMMANDS: dict[str, Callable[[Request], int]] = {
    "list": list_names,
    "show": list_names,
    "lst": list_names,
    "list-id": list_numbers,
    "add": add,
    "set": set_number,
    "delete": delete,
    "identify": identify,
    "pids": pids,
    "exec": execute,
    "monitor": monitor,
    "attach": attach,
}


def options(request: Request, argv: list[str]) -> list[str]:
    """Take the options at the start; what follows them."""
    words = iter(argv)
    spelled = []
    for word in words:
        if not word.startswith("-") or word == "--":
            spelled.append(word)
            break
        spelled.append(IP_SPELLINGS.get(word, word))
        if spelled[-1] in ("-n", "--netns", "-t", "--type"):
            spelled += [value] if (value := next(words, None)) is not None else []
    arguments = Arguments(HELP, [*spelled, *words])
    for name, value in arguments:
        request.take(name, value)
    return arguments.rest


def main(argv: list[str]) -> int:
    """Run a command of ``nsutil netns``."""
    request = Request()
    rest = options(request, argv)
    word = rest[0] if rest else "list"
    if word == "help":
        print(HELP, end="")
        return 0
    command = next((command for command in COMMANDS if command.startswith(word)), None)
    if command is None:
        raise UsageError(f"unknown command '{word}'")
    request.args = options(request, rest[1:])
    if request.netns is not None:
        with named.open(request.netns) as file:
            steps = PlanBuilder()
            steps.add("setns", steps.keep(file.fileno()), int(NET), label=f"join netns {request.netns}")
            steps.build().run()
    return COMMANDS[command](request)
