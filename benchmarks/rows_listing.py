"""All namespaces of a machine: ``snapshot``."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from typing import Any

import peers
from floors import program
from measure import Batch, Bench, Remote, loop
from rows import row

import nsutil
from nsutil import MNT, PID, snapshot

IDS = {"tasks": False, "fds": False, "sockets": False, "mounts": False}
FLOOR = "C: getdents, 8 readlinks a process"
SNAPSHOT, FULL = "snapshot, ids only", "snapshot with command and owner"
_TYPES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


def _with_names() -> None:
    for info in snapshot(**IDS).namespaces:
        info.command  # noqa: B018 - read when asked for
        info.owner  # noqa: B018


def _in_python() -> None:
    found: dict[str, list[int]] = {}
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                for name in _TYPES:
                    found.setdefault(os.readlink(f"/proc/{pid}/ns/{name}"), []).append(int(pid))
            except OSError:
                continue


def _set_up(bench: Bench, processes: int) -> dict[str, Batch]:
    """A PID namespace of its own with so many sleeping processes, each in UTS and IPC namespaces of its own."""
    for args in (["mount", "--make-rprivate", "/"], ["mount", "-t", "proc", "proc", "/proc"]):
        subprocess.run(args, check=True)
    sleepers: Any = subprocess.Popen(
        [program("sleepers"), str(processes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if sleepers.stdout.readline() != "ready\n":
        raise OSError(f"no {processes} processes can be had here")
    methods = {
        FLOOR: bench.floors.scan,
        SNAPSHOT: loop(lambda: snapshot(**IDS)),
        FULL: loop(_with_names),
        "os.readlink in Python": loop(_in_python),
    }
    try:
        args = [peers.command("lsns"), "-o", "NS,TYPE,NPROCS,PID,USER,COMMAND"]
        methods["lsns(8)"] = loop(lambda: subprocess.run(args, stdout=subprocess.DEVNULL, check=True))
    except peers.Skip as error:
        bench.skip("lsns(8)", error)
    return methods


@row("snapshot", "all namespaces, by the number of processes", unit="ms", weight=2)
def listing(bench: Bench) -> None:
    counts = (200, 4000) if bench.quick else (200, 1000, 2000, 4000)
    for count in counts:
        fork = partial(nsutil.clone, int(PID | MNT))
        remote = Remote(partial(_set_up, bench, count), fork)
        bench.stack.callback(remote.close)
        bench.floor(f"{FLOOR}, {count}", remote.batch(FLOOR))
        bench.own(f"{SNAPSHOT}, {count}", remote.batch(SNAPSHOT))
        bench.own(f"{FULL}, {count}", remote.batch(FULL))
        for name in ("os.readlink in Python", "lsns(8)"):
            bench.peer(f"{name}, {count}", partial(remote.batch, name))
    few, many = counts[0], counts[-1]
    for count in (few, many):
        bench.at_most(f"ids only / floor at {count}", f"{SNAPSHOT}, {count}", f"{FLOOR}, {count}", 1.30)
    bench.at_least(f"lsns / with command and owner at {many}", f"lsns(8), {many}", f"{FULL}, {many}", 6)
    # For each process: the ratio of the totals by the ratio of the counts.
    bench.at_most(
        f"{many} / {few} (for each process: {1.25} times {many // few})",
        f"{SNAPSHOT}, {many}",
        f"{SNAPSHOT}, {few}",
        1.25 * many / few,
    )
