"""Named network namespaces: ``nsutil.named``."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import peers
from measure import FLOOR, OWN, PEER, Bench, Samples
from rows import row

from nsutil import named

_DIRECTORY = Path("/run/netns")


class _Way:
    """One way to make and delete the names 0 to count - 1."""

    def __init__(
        self, name: str, kind: str, create: Callable[[int], object], delete: dict[str, Callable[[int], object]]
    ) -> None:
        self.name, self.kind, self.create, self.delete = name, kind, create, delete
        self.creating: Samples = {}
        self.deleting: dict[str, Samples] = {key: {} for key in delete}

    def measure(self, number: int, count: int) -> None:
        """Make and delete them, once for each way to delete."""
        creating = 0.0
        for key, delete in self.delete.items():
            creating += _time(self.create, count) / len(self.delete)
            self.deleting[key][number] = _time(delete, count)
            settle()
        self.creating[number] = creating


def _time(function: Callable[[int], object], count: int) -> float:
    start = time.perf_counter_ns()
    function(count)
    return (time.perf_counter_ns() - start) / count


def settle() -> None:
    """Wait until the kernel has taken all namespaces down that were deleted before.

    It does so in order: the last of them has one end of a veth pair, whose
    other end goes with it.
    """
    commands = ["netns add settle", "link add settle0 type veth peer name settle1 netns settle", "netns del settle"]
    for line in commands:
        subprocess.run([peers.command("ip"), *line.split()], check=True)
    end = time.monotonic() + 60
    with suppress(OSError):
        while socket.if_nametoindex("settle0") and time.monotonic() < end:
            time.sleep(0.002)


def _own() -> _Way:
    def create(count: int) -> None:
        for i in range(count):
            named.create(str(i)).close()

    def one_by_one(count: int) -> None:
        for i in range(count):
            named.remove(str(i))

    def at_once(count: int) -> None:
        named.remove([str(i) for i in range(count)])

    return _Way("named.create", OWN, create, {"named.remove, one by one": one_by_one, "named.remove, all": at_once})


def _own_as_ip() -> _Way:
    """What ip-netns(8) does: lo stays down."""

    def create(count: int) -> None:
        for i in range(count):
            named.create(str(i), loopback=False).close()

    def delete(count: int) -> None:
        named.remove([str(i) for i in range(count)])

    return _Way("named.create, lo down", OWN, create, {"named.remove, all of these": delete})


def _ip() -> _Way:
    program = peers.command("ip")

    def each(verb: str) -> Callable[[int], None]:
        def run(count: int) -> None:
            for i in range(count):
                subprocess.run([program, "netns", verb, str(i)], check=True)

        return run

    return _Way("ip netns add", PEER, each("add"), {"ip netns delete": each("delete")})


def _ip_batch() -> _Way:
    program = peers.command("ip")

    def each(verb: str) -> Callable[[int], None]:
        def run(count: int) -> None:
            lines = "".join(f"netns {verb} {i}\n" for i in range(count))
            subprocess.run([program, "-batch", "-"], input=lines, text=True, check=True)

        return run

    return _Way("one ip -batch, add", PEER, each("add"), {"one ip -batch, delete": each("delete")})


def _pyroute2() -> _Way:
    netns: Any = peers.module("pyroute2.netns")

    def create(count: int) -> None:
        for i in range(count):
            netns.create(str(i))

    def delete(count: int) -> None:
        for i in range(count):
            netns.remove(str(i))

    return _Way("pyroute2.netns.create", PEER, create, {"pyroute2.netns.remove": delete})


def _floor(bench: Bench) -> _Way:
    def create(count: int) -> int:
        return bench.floors.names_create(str(_DIRECTORY), True, count)

    def delete(count: int) -> int:
        return bench.floors.names_delete(str(_DIRECTORY), count)

    return _Way("C: create, lo up", FLOOR, create, {"C: delete": delete})


def _measure(seconds: float, ways: list[_Way], count: int) -> None:
    """Rounds for that time; who takes much longer than the floor, which is the first, takes part in every eighth."""
    end = time.monotonic() + seconds
    floor, rounds = ways[0], 0
    while rounds < 2 or time.monotonic() < end:
        chosen = [way for way in ways if rounds % 8 == 0 or way.creating[0] < 2 * floor.creating[0]]
        for way in random.sample(chosen, len(chosen)):
            way.measure(rounds, count)
        rounds += 1


@row("names", "named NET namespaces, each", weight=4, private=True)
def names(bench: Bench) -> None:
    count = 100 if bench.quick else 1000
    named.create("first").close()  # makes the directory what ip-netns(8) makes it
    named.remove("first")
    ways = [_floor(bench), _own(), _own_as_ip()]
    for make in (_ip, _ip_batch, _pyroute2):
        try:
            ways.append(make())
            ways[-1].create(1)
            next(iter(ways[-1].delete.values()))(1)
        except Exception as error:  # a peer can fail in any way
            bench.skip(make.__name__.strip("_"), error)
    _measure(bench.seconds, ways, count)
    ways.sort(key=lambda way: (FLOOR, OWN, PEER).index(way.kind))
    for way in ways:
        bench.record(way.name, way.kind, way.creating)
    for way in ways:
        for key, samples in way.deleting.items():
            bench.record(key, way.kind, samples)
    bench.notes.append(f"{count} names at a time; ip and pyroute2 leave lo down")
    bench.at_most("create / floor", "named.create", "C: create, lo up", 1.10)
    bench.at_most("create, lo down / ip -batch", "named.create, lo down", "one ip -batch, add", 1.0)
    bench.at_least("remove one by one / all", "named.remove, one by one", "named.remove, all", 5)
