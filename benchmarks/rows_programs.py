"""Programs in namespaces: ``run``."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peers
from floors import INIT, MAPPED, PROC, SETUP, program
from measure import Batch, Bench, Remote, loop
from peers import Skip
from rows import row
from rows_blocks import NET_PAUSE

import nsutil
from nsutil import ALL, IPC, MNT, NET, PID, USER, UTS, Namespace, enter, named, run

TRUE = "/bin/true"
FLOOR = "C: clone, exec, wait"


def command(*words: str) -> Callable[[], Batch]:
    """Run a command that must succeed; the first word is looked up."""

    def make() -> Batch:
        args = [peers.command(words[0]), *words[1:]]
        return loop(lambda: subprocess.run(args, check=True, close_fds=False))

    return make


def _unshare_uts() -> None:
    nsutil.unshare(UTS)


def preexec() -> Batch:
    """The way of subprocess alone."""
    return loop(lambda: subprocess.run([TRUE], preexec_fn=_unshare_uts, check=True))


def _exec_true() -> None:
    os.execv(TRUE, [TRUE])


def _pyspaces() -> Batch:
    container = peers.module("pyspaces").Container

    def spawn() -> None:
        process = container(target=_exec_true, uts=True)
        process.start()
        process.join()
        if process.exitcode:
            raise Skip(f"the child ends with status {process.exitcode}")

    return loop(spawn)


def _own(args: list[str], **options: Any) -> Batch:
    return loop(lambda: run(args, **options))


@row("run-uts", "/bin/true in a new UTS namespace")
def run_uts(bench: Bench) -> None:
    box = Namespace(UTS)
    bench.floor(FLOOR, partial(bench.floors.spawn, TRUE, UTS, 0, -1))
    bench.own("run(args, new=UTS)", _own([TRUE], new=UTS))
    bench.own("recipe made once", loop(lambda: box.run([TRUE])))
    bench.peer("subprocess.run, no namespace", lambda: loop(lambda: subprocess.run([TRUE], check=False)))
    bench.peer("unshare(1)", command("unshare", "--uts", TRUE))
    bench.peer("subprocess.run with preexec_fn", preexec)
    bench.peer("pyspaces", _pyspaces)
    bench.at_most("run / floor", "run(args, new=UTS)", FLOOR, 1.10)
    bench.at_most("run / subprocess.run without namespace", "run(args, new=UTS)", "subprocess.run, no namespace", 1.05)


@row("run-static", "a program without libc in a new UTS namespace")
def run_static(bench: Bench) -> None:
    path = program("true")
    bench.floor(FLOOR, partial(bench.floors.spawn, path, UTS, 0, -1))
    bench.own("run(args, new=UTS)", _own([path], new=UTS))
    bench.peer("subprocess.run, no namespace", lambda: loop(lambda: subprocess.run([path], check=False)))
    bench.peer("unshare(1)", command("unshare", "--uts", path))
    bench.at_most("run / floor", "run(args, new=UTS)", FLOOR, 1.30)


_UNSHARE_ALL = "unshare -r -m -u -i -n -C -T --pid --fork".split()
_BWRAP = "bwrap --unshare-user --unshare-pid --bind / /".split()
_BWRAP_ALL = "bwrap --unshare-user --unshare-all --bind / /".split()
_BARE = {"init": False, "mount_proc": False}


@row("run-3-bare", "/bin/true in new USER, MNT and PID namespaces, mapped; the program is PID 1")
def run_three_bare(bench: Bench) -> None:
    types = USER | MNT | PID
    bench.floor(FLOOR, partial(bench.floors.spawn, TRUE, types, MAPPED | SETUP, -1))
    bench.own("run(args, new=...)", _own([TRUE], new=types, **_BARE))
    bench.peer("unshare(1)", command("unshare", "-r", "--mount", "--pid", "--fork", TRUE))
    bench.at_most("run / floor", "run(args, new=...)", FLOOR, 1.15)


@row("run-3", "the same with init and a new /proc, as is the default")
def run_three(bench: Bench) -> None:
    types = USER | MNT | PID
    bench.floor(FLOOR, partial(bench.floors.spawn, TRUE, types, MAPPED | SETUP | PROC | INIT, -1))
    bench.own("run(args, new=...)", _own([TRUE], new=types))
    bench.peer("unshare(1), no init", command("unshare", "-r", "--mount-proc", "--pid", "--fork", TRUE))
    bench.peer("bwrap", command(*_BWRAP, "--proc", "/proc", TRUE))
    bench.at_most("run / floor", "run(args, new=...)", FLOOR, 1.15)


@row("run-8-bare", "/bin/true in eight new namespaces, mapped; the program is PID 1")
def run_eight_bare(bench: Bench) -> None:
    bench.floor(FLOOR, partial(bench.floors.spawn, TRUE, ALL, MAPPED | SETUP, -1), NET_PAUSE)
    bench.own("run(args, new=ALL)", _own([TRUE], new=ALL, **_BARE), NET_PAUSE)
    bench.peer("unshare(1)", command(*_UNSHARE_ALL, TRUE), NET_PAUSE)
    bench.at_most("run / floor", "run(args, new=ALL)", FLOOR, 1.15)


@row("run-8", "the same with init and a new /proc, as is the default")
def run_eight(bench: Bench) -> None:
    bench.floor(FLOOR, partial(bench.floors.spawn, TRUE, ALL, MAPPED | SETUP | PROC | INIT, -1), NET_PAUSE)
    bench.own("run(args, new=ALL)", _own([TRUE], new=ALL), NET_PAUSE)
    bench.peer("unshare(1), no init", command(*_UNSHARE_ALL, "--mount-proc", TRUE), NET_PAUSE)
    bench.peer("bwrap, seven types", command(*_BWRAP_ALL, "--proc", "/proc", TRUE), NET_PAUSE)
    bench.at_most("run / floor", "run(args, new=ALL)", FLOOR, 1.15)


def _bundle(directory: Path) -> str:
    """What an OCI runtime needs to run /bin/true on this root in five new namespaces.

    Only in a mount namespace of one's own: the root must be a mount point
    other than /, and crun knows no mixture of the two cgroup hierarchies.
    """
    root = directory / "root"
    config = {
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [TRUE], "cwd": "/", "env": ["PATH=/usr/bin:/bin"]},
        "root": {"path": str(root)},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "network", "ipc", "uts")]},
    }
    if not root.exists():
        root.mkdir(parents=True)
        subprocess.run(["mount", "--bind", "/", str(root)], check=True)
        subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], check=True)
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


def _oci(name: str, *options: str) -> Callable[[], Batch]:
    def make() -> Batch:
        bundle = _bundle(Path("/run/bench-bundle"))
        args = [peers.command(name), *options, "run", "--bundle", bundle, f"bench-{name}"]
        return loop(lambda: subprocess.run(args, check=True, capture_output=True))

    return make


@row("run-5", "/bin/true in new MNT, UTS, IPC, NET and PID namespaces, with init and /proc", private=True)
def run_five(bench: Bench) -> None:
    types = MNT | UTS | IPC | NET | PID
    bench.floor(FLOOR, partial(bench.floors.spawn, TRUE, types, SETUP | PROC | INIT, -1), NET_PAUSE)
    bench.own("run(args, new=...)", _own([TRUE], new=types), NET_PAUSE)
    bench.peer(
        "unshare(1), no init", command(*"unshare -m -u -i -n --pid --fork --mount-proc".split(), TRUE), NET_PAUSE
    )
    bench.peer("crun", _oci("crun", "--cgroup-manager=disabled"), NET_PAUSE)
    bench.peer("runc", _oci("runc"), NET_PAUSE)


def _nspopen(name: str) -> Batch:
    popen = peers.module("pyroute2").NSPopen

    def spawn() -> None:
        process = popen(name, [TRUE])
        process.wait()
        process.release()

    return loop(spawn)


@row("run-enter", "/bin/true in an existing NET namespace", private=True)
def run_enter(bench: Bench) -> None:
    held = bench.stack.enter_context(named.create("bench"))
    box, nothing = enter(held), Namespace()
    bench.floor("C: clone, setns, exec, wait", partial(bench.floors.spawn, TRUE, 0, 0, held.fileno()))
    bench.own("enter(...).run(args)", loop(lambda: box.run([TRUE])))
    bench.own("run(args) without namespaces", loop(lambda: nothing.run([TRUE])))
    bench.peer("nsenter(1)", command("nsenter", "--net=/run/netns/bench", TRUE))
    bench.peer("ip netns exec", command("ip", "netns", "exec", "bench", TRUE))
    bench.peer("pyroute2 NSPopen", lambda: _nspopen("bench"))
    bench.at_most(
        "enter and run / run without namespaces", "enter(...).run(args)", "run(args) without namespaces", 1.10
    )


# ----------------------------------------------------- the parent's memory

_SIZES = (10, 1024, 4096)  # MB
_memory: list[mmap.mmap] = []


def _size_name(megabytes: int) -> str:
    return f"{megabytes} MB" if megabytes < 1024 else f"{megabytes // 1024} GB"


def fill_memory(megabytes: int) -> None:
    """Make this process that much larger, every page written."""
    memory = mmap.mmap(-1, megabytes << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # as in processes that grew slowly
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, megabytes << 20, mmap.PAGESIZE):
        memory[at] = 1
    _memory.append(memory)


def available_memory() -> int:
    """MB that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) >> 10


