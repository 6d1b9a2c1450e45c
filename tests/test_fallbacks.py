"""The tests of blocks and of asyncio once more, with the older interfaces only."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import ROOT, needs_root


@needs_root
@pytest.mark.serial
@pytest.mark.parametrize("module", ["test_block.py", "test_aio.py"])
def test_without_newer_calls(module):
    env = {**os.environ, "NSUTIL_NO_NEW_CALLS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    env.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/{module}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
