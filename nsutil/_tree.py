"""Namespaces as a tree: by owner, by parent, or by process."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from ._snapshot import NamespaceInfo, Snapshot

KINDS = ("owner", "parent", "process")
_COMMAND = 60  # of a command, in the drawing


class Node:
    """A namespace (``namespace``) or a process (``pid``, in a tree by process) and what is below it."""

    __slots__ = ("children", "command", "namespace", "pid")

    def __init__(self, namespace: NamespaceInfo | None = None, pid: int | None = None, command: str = "") -> None:
        self.namespace = namespace
        self.pid = pid
        self.command = command
        self.children: list[Node] = []

    @property
    def label(self) -> str:
        """What the drawing says of it: one line without control characters."""
        if self.namespace is None:
            return f"{self.pid} {shorten(self.command)}" if self.pid else "no process"
        return describe(self.namespace, command=self.pid is None)

    def walk(self) -> Iterator[Node]:
        """It and all below it, from the top. Trees can be deep: a loop, no recursion."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


class Tree:
    """Namespaces as a tree, each of them once; ``str()`` is the drawing, ``roots`` the nodes at the top."""

    __slots__ = ("by", "roots")

    def __init__(self, by: str, roots: list[Node]) -> None:
        self.by = by
        self.roots = roots

    def __repr__(self) -> str:
        return f"<Tree by {self.by}: {sum(1 for _ in self)} namespaces>"

    def __iter__(self) -> Iterator[NamespaceInfo]:
        return (node.namespace for root in self.roots for node in root.walk() if node.namespace is not None)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What IPython shows, as of %nstree: the drawing."""
        printer.text(str(self))

    def lines(self) -> Iterator[str]:
        """The lines of the drawing."""
        waiting = [(root, "", "") for root in reversed(self.roots)]
        while waiting:
            node, first, rest = waiting.pop()
            yield first + node.label
            last = len(node.children) - 1
            for index in range(last, -1, -1):
                fork, below = ("└─", "  ") if index == last else ("├─", "│ ")
                waiting.append((node.children[index], rest + fork, rest + below))


def build(snapshot: Snapshot, by: str) -> Tree:
    """The tree of a snapshot; ValueError for an unknown kind."""
    if by not in KINDS:
        raise ValueError(f"a tree is by {', '.join(KINDS)}, not {by!r}")
    infos = snapshot.namespaces
    if by == "process":
        return Tree(by, _by_process(infos))
    return Tree(by, _by_relation(infos, lambda info: info.owner if by == "owner" else info.parent))


def shorten(text: str) -> str:
    """One line that a terminal shows as it is, whatever the text."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: _COMMAND + 1])
    return shown if len(text) <= _COMMAND else shown[: _COMMAND - 1] + "…"


def describe(info: NamespaceInfo, *, command: bool = True) -> str:
    """``net:[4026531840] 3 processes, user root, 42 sleep 60``; for one that no process is in, what holds it."""
    words = f"{info} {info.nprocs} process{'' if info.nprocs == 1 else 'es'}"
    if info.nprocs == 0:
        words = f"{info} {_held_by(info)}"
    if info.user is not None:
        words += f", user {shorten(info.user)}"
    if command and info.pid is not None:
        words += f", {info.pid} {shorten(info.command or '')}"
    return words


def _held_by(info: NamespaceInfo) -> str:
    holders = info.holders
    if not holders:
        return "hidden"
    first = holders[0]
    where = shorten(first.path or "") if first.kind == "mount" else f"of {first.pid}"
    more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    return f"{first.kind} {where}{more}"


def _by_relation(infos: Iterable[NamespaceInfo], above: Callable[[NamespaceInfo], NamespaceInfo | None]) -> list[Node]:
    """Below the nearest one above that is part of the tree (a filter may have left out some)."""
    nodes = {info._key: Node(info) for info in infos}
    roots: list[Node] = []
    for node in nodes.values():
        upper = above(node.namespace)  # type: ignore[arg-type]
        while upper is not None and upper._key not in nodes:
            upper = above(upper)
        (roots if upper is None else nodes[upper._key].children).append(node)
    return roots


def _by_process(infos: list[NamespaceInfo]) -> list[Node]:
    """Each below the lowest process in it; processes below the nearest ancestor that is in the tree."""
    nodes: dict[int, Node] = {}
    alone = Node()
    for info in infos:
        pid = info.pid or 0
        node = nodes.setdefault(pid, Node(pid=pid, command=info.command or "")) if pid else alone
        node.children.append(Node(info, pid=pid))
    parents = infos[0]._facts.parents if infos else {}
    uppers: dict[int, int] = {}
    roots: list[Node] = []
    for pid, node in sorted(nodes.items()):
        upper = uppers[pid] = _ancestor(pid, nodes, parents, uppers)
        (nodes[upper].children if upper else roots).append(node)
    return roots + [alone] * bool(alone.children)


def _ancestor(pid: int, nodes: dict[int, Node], parents: dict[int, int], uppers: dict[int, int]) -> int:
    """The nearest ancestor in the tree, 0 for none; never one below the process itself.

    Numbers that were given to other processes meanwhile could make a circle.
    """
    seen = {pid}
    ancestor = parents.get(pid, 0)
    while ancestor and ancestor not in nodes and ancestor not in seen:
        seen.add(ancestor)
        ancestor = parents.get(ancestor, 0)
    above = ancestor
    while above and above != pid:
        above = uppers.get(above, 0)
    return 0 if above == pid or ancestor not in nodes else ancestor
