"""The id maps of ``unshare --map-users`` and its kin: their spellings, and how they combine."""

from __future__ import annotations

from .._idmap import IdMap, current_map, subordinate
from ._args import CommandError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def ranges(texts: Sequence[str], which: str) -> list[IdMap]:
    """The ranges that the option values stand for, in their order.

    ``auto``: the first block of subordinate ids, from 0 up; ``subids``: that
    block as itself; ``all``: every id there is; else INNER:OUTER:COUNT, or
    OUTER,INNER,COUNT as before util-linux 2.39; with a COUNT of 0 it stands
    for nothing.
    """
    found: list[IdMap] = []
    for text in texts:
        found += _word(text, which) or _range(text)
    return found


def _word(text: str, which: str) -> list[IdMap]:
    if text == "all":
        return [IdMap(entry.inside, entry.inside, entry.count) for entry in current_map(which)]
    if text in ("auto", "subids"):
        start, count = subordinate(which)[0]
        return [IdMap(0 if text == "auto" else start, start, count)]
    return []


def _range(text: str) -> list[IdMap]:
    colons, commas = text.split(":"), text.split(",")
    numbers = colons if len(colons) == 3 else [commas[1], commas[0], commas[2]] if len(commas) == 3 else []
    if not all(n.isascii() and n.isdigit() for n in numbers) or not numbers:
        raise UsageError(f"could not parse ID: '{text}' (INNER:OUTER:COUNT, auto, subids or all)")
    if int(numbers[2]) == 0:
        return []
    try:
        return [IdMap(*map(int, numbers))]
    except ValueError as e:
        raise CommandError(str(e)) from None


def with_hole(maps: Sequence[IdMap], single: IdMap) -> tuple[IdMap, ...]:
    """The ranges around a single id that is mapped by itself, which comes first.

    Its two numbers are taken out of either side of each range and what is left
    is paired again in order; a number that has lost its partner, at the upper
    end, is not mapped.
    """
    return (single, *(piece for entry in maps for piece in _pieces(entry, single)))


def _pieces(entry: IdMap, single: IdMap) -> Iterator[IdMap]:
    insides = _without(entry.inside, entry.count, single.inside)
    outsides = _without(entry.outside, entry.count, single.outside)
    while insides and outsides:
        (inside, room), (outside, length) = insides.pop(), outsides.pop()
        count = min(room, length)
        yield IdMap(inside, outside, count)
        if room > count:
            insides.append((inside + count, room - count))
        if length > count:
            outsides.append((outside + count, length - count))


def _without(start: int, count: int, hole: int) -> list[tuple[int, int]]:
    """What is left of a range without one number, the lowest part last."""
    if not start <= hole < start + count:
        return [(start, count)]
    parts = [(hole + 1, start + count - hole - 1), (start, hole - start)]
    return [part for part in parts if part[1]]
