"""The benchmarks run, and what the documentation shows is one of their runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import support

ROOT = support.ROOT
SHOWN = ROOT / "docs" / "explanation"
RUN = ROOT / "benchmarks" / "run.json"
# They import what lies beside them.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


def benchmarks(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks"), *args]
    return subprocess.run(command, env=ENV, check=True, capture_output=True, text=True, timeout=100)


def test_the_table_and_the_plots_are_those_of_the_run(tmp_path: Path) -> None:
    benchmarks("--load", str(RUN), "--markdown", str(tmp_path / "performance_table.md"), "--plots", str(tmp_path))
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["performance_snapshot.svg", "performance_spawn.svg", "performance_table.md"]
    for name in made:
        assert (SHOWN / name).read_text() == (tmp_path / name).read_text(), name


def test_a_run_of_the_documentation_is_whole() -> None:
    run = json.loads(RUN.read_text())
    listed = [line.split()[0] for line in benchmarks("--list").stdout.splitlines()]
    assert [row["key"] for row in run["rows"]] == listed
    assert not run["about"]["quick"]
    assert not [row["key"] for row in run["rows"] if row.get("error")]


@support.needs_root
@pytest.mark.parametrize(  # the floor of run-uts is clone3(2)
    "row", ["with-uts", pytest.param("run-uts", marks=support.needs_kernel("clone3")), "call", "init"]
)
def test_a_row_is_measured(tmp_path: Path, row: str) -> None:
    output = tmp_path / "run.json"
    shown = benchmarks("--no-install", "--seconds", "0.2", "--row", row, "--json", str(output)).stdout
    (result,) = json.loads(output.read_text())["rows"]
    assert "error" not in result
    assert result["key"] == row
    assert shown.startswith(f"{row}: ")
    assert {method["kind"] for method in result["methods"]} >= {"nsutil"}
    assert all(method["median"] > 0 for method in result["methods"])
    assert result["checks"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Peers that are not installed, here all of PyPI's, are no failure."""
    done = subprocess.run(
        [sys.executable, "-c", "import peers; peers._ENVIRONMENT = peers.Path('/nowhere'); peers.module('lxns')"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.splitlines()[-1].startswith("peers.Skip: ")


def test_comparison_of_runs(tmp_path: Path) -> None:
    run = json.loads(RUN.read_text())
    for row in run["rows"]:
        for check in row["checks"]:
            check["value"] *= 1.07
    other = tmp_path / "other.json"
    other.write_text(json.dumps(run))
    assert benchmarks("--compare", str(RUN), str(other)).stdout.endswith("at most 7.0 % apart\n")
