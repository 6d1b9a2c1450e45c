"""``nsutil tree``: which namespace belongs to which, as a drawing or a page."""

from __future__ import annotations

import os
import sys

from .._types import NAMES, NSType
from ._args import Arguments, UsageError
from ._table import utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._snapshot import Snapshot
    from .._tree import Node, Tree

HELP = """\
Usage: nsutil tree [OPTIONS]

Draw the namespaces as a tree, each of them once.

Options:
      --owner              below the user namespace that owns it (the default)
      --parent             below its parent: PID and user namespaces nest
      --process            below the lowest process in it
  -t, --type NAME          only mnt, net, ipc, user, pid, uts, cgroup or time;
                           may be given several times
  -Q, --filter EXPRESSION  only those for which it holds, as scols-filter(5)
      --html FILE          write a page with all three trees (- is the output)
  -J, --json               all facts as JSON
      --color WHEN         always, never or auto (in a terminal where rich is
                           installed, unless NO_COLOR is set)
  -h, --help               show this help
  -V, --version            show the version
      --debug              show a traceback with errors

Examples:
  nsutil tree
  nsutil tree --process --filter 'type != "mnt"'
  nsutil tree --html namespaces.html
"""
STYLES = {
    "cgroup": "yellow",
    "ipc": "magenta",
    "mnt": "blue",
    "net": "green",
    "pid": "red",
    "time": "cyan",
    "user": "bold white",
    "uts": "bright_magenta",
}


class Request:
    """What the command line asks for."""

    def __init__(self, argv: list[str]) -> None:
        self.by, self.types, self.color = "owner", NSType(0), "auto"
        self.expression: str | None = None
        self.html: str | None = None
        self.json = False
        Arguments(HELP, argv, permute=True).take_all(self._take)

    def _take(self, name: str, value: str | None) -> None:
        if name in ("owner", "parent", "process"):
            self.by = name
        elif name == "type":
            if value not in NAMES:
                raise UsageError(f"unknown namespace type: {value}; one of {', '.join(NAMES)}")
            self.types |= NAMES[value]
        elif name == "color":
            if value not in ("always", "never", "auto"):
                raise UsageError(f"--color must be always, never or auto, not '{value}'")
            self.color = value
        elif name == "json":
            self.json = True
        else:
            setattr(self, {"filter": "expression"}.get(name, name), value)


def take(request: Request) -> Snapshot:
    """The namespaces that the request is about."""
    from .._snapshot import snapshot

    found = snapshot(request.types or NSType.ALL)
    return found.filter(request.expression) if request.expression is not None else found


def write_page(found: Snapshot, path: str) -> None:
    """The HTML page, to a file or to the output."""
    if path == "-":
        print(found.to_html())
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(found.to_html())


def plain(tree: Tree) -> None:
    """The drawing, in characters that the locale has."""
    text = str(tree)
    if not utf8():
        text = text.replace("├─", "|-").replace("└─", "`-").replace("│", "|")
        text = text.encode("ascii", "backslashreplace").decode()
    print(text)


def colored(tree: Tree) -> bool:
    """The drawing with colours and cut to the terminal's width; False where rich is not installed."""
    try:
        from rich.console import Console
    except ImportError:
        return False
    # The lines have been drawn and made harmless; what is left is colour.
    console = Console(highlight=False, soft_wrap=False, force_terminal=True)
    for line, node in zip(tree.lines(), _nodes(tree), strict=True):
        console.print(_styled(line, node), no_wrap=True, overflow="ellipsis", crop=True)
    return True


def _nodes(tree: Tree) -> list[Node]:
    return [node for root in tree.roots for node in root.walk()]


def _styled(line: str, node: Node) -> Any:
    from rich.text import Text

    text, start = Text(line), len(line) - len(node.label)
    text.stylize("dim", 0, start)
    if node.namespace is None:
        text.stylize("bold", start)
        return text
    name = str(node.namespace.type)
    end = start + len(str(node.namespace))
    text.stylize(STYLES[name], start, start + len(name))
    text.stylize("dim", start + len(name), end)
    return text


def main(argv: list[str]) -> int:
    """Draw the tree."""
    request = Request(argv)
    found = take(request)
    if request.html is not None:
        write_page(found, request.html)
    elif request.json:
        print(found.to_json())
    else:
        draw(request, found)
    if found.unseen and os.geteuid() != 0:
        print(f"nsutil tree: {len(found.unseen)} places could not be looked into; root sees more", file=sys.stderr)
    return 0


def draw(request: Request, found: Snapshot) -> None:
    """On a terminal with colours where rich is installed, else plain."""
    tree = found.tree(request.by)
    terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    wanted = request.color == "always" or (request.color == "auto" and terminal)
    if not (wanted and utf8() and colored(tree)):
        plain(tree)
