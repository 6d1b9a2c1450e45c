"""``nsutil lsns``: list namespaces, as lsns(8) of util-linux."""

from __future__ import annotations

from .._types import NAMES, NSType
from ._args import Arguments, CommandError, UsageError, unsigned
from ._table import Column, Line, Table, terminal_width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._snapshot import NamespaceInfo, Snapshot

HELP = """\
Usage: nsutil lsns [OPTIONS] [NAMESPACE]

List namespaces, or the processes in the one with that inode number.

Options:
  -J, --json                JSON
  -l, --list                a list, no tree
  -n, --noheadings          no headings
  -o, --output LIST         these columns (+LIST: besides the usual ones)
      --output-all          all columns that lsns has
  -P, --persistent          only namespaces without a process
  -p, --task PID            only the namespaces of this process
  -Q, --filter EXPRESSION   only those for which it holds, as scols-filter(5)
  -r, --raw                 one line each, blanks in cells as \\x20
  -u, --notruncate          do not cut text to the terminal's width
  -W, --nowrap              one line each: mount points separated by commas
  -t, --type NAME           only mnt, net, ipc, user, pid, uts, cgroup or time;
                            may be given several times
  -T[RELATION], --tree[=RELATION]
                            a tree by process (the default), parent or owner
                            (the default after -T)
      --holders             also what only a thread, a waiting child, a device
                            or a mount elsewhere holds, with column HOLDERS
  -H, --list-columns        list the columns

  -h, --help                show this help
  -V, --version             show the version
      --debug               show a traceback with errors

Exit status: 0, or 1 for any failure.

Examples:
  nsutil lsns -t net
  nsutil lsns --tree --output NS,TYPE,USER,COMMAND
  nsutil lsns -Q 'NPROCS > 1 and USER != "root"'
  nsutil lsns --json --output +PATH,HOLDERS
"""
COLUMNS = {
    column.name: column
    for column in (
        Column("NS", "namespace identifier (inode number)", 10, right=True, number=True),
        Column("TYPE", "kind of namespace", 5),
        Column("PATH", "path to the namespace"),
        Column("NPROCS", "number of processes in the namespace", 5, right=True, number=True),
        Column("PID", "lowest PID in the namespace", 5, right=True, number=True),
        Column("PPID", "PPID of the PID", 5, right=True, number=True),
        Column("COMMAND", "command line of the PID", shrinks=True),
        Column("UID", "UID of the PID", right=True, number=True),
        Column("USER", "username of the PID"),
        Column("NETNSID", "namespace ID as used by network subsystem", right=True),
        Column("NSFS", "nsfs mountpoint (usually used network subsystem)"),
        Column("PNS", "parent namespace identifier (inode number)", 10, right=True, number=True),
        Column("ONS", "owner namespace identifier (inode number)", 10, right=True, number=True),
        Column("ID", "64-bit namespace identifier, never used again (nsutil's own)", right=True, number=True),
        Column("HOLDERS", "what keeps the namespace (nsutil's own)", array=True),
    )
}
OWN = ("ID", "HOLDERS")
USUAL = "NS TYPE NPROCS PID USER COMMAND"
USUAL_NET = "NS TYPE NPROCS PID USER NETNSID NSFS COMMAND"
USUAL_PROCESSES = "PID PPID USER COMMAND"
TREES = ("process", "parent", "owner")


class Request:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.json = self.raw = self.persistent = self.holders = self.list_columns = False
        self.headings = True
        self.truncate, self.wrap = True, True
        self.tree: str | None = "process"
        self.columns: str | None = None
        self.all_columns = False
        self.pid: int | None = None
        self.expression: str | None = None
        self.types = NSType(0)
        self.inode: int | None = None
        self.given: set[str] = set()

    def check(self) -> None:
        """What excludes each other is told before anything is read."""
        for one, other in (("json", "raw"), ("persistent", "task"), ("list", "tree")):
            if {one, other} <= self.given:
                raise UsageError(f"mutually exclusive arguments: --{one} --{other}")
        if self.inode is not None and self.pid is not None:
            raise UsageError("--task is mutually exclusive with a namespace argument")


def _type(request: Request, value: str | None) -> None:
    if value not in NAMES:
        raise UsageError(f"unknown namespace type: {value}; one of {', '.join(NAMES)}")
    request.types |= NAMES[value]


def _tree(request: Request, value: str | None) -> None:
    relation = (value or "owner").removeprefix("=")
    if relation not in TREES:
        raise UsageError(f"unknown tree type: {relation}; one of {', '.join(TREES)}")
    request.tree = relation


def _set(**values: object) -> Callable[[Request, str | None], None]:
    return lambda request, _: request.__dict__.update(values)


