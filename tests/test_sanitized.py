"""Collected by `make sanitize` alone: what only a sanitizer can tell, and whether it can."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import support

# Every public call, three times; then what no pointer leads to any more.  A deliberate loss shows that it looks.
PROGRAM = """
import ctypes, gc, os, sys
import nsutil, support, test_leaks

nsutil.unshare(nsutil.MNT)
support.private_run()
libc = ctypes.CDLL(None)

def use_all():
    for call in [*test_leaks.grouped().values(), *test_leaks.in_c().values()]:
        for _ in range(3):
            call()

use_all()
# The interpreter's own stack is not looked at: what only the names of a running function lead to would count as lost.
gc.collect()
lost = libc.__lsan_do_recoverable_leak_check()
libc.malloc.restype = ctypes.c_void_p
for _ in range(10):
    libc.malloc(100)
os._exit(lost * 2 + (libc.__lsan_do_recoverable_leak_check() == 0))
"""


@support.needs_root
@pytest.mark.skipif(not support.ADDRESS_SANITIZED, reason="needs LeakSanitizer, which is in AddressSanitizer")
def test_no_allocation_is_lost() -> None:
    """LeakSanitizer, with the whole stack of each allocation and each in a block of its own."""
    options = "detect_leaks=1:handle_segv=0:fast_unwind_on_malloc=0:malloc_context_size=16:exitcode=3"
    env = {
        **os.environ,
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": options,
        "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{support.ROOT / 'tests'}",
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, stderr=subprocess.PIPE, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


# Each shape of children that share our memory; then a race.
RACE = """
import ctypes, threading
from nsutil import MNT, PID, UTS, Namespace

libc, ready = ctypes.CDLL(None), threading.Barrier(2)
buffer = ctypes.create_string_buffer(1 << 16)

def race():
    for space in Namespace([PID, MNT]), Namespace(UTS, kill_child="TERM"):
        space.run(["true"], check=True)
    Namespace([PID, MNT]).create().close()
    ready.wait()
    for _ in range(100):
        libc.memset(buffer, 0, len(buffer))

threads = [threading.Thread(target=race) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@support.needs_root
@pytest.mark.skipif(not support.THREAD_SANITIZED, reason="needs ThreadSanitizer")
def test_threads_that_have_started_programs_are_still_watched() -> None:
    env = {**os.environ, "TSAN_OPTIONS": "exitcode=3:die_after_fork=0"}
    done = subprocess.run([sys.executable, "-c", RACE], env=env, stderr=subprocess.PIPE, text=True, timeout=100)
    assert "Traceback" not in done.stderr
    assert done.returncode == 3, "a race was not seen"
