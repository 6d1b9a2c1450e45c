"""Every example of README and docs works, and what tables say exists."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import docs_page
import pytest
import support

import nsutil
from nsutil import MNT, Tmpfs

ROOT = support.ROOT
PAGES = [path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if "_build" not in path.parts]
WITH_EXAMPLES = [path for path in PAGES if any(block.runs for block in docs_page.blocks_of(path.read_text()))]

# What examples need of the kernel beyond what nsutil itself needs.
NEEDED = {
    "README.md": ["mount-setattr"],
    "docs/explanation/types/time.md": ["time"],
    "docs/howto/containers.md": ["mount-setattr", "time"],
    "docs/howto/from-unshare.md": ["time"],
    "docs/howto/persistent-names.md": ["time"],
    "docs/reference/handles.md": ["ns-handles"],
}


def with_needs(path: Path) -> Any:
    name = str(path.relative_to(ROOT))
    return pytest.param(path, id=name, marks=support.needs_kernel(*NEEDED[name]) if name in NEEDED else ())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """nsutil as if it were installed: importable, and a command."""
    programs = tmp_path_factory.mktemp("bin")
    command = programs / "nsutil"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nsutil "$@"\n')
    command.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{support.PACKAGE}:{ROOT / 'tests'}"}


@support.needs_root
@pytest.mark.parametrize("page", [with_needs(path) for path in WITH_EXAMPLES])
def test_examples(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """In a mount namespace with an empty /run: the named namespaces of examples are no business of the machine."""
    command = [sys.executable, str(ROOT / "tests/docs_page.py"), str(page)]
    done = nsutil.run(
        command,
        new=MNT,
        mounts=[Tmpfs("/run", mode=0o755)],
        env=environment,
        cwd=str(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout


# The tables of those who come from another tool: what they name exists, and nothing is missing.

COMMANDS = {"unshare": "from-unshare.md", "nsenter": "from-nsenter.md", "lsns": "from-lsns.md"}
# Options of the commands that the original does not have, or that every command has.
OWN = {"--help", "--version", "--debug", "--holders"}


def table_rows(page: str) -> list[list[str]]:
    """The cells of all table rows of a how-to."""
    lines = (ROOT / "docs/howto" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_have_every_option(command: str) -> None:
    help_text = importlib.import_module(f"nsutil.cli.{command}").HELP
    declared = {option for line in help_text.splitlines() if line.startswith("  ") for option in options_in(line)}
    told = options_in(" ".join(row[0] for row in table_rows(COMMANDS[command])))
    assert declared - told == OWN & declared
    assert told - declared == set()


@pytest.mark.parametrize("page", sorted({*COMMANDS.values(), "from-python.md", "from-ip-netns.md"}))
def test_tables_name_what_exists(page: str) -> None:
    """Options of a recipe or of subprocess, and public names."""
    known = {*inspect.signature(nsutil.Namespace).parameters, *inspect.signature(subprocess.Popen).parameters}
    known |= {*inspect.signature(nsutil.enter).parameters, "max_workers", "kind", "name"}
    for row in table_rows(page):
        cell = row[-1]
        for keyword in re.findall(r"[(, `]([a-z_]+)=", cell):
            assert keyword in known, cell
        for name in re.findall(r"named\.([a-z_]+)", cell):
            assert name in nsutil.named.__all__, cell


def test_every_command_has_a_page() -> None:
    pages = {path.stem for path in ROOT.glob("docs/reference/commands/*.md")}
    commands = {path.stem for path in ROOT.glob("nsutil/cli/[a-z]*.py")}
    assert pages == commands | {"nsutil", "index"}


def test_the_manual_has_the_environment_of_the_commands() -> None:
    """In itself: there is no manual page that it could refer to."""
    reference = ROOT / "docs/reference"
    described = set(re.findall(r"^`(\w+)`$", (reference / "commands/nsutil.md").read_text(), re.MULTILINE))
    assert described == {"NSUTIL_DEBUG", "NSUTIL_NO_NEW_CALLS", "NO_COLOR"}
    assert described <= set(re.findall(r"^`(\w+)`", (reference / "environment.md").read_text(), re.MULTILINE))
