"""Processes on the way to a program that are killed there."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import threading
from pathlib import Path
from socket import SOCK_DGRAM

import pytest
import support
from support import in_child, needs_root, private_run
from tracing import Tree

from nsutil import MNT, NET, PID, Bind, Namespace, named


def children_of(pid: int, thread: int | None) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    except OSError:
        return []


def killed_while_it_joins(box: Namespace) -> list[str]:
    """The return code or the errno of a run whose joiner gets SIGKILL once it has made its child."""
    outcome: list[str] = []

    def start() -> None:
        try:
            outcome.append(str(box.run(["true"]).returncode))
        except OSError as error:
            outcome.append(errno.errorcode[error.errno or 0])

    thread = threading.Thread(target=start)
    thread.start()
    while thread.is_alive():
        pids = children_of(os.getpid(), thread.native_id)
        if box.kill_child and pids:
            pids = children_of(pids[0], pids[0])  # the waiter's
        if len(pids) == 2:
            with contextlib.suppress(ProcessLookupError):  # done between our look and the signal: that is no kill
                os.kill(pids[0], signal.SIGKILL)
            break
    thread.join(20)
    return outcome


@needs_root
@pytest.mark.parametrize("kill_child", [None, True], ids=["ours", "the waiter's"])
def test_a_killed_joiner_leaves_nothing(kill_child: bool | None) -> None:
    """Its child is not yet a program, has nobody who waits for that, and is not the joiner's own."""

    def body() -> tuple[set[str], set[int]]:
        support.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what is lost comes to this process
        outcomes: set[str] = set()
        with Namespace(PID).create() as inside:
            box = Namespace(MNT, enter=inside, kill_child=kill_child, mounts=[Bind("/usr", "/mnt")] * 200)
            for _ in range(10):
                outcomes.update(killed_while_it_joins(box))
        return outcomes, support.children()

    outcomes, left = in_child(body, timeout=60)
    assert outcomes <= {"0", "ECANCELED"}
    assert "ECANCELED" in outcomes
    assert left == set()


@needs_root
def test_no_namespace_is_taken_from_who_was_killed_before_it_was_set_up() -> None:
    """A process that was killed has its namespaces for a moment yet; many descriptors to close make that longer."""

    def body() -> set[str]:
        most = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        reader, writer = os.pipe()

        def create() -> None:
            null = os.open("/dev/null", os.O_RDONLY)
            for _ in range(most - 100):
                os.dup(null)
            try:
                with Namespace(NET).create() as spaces, spaces[NET].socket(type=SOCK_DGRAM) as sock:
                    sock.connect(("127.0.0.1", 9))  # nowhere to go before lo is up
                outcome = "made"
            except OSError as error:
                outcome = errno.errorcode[error.errno or 0]
            os.write(writer, outcome.encode())

        outcomes = set()
        for _ in range(10):
            tree = Tree(create)
            for number, pid in enumerate(tree.stops(20)):
                if number == 2:  # by then its parent waits for it
                    os.kill(pid, signal.SIGKILL)
            tree.end()
            outcomes.add(os.read(reader, 99).decode())
        return outcomes

    assert in_child(body, timeout=60) == {"ECANCELED"}


@needs_root
def test_a_killed_starter_of_a_named_init_takes_it_along() -> None:
    """What is to be init uses the caller's stack until it is a program, and must not go on alone."""

    def body() -> tuple[str, list[str], int]:
        private_run()
        named.create("before", PID).close()
        named.remove("before", PID)
        reader, writer = os.pipe()

        def create() -> None:
            try:
                named.create("killed", PID).close()
                outcome = "made"
            except OSError as error:
                outcome = errno.errorcode[error.errno or 0]
            os.write(writer, outcome.encode())

        tree = Tree(create)
        below: list[int] = []
        for pid in tree.stops(20):
            if pid not in below:
                below.append(pid)
                if len(below) == 2:
                    tree.end_process(below[0])
        tree.end()
        return os.read(reader, 99).decode(), named.list(PID), len(below)

    assert in_child(body, timeout=60) == ("ESRCH", [], 2)
