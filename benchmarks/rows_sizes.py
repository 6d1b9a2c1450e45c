"""What is no latency: throughput, memory, imports."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import peers
from measure import FLOOR, OWN, PEER, Batch, Bench, loop
from rows import row

from nsutil import MNT, PID, UTS, Namespace, run

TRUE = "/bin/true"
ROOT = Path(__file__).resolve().parent.parent


def _count_in_threads(spawn: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls for each second, from that many threads at once."""
    counts = [0] * threads
    until = time.monotonic() + seconds

    def work(index: int) -> None:
        while time.monotonic() < until:
            spawn()
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.monotonic() - start)


@row("threads", "programs started for each second, in a new UTS namespace", unit="/s", pinned=False)
def throughput(bench: Bench) -> None:
    if (os.cpu_count() or 1) < 2:
        bench.notes.append("not measured: one CPU only")
        return
    seconds = 0.4
    floors = bench.floors
    spawners: dict[str, tuple[str, Callable[[int], float]]] = {
        "C: clone, exec, wait": (
            FLOOR,
            lambda threads: floors.throughput(TRUE, UTS, threads, int(seconds * 1e9)) / seconds,
        ),
        "run(args, new=UTS)": (
            OWN,
            lambda threads: _count_in_threads(lambda: run([TRUE], new=UTS), threads, seconds),
        ),
        "subprocess.run, no namespace": (
            PEER,
            lambda threads: _count_in_threads(lambda: subprocess.run([TRUE], check=False), threads, seconds),
        ),
    }
    cases = [(name, threads) for name in spawners for threads in (1, 2)]
    samples: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    end = time.monotonic() + bench.seconds
    while time.monotonic() < end or len(samples[cases[0]]) < 3:
        for name, threads in random.sample(cases, len(cases)):
            samples[name, threads].append(spawners[name][1](threads))
    for name, threads in cases:
        bench.record(
            f"{name}, {threads} thread{'s' * (threads > 1)}", spawners[name][0], dict(enumerate(samples[name, threads]))
        )
    bench.at_least("2 threads / 1 thread", "run(args, new=UTS), 2 threads", "run(args, new=UTS), 1 thread", 1.8)


# ------------------------------------------------------------------ PID 1


def _pss(pid: int) -> float:
    """Proportional set size in bytes (smaps_rollup of proc(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1]) * 1024
    raise OSError(f"process {pid} has no Pss")


def _pss_of_pid_one(box: Namespace, args: list[str]) -> float:
    with box.popen(args, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        size = _pss(process.pid)
        process.kill()
    return size


@row("init", "memory of PID 1 (PSS)", unit="kB", weight=0.1)
def memory_of_init(bench: Bench) -> None:
    ready = ["/bin/sh", "-c", "echo ready; exec /bin/sleep 1000"]
    size = _pss_of_pid_one(Namespace(PID | MNT), ready)
    bench.record("nsutil's init", OWN, {0: size})
    for name in ("tini", "catatonit", "dumb-init"):
        try:
            args = [peers.command(name), "--", *ready]
            bench.record(name, PEER, {0: _pss_of_pid_one(Namespace(PID | MNT, init=False), args)})
        except Exception as error:  # a peer can fail in any way
            bench.skip(name, error)
    bench.value("kB of nsutil's init", size / 1024, 64)


# ----------------------------------------------------------------- import

BARE = "the bare interpreter"


def _import(module: str) -> Batch:
    """A new interpreter that imports it."""
    path = f"import sys; sys.path.append({peers.site()!r}); "
    args = [sys.executable, "-c", path + (f"import {module}" if module else "")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return loop(lambda: subprocess.run(args, check=True, env=environment, stderr=subprocess.DEVNULL))


@row("import", "a new interpreter that imports the package", unit="ms")
def importing(bench: Bench) -> None:
    bench.floor(BARE, _import(""))
    bench.own("import nsutil", _import("nsutil"))
    bench.own("from nsutil import run", _import("nsutil; nsutil.run"))
    for module in ("subprocess", "pyroute2.netns", "linuxnamespaces", "nsenter", "lxns.namespaces", "netns"):

        def make(module: str = module) -> Batch:
            if module != "subprocess":
                peers.module(module)
            return _import(module)

        bench.peer(f"import {module}", make)
    bench.difference_at_most("ms over the bare interpreter", "import nsutil", BARE, 15e6)
