"""The table of rows; each module of rows adds its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from measure import Bench


@dataclass(frozen=True)
class Row:
    """What is measured together.

    ``weight``: its share of the whole time.  ``pinned``: on one CPU.
    ``private``: in mount and network namespaces of its own, /run empty.
    """

    key: str
    title: str
    prepare: Callable[[Bench], None]
    unit: str = "us"
    weight: float = 1.0
    pinned: bool = True
    private: bool = False


ROWS: dict[str, Row] = {}


def row(
    key: str, title: str, unit: str = "us", weight: float = 1.0, pinned: bool = True, private: bool = False
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Register a function that declares or measures the methods of a row."""

    def register(prepare: Callable[[Bench], None]) -> Callable[[Bench], None]:
        ROWS[key] = Row(key, title, prepare, unit, weight, pinned, private)
        return prepare

    return register


def load() -> dict[str, Row]:
    """All rows, in the order in which they are shown."""
    for name in ("blocks", "programs", "calls", "listing", "names", "sizes"):
        importlib.import_module(f"rows_{name}")
    return ROWS
