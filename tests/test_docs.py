"""Every example of README and docs works, and what tables say exists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import docs_page
import pytest
import support

import nsutil
from nsutil import MNT, Tmpfs

ROOT = support.ROOT
PAGES = [path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if "_build" not in path.parts]
WITH_EXAMPLES = [path for path in PAGES if any(block.runs for block in docs_page.blocks_of(path.read_text()))]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """nsutil as if it were installed: importable, and a command."""
    programs = tmp_path_factory.mktemp("bin")
    command = programs / "nsutil"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nsutil "$@"\n')
    command.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


@support.needs_root
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
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
