"""The helpers of the tests do what other tests rely on."""

from __future__ import annotations

import os
import sys
import threading

import pytest
import support


def test_in_child_returns_the_value() -> None:
    assert support.in_child(lambda: (os.getpid(), "x" * 200_000))[0] != os.getpid()


def test_in_child_raises_the_exception() -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "gone", "/nowhere")

    with pytest.raises(FileNotFoundError) as caught:
        support.in_child(fail)
    assert caught.value.filename == "/nowhere"
    assert "in fail" in caught.value.__notes__[0]


def test_in_child_reports_a_death() -> None:
    with pytest.raises(support.ChildFailed, match="SIGKILL"):
        support.in_child(lambda: os.kill(os.getpid(), 9))


def test_in_child_ends_a_child_that_hangs(leak_check: None) -> None:
    with pytest.raises(support.ChildFailed, match="timeout"):
        support.in_child(threading.Event().wait, timeout=0.3)


def test_in_child_passes_skips_on() -> None:
    with pytest.raises(pytest.skip.Exception, match="not today"):
        support.in_child(pytest.skip, "not today")


@support.needs_root
def test_user_has_nothing_of_root() -> None:
    def look() -> tuple[object, ...]:
        with open("/proc/self/status") as file:
            caps = [line.split()[1] for line in file if line.startswith(("CapEff", "CapPrm", "CapInh"))]
        return os.getresuid(), os.getresgid(), os.getgroups(), {int(cap, 16) for cap in caps}

    user = support.USER_ID
    assert support.as_user(look) == ((user,) * 3, (user,) * 3, [], {0})


def test_user_may_not_set_the_hostname() -> None:
    import socket

    with pytest.raises(PermissionError):
        support.as_user(lambda: socket.sethostname(socket.gethostname()))


def test_user_owns_its_proc_files() -> None:
    assert support.as_user(lambda: os.stat("/proc/self/uid_map").st_uid == os.getuid())


def test_ten_namespaces() -> None:
    found = support.ns_inodes()
    assert len(found) == 10
    assert found["net"] == os.stat("/proc/thread-self/ns/net").st_ino


@pytest.mark.parametrize("what", ["fd", "thread", "child", "umask", "cwd"])
def test_leaks_are_seen(what: str) -> None:
    def leak() -> None:
        with support.no_leaks(settle=0.05):
            if what == "fd":
                os.open("/dev/null", os.O_RDONLY)
            elif what == "thread":
                threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()
            elif what == "child":
                os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {})
            elif what == "umask":
                os.umask(0o777 & ~os.umask(0))
            else:
                os.chdir("/proc")

    with pytest.raises(AssertionError, match="left changed"):
        support.in_child(leak)


def test_nothing_leaked_passes(leak_check: None) -> None:
    support.in_child(lambda: None)
