"""The rules of conftest.py hold: serial tests are alone, unexpected skips fail, folders are open."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import support

HERE = Path(__file__).parent

INTERVALS = """
import time, pytest

def note(name):
    start = time.monotonic()
    time.sleep(0.05)
    with open("log", "a") as log:
        log.write(f"{name} {start} {time.monotonic()}\\n")

@pytest.mark.parametrize("i", range(12))
def test_any(i):
    note("any")

@pytest.mark.serial
@pytest.mark.parametrize("i", range(3))
def test_alone(i):
    note("alone")
"""

SKIPS = """
import pytest

def test_named():
    pytest.skip("the kernel is too old [6.1]")

def test_other():
    pytest.skip("no such tool")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected():
    raise AssertionError
"""

LEAVES = """
import subprocess

def test_leaves(tmp_path):
    (tmp_path / "over").mkdir()
    subprocess.run(["mount", "--bind", "kept", tmp_path / "over"], check=True)
"""


def test_users_reach_the_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("open")
    assert support.as_user((tmp_path / "file").read_text) == "open"


def run_pytest(folder: Path, code: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    for name in ("conftest.py", "support.py", "allowed_skips.txt"):
        shutil.copy(HERE / name, folder)
    (folder / "test_inner.py").write_text(code)
    with (folder / "allowed_skips.txt").open("a") as file:
        file.write("test_inner.py::test_named | *too old [*]\n")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST") and name != "CI"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            support.ROOT / "pyproject.toml",
            "--rootdir",
            folder,
            *options,
            ".",
        ],
        cwd=folder,
        env={**plain, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_serial_tests_are_alone(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, INTERVALS, "-n", "2", "-p", "xdist")
    assert done.returncode == 0, done.stdout
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    spans = sorted((float(start), float(end), name) for name, start, end in rows)
    assert len(spans) == 15
    overlaps = [(a, b) for a, b in pairwise(spans) if b[0] < a[1]]
    assert all("alone" not in (a[2], b[2]) for a, b in overlaps)


@pytest.mark.parametrize(
    ("env", "ending"),
    [
        ({}, "2 skipped, 1 xfailed"),
        ({"CI": "true"}, "1 failed, 1 skipped, 1 xfailed"),
        ({"NSUTIL_STRICT_SKIPS": "1"}, "1 failed, 1 skipped, 1 xfailed"),
    ],
    ids=["by hand", "CI", "strict"],
)
def test_unexpected_skips_fail(tmp_path: Path, env: dict[str, str], ending: str) -> None:
    done = run_pytest(tmp_path, SKIPS, **env)
    assert ending in done.stdout.splitlines()[-1], done.stdout + done.stderr
    if env:
        assert "does not allow it: test_inner.py::test_other | no such tool" in done.stdout


@support.needs_root
@pytest.mark.parametrize("options", [(), ("-n", "1", "-p", "xdist")], ids=["alone", "worker"])
def test_what_a_left_mount_shows_is_not_removed(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Our folders are removed at the end, with everything below."""
    kept = tmp_path / "kept" / "file"
    kept.parent.mkdir()
    kept.touch()

    def body() -> tuple[int, str]:
        support.private_mounts()
        done = run_pytest(tmp_path, LEAVES, *options)
        return done.returncode, done.stdout

    status, said = support.in_child(body, timeout=60)
    assert kept.exists()
    assert status == 1
    assert "tests left mounts" in said
    assert "test_leaves0/over" in said
