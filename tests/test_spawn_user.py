"""A process that gave up root without exec: procfs holds its files as root's."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - what the dropped user may not be able to read
import ctypes
import os
import threading

import pytest
from support import USER_ID, as_user, in_child, needs_kernel, needs_root

import nsutil
from nsutil import ALL, IPC, MNT, NET, PID, TIME, USER, UTS, Namespace

pytestmark = needs_root

PR_GET_DUMPABLE = 3


def dropped(func):
    """Run func after a plain setuid(), which is all that many programs do."""

    def body():
        os.setgroups([])
        os.setgid(USER_ID)
        os.setuid(USER_ID)
        libc = ctypes.CDLL(None)
        before = libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
        result = func()
        after = libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
        assert before != 1
        assert after in (0, before)
        return result

    return in_child(body)


def run_id(**options):
    return nsutil.run(["id", "-u"], capture_output=True, text=True, **options).stdout.strip()


@pytest.mark.parametrize(("uid_map", "uid"), [("root", "0"), ("current", str(USER_ID))])
def test_run(uid_map, uid):
    assert dropped(lambda: run_id(new=USER, uid_map=uid_map)) == uid


@needs_kernel("time")
def test_run_all_eight():
    options = {"new": ALL, "uid_map": "root", "hostname": "box", "boottime": 1000}
    assert dropped(lambda: run_id(**options)) == "0"


@needs_kernel("time")
def test_call():
    assert dropped(lambda: nsutil.call(os.getuid, new=USER | UTS | NET | IPC, uid_map="root")) == 0
    assert dropped(lambda: nsutil.call(os.getuid, new=USER | PID | MNT | TIME, uid_map="root", boottime=5)) == 0


def test_create_and_enter():
    def body():
        with Namespace(USER | UTS, uid_map="root", hostname="made").create() as held:
            return nsutil.run(["hostname"], enter=held, capture_output=True, text=True).stdout

    assert dropped(body) == "made\n"


def test_executor():
    def body():
        with Namespace(USER | UTS, uid_map="root", hostname="made").executor() as executor:
            return executor.submit(os.getuid).result(20)

    assert dropped(body) == 0


def test_maps_beside_joins():
    """Who joins hides the process for that long, and its /proc files are root's meanwhile: makers have to wait."""

    def body():
        problems, done = [], threading.Event()

        def join(box):
            while not done.is_set():
                problems.extend([] if box.run(["true"]).returncode == 0 else ["joining failed"])

        with Namespace(USER | UTS).create() as held:
            threads = [threading.Thread(target=join, args=[nsutil.enter(held)]) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(250):
                    Namespace(USER | UTS).create().close()
            finally:
                done.set()
                for thread in threads:
                    thread.join()
        return problems

    assert as_user(body, timeout=60) == []
