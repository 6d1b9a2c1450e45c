"""As in a container: with Docker's capabilities and its seccomp profile each public operation works or says why not."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import older_kernel
import pytest
import support
from faults import operations
from faults.harness import Point, judge
from faults.zygote import attempt, difference, in_words, state
from support import PACKAGE, needs_program, needs_root

from nsutil import MNT, PID, Namespace

pytestmark = needs_root

# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
# audit_write, setfcap
DOCKERS_CAPS = 0xA80425FB
PR_CAPBSET_DROP = 24

# They need nothing that a container withholds.
WORK = {"named_watch", "snapshot", "snapshot_ids", "doctor"}
# The thin calls do not explain; in a root with nothing but /proc there is no doctor to be imported.
UNEXPLAINED = {name for name in operations.OPERATIONS if name.startswith("clone_")} | {"block_mnt_in_a_root"}


def confine(filtered: bool) -> None:
    """Docker's capabilities, and its filter where asked for, for good."""
    if filtered:  # first: without SYS_ADMIN it would take no_new_privs
        older_kernel.install(older_kernel.chosen("docker"))
    with contextlib.suppress(OSError):  # past the last capability
        for number in range(64):
            if not DOCKERS_CAPS >> number & 1:
                support.prctl(PR_CAPBSET_DROP, number)
    status = Path("/proc/thread-self/status").read_text()
    kept = int(status.split("CapPrm:")[1].split()[0], 16) & DOCKERS_CAPS
    support.must("capset", struct.pack("=II", 0x20080522, 0), struct.pack("=6I", kept, kept, 0, 0, 0, 0))


def perform(name: str, filtered: bool) -> dict[str, Any]:
    """What came of an operation, as the faults are judged by; its surroundings are made before."""
    support.must("mount", b"none", b"/run", b"tmpfs", 0, b"mode=755")
    generator = operations.make(name)
    body = next(generator)
    confine(filtered)
    before = state()
    outcome = attempt(body)
    generator.send(outcome[0] == "returned")
    return {"outcome": outcome, "changed": in_words(difference(before, patience=20.0))}


@pytest.mark.parametrize("filtered", [False, True], ids=["capabilities", "profile"])
@pytest.mark.parametrize(
    "name", [support.with_time(name) if name.endswith(("all", "time")) else name for name in operations.OPERATIONS]
)
def test_operations(name: str, filtered: bool) -> None:
    report = Namespace(PID | MNT, timeout=90).call(perform, name, filtered)
    assert list(judge(Point(name, "main", "-", 1, "EPERM"), report)) == []
    outcome, _, text, _ = report["outcome"]
    assert outcome == "returned" or name not in WORK, text
    assert outcome == "returned" or name in UNEXPLAINED or "\nhint: " in text, text


@needs_program("setpriv")
@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("unshare --uts true", 1, "a seccomp filter answers "),
        ("unshare --user --map-root-user true", 1, "a seccomp filter answers "),
        ("nsenter --target PID --uts true", 1, "a seccomp filter answers "),
        ("netns add x", 1, "a seccomp filter answers "),
        ("netns list", 0, ""),
        ("lsns", 0, ""),
        ("tree", 0, ""),
        ("box -- true", 1, "a seccomp filter answers "),
        ("doctor --net --user", 1, ""),
        ("demo", 1, ""),
    ],
)
def test_commands(command: str, status: int, says: str) -> None:
    confined = [sys.executable, older_kernel.__file__, "docker", "setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    confined[-1] += "".join(f",+cap_{number}" for number in range(64) if DOCKERS_CAPS >> number & 1)
    words = [word.replace("PID", str(os.getpid())) for word in command.split()]
    done = subprocess.run(
        [*confined, sys.executable, "-m", "nsutil", *words],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == status
    assert says in done.stderr
