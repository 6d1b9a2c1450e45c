"""Types for what is written in C: its signatures are those of nsutil/_ns.pyi."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import nsutil._ns

if TYPE_CHECKING:
    from sphinx.application import Sphinx


@cache
def stubs() -> dict[str, tuple[str, str]]:
    """Arguments and result of each function, as text."""
    tree = ast.parse(Path(nsutil.__file__).with_name("_ns.pyi").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: (f"({ast.unparse(f.args)})", ast.unparse(f.returns) if f.returns else "") for f in functions}


def signature_of(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str] | None:
    own = getattr(thing, "__name__", "")
    return stubs().get(own) if getattr(nsutil._ns, own, None) is thing else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", signature_of)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
