"""Functions: call(), executors and threads."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

import support

from nsutil import ALL, MNT, NET, PID, TIME, USER, UTS, IdMap, Namespace, enter

from .registry import Run, WrongResult, again_and_again, expect, inode, operation, whereabouts


def call_inside(box: Namespace, pid: int | None = None) -> None:
    host, number = box.call(whereabouts)
    expect(host == "inside", f"its host name: {host}")
    expect(pid is None or number == pid, f"its pid: {number}")


@operation
def call() -> None:
    call_inside(Namespace(UTS, hostname="inside"))


@operation
def call_init() -> None:
    call_inside(Namespace(UTS | PID | MNT, hostname="inside"), pid=2)


@operation
def call_as_pid_1() -> None:
    call_inside(Namespace(UTS | PID, hostname="inside", init=False), pid=1)


@operation
def call_all() -> None:
    call_inside(Namespace(ALL, hostname="inside", uid_map="root", boottime=5), pid=2)


@operation
def call_mapped() -> None:
    maps = [IdMap(0, 100000, 1000)]
    call_inside(Namespace(USER | UTS, hostname="inside", uid_map=maps, gid_map=maps))


@operation
def call_entered() -> Run:
    with support.paused(NET | PID | UTS) as pid:
        there = inode(NET, pid)

        def body() -> None:
            expect(enter(pid).call(inode, NET, "self") == there, "the NET of the target")

        yield from again_and_again(body)


@operation
def call_raises() -> None:
    try:
        Namespace(UTS).call(_raise)
    except LookupError as error:
        expect(error.args == ("there is none",), f"its arguments: {error.args}")
    else:
        raise WrongResult("it returned")


def _raise() -> NoReturn:
    raise LookupError("there is none")


@operation
def call_too_long() -> Run:
    """The whole tree is killed."""
    never, _end = os.pipe()

    def body() -> None:
        with contextlib.suppress(TimeoutError):
            Namespace(PID | UTS, timeout=0.05).call(os.read, never, 1)
            raise WrongResult("it returned")

    yield from again_and_again(body)


@operation
def call_watched() -> None:
    call_inside(Namespace(UTS, hostname="inside", kill_child=True))


@operation
def call_large_result() -> None:
    expect(Namespace(UTS).call(bytes, 300_000) == bytes(300_000), "the result")


@operation
def executor() -> None:
    with Namespace(UTS, hostname="inside").executor(2) as pool:
        for host, _ in pool.map(lambda_free, range(3)):
            expect(host == "inside", f"its host name: {host}")


def lambda_free(_: int) -> tuple[str, int]:
    return whereabouts()


@operation
def executor_init() -> None:
    with Namespace(UTS | PID, hostname="inside").executor(1) as pool:
        expect(pool.submit(whereabouts).result()[0] == "inside", "its host name")


@operation
def executor_entered() -> Run:
    with support.paused(NET | PID | UTS) as pid:
        there = inode(NET, pid)

        def body() -> None:
            with enter(pid).executor(1) as pool:
                expect(pool.submit(inode, NET, "self").result() == there, "the NET of the target")

        yield from again_and_again(body)


@operation
def executor_threads() -> None:
    with Namespace(UTS | NET, hostname="inside").executor(2, kind="thread") as pool:
        for host, _ in pool.map(lambda_free, range(3)):
            expect(host == "inside", f"its host name: {host}")


@operation
def thread() -> None:
    host, _ = Namespace(UTS | MNT, hostname="inside").thread(whereabouts).result(20)
    expect(host == "inside", f"its host name: {host}")


@operation
def thread_pid_and_time() -> Run:
    own = inode(PID)

    def body() -> None:
        box = Namespace(PID | TIME, monotonic=77)
        expect(box.thread(inode, PID, entry="pid_for_children").result(20) != own, "a new PID")

    yield from again_and_again(body)


@operation
def thread_mnt_entered() -> Run:
    with support.paused(MNT | NET) as pid:
        there = inode(MNT, pid)

        def body() -> None:
            expect(enter(pid).thread(inode, MNT).result(20) == there, "the MNT of the target")

        yield from again_and_again(body)
