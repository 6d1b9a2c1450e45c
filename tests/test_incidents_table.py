"""Each incident of docs/explanation/incidents.toml has a test, and the table of security.md shows all of them."""

from __future__ import annotations

import re
import tomllib

import pytest
import support

EXPLANATION = support.ROOT / "docs/explanation"
ROWS = [row["id"] for row in tomllib.loads((EXPLANATION / "incidents.toml").read_text())["incident"]]


def marked() -> dict[str, list[str]]:
    """The files with a test for each incident."""
    found: dict[str, list[str]] = {}
    for path in sorted((support.ROOT / "tests").glob("test_*.py")):
        for arguments in re.findall(r"pytest\.mark\.incident\(([^)]*)\)", path.read_text()):
            for ident in re.findall(r'"(\w+)"', arguments):
                found.setdefault(ident, []).append(path.name)
    return found


@pytest.mark.parametrize("ident", ROWS)
def test_an_incident_has_a_test(ident: str) -> None:
    assert marked().get(ident)


def test_a_mark_names_an_incident() -> None:
    assert set(marked()) <= set(ROWS)


def test_the_table_has_every_row_once() -> None:
    shown = re.findall(r"^```\{incidents\} (\w+)$", (EXPLANATION / "security.md").read_text(), re.MULTILINE)
    assert [row for row in ROWS for prefix in shown if row.startswith(prefix)] == ROWS
