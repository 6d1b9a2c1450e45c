"""Measuring several methods side by side.

Every round runs one batch of each method, in an order that is shuffled anew;
what disturbs the machine for a while then disturbs all of them.  Before the
first round each method is warmed up, and its batch made long enough for the
clock.  A slow method takes part in some of the rounds only.

A ratio of two methods is the median of their ratios in each round that both
took part in: what slows a whole round down does not show in it.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Any

from floors import Floors
from peers import Skip

Batch = Callable[[int], float]  # so many operations; the nanoseconds they took
Samples = dict[int, float]  # for each operation, by round

BATCH_NS = 2_000_000
MOST_PER_BATCH = 1000
FEWEST_ROUNDS = 5
FLOOR, OWN, PEER = "floor", "nsutil", "peer"


@dataclass
class Method:
    """One way to do it, and what was measured: nanoseconds for each operation."""

    name: str
    kind: str
    batch: Batch
    pause: float = 0.0
    count: int = 1
    stride: int = 1
    samples: Samples = field(default_factory=dict)

    def warm_up(self) -> None:
        """Run it a few times and see how long a batch must be."""
        self.batch(1)
        time.sleep(self.pause)
        cost = max(1.0, min(self.batch(1), self.batch(1)))
        self.count = max(1, min(MOST_PER_BATCH, int(BATCH_NS / cost)))
        self.stride = max(1, round(cost * self.count / (5 * BATCH_NS)))

    def measure(self, number: int) -> None:
        """The sample of a round, after an operation that is not timed: a fork by the method
        before it write-protects our pages, and who comes next would pay for that."""
        self.batch(1)
        self.samples[number] = self.batch(self.count) / self.count
        if self.pause:
            time.sleep(self.pause)


@dataclass
class Check:
    """A target and what was reached."""

    what: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def ok(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass
class Figures:
    """What came of a method; ``ratio``: to the first floor of the row."""

    name: str
    kind: str
    median: float
    least: float
    low: float
    high: float
    samples: int
    ratio: float | None = None


def loop(operation: Callable[[], object]) -> Batch:
    """A batch that calls a function."""

    def batch(count: int) -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, count):
            operation()
        return time.perf_counter_ns() - start

    return batch


def with_loop(box: Any) -> Batch:
    """A batch of blocks of one object."""

    def batch(count: int) -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, count):
            with box:
                pass
        return time.perf_counter_ns() - start

    return batch


def with_new_loop(make: Callable[[], Any]) -> Batch:
    """A batch of blocks, the object made anew for each."""

    def batch(count: int) -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, count):
            with make():
                pass
        return time.perf_counter_ns() - start

    return batch


class Bench:
    """One row: its methods, targets and figures.

    ``seconds``: the time to spend.  ``quick``: fewer of what takes long.
    """

    def __init__(self, key: str, title: str, unit: str, seconds: float, quick: bool) -> None:
        self.key, self.title, self.unit = key, title, unit
        self.seconds, self.quick = seconds, quick
        self.floors = Floors()
        self.stack = ExitStack()
        self.skipped: dict[str, str] = {}
        self.notes: list[str] = []
        self.methods: list[Method] = []
        self.checks: list[Check] = []
        self._recorded: list[Method] = []
        self._wanted: list[tuple[str, str, str, float, bool]] = []
        self._differences: list[tuple[str, str, str, float]] = []

    # ------------------------------------------------------------- declaring

    def floor(self, name: str, batch: Batch, pause: float = 0.0) -> None:
        """The C way; everything is given as a multiple of the first one."""
        self.methods.append(Method(name, FLOOR, batch, pause))

    def own(self, name: str, batch: Batch, pause: float = 0.0) -> None:
        """nsutil's way."""
        self.methods.append(Method(name, OWN, batch, pause))

    def peer(self, name: str, make: Callable[[], Batch], pause: float = 0.0) -> None:
        """Somebody else's way; left out, with the reason, where it does not work here."""
        try:
            batch = make()
            batch(1)
        except Exception as error:  # a peer can fail in any way
            self.skip(name, error)
        else:
            self.methods.append(Method(name, PEER, batch, pause))

    def skip(self, name: str, error: Exception) -> None:
        """Remember why a method is missing."""
        text = str(error) if isinstance(error, Skip) else f"fails: {type(error).__name__}: {error}"
        self.skipped[name] = text.splitlines()[0][:160]

    def at_most(self, what: str, name: str, against: str, limit: float) -> None:
        """The target: name / against <= limit."""
        self._wanted.append((what, name, against, limit, True))

    def at_least(self, what: str, name: str, against: str, limit: float) -> None:
        """The target: name / against >= limit."""
        self._wanted.append((what, name, against, limit, False))

    def difference_at_most(self, what: str, name: str, against: str, limit: float) -> None:
        """The target: name - against <= limit, in nanoseconds."""
        self._differences.append((what, name, against, limit))

    def value(self, what: str, value: float, limit: float, at_most: bool = True) -> None:
        """A target for a figure that is not a ratio of two medians."""
        self.checks.append(Check(what, value, limit, at_most))

    def record(self, name: str, kind: str, samples: Samples) -> None:
        """Figures that were measured by other means."""
        if samples:
            self._recorded.append(Method(name, kind, _never, samples=samples))

    # ------------------------------------------------------------- measuring

    def run(self) -> None:
        """Measure all methods for the row's time, and see about the targets."""
        try:
            for method in self.methods:
                method.warm_up()
            if self.methods:
                self._rounds()
        finally:
            self.stack.close()
        by_name = {method.name: method.samples for method in (*self.methods, *self._recorded)}
        for what, name, against, limit, most in self._wanted:
            if name in by_name and against in by_name:
                self.checks.append(Check(what, _ratio(by_name[name], by_name[against]), limit, most))
        for what, name, against, limit in self._differences:
            value = statistics.median(by_name[name].values()) - statistics.median(by_name[against].values())
            self.checks.append(Check(what, value, limit))

    def _rounds(self) -> None:
        end = time.monotonic() + self.seconds
        order = list(self.methods)
        number = 0
        gc.collect()
        gc.disable()
        while number < FEWEST_ROUNDS or time.monotonic() < end:
            random.shuffle(order)
            for method in order:
                if number % method.stride == 0 or number < FEWEST_ROUNDS:
                    method.measure(number)
            number += 1
            if number % 64 == 0:
                gc.collect()
        gc.enable()

    def result(self) -> dict[str, Any]:
        """For JSON."""
        methods = [method for method in (*self.methods, *self._recorded) if method.samples]
        floor = next((method for method in methods if method.kind == FLOOR), None)
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "methods": [asdict(_figures(method, floor)) for method in methods],
            "checks": [{**asdict(check), "ok": check.ok} for check in self.checks],
            "skipped": self.skipped,
            "notes": self.notes,
        }


