"""How many system calls an operation makes: what no benchmark can judge on a busy machine, counted exactly.

An operation runs five times and then once more under strace, between two
calls of getppid(2).  What the interpreter does for its memory is not counted,
nor the clock, which is a system call on some machines only.
A count that grows is a regression; one that falls is written down here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import support

LIBC, VERSION = platform.libc_ver()
pytestmark = [
    support.unsanitized,
    pytest.mark.skipif(LIBC != "glibc", reason="other C libraries make other calls"),
]

ROOT = support.ROOT
NOT_COUNTED = {"brk", "mmap", "munmap", "mprotect", "madvise", "mremap", "futex", "rt_sigreturn", "clock_gettime"}

SCRIPT = """
import gc, os, subprocess, sys
sys.path[:0] = {path!r}
from nsutil import *
import nsutil
{setup}
def once():
    {body}
for _ in range(5):
    once()
gc.collect()
gc.disable()
os.getppid()
once()
os.getppid()
{after}
"""


@cache
def cannot_trace() -> str:
    """Why strace is of no use here, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("strace") is None:
        return "needs strace"
    done = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()[:100]}"


# Older kernels take more calls for the same.
as_newest = support.needs_kernel("close-range", "pidfd-setns", "time")


@pytest.fixture(autouse=True)
def strace() -> None:
    if cannot_trace():
        pytest.skip(cannot_trace())


class Trace(NamedTuple):
    """System calls by name: the caller's between the marks, and of each child until it is another program."""

    caller: dict[str, int]
    children: list[dict[str, int]]


def trace(folder: Path, body: str, setup: str = "", after: str = "") -> Trace:
    """What a line of Python calls, the sixth time it runs."""
    output = folder / "trace"
    setup, after = textwrap.dedent(setup), textwrap.dedent(after)
    script = SCRIPT.format(path=[str(ROOT)], setup=setup, body=body, after=after)
    command = ["strace", "-f", "-qq", "-s", "0", "-o", str(output), sys.executable, "-c", script]
    subprocess.run(command, check=True, timeout=60)
    return read(output.read_text())


def read(text: str) -> Trace:
    """Count the lines of strace -f; the caller is who calls getppid."""
    lines = re.findall(r"^(\d+) +(\w+)\(", text, re.MULTILINE)
    caller = next(pid for pid, name in lines if name == "getppid")
    calls: dict[str, list[str]] = {caller: []}
    inside = False
    for pid, name in lines:
        if pid == caller and name == "getppid":
            inside = not inside
        elif inside and name not in NOT_COUNTED:
            calls.setdefault(pid, []).append(name)
    children = [until_exec(names) for pid, names in calls.items() if pid != caller]
    return Trace(dict(Counter(calls[caller])), children)


def until_exec(names: list[str]) -> dict[str, int]:
    ends = [i for i, name in enumerate(names) if name in ("execve", "execveat")]
    return dict(Counter(names[: ends[0] + 1] if ends else names))


def test_the_count_notices(tmp_path: Path) -> None:
    assert trace(tmp_path, "os.stat('/'), os.getpid(), os.getpid()").caller == {"newfstatat": 1, "getpid": 2}
    assert trace(tmp_path, "pass") == ({}, [])


# Where the kernel shows namespaces by the pidfd of a thread, which takes less time than the walk through /proc.
by_pidfd = support.needs_kernel("pidfd-namespaces", "pidfd-thread")
BLOCK = {"pidfd_open": 1, "ioctl": 1, "unshare": 1, "setns": 1, "close": 2}
ENTERED = {"pidfd_open": 1, "ioctl": 1, "setns": 2, "close": 2}


@by_pidfd
def test_a_block(tmp_path: Path) -> None:
    assert trace(tmp_path, "with box: pass", "box = Namespace(UTS)").caller == BLOCK
    assert trace(tmp_path, "with Namespace(UTS): pass").caller == BLOCK


@by_pidfd
def test_a_block_with_a_name(tmp_path: Path) -> None:
    setup = "box = Namespace(UTS, hostname='box')"
    assert trace(tmp_path, "with box: pass", setup).caller == {**BLOCK, "sethostname": 1}


@by_pidfd
def test_a_block_of_a_network(tmp_path: Path) -> None:
    link_up = {"socket": 1, "ioctl": 3, "close": 3}
    assert trace(tmp_path, "with box: pass", "box = Namespace(NET)").caller == {**BLOCK, **link_up}


@by_pidfd
def test_a_block_of_mounts(tmp_path: Path) -> None:
    """Root and working directory are taken along and put back."""
    places = {"openat": 2, "statx": 2, "fchdir": 1, "close": 4, "getpid": 1}
    assert trace(tmp_path, "with box: pass", "box = Namespace(MNT)").caller == {**BLOCK, **places, "mount": 1}


@by_pidfd
def test_a_block_in_an_existing_network(tmp_path: Path) -> None:
    setup = "held = Namespace(NET).create(); box = enter(held)"
    assert trace(tmp_path, "with box: pass", setup, "held.close()").caller == ENTERED