ACTIONS: dict[str, Callable[[Request, str | None], None]] = {
    "json": _set(json=True),
    "list": _set(tree=None),
    "noheadings": _set(headings=False),
    "output": lambda request, value: setattr(request, "columns", value),
    "output-all": _set(all_columns=True),
    "persistent": _set(persistent=True),
    "task": lambda request, value: setattr(request, "pid", unsigned(value, "PID argument", 2**31 - 1)),
    "filter": lambda request, value: setattr(request, "expression", value),
    "raw": _set(raw=True),
    "notruncate": _set(truncate=False),
    "nowrap": _set(wrap=False),
    "type": _type,
    "tree": _tree,
    "holders": _set(holders=True),
    "list-columns": _set(list_columns=True),
}


def parse(argv: list[str]) -> Request:
    """The command line as a request."""
    request = Request()
    arguments = Arguments(HELP, argv, permute=True)
    for name, value in arguments:
        ACTIONS[name](request, value)
        request.given.add(name)
    if "list" in request.given or ("output-all" in request.given and "tree" not in request.given):
        request.tree = None
    if arguments.rest:
        request.inode = unsigned(arguments.rest[0], "namespace argument", 2**64 - 1)
    request.check()
    return request


def columns_of(request: Request) -> list[Column]:
    """The columns to print."""
    usual = USUAL_NET if request.types & NSType.NET else USUAL
    if request.inode is not None:
        usual = USUAL_PROCESSES
    names = usual.split()
    if request.all_columns:
        names = [name for name in COLUMNS if name not in OWN]
    if request.columns is not None:
        listed = request.columns.removeprefix("+").split(",")
        unknown = [name for name in listed if name.upper() not in COLUMNS]
        if unknown:
            raise UsageError(f"unknown column: {unknown[0] or repr(request.columns)}; one of {', '.join(COLUMNS)}")
        names = (names if request.columns.startswith("+") else []) + [name.upper() for name in listed]
    if request.holders and "HOLDERS" not in names:
        names.append("HOLDERS")
    return [COLUMNS[name] for name in names]


# ------------------------------------------------------------------ cells


def _holders(info: NamespaceInfo) -> list[str]:
    """Processes by their number, everything else one by one."""
    words = [f"{info.nprocs} process{'es' if info.nprocs > 1 else ''}"] if info.nprocs else []
    for holder in info.holders:
        if holder.kind == "mount":
            words.append(f"mount {holder.path}" + (f" of {holder.pid}" if holder.path not in info.nsfs else ""))
        elif holder.kind != "process":
            number = holder.fd if holder.fd is not None else holder.tid
            words.append(f"{holder.kind} {holder.pid}" + (f":{number}" if number is not None else ""))
    return words


CELLS: dict[str, Callable[[Any], object]] = {
    "NS": lambda info: info.inode,
    "TYPE": lambda info: str(info.type),
    "PATH": lambda info: info.path,
    "NPROCS": lambda info: info.nprocs,
    "PID": lambda info: info.pid,
    "PPID": lambda info: info.ppid,
    "COMMAND": lambda info: info.command,
    "UID": lambda info: info.owner_uid,
    "USER": lambda info: info.user,
    "NETNSID": lambda info: None if info.netnsid is None else str(info.netnsid),
    "NSFS": lambda info: info.nsfs,
    "PNS": lambda info: info.parent.inode if info.parent else 0,
    "ONS": lambda info: info.owner.inode if info.owner else 0,
    "ID": lambda info: info.id,
    "HOLDERS": _holders,
}


def make_line(request: Request, columns: Sequence[Column], info: object) -> Line:
    """The row of a namespace, or of a process in one."""
    cells = [CELLS[column.name](info) for column in columns]
    if not request.wrap:
        cells = [",".join(cell) if isinstance(cell, list) else cell for cell in cells]
    return Line(cells)


class ProcessRow:
    """A process in a namespace, with the fields of a NamespaceInfo: the columns mean the process."""

    def __init__(self, info: NamespaceInfo, pid: int, details: tuple[int, int, str]) -> None:
        self.info = info
        self.pid = pid
        self.ppid, self.owner_uid, self.command = details
        self.user = info._facts.user(self.owner_uid)
        self.path = f"/proc/{pid}/ns/{info.type}"

    def __getattr__(self, name: str) -> object:
        return getattr(self.info, name)


class Relative:
    """An owner or parent of a type that was not asked for: as lsns shows those, without its processes."""

    nprocs = 0
    pid = ppid = command = path = netnsid = None
    nsfs: list[str] = []

    def __init__(self, info: NamespaceInfo) -> None:
        self.info = info
        creator = info._facts.relation(info._key)[3]
        self.owner_uid = creator if creator >= 0 else None
        self.user = info._facts.user(self.owner_uid)

    def __getattr__(self, name: str) -> object:
        return getattr(self.info, name)


# ---------------------------------------------------------------- the trees


