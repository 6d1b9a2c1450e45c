"""With-blocks."""

from __future__ import annotations

import os
from pathlib import Path

import support

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, PID, UTS, Namespace, Tmpfs, enter, named

from .registry import Run, again_and_again, expect, inode, operation, whereabouts


@operation
def block() -> None:
    with Namespace(UTS, hostname="inside"):
        expect(os.uname().nodename == "inside", "the host name")
    expect(os.uname().nodename != "inside", "the host name afterwards")


@operation
def block_several() -> Run:
    own = {nstype: inode(nstype) for nstype in (UTS, IPC, NET, CGROUP)}

    def body() -> None:
        with Namespace(UTS | IPC | NET | CGROUP) as inside:
            for nstype, number in own.items():
                expect(inode(nstype) != number, f"a new {nstype}")
                with inside[nstype] as file:
                    expect(file.inode != number, f"the handle of the new {nstype}")

    yield from again_and_again(body)


@operation
def block_mnt() -> None:
    with Namespace(MNT, mounts=[Tmpfs("/mnt")]):
        Path("/mnt/inside").touch()
    expect(not os.path.exists("/mnt/inside"), "a mount of one's own")


@operation
def block_mnt_in_a_root() -> Run:
    """The root and the working directory are those from before."""
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    os.makedirs("/mnt/proc")
    support.must("mount", b"/proc", b"/mnt/proc", None, support.MS_BIND, None)
    os.makedirs("/mnt/cellar/deep")
    os.chroot("/mnt")
    os.chdir("/cellar/deep")

    def body() -> None:
        with Namespace(MNT):
            pass
        expect(os.listdir("/") == ["cellar", "proc"] or os.listdir("/") == ["proc", "cellar"], "the root")
        expect(os.getcwd() == "/cellar/deep", "the working directory")

    yield from again_and_again(body)


@operation
def block_nested_and_moved() -> Run:
    own = inode(IPC)

    def body() -> None:
        with Namespace(UTS), Namespace(UTS | NET, loopback=False):
            nsutil.unshare(IPC)
            expect(inode(IPC) != own, "a new IPC")
        expect(inode(IPC) == own, "IPC as before")

    yield from again_and_again(body)


@operation
def block_strict() -> None:
    with Namespace(UTS, strict=True):
        nsutil.unshare(IPC)


@operation
def block_moved_into_others() -> Run:
    """Joined by the thin call, left by the block."""
    own = inode(NET)
    with support.paused(NET) as pid, nsutil.open(pid, NET) as net:

        def body() -> None:
            with Namespace(UTS):
                nsutil.setns(net.fileno(), NET)
                expect(inode(NET) == net.inode, "the NET of the other")
            expect(inode(NET) == own, "NET as before")

        yield from again_and_again(body)


@operation
def block_around_a_function() -> Run:
    inside = Namespace(UTS, hostname="inside")(whereabouts)
    yield from again_and_again(lambda: expect(inside()[0] == "inside", "the host name"))


@operation
def block_enter() -> Run:
    with support.paused(UTS | NET | IPC) as pid:
        box = enter(pid)
        there = inode(NET, pid)

        def body() -> None:
            with box:
                expect(inode(NET) == there, "the NET of the target")

        yield from again_and_again(body)


@operation
def block_enter_by_name() -> Run:
    with named.create("name", UTS, hostname="named"):

        def body() -> None:
            with enter(name="name", types=UTS):
                expect(os.uname().nodename == "named", "the host name")

        yield from again_and_again(body)


@operation
def block_enter_pid_and_mnt() -> Run:
    with support.paused(PID | MNT) as pid:
        there = inode(PID, pid)

        def body() -> None:
            with enter(pid, PID | MNT):
                expect(inode(PID, entry="pid_for_children") == there, "the PID of the target")

        yield from again_and_again(body)
