"""Signatures and parameters as the code says them.

* What is written in C has the signature of nsutil/_ns.pyi.
* A class that its users never make themselves has none.
* A paragraph of a docstring whose lines begin with ``NAME:``, the names being
  parameters, becomes a list of parameters.
"""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import nsutil._ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

MADE_ELSEWHERE = {
    "nsutil.NamespaceFile",
    "nsutil.NamespaceInfo",
    "nsutil.NamespaceReference",
    "nsutil.NamespaceSet",
    "nsutil.Snapshot",
    "nsutil._lan.Host",
    "nsutil._lan.Lan",
    "nsutil._tree.Tree",
    "nsutil.aio.Process",
    "nsutil.doctor.Report",
    "nsutil.jupyter.CellError",
    "nsutil.named.Watch",
}
_NAMED = re.compile(r"(\w+): ")


@cache
def stubs() -> dict[str, tuple[str, str]]:
    """Arguments and result of each function, as text."""
    tree = ast.parse(Path(nsutil.__file__).with_name("_ns.pyi").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: (f"({ast.unparse(f.args)})", ast.unparse(f.returns) if f.returns else "") for f in functions}


def is_ours(thing: object) -> bool:
    """Whether it is a function written in C."""
    return getattr(nsutil._ns, getattr(thing, "__name__", ""), None) is thing


def signature_of(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    if name in MADE_ELSEWHERE:
        return "", None
    return stubs()[thing.__name__] if is_ours(thing) else None  # type: ignore[attr-defined]


def list_parameters(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Rewrite the lines of a docstring in place."""
    names = parameters_of(thing) if what in ("function", "method") else set()
    paragraphs = "\n".join(lines).split("\n\n")
    lines[:] = "\n\n".join("\n".join(_fields(text.split("\n"), names)) for text in paragraphs).split("\n")


def parameters_of(thing: object) -> set[str]:
    if is_ours(thing):
        return set(re.findall(r"(\w+)[,:=)]", stubs()[thing.__name__][0]))  # type: ignore[attr-defined]
    try:
        return set(inspect.signature(thing).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return set()


def _fields(paragraph: list[str], names: set[str]) -> Iterator[str]:
    first = _NAMED.match(paragraph[0])
    if first is None or first[1] not in names:
        yield from paragraph
        return
    ended = False
    for line in paragraph:
        found = _NAMED.match(line)
        if found and found[1] in names:
            yield f":param {found[1]}: {line[found.end() :]}"
        elif ended or line.startswith(("Raises", "Linux", "PIDFD")):
            if not ended:
                yield ""
            ended = True
            yield line
        else:
            yield f"    {line}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", signature_of)
    app.connect("autodoc-process-docstring", list_parameters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
