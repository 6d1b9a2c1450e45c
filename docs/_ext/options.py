"""The table of recipe options: words from reference/options.toml, everything else from the code."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from nsutil import Namespace
from nsutil._checks import CHILD_ONLY, NEEDS_NEW
from nsutil._recipe import DEFAULTS

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROWS = Path(__file__).parents[1] / "reference/options.toml"
HEAD = ("Option", "Meaning", "Errors", "Linux, source")
WIDTHS = (24, 40, 22, 14)


class RecipeOptions(SphinxDirective):
    """All options, in the order of the signature, as one table."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROWS))
        rows = tomllib.loads(ROWS.read_text())
        if rows.keys() != DEFAULTS.keys():
            raise ExtensionError(f"{ROWS.name}: rows and options differ in {sorted(rows.keys() ^ DEFAULTS.keys())}")
        lines = ["````{list-table}", ":header-rows: 1", ":class: options", f":widths: {' '.join(map(str, WIDTHS))}", ""]
        lines += _row(*HEAD)
        for name in DEFAULTS:
            row = rows[name]
            lines += _row(_option(name), row["what"], row["errors"] or "none", row["source"] or "none")
        lines.append("````")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(ROWS)), 0, node)
        return [node]


def _row(*cells: str) -> list[str]:
    return [f"{'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(cells)]


def _option(name: str) -> str:
    """Name, type, default and where it may stand, each on a line of the cell."""
    annotation = inspect.signature(Namespace).parameters[name].annotation
    kind = annotation.replace("PathLike[str]", "PathLike").replace("MapSpec", "str | IdMap | list")
    lines = [f"[]{{#option-{name}}}**`{name}`**", f"`{kind}`", f"default `{DEFAULTS[name]!r}`"]
    if name in NEEDS_NEW:
        lines.append(f"with {str(NEEDS_NEW[name]).upper()} new")
    if name in CHILD_ONLY:
        lines.append("not in a block")
    return "<br>".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("recipe-options", RecipeOptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
