"""clone() and handles of namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import support

import nsutil
from nsutil import MNT, NET, PID, TIME, USER, UTS

from .registry import Run, again_and_again, expect, inode, operation


def end_with(test: Callable[[], bool]) -> NoReturn:
    """End a child: with 0 where the test holds, 1 where not, 2 where it could not be made."""
    status = 2
    try:
        status = int(not test())
    finally:
        os._exit(status)


def wait_for(pid: int) -> None:
    """The end of a child that exits with 0 where it is as it should be."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 2:
        raise nsutil.ChildDied(f"the child ended with {status}")
    expect(status == 0, "what the child saw")


@operation
def clone_uts() -> Run:
    own = inode(UTS)

    def body() -> None:
        pid = nsutil.clone(UTS)
        if pid == 0:
            end_with(lambda: inode(UTS) != own)
        wait_for(pid)

    yield from again_and_again(body)


@operation
def clone_pid() -> None:
    pid = nsutil.clone(PID)
    if pid == 0:
        end_with(lambda: os.getpid() == 1)
    wait_for(pid)


@operation
def clone_time() -> Run:
    own = inode(TIME)

    def body() -> None:
        pid = nsutil.clone(TIME | USER)
        if pid == 0:
            end_with(lambda: inode(TIME) != own)
        wait_for(pid)

    yield from again_and_again(body)


@operation
def handles() -> Run:
    with support.paused(UTS | NET | MNT | PID) as pid:
        support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
        Path("/mnt/name").touch()

        def body() -> None:
            with nsutil.open(pid, NET) as net, nsutil.current(NET) as own:
                expect(net != own, "another's NET")
                owner = net.owner()
                expect(owner is None or owner.type == USER, "its owner")
                if owner is not None:
                    owner.close()
                with net.socket() as inside:
                    expect(inside.fileno() >= 0, "a socket")
                net.reference()
            with nsutil.open(pid, PID) as namespace:
                expect(namespace.pid_from(1) == pid, "the pid")
            with nsutil.open(pid, MNT) as namespace, namespace.open("/proc/self/comm") as file:
                file.read()

        yield from again_and_again(body)


@operation
def handles_of_mounts() -> Run:
    with support.paused(MNT) as pid:

        def body() -> None:
            with nsutil.open(pid, MNT) as file:
                expect(file.mounts(), "its mounts")
                expect(file.id != 0, "its id")

        yield from again_and_again(body)


@operation
def bind() -> Run:
    """A namespace that is kept by a file; unmounted outside of the body, where no fault hits what only puts back."""
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    Path("/mnt/name").touch()
    with support.paused(NET) as pid, nsutil.open(pid, NET) as net:
        while True:
            worked = yield lambda: net.bind("/mnt/name")
            bound = os.stat("/mnt/name").st_ino == net.inode
            expect(bound == worked, "what the file is")
            if bound:
                support.must("umount2", b"/mnt/name", 2)


@operation
def reference() -> Run:
    """Found again after its handle was closed."""
    with support.paused(NET) as pid:
        with nsutil.open(pid, NET) as net:
            found = net.reference()

        def body() -> None:
            with found.open() as again:
                expect(again.inode == inode(NET, pid), "the same namespace")

        yield from again_and_again(body)
