"""Plots of a run as SVG: two charts of a few lines are no reason for a dependency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 700, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 270, 40, 50
COLOURS = ("#767676", "#0b62a4", "#d1711c", "#2a8a3e", "#a3339b")

Series = dict[str, list[tuple[float, float]]]


@dataclass
class Axis:
    """A logarithmic axis: values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        return [10.0**power for power in powers if self.low <= 10.0**power <= self.high]


def write(run: dict[str, Any], directory: Path) -> None:
    """The plots for which the run has figures."""
    rows = {row["key"]: row for row in run["rows"]}
    directory.mkdir(parents=True, exist_ok=True)
    if rows.get("parent", {}).get("methods"):
        chart = _chart("Start and wait for /bin/true", "parent's memory", "ms", _parent(rows["parent"]), _memory_name)
        (directory / "performance_spawn.svg").write_text(chart)
    if rows.get("snapshot", {}).get("methods"):
        chart = _chart("All namespaces of a machine", "processes", "ms", _snapshot(rows["snapshot"]), _number)
        (directory / "performance_snapshot.svg").write_text(chart)


def _parent(row: dict[str, Any]) -> Series:
    """By method; x in MB, y in ms."""
    return _series(row, lambda text: float(text[:-3]) * (1024 if text.endswith("GB") else 1))


def _snapshot(row: dict[str, Any]) -> Series:
    return _series(row, float)


def _series(row: dict[str, Any], number: Any) -> Series:
    series: Series = {}
    for method in row["methods"]:
        name, _, where = method["name"].rpartition(", ")
        series.setdefault(name, []).append((number(where), method["median"] / 1e6))
    return series


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _memory_name(value: float) -> str:
    return f"{value / 1024:.0f} GB" if value >= 1024 else f"{value:.0f} MB"


def _chart(title: str, x_title: str, y_title: str, series: Series, x_name: Any) -> str:
    xs = sorted({x for line in series.values() for x, _ in line})
    ys = [y for line in series.values() for _, y in line]
    across = Axis(xs[0], xs[-1], LEFT, WIDTH - RIGHT)
    up = Axis(10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys))), HEIGHT - BOTTOM, TOP)
    head = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" role="img" aria-label="{escape(title)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {head}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=14),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, anchor="middle"),
        _text(LEFT - 8, TOP - 8, y_title, anchor="end"),
    ]
    for tick in up.ticks():
        y = up.at(tick)
        parts += [_line(LEFT, y, WIDTH - RIGHT, y, "#dddddd"), _text(LEFT - 8, y + 4, _number(tick), anchor="end")]
    for x in xs:
        parts += [
            _line(across.at(x), TOP, across.at(x), HEIGHT - BOTTOM, "#eeeeee"),
            _text(across.at(x), HEIGHT - BOTTOM + 16, x_name(x), anchor="middle"),
        ]
    parts += _lines(series, across, up)
    return "\n".join([*parts, "</svg>", ""])


def _lines(series: Series, across: Axis, up: Axis) -> list[str]:
    """The lines, with their names at the right end, moved apart where they would overlap."""
    parts = []
    below = 0.0
    by_height = sorted(series.items(), key=lambda item: -item[1][-1][1])
    colours = dict(zip(series, COLOURS, strict=False))
    for name, points in by_height:
        places = [(across.at(x), up.at(y)) for x, y in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[name]}"/>' for x, y in places]
        x, y = places[-1]
        below = max(y + 4, below + 15)
        parts.append(_text(x + 10, below, name, colour=colours[name]))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12, colour: str = "#222222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
