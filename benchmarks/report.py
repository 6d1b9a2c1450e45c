"""Tables of a run: for the terminal, for the documentation, and of several runs compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]

UNITS = {"us": 1e3, "ms": 1e6, "kB": 1024.0, "/s": 1.0}


def amount(value: float, unit: str) -> str:
    """A figure with three digits."""
    scaled = value / UNITS[unit]
    digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:,.{digits}f}"


def factor(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def ratios(row: Result) -> dict[str, tuple[str, str]]:
    """Each method's figures as multiples of the first floor's, which may be missing: typical, and of the minima."""
    floor = next((m for m in row["methods"] if m["kind"] == "floor"), None)
    if floor is None:
        return {m["name"]: ("", "") for m in row["methods"]}
    return {m["name"]: (factor(m["ratio"]), factor(m["least"] / floor["least"])) for m in row["methods"]}


def spread(method: Result) -> str:
    """The middle half of the samples, relative to the median."""
    if method["samples"] < 2:
        return ""
    return f"{100 * (method['high'] - method['low']) / method['median']:.0f} %"


def target(check: Result) -> str:
    """What was wanted."""
    sign = "<=" if check["at_most"] else ">="
    limit = check["limit"]
    return f"{sign} {amount(limit, 'ms') if limit > 1e5 else factor(limit)}"


def reached(check: Result) -> str:
    """What was had."""
    value, limit = check["value"], check["limit"]
    if limit > 1e5:
        return amount(value, "ms")
    close = not check["ok"] and factor(value) == factor(limit)
    return f"{value:.3f}" if close else factor(value)


def text(row: Result) -> str:
    """A row for the terminal."""
    lines = [f"{row['key']}: {row['title']}"]
    if row.get("error"):
        lines += ["  FAILED: " + row["error"].strip().splitlines()[-1]]
    if row["methods"]:
        width = max(len(m["name"]) for m in row["methods"]) + 2
        unit = row["unit"]
        heads = f"median {unit}", f"least {unit}", "ratio", "at best", "spread"
        lines.append("  " + " " * (width + 8) + "".join(f"{head:>12}" for head in heads))
        multiples = ratios(row)
        for m in row["methods"]:
            cells = amount(m["median"], unit), amount(m["least"], unit), *multiples[m["name"]], spread(m)
            lines.append(f"  {m['kind']:<8}{m['name']:<{width}}" + "".join(f"{cell:>12}" for cell in cells))
    for check in row["checks"]:
        verdict = "reached" if check["ok"] else "MISSED"
        lines.append(f"  target  {check['what']}: {reached(check)}, wanted {target(check)}: {verdict}")
    lines += [f"  skipped {name}: {why}" for name, why in row["skipped"].items()]
    lines += [f"  note    {note}" for note in row["notes"]]
    return "\n".join(lines)


def summary(run: Result) -> str:
    """The targets of a run, counted."""
    checks = [check for row in run["rows"] for check in row["checks"]]
    failed = [row["key"] for row in run["rows"] if row.get("error")]
    missed = [f"{row['key']}: {check['what']}" for row in run["rows"] for check in row["checks"] if not check["ok"]]
    lines = [f"{len(checks) - len(missed)} of {len(checks)} targets reached"]
    lines += [f"missed: {what}" for what in missed]
    lines += [f"failed: {key}" for key in failed]
    return "\n".join(lines)


# ------------------------------------------------------------ documentation


def markdown(run: Result) -> str:
    """The run as the documentation includes it."""
    return "\n".join([*_machine(run), *_targets(run), *(line for row in run["rows"] for line in _row(row))])


def _machine(run: Result) -> Iterator[str]:
    about = run["about"]
    yield "<!-- Made by `python benchmarks --markdown`; changes here are lost. -->"
    yield ""
    yield (
        f"Measured {about['date']} with nsutil {about['nsutil']} and Python {about['python']} on Linux "
        f"{about['kernel']}, {about['cpus']} CPUs ({about['cpu']}). Peers: "
        + ", ".join(f"{name} {version}" for name, version in sorted(about["peers"].items()))
        + "."
    )
    yield ""


def _targets(run: Result) -> Iterator[str]:
    yield "| row | target | wanted | measured | |"
    yield "|---|---|---|---|---|"
    for row in run["rows"]:
        for check in row["checks"]:
            verdict = "reached" if check["ok"] else "**missed**"
            cells = f"[{row['key']}](#{_anchor(row)})", check["what"], target(check), reached(check), verdict
            yield f"| {' | '.join(cells)} |"
    yield ""


def _anchor(row: Result) -> str:
    return f"row-{row['key']}"


def _row(row: Result) -> Iterator[str]:
    yield f"({_anchor(row)})="
    yield f"### {row['key']}: {row['title']}"
    yield ""
    unit = row["unit"]
    yield f"| | | median {unit} | least {unit} | ratio | at best | spread |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    multiples = ratios(row)
    for m in row["methods"]:
        cells = amount(m["median"], unit), amount(m["least"], unit), *multiples[m["name"]], spread(m)
        name = f"**{m['name']}**" if m["kind"] == "nsutil" else m["name"]
        yield f"| {m['kind']} | {name} | {' | '.join(cells)} |"
    yield ""
    for name, why in row["skipped"].items():
        yield f"Not measured: {name}, {why}.  "
    for note in row["notes"]:
        yield f"{note[0].upper()}{note[1:]}.  "
    yield ""


# --------------------------------------------------------------- comparison


def comparison(runs: list[Result]) -> str:
    """How far the ratios of several runs lie apart; memory and differences are shown, too, but are none."""
    lines = []
    worst = 0.0
    tables = [{row["key"]: row for row in run["rows"]} for run in runs]
    for key, row in tables[0].items():
        for i, check in enumerate(row["checks"]):
            others = [table[key]["checks"] for table in tables if key in table]
            values = [checks[i]["value"] for checks in others if len(checks) > i]
            apart = max(values) / min(values) - 1
            is_ratio = row["unit"] != "kB" and check["limit"] < 1e5
            worst = max(worst, apart if is_ratio else 0)
            scale = UNITS["ms"] if check["limit"] > 1e5 else 1.0
            cells = " ".join(f"{value / scale:>10.3f}" for value in values)
            lines.append(f"{key:<12} {check['what']:<48} {cells}   {100 * apart:5.1f} % apart")
    return "\n".join([*lines, f"at most {100 * worst:.1f} % apart"])
