"""Blocks: ``with Namespace(...)`` and ``with enter(...)``."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peers
from floors import SETUP
from measure import Batch, Bench, Remote, with_loop, with_new_loop
from peers import Skip
from rows import row

import nsutil
from nsutil import IPC, MNT, NET, UTS, Namespace, Popen, enter, named

_NAMES = {UTS: "uts", IPC: "ipc", NET: "net", MNT: "mnt"}
_LIBC = ctypes.CDLL(None, use_errno=True)
MS_BIND = 4096
NET_PAUSE = 0.01  # for the kernel to take a network namespace down elsewhere


class OsBlock:
    """What one writes with os.unshare and os.setns."""

    def __init__(self, *types: int, target: int = -1) -> None:
        if sys.version_info < (3, 12):
            raise Skip("os.unshare and os.setns came with Python 3.12")
        self._types = [(t, f"/proc/thread-self/ns/{_NAMES[t]}") for t in types]
        self._all, self._target = sum(types), target

    def __enter__(self) -> None:
        self._saved = [(os.open(path, os.O_RDONLY | os.O_CLOEXEC), t) for t, path in self._types]
        if self._target < 0:
            os.unshare(self._all)
        else:
            os.setns(self._target, self._all)

    def __exit__(self, *exc: object) -> None:
        for fd, nstype in self._saved:
            os.setns(fd, nstype)
            os.close(fd)


class CtypesBlock:
    """What one writes for an older Python."""

    def __init__(self, nstype: int, target: int = -1) -> None:
        self._type, self._target = int(nstype), target
        self._path = f"/proc/thread-self/ns/{_NAMES[nstype]}"

    def __enter__(self) -> None:
        self._saved = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        result = _LIBC.unshare(self._type) if self._target < 0 else _LIBC.setns(self._target, self._type)
        if result:
            raise OSError(ctypes.get_errno(), "unshare")

    def __exit__(self, *exc: object) -> None:
        if _LIBC.setns(self._saved, self._type):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(self._saved)


def _lxns_uts() -> Batch:
    module = peers.module("lxns.namespaces")

    class Block:
        def __enter__(self) -> None:
            self._saved = module.UtsNamespace.from_self()
            module.UtsNamespace.unshare()

        def __exit__(self, *exc: object) -> None:
            self._saved.setns()
            self._saved.close()

    return with_loop(Block())


def _linuxnamespaces_uts() -> Batch:
    module = peers.module("linuxnamespaces")
    uts = module.CloneFlags.NEWUTS

    class Block:
        def __enter__(self) -> None:
            self._saved = os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
            module.unshare(uts)

        def __exit__(self, *exc: object) -> None:
            module.setns(self._saved, uts)
            os.close(self._saved)

    return with_loop(Block())


@row("with-uts", "a block with a new UTS namespace")
def with_uts(bench: Bench) -> None:
    bench.floor("C loop of the same calls", partial(bench.floors.block, UTS, -1, 0))
    bench.own("recipe made once", with_loop(Namespace(UTS)))
    bench.own("recipe written out in the loop", with_new_loop(lambda: Namespace(UTS)))
    bench.peer("os.* in a Python class", lambda: with_loop(OsBlock(UTS)))
    bench.peer("ctypes in a Python class", lambda: with_loop(CtypesBlock(UTS)))
    bench.peer("lxns", _lxns_uts)
    bench.peer("linuxnamespaces", _linuxnamespaces_uts)
    bench.at_most("recipe made once / floor", "recipe made once", "C loop of the same calls", 1.10)
    bench.at_most(
        "recipe written out in the loop / floor", "recipe written out in the loop", "C loop of the same calls", 1.25
    )


def _pushns(target: Any) -> Batch:
    module = peers.module("pyroute2.netns")

    class Block:
        def __enter__(self) -> None:
            module.pushns(target)

        def __exit__(self, *exc: object) -> None:
            module.popns()

    return with_loop(Block())


def _netns(path: str) -> Batch:
    module = peers.module("netns")
    return with_new_loop(lambda: module.NetNS(nspath=path))


def _nsenter(path: str, nstype: str) -> Batch:
    module = peers.module("nsenter")
    return with_new_loop(lambda: module.Namespace(path, nstype))


@row("enter-net", "a block in an existing NET namespace", private=True)
def enter_net(bench: Bench) -> None:
    held = bench.stack.enter_context(named.create("bench"))
    path = "/run/netns/bench"
    bench.floor("C loop of the same calls", partial(bench.floors.block, NET, held.fileno(), 0))
    bench.own("recipe made once", with_loop(enter(held)))
    bench.own("recipe written out in the loop", with_new_loop(lambda: enter(held)))
    bench.own("by name, in the loop", with_new_loop(lambda: enter(name="bench")))
    bench.peer("os.* in a Python class", lambda: with_loop(OsBlock(NET, target=held.fileno())))
    bench.peer("ctypes in a Python class", lambda: with_loop(CtypesBlock(NET, held.fileno())))
    bench.peer("pyroute2 pushns, by descriptor", lambda: _pushns(held.fileno()))
    bench.peer("pyroute2 pushns, by name", lambda: _pushns("bench"))
    bench.peer("netns, by path", lambda: _netns(path))
    bench.peer("nsenter, by path", lambda: _nsenter(path, "net"))
    bench.at_most("recipe made once / floor", "recipe made once", "C loop of the same calls", 1.15)


def _nsenter_three(pid: int) -> Batch:
    make: Callable[[int, str], Any] = peers.module("nsenter").Namespace

    class Block:
        def __enter__(self) -> None:
            self._open = [make(pid, nstype) for nstype in ("uts", "ipc", "net")]
            for block in self._open:
                block.__enter__()

        def __exit__(self, *exc: object) -> None:
            for block in reversed(self._open):
                block.__exit__(*exc)

    return with_loop(Block())


@row("enter-3", "a block in the UTS, IPC and NET namespaces of a process")
def enter_three(bench: Bench) -> None:
    types = UTS | IPC | NET
    process = bench.stack.enter_context(
        Popen(["/bin/sleep", "100000"], new=types, stdin=subprocess.DEVNULL, kill_child=True)
    )
    bench.stack.callback(process.kill)
    pidfd = os.pidfd_open(process.program_pid or process.pid)
    bench.stack.callback(os.close, pidfd)
    bench.floor("C loop of the same calls", partial(bench.floors.block, types, pidfd, 0))
    bench.own("recipe made once", with_loop(enter(process, types)))
    bench.peer("os.* in a Python class", lambda: with_loop(OsBlock(UTS, IPC, NET, target=pidfd)))
    bench.peer("nsenter, three nested", lambda: _nsenter_three(process.program_pid or process.pid))
    bench.at_most("recipe made once / floor", "recipe made once", "C loop of the same calls", 1.10)


@row("new-mnt", "a block with a new MNT namespace, mounts made private")
def new_mnt(bench: Bench) -> None:
    bench.floor("C loop of the same calls", partial(bench.floors.block, MNT, -1, SETUP))
    bench.own("recipe made once", with_loop(Namespace(MNT)))
    bench.peer("os.* in a Python class, mounts left shared", lambda: with_loop(OsBlock(MNT)))
    bench.at_most("recipe made once / floor", "recipe made once", "C loop of the same calls", 1.05)


@row("new-net", "a block with a new NET namespace, lo up")
def new_net(bench: Bench) -> None:
    bench.floor("C loop of the same calls", partial(bench.floors.block, NET, -1, SETUP), NET_PAUSE)
    bench.own("recipe made once", with_loop(Namespace(NET)), NET_PAUSE)
    bench.peer("os.* in a Python class, lo left down", lambda: with_loop(OsBlock(NET)), NET_PAUSE)
    bench.at_most("recipe made once / floor", "recipe made once", "C loop of the same calls", 1.05)


# ------------------------------------------------------- the number of mounts


def _with_mounts(bench: Bench, count: int, folder: Path) -> dict[str, Batch]:
    """In a mount namespace of its own, made larger."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "bench", str(folder)], check=True)
    for number in range(count - len(Path("/proc/self/mounts").read_text().splitlines())):
        place = folder / str(number)
        place.mkdir()
        if _LIBC.mount(bytes(place), bytes(place), None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), "mount")
    return {"floor": partial(bench.floors.block, MNT, -1, SETUP), "own": with_loop(Namespace(MNT))}


@row("mounts", "a block with a new MNT namespace, by the number of mounts it copies", weight=0.5)
def by_mounts(bench: Bench) -> None:
    folder = bench.stack.enter_context(tempfile.TemporaryDirectory(prefix="nsutil-bench-"))
    for count in (30, 300, 3000):
        remote = Remote(partial(_with_mounts, bench, count, Path(folder)), partial(nsutil.clone, int(MNT)))
        bench.stack.callback(remote.close)
        bench.floor(f"C loop of the same calls, {count}", remote.batch("floor"))
        bench.own(f"recipe made once, {count}", remote.batch("own"))
