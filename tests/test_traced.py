"""Under strace(1), which as the tracer learns of the end of a process before its parent does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import support

SCRIPT = """
import os, subprocess, sys
import nsutil

def died(status):
    try:
        box.call(os._exit, status)
    except nsutil.ChildDied as error:
        return error.status

def stopped():
    process = box.popen(["sleep", "9"])
    try:
        process.wait(0.01)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()

def missing():
    try:
        box.popen(["/no/such/program"])
    except FileNotFoundError:
        return "missing"

box = nsutil.Namespace(nsutil.UTS if os.geteuid() == 0 else 0, kill_child=sys.argv[1] == "watched")
for _ in range(8):
    found = box.call(int), died(3), stopped(), missing(), box.popen(["sh", "-c", "exit 4"]).wait(9)
    assert found == (0, 3, -9, "missing", 4), found
print(open("/proc/thread-self/children").read(), end="")
"""


@support.needs_program("strace")
@pytest.mark.parametrize("how", ["alone", "watched"])
def test_children_are_reaped_and_their_statuses_known(how: str) -> None:
    # -k makes it slow enough to be seen.
    strace = ["strace", "-f", "-qq", "-k", "--seccomp-bpf", "-e", "trace=close", "-o", os.devnull]
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace cannot trace here")
    for _ in range(3):
        done = subprocess.run([*strace, sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=False)
        if not done.stderr.startswith("strace: "):  # it gives up now and then when a process goes at the wrong moment
            break
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
