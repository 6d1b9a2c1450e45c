"""A minute of the soak, which `make soak` does for an hour, and what it must find."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import support

pytestmark = [pytest.mark.slow, support.uncounted, pytest.mark.xdist_group("soak")]
ROOT = os.geteuid() == 0


def soak(*options: str, timeout: float = 250) -> subprocess.CompletedProcess[str]:
    command = ["nice", sys.executable, str(support.ROOT / "tests/soak"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@support.needs_kernel("time")  # it mixes all types
@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", [pytest.param("root", marks=support.needs_root), "user"])
def test_nothing_is_left_and_nothing_goes_wrong(who: str) -> None:
    """The seed is another each time; the report names it.

    What shows once in an hour is for `make soak`; here a violation counts when it comes twice in a row.
    """
    options = ["--seconds", "30", "--threads", "4", *(["--user"] if who == "user" and ROOT else [])]
    done = soak(*options)
    if done.returncode:
        print(done.stdout, done.stderr)
        done = soak(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 violations\n" in done.stdout
    assert "FAILED" not in done.stdout


def test_violations_are_found() -> None:
    done = soak("--seconds", "1", "--threads", "2", "--plant", "fd,child,thread,file,orphan,wrong")
    assert done.returncode == 1, done.stdout + done.stderr
    for found in (
        "left behind: fds: {",
        "left behind: children: {'more'",
        "left behind: threads: {'more'",
        "left behind: files: {'more'",
        "a process is left: ",
        "ZeroDivisionError",
    ):
        assert found in done.stdout