@row("parent", "/bin/true in a new UTS namespace, by the size of the parent", weight=1.5)
def parent(bench: Bench) -> None:
    sizes = [size for size in _SIZES if size < available_memory() // 2]
    names = {
        "run": "run(args, new=UTS)",
        "floor": FLOOR,
        "subprocess": "subprocess.run, no namespace",
        "preexec": "subprocess.run with preexec_fn",
    }
    for size in sizes:

        def set_up(megabytes: int = size) -> dict[str, Batch]:
            fill_memory(megabytes)
            return {
                "floor": partial(bench.floors.spawn, TRUE, UTS, 0, -1),
                "run": _own([TRUE], new=UTS),
                "subprocess": loop(lambda: subprocess.run([TRUE], check=False)),
                "preexec": preexec(),
            }

        remote = Remote(set_up)
        bench.stack.callback(remote.close)
        where = _size_name(size)
        bench.floor(f"{names['floor']}, {where}", remote.batch("floor"))
        bench.own(f"{names['run']}, {where}", remote.batch("run"))
        for key in ("subprocess", "preexec"):
            bench.peer(f"{names[key]}, {where}", partial(remote.batch, key))
    if sizes[-1] != _SIZES[-1]:
        bench.notes.append(f"a parent of {_size_name(_SIZES[-1])} needs twice as much free memory")
    for size in sizes[1:]:
        first, last = (f"{names['run']}, {_size_name(each)}" for each in (sizes[0], size))
        bench.at_most(f"{_size_name(size)} / {_size_name(sizes[0])}", last, first, 1.15)
