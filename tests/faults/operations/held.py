"""Namespaces that a set of descriptors holds."""

from __future__ import annotations

import support

from nsutil import IPC, MNT, NET, PID, TIME, USER, UTS, File, Namespace, Tmpfs, enter

from .registry import Run, again_and_again, expect, inode, operation


@operation
def create() -> Run:
    own = {nstype: inode(nstype) for nstype in (UTS, NET, USER)}

    def body() -> None:
        with Namespace(UTS | NET | USER, uid_map="root", hostname="held").create() as held:
            for nstype, number in own.items():
                expect(held[nstype].inode != number, f"a new {nstype}")

    yield from again_and_again(body)


@operation
def create_pid() -> Run:
    own = inode(PID)

    def body() -> None:
        with Namespace(PID | MNT | TIME).create() as held:
            expect(held.pid.inode != own, "a new PID")
            expect(held.pid.pid_from(1) > 1, "its PID 1")

    yield from again_and_again(body)


@operation
def create_mnt() -> Run:
    own = inode(MNT)

    def body() -> None:
        box = Namespace(USER | MNT | IPC, uid_map="root", mounts=[Tmpfs("/mnt"), File("/mnt/file", "text")])
        with box.create() as held:
            expect(held.mnt.inode != own, "a new MNT")
            with held.mnt.open("/mnt/file") as file:
                expect(file.read() in ("text", b"text"), "its file")

    yield from again_and_again(body)


@operation
def create_entered() -> Run:
    with support.paused(NET | IPC) as pid:
        there = inode(NET, pid)

        def body() -> None:
            with Namespace(UTS, enter=enter(pid, NET), hostname="held").create() as held:
                expect(held.net.inode == there, "the NET of the target")

        yield from again_and_again(body)