def _figures(method: Method, floor: Method | None) -> Figures:
    values = list(method.samples.values())
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    ratio = _ratio(method.samples, floor.samples) if floor else None
    return Figures(method.name, method.kind, middle, min(values), low, high, len(values), ratio)


def _ratio(samples: Samples, against: Samples) -> float:
    """The median of the ratios in each round; without common rounds, of the medians."""
    common = samples.keys() & against.keys()
    if common:
        return statistics.median(samples[number] / against[number] for number in common)
    return statistics.median(samples.values()) / statistics.median(against.values())


def _never(count: int) -> float:
    raise AssertionError(f"no batch of {count} is measured here")


class Remote:
    """Methods that run in another process, which waits for one batch after the other.

    ``fork`` makes it; ``set_up`` runs there and returns the methods by name.
    """

    def __init__(self, set_up: Callable[[], dict[str, Batch]], fork: Callable[[], int] = os.fork) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            os.close(self._commands)
            os.close(self._answers)
            self._serve(set_up, commands, answers)
        os.close(commands)
        os.close(answers)
        self._reader = open(self._answers)  # noqa: SIM115 - closed by close()
        text = self._reader.readline()
        if text != "ready\n":
            raise RuntimeError(f"the other process could not be set up: {text}")

    def _serve(self, set_up: Callable[[], dict[str, Batch]], commands: int, answers: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = 1
        try:
            methods = set_up()
            os.write(answers, b"ready\n")
            with open(commands) as reader:
                for line in reader:
                    name, _, count = line.rpartition(" ")
                    os.write(answers, f"{methods[name](int(count))}\n".encode())
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os.write(answers, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)

    def batch(self, name: str) -> Batch:
        """One of its methods, to be called from here."""

        def run(count: int) -> float:
            os.write(self._commands, f"{name} {count}\n".encode())
            answer = self._reader.readline()
            try:
                return float(answer)
            except ValueError:
                raise RuntimeError(answer.strip() or "the other process ended") from None

        return run

    def close(self) -> None:
        """Let it end."""
        os.close(self._commands)
        self._reader.close()
        os.waitpid(self.pid, 0)
