"""Looks at the system."""

from __future__ import annotations

import support

import nsutil
from nsutil import NET, PID, UTS

from .registry import Run, again_and_again, expect, inode, operation


@operation
def snapshot() -> Run:
    with support.paused(UTS | NET | PID) as pid:
        there = inode(UTS, pid)

        def body() -> None:
            found = nsutil.snapshot()
            expect(
                found.unseen or any(space.inode == there for space in found.namespaces), "the namespace of the child"
            )
            found.to_json()

        yield from again_and_again(body)


@operation
def snapshot_ids() -> None:
    nsutil.snapshot(tasks=False, fds=False, sockets=False, mounts=False)


@operation
def doctor() -> None:
    nsutil.doctor.check("uts")
