"""What the tests of named namespaces share."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from support import in_child, no_leaks, ns_inodes, private_run

import nsutil
from nsutil._names import store_of

T = TypeVar("T")
NETNS = Path("/run/netns")


def apart(func: Callable[..., T], *args: Any, timeout: float = 60.0) -> T:
    """func in a child with a /run of its own; it must leave no fd, child, thread or namespace changed."""

    def body() -> T:
        private_run()
        nsutil.Namespace(nsutil.UTS).create().close()  # what is made once for all, such as the file of nsutil's init
        before = ns_inodes()
        with no_leaks():
            result = func(*args)
            for nstype in nsutil.NSType.ALL:
                directory = store_of(nstype).directory
                if os.path.isdir(directory):
                    subprocess.run(["umount", "-l", directory], check=False, stderr=subprocess.DEVNULL)
        assert ns_inodes() == before
        return result

    return in_child(body, timeout=timeout)


def ip(*args: str) -> str:
    return subprocess.run(["ip", "netns", *args], check=True, capture_output=True, text=True, timeout=20).stdout


def mounts_below(top: str) -> list[str]:
    """mountinfo without what differs from run to run (ids and inode numbers), and what our own /run hides."""
    lines = [line.split() for line in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    seen = set([fields[0] for fields in lines if fields[4] == "/run"][-1:])
    found = []
    for fields in lines:
        if seen and fields[1] in seen:
            seen.add(fields[0])
        if fields[4].startswith(top) and (not seen or fields[0] in seen):
            root = fields[3].split("[")[0]
            optional = [field.split(":")[0] for field in fields[6 : fields.index("-")]]
            found.append(" ".join([root, fields[4], fields[5], *optional, *fields[fields.index("-") :]]))
    return found


def wait_for(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def nsenter(option: str, *program: str) -> str:
    return subprocess.run(["nsenter", option, *program], check=True, capture_output=True, text=True).stdout.strip()
