"""From a recipe to typed steps for the C executor.

A plan is made of ``(op, args, out, tolerate)`` tuples; src/steps.c has the
table of ops.  Every step has a label and an object, so that a failure can say
what was being done, and to what.
"""

from __future__ import annotations

import os

from . import _ns
from ._errors import step_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, TypeAlias

    class HasFileno(Protocol):
        def fileno(self) -> int: ...

    Slot: TypeAlias = tuple[int]
    Argument: TypeAlias = int | bytes | Slot | tuple[bytes, ...] | list[int] | None


AT_FDCWD = -100
_OFFSETS = "/proc/self/timens_offsets"


class Slots:
    """What the steps of one run share: values, preset or results, and what it is all about.

    ``context`` has the names of the recipe's types and "child" for what a child
    runs, "thread" for what a thread does, "name" for a name: the doctor's hints
    depend on it.
    """

    def __init__(self, context: tuple[str, ...] = ()) -> None:
        self.presets: list[int | HasFileno] = []
        self.context = context

    def new(self) -> Slot:
        """A slot that a step will fill."""
        return self.preset(-1)

    def preset(self, value: int | HasFileno) -> Slot:
        """A slot that holds a descriptor before the first step."""
        if len(self.presets) == _ns.RUN_SLOTS:
            raise ValueError(f"this recipe needs more than {_ns.RUN_SLOTS} descriptors at once")
        self.presets.append(value)
        return (len(self.presets) - 1,)


class Steps:
    """A compiled plan with the labels that its failures are reported under."""

    __slots__ = ("labels", "plan", "slots")

    def __init__(self, plan: _ns.Plan, labels: list[tuple[str, str | None]], slots: Slots) -> None:
        self.plan = plan
        self.labels = labels
        self.slots = slots

    def __len__(self) -> int:
        return len(self.labels)

    def error(self, step: int, errno: int) -> OSError:
        """The OSError for the step of that index."""
        label, filename = self.labels[step]
        return step_error(errno, label, filename, self.slots.context)

    def run(self) -> None:
        """Run on the calling thread; OSError names the step that failed."""
        failure = _ns.run_plan(self.plan, self.slots.presets)
        if failure is not None:
            raise self.error(*failure)


class PlanBuilder:
    """Collects steps; ``build()`` hands them to C."""

    def __init__(self, slots: Slots | None = None) -> None:
        self.slots = slots or Slots()
        self._steps: list[tuple[str, tuple[Argument, ...], int, int]] = []
        self._labels: list[tuple[str, str | None]] = []

    def add(
        self,
        op: str,
        *args: Argument,
        label: str,
        filename: str | None = None,
        out: Slot | None = None,
        ok: int = 0,
    ) -> None:
        """Append a step; ``ok`` is an errno that counts as success, -1 any."""
        self._steps.append((op, args, out[0] if out else -1, ok))
        self._labels.append((label, filename))

    def slot(self) -> Slot:
        """A new slot for ``out=`` and for arguments of later steps."""
        return self.slots.new()

    def keep(self, value: int | HasFileno) -> Slot:
        """A slot that holds the descriptor of ``value`` from the start."""
        return self.slots.preset(value)

    def __len__(self) -> int:
        return len(self._steps)

    def build(self) -> Steps:
        """The finished plan; the builder may be used on."""
        return Steps(_ns.Plan(self._steps), list(self._labels), self.slots)


def pairs(items: Sequence[tuple[Slot, int]]) -> list[int]:
    """The argument of the ``join`` step: slot and flags of each target."""
    return [number for slot, flags in items for number in (slot[0], flags)]


def open_offsets(builder: PlanBuilder) -> Slot:
    """Open the clock offsets of a TIME namespace that the thread is to make, or has made."""
    opened = builder.slot()
    builder.add("open_offsets", label="open the clock offsets", filename=_OFFSETS, out=opened)
    return opened


def write_offsets(builder: PlanBuilder, offsets: dict[str, tuple[int, int]], opened: Slot) -> None:
    """Set and close them: seconds and nanoseconds of each clock."""
    lines = [f"{clock} {seconds} {rest}" for clock, (seconds, rest) in offsets.items()]
    text = "".join(f"{line}\n" for line in lines).encode()
    label = "set clock offsets: " + ", ".join(lines)
    builder.add("write", opened, text, len(text), label=label, filename=_OFFSETS)
    builder.add("close", opened, label=label, filename=_OFFSETS)


def close_all(fds: list[int], close: Callable[[int], None] = os.close) -> None:
    """Close descriptors where nothing may be left undone.

    close(2) lets go of a descriptor whatever it returns; its errors are about
    data that was written, and there is none.  The default is what a dying
    interpreter still has.
    """
    while fds:
        try:
            close(fds.pop())
        except OSError:
            pass
