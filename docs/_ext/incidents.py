"""The table of incidents, with the tests that are marked for them.

``{incidents} A`` shows the rows of that section of incidents.toml.  Tests
are found by their marker, ``@pytest.mark.incident("A1", ...)`` on a function,
a class or, as pytestmark, on a module; a marker without a row is an error.
"""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

ROWS = Path(__file__).parents[1] / "explanation/incidents.toml"
TESTS = Path(__file__).parents[2] / "tests"
logger = logging.getLogger(__name__)


def rows() -> dict[str, dict[str, str]]:
    """Each incident by its id."""
    return {row["id"]: row for row in tomllib.loads(ROWS.read_text())["incident"]}


def marked_tests() -> dict[str, list[str]]:
    """The tests of each incident, as FILE::NAME."""
    found = defaultdict(list)
    for path in sorted(TESTS.glob("test_*.py")):
        for ident, test in _marked(ast.parse(path.read_text()).body, path.name, []):
            found[ident].append(test)
    return found


def _marked(body: list[ast.stmt], where: str, above: list[str]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            yield from ((ident, where) for ident in _idents(node.value))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            idents = [*above, *(ident for mark in node.decorator_list for ident in _idents(mark))]
            name = f"{where}::{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from _marked(node.body, name, idents)
            elif node.name.startswith("test"):
                yield from ((ident, name) for ident in idents)


def _idents(mark: ast.expr) -> list[str]:
    calls = [node for node in ast.walk(mark) if isinstance(node, ast.Call)]
    mine = [call for call in calls if ast.unparse(call.func) == "pytest.mark.incident"]
    return [arg.value for call in mine for arg in call.args if isinstance(arg, ast.Constant)]


class Incidents(SphinxDirective):
    """The rows whose id starts with the argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(ROWS))
        tests = marked_tests()
        lines = ["````{list-table}", ":header-rows: 1", ":class: incidents", ":widths: 8 36 56", ""]
        lines += _row("", "What went wrong", "What holds here, and the tests of it")
        for ident, row in rows().items():
            if ident.startswith(self.arguments[0]):
                names = "<br>".join(f"`{test}`" for test in tests.get(ident, ()))
                lines += _row(ident, f"{row['what']} *{row['source']}*", f"{row['holds']}<br>{names or 'no test yet'}")
        lines.append("````")
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(ROWS)), 0, node)
        return [node]


def _row(*cells: str) -> list[str]:
    return [f"{'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(cells)]


def check(app: Sphinx) -> None:
    for ident, tests in marked_tests().items():
        if ident not in rows():
            logger.warning("%s: no incident %r in %s", ", ".join(tests), ident, ROWS.name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("incidents", Incidents)
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
