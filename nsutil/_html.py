"""A snapshot as one self-contained page (the page itself is templates/namespaces.html)."""

from __future__ import annotations

import json
import os
from html import escape

from ._tree import KINDS, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._snapshot import NamespaceInfo, Snapshot
    from ._tree import Tree

# Within a script element only these could end it or start a comment.
_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def page(snapshot: Snapshot) -> str:
    """The HTML document. Whatever names it shows is data, never markup."""
    with open(os.path.join(os.path.dirname(__file__), "templates", "namespaces.html"), encoding="utf-8") as template:
        before, middle, after = template.read().replace("@@TREE@@", "@@DATA@@").split("@@DATA@@")
    data = json.dumps(_data(snapshot), separators=(",", ":")).translate(_SCRIPT)
    return before + escape(str(snapshot.tree("owner"))) + middle + data + after


def frame(snapshot: Snapshot) -> str:
    """The page within a notebook: a frame of its own, so that neither meddles with the other."""
    return (
        '<iframe title="Linux namespaces" sandbox="allow-scripts" '
        'style="width:100%;height:30em;border:1px solid #8884;border-radius:6px" '
        f'srcdoc="{escape(page(snapshot))}"></iframe>'
    )


def _data(snapshot: Snapshot) -> dict[str, Any]:
    infos = snapshot.namespaces
    index = {info._key: number for number, info in enumerate(infos)}
    return {
        "namespaces": [_namespace(info, index) for info in infos],
        "trees": {by: _flat(snapshot.tree(by), index) for by in KINDS},
        "unseen": snapshot.unseen,
    }


def _namespace(info: NamespaceInfo, index: dict[int, int]) -> dict[str, Any]:
    """The fields, with indexes for owner and parent, and of processes only the numbers: there may be many."""
    plain = info._plain()
    for name, other in (("owner", info.owner), ("parent", info.parent)):
        plain[name] = None if other is None else [index.get(other._key, -1), str(other)]
    plain["pids"] = [holder.pid for holder in info.holders if holder.kind == "process"]
    plain["holders"] = [holder for holder in info.holders if holder.kind != "process"]
    return plain


def _flat(tree: Tree, index: dict[int, int]) -> list[tuple[int, int, int | None, str]]:
    """Nodes from the top, each as (namespace or -1, number of the node above or -1, pid, command)."""
    rows: list[tuple[int, int, int | None, str]] = []
    waiting = [(root, -1) for root in reversed(tree.roots)]
    while waiting:
        node, above = waiting.pop()
        number = -1 if node.namespace is None else index[node.namespace._key]
        waiting.extend((child, len(rows)) for child in reversed(node.children))
        rows.append((number, above, node.pid, shorten(node.command)))
    return rows