def by_process(request: Request, columns: Sequence[Column], rows: Sequence[Any]) -> list[Line]:
    """Below the last row so far of the parent process."""
    roots: list[Line] = []
    last: dict[int, Line] = {}
    for info in rows:
        line = make_line(request, columns, info)
        above = last.get(info.ppid) if request.tree and info.ppid else None
        (above.children if above else roots).append(line)
        if info.pid:
            last[info.pid] = line
    return roots


def by_relation(request: Request, columns: Sequence[Column], rows: Sequence[NamespaceInfo]) -> list[Line]:
    """Below the owner or the parent; those above that are not in the list come along, as they are in lsns."""
    lines: dict[NamespaceInfo, Line] = {}
    roots: list[Line] = []

    def place(info: NamespaceInfo) -> Line:
        if info not in lines:
            above = info.owner
            if request.tree == "parent":
                if above:
                    place(above)  # not above it in this tree, but in the list before it
                above = info.parent
            siblings = place(above).children if above else roots
            known = not request.types or info.type & request.types
            lines[info] = make_line(request, columns, info if known else Relative(info))
            siblings.append(lines[info])
        return lines[info]

    for info in sorted(with_relatives(rows), key=lambda info: info.inode):
        place(info)
    if not any(column.name == "NS" for column in columns):  # nothing to draw the tree on
        return [Line(line.cells) for line in lines.values()]
    return roots


def with_relatives(rows: Sequence[NamespaceInfo]) -> set[NamespaceInfo]:
    """Namespaces with all their owners and parents."""
    found: set[NamespaceInfo] = set()
    waiting: list[NamespaceInfo | None] = list(rows)
    while waiting:
        info = waiting.pop()
        if info is not None and info not in found:
            found.add(info)
            waiting += [info.owner, info.parent]
    return found


# ---------------------------------------------------------------- the run


def take(request: Request) -> Snapshot:
    """The namespaces that the request is about."""
    from .._snapshot import snapshot

    more = request.holders
    types = request.types or NSType.ALL
    simple = request.inode is not None or request.pid is not None
    if simple:
        return snapshot(types, tasks=False, fds=False, sockets=False, mounts=True)
    return snapshot(types, tasks=more)


def rows_of(request: Request, found: Snapshot) -> list[Any]:
    """What gets a row, by inode number."""
    rows: list[Any]
    if request.inode is not None:
        rows = list(processes_of(request, found))
    elif request.pid is not None:
        rows = list(found.of(request.pid).values())
    else:
        rows = [info for info in found if shown(request, info)]
    if request.expression is not None:
        from .._filter import compile_filter

        test = compile_filter(request.expression)
        rows = [info for info in rows if test(info)]
    return rows if request.inode is not None else sorted(rows, key=lambda info: info.inode)


def shown(request: Request, info: NamespaceInfo) -> bool:
    """Without --holders only what lsns looks for: processes, descriptors, sockets, mounts in sight, relations."""
    if info.nprocs or request.holders:
        return not (request.persistent and info.nprocs)
    kinds = {holder.kind for holder in info.holders}
    return not kinds or bool(kinds & {"fd", "socket"}) or bool(info.nsfs)


def processes_of(request: Request, found: Snapshot) -> list[ProcessRow]:
    """The processes in the namespace that was asked for."""
    from .._facts import _ask

    info = next((info for info in found if info.inode == request.inode), None)
    if info is None:
        raise CommandError(f"not found namespace: {request.inode}")
    pids = info._facts.members.get(info._key, [])
    _, details = _ask([number for pid in pids for number in (0, pid)])
    return [ProcessRow(info, pid, details[pid]) for pid in pids if pid in details]


def make_table(request: Request) -> Table:
    """The table; it is a tree where the column that shows trees is among its columns."""
    columns = columns_of(request)
    by = by_process if request.tree in (None, "process") or request.inode is not None else by_relation
    shows = "COMMAND" if by is by_process else "NS"
    tree = next((i for i, c in enumerate(columns) if c.name == shows), None) if request.tree else None
    if tree is None and by is by_process:
        request.tree = None
    return Table(columns, by(request, columns, rows_of(request, take(request))), tree)


def list_columns(request: Request) -> Table:
    """-H: the columns as a table."""
    names = [Column("HOLDER", ""), Column("TYPE", ""), Column("DESCRIPTION", "")]
    lines = [Line((c.name, "<integer>" if c.number else "<string>", c.help)) for c in COLUMNS.values()]
    request.headings = request.raw
    return Table(names, lines, None)


def main(argv: list[str]) -> int:
    """Print the list."""
    request = parse(argv)
    if request.list_columns:
        table, name = list_columns(request), "lsns-columns"
    else:
        table, name = make_table(request), "namespaces"
    if request.json:
        lines = table.json(name)
    elif not table.roots:
        return 0
    elif request.raw:
        lines = table.raw(request.headings)
    else:
        lines = table.show(request.headings, terminal_width() if request.truncate else None)
    for line in lines:
        print(line)
    return 0