@as_newest
@by_pidfd
def test_a_block_in_three_namespaces_of_a_process(tmp_path: Path) -> None:
    """One setns(2) on the way in."""
    setup = """
    types = UTS | IPC | NET
    process = Popen(["sleep", "100"], new=types)
    box = enter(process, types)
    """
    counts = trace(tmp_path, "with box: pass", setup, "process.kill(); process.wait()").caller
    assert counts == {"pidfd_open": 1, "ioctl": 3, "setns": 4, "close": 4}


PROGRAM = {"capget": 1, "close_range": 1, "rt_sigaction": 2, "rt_sigprocmask": 1, "execve": 1}
SPAWN = {"rt_sigaction": 1, "rt_sigprocmask": 2, "prctl": 2, "clone3": 1, "waitid": 1, "close": 1}


def spawned(folder: Path, body: str, setup: str = "", after: str = "") -> Trace:
    found = trace(folder, body, setup, after)
    if "clone3" not in found.caller or "clone" in found.caller:
        pytest.skip("needs clone3(2)")
    return found


@as_newest
@pytest.mark.parametrize("body", ["run(['/bin/true'], new=UTS)", "box.run(['/bin/true'])"])
def test_a_program(tmp_path: Path, body: str) -> None:
    assert spawned(tmp_path, body, "box = Namespace(UTS)") == (SPAWN, [PROGRAM])


@as_newest
def test_a_program_in_an_existing_network(tmp_path: Path) -> None:
    """While somebody else's namespaces are joined this process is hidden, until the child has let go of its memory."""
    setup = "held = Namespace(NET).create(); box = enter(held)"
    found = spawned(tmp_path, "box.run(['/bin/true'])", setup, "held.close()")
    assert found.caller == {**SPAWN, "prctl": 5, "pipe2": 1, "fcntl": 1, "close": 3}
    joins = {"fcntl": 2, "openat": 1, "fstatfs": 1, "openat2": 1, "setns": 1, "statx": 1, "close": 2, "close_range": 2}
    assert found.children == [{**PROGRAM, **joins}]


@as_newest
def test_a_program_below_init(tmp_path: Path) -> None:
    found = spawned(tmp_path, "box.run(['/bin/true'])", "box = Namespace(PID | MNT)")
    init_file = {"memfd_create": 1, "write": 1, "fcntl": 3}
    status = {"socketpair": 1, "setsockopt": 1, "getpid": 1, "pidfd_open": 1, "recvfrom": 1, "recvmsg": 1, "read": 1}
    caller = {**SPAWN, **init_file, **status, "pipe2": 1, "close": 7}
    del caller["rt_sigaction"]
    init = {"rt_sigaction": 2, "fcntl": 2, "mount": 2, "clone": 1, "waitid": 1, "dup3": 3}
    init |= {"close_range": 2, "prctl": 1, "capget": 1, "capset": 1, "execveat": 1}
    # Init looks after the program where that has not locked the memory at once.
    found.children[0]["waitid"] = 1
    assert found == (caller, [init, {**PROGRAM, "fcntl": 2, "write": 1, "close_range": 2}])


# From glibc 2.41 on fork() keeps abort() out, for which it blocks signals once more.
FORK_LOCKS = LIBC == "glibc" and tuple(map(int, VERSION.split(".")[:2])) >= (2, 41)


@support.uncounted
def test_a_call(tmp_path: Path) -> None:
    """Without those of the interpreter in the child, which differ from version to version."""
    found = trace(tmp_path, "box.call(int)", "box = Namespace(UTS)")
    caller = {"pipe2": 1, "getpid": 1, "rt_sigprocmask": 2 + 2 * FORK_LOCKS, "clone": 1, "pidfd_open": 1, "close": 3}
    # One poll for each message and for the end; one look whether a tracer comes first.
    assert found.caller == {**caller, "ppoll": 3, "read": 2, "waitid": 2}
    (child,) = found.children
    own = {"close": 1, "unshare": 1, "capget": 1, "sendmsg": 1, "writev": 1, "exit_group": 1}
    own["rt_sigprocmask"] = 2 + FORK_LOCKS
    assert child == {**own, **{name: child[name] for name in child.keys() - own.keys() if name in INTERPRETER}}


# lseek: from 3.14 on io.BufferedWriter asks where a file is when one is put over it.
INTERPRETER = {"set_robust_list", "gettid", "getpid", "rt_sigaction", "getrandom", "rseq", "lseek"}


def test_a_snapshot_of_ids(tmp_path: Path) -> None:
    """A directory and eight links for each process, ten in all."""
    setup = """
    if nsutil.clone(PID | MNT) != 0:
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sleepers = [subprocess.Popen(["cat"], **pipes) for _ in range(9)]
    for each in sleepers:  # which is done with its own calls when it has answered
        os.write(each.stdin.fileno(), b"x")
        os.read(each.stdout.fileno(), 1)
    """
    found = trace(tmp_path, "snapshot(tasks=False, fds=False, sockets=False, mounts=False)", setup)
    counts = {"openat": 10 + 2, "readlinkat": 8 * 10 + 2, "getdents64": 2, "close": 10 + 2}
    assert found == ({**counts, "fstatfs": 1, "newfstatat": 2, "getpid": 1, "geteuid": 1}, [])
