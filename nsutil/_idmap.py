"""Id maps of user namespaces: what a recipe says, what that means here and now, and who may write it.

A map option is stored as one of WORDS or as a tuple of words and IdMap; which
ids the words stand for is found out when a child is made.
"""

from __future__ import annotations

import errno
import os
import re
from itertools import pairwise

from ._errors import step_error
from ._privilege import has_capability
from ._status import kernels_own
from ._value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from ._plan import Slots, Steps

    Entry: TypeAlias = "IdMap | str"
    Spec: TypeAlias = str | tuple[Entry, ...]

WORDS = ("root", "current", "auto", "subids", "all", "none")
_EXPECTED = f'{", ".join(WORDS)}, "inside:outside:count", an IdMap, or a list of these'

# The kernel keeps 340 extents and takes less than a page at once (user_namespaces(7)).
MOST_ENTRIES, MOST_BYTES = 340, 4095
# 4294967295 is (uid_t) -1, which is no id.
_IDS = 2**32 - 1
_CAPABILITY = {"uid": 7, "gid": 6}  # CAP_SETUID, CAP_SETGID


class IdMap(Value):
    """Ids ``outside`` and following appear as ``inside`` and following, ``count`` of them.

    All are ints from 0 to 4294967294.  Raises TypeError for other types,
    ValueError for a range that is empty or too large.  Linux 3.8.  Source:
    user_namespaces(7).
    """

    __slots__ = ("inside", "outside", "count")  # noqa: RUF023 - the order of __init__
    inside: int
    outside: int
    count: int

    def __init__(self, inside: int, outside: int, count: int = 1) -> None:
        for name, value in ("inside", inside), ("outside", outside), ("count", count):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"IdMap: {name} must be an int, not {value!r}")
        if count < 1:
            raise ValueError(f"IdMap({inside}, {outside}, {count}): count must be at least 1")
        for name, value in ("inside", inside), ("outside", outside):
            if value < 0 or value + count > _IDS:
                raise ValueError(f"IdMap({inside}, {outside}, {count}): {name} ids must be within 0 to {_IDS - 1}")
        self._set(int(inside), int(outside), int(count))

    @property
    def line(self) -> str:
        """As in /proc/PID/uid_map."""
        return f"{self.inside} {self.outside} {self.count}"


# ------------------------------------------------------------ what is said


def parse_map(value: object, which: str) -> Spec:
    """The stored form of the option ``uid_map`` or ``gid_map`` (``which`` is "uid" or "gid").

    Raises TypeError, or ValueError that names the entry which is wrong.
    """
    name = f"{which}_map"
    entries = tuple(_entries(name, value))
    if not entries:
        raise ValueError(f'{name} holds no entry; say "none" to leave all ids unmapped')
    words = [entry for entry in entries if isinstance(entry, str)]
    if len(entries) > 1 and "none" in words:
        raise ValueError(f'{name}: "none" contradicts the other entries of {value!r}')
    check_entries(name, [entry for entry in entries if isinstance(entry, IdMap)])
    return words[0] if len(entries) == 1 and words else entries


def _entries(name: str, value: object) -> Iterator[Entry]:
    if isinstance(value, IdMap):
        yield value
    elif isinstance(value, str):
        yield from _from_text(name, value)
    elif isinstance(value, tuple) and value and all(isinstance(item, int) for item in value):
        yield _from_numbers(name, value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _entries(name, item)
    else:
        raise TypeError(f"{name} must be {_EXPECTED}, not {value!r}")


def _from_numbers(name: str, value: tuple[int, ...]) -> IdMap:
    if len(value) not in (2, 3):
        raise ValueError(f"{name}: a range is (inside, outside, count), not {value!r}")
    return IdMap(*value)


def _from_text(name: str, text: str) -> Iterator[Entry]:
    """unshare(1)'s spellings: words, inside:outside:count, and the old outside,inside,count."""
    if re.fullmatch(r"\d+,\d+,\d+", text, re.ASCII):
        outside, inside, count = map(int, text.split(","))
        yield IdMap(inside, outside, count)
        return
    for part in re.split(r"[,\s]+", text.strip()):
        if re.fullmatch(r"\d+:\d+:\d+", part, re.ASCII):
            yield IdMap(*map(int, part.split(":")))
        elif part in WORDS:
            yield part
        else:
            raise ValueError(f"{name}: {part!r} in {text!r} is none of {_EXPECTED}")


def check_entries(name: str, maps: Sequence[IdMap]) -> None:
    """What the kernel would answer with a bare EINVAL: ValueError that names the entries."""
    if len(maps) > MOST_ENTRIES:
        raise ValueError(
            f"{name} may have {MOST_ENTRIES} entries, not {len(maps)}; the first too many is {maps[340]!r}"
        )
    size = len(text_of(maps))
    if size > MOST_BYTES:
        raise ValueError(f"{name} may have {MOST_BYTES} bytes as text, these {len(maps)} entries have {size}")
    for side in ("inside", "outside"):
        ordered = sorted(maps, key=lambda entry: getattr(entry, side))
        for one, two in pairwise(ordered):
            if getattr(one, side) + one.count > getattr(two, side):
                raise ValueError(f"{name}: {one!r} and {two!r} overlap {side}")


def text_of(maps: Sequence[IdMap]) -> str:
    """The content of /proc/PID/uid_map."""
    return "".join(f"{entry.line}\n" for entry in maps)


def chosen(uid_map: Spec | None, gid_map: Spec | None) -> tuple[Spec, Spec]:
    """Both maps with their defaults: "current", and for ``gid_map`` what ``uid_map`` is, if that has no ranges."""
    uid = "current" if uid_map is None else uid_map
    if gid_map is None:
        gid_map = "current" if any(isinstance(entry, IdMap) for entry in uid) else uid
    return uid, gid_map


def needs_deny(uid_map: Spec | None, gid_map: Spec | None) -> bool:
    """Will the gid map be one that the child writes itself, which takes setgroups "deny"?"""
    return all(spec in ("root", "current") for spec in chosen(uid_map, gid_map))


# ---------------------------------------------------- what it means just now


def resolve(spec: Spec, which: str, own: int | None = None, uid: int | None = None) -> tuple[IdMap, ...]:
    """The ranges that a stored map stands for at this moment.

    ``own``: the id that "root" and "current" mean (default: the effective id of
    this process).  ``uid``: whose subordinate ids "auto" and "subids" take.

    root: own as 0.  current: own as itself.  auto: the subordinate ids from 0
    up, around the ids that other entries map; alone it maps own to 0 first.
    subids: own and the subordinate ids as themselves.  all: every id of this
    user namespace as itself.  none: nothing.

    Raises OSError where there are no subordinate ids, ValueError for entries
    that overlap.
    """
    entries = (spec,) if isinstance(spec, str) else spec
    mine = _own_id(which) if own is None else own
    maps = [entry for entry in entries if isinstance(entry, IdMap)]
    simple = {"root": [IdMap(0, mine)], "current": [IdMap(mine, mine)]}
    for word in entries:
        if isinstance(word, str):
            maps += simple.get(word, ())
    if "all" in entries:
        maps += [IdMap(entry.inside, entry.inside, entry.count) for entry in current_map(which)]
    if "subids" in entries:
        ranges = subordinate(which, uid)
        maps += [IdMap(start, start, count) for start, count in ranges]
        maps += [] if _covered(maps, mine) else simple["current"]
    if "auto" in entries:
        ranges = subordinate(which, uid)
        maps += simple["root"] if len(entries) == 1 else ()
        maps += fill(ranges, maps)
    result = tuple(dict.fromkeys(sorted(maps, key=lambda entry: entry.inside)))
    check_entries(f"{which}_map", result)
    return result


def _own_id(which: str) -> int:
    return os.geteuid() if which == "uid" else os.getegid()


def _covered(maps: Sequence[IdMap], outside: int) -> bool:
    return any(entry.outside <= outside < entry.outside + entry.count for entry in maps)


def fill(ranges: Sequence[tuple[int, int]], taken: Sequence[IdMap]) -> list[IdMap]:
    """Map outer ranges (start, count) to the lowest inner ids that are free."""
    result: list[IdMap] = []
    free = _gaps(taken)
    inside, room = next(free)
    for first, length in ranges:
        start, count = first, length
        while count > 0 and room > 0:
            fits = min(count, room)
            result.append(IdMap(inside, start, fits))
            inside, room, start, count = inside + fits, room - fits, start + fits, count - fits
            if not room:
                inside, room = next(free, (0, 0))
    return result


def _gaps(taken: Sequence[IdMap]) -> Iterator[tuple[int, int]]:
    """The (start, count) of inner ids that are not taken, from 0 up."""
    start = 0
    for entry in sorted(taken, key=lambda entry: entry.inside):
        if entry.inside > start:
            yield start, entry.inside - start
        start = max(start, entry.inside + entry.count)
    yield start, _IDS - start


def current_map(which: str) -> list[IdMap]:
    """The map of the user namespace that this process is in."""
    with open(f"/proc/self/{which}_map", opener=kernels_own) as file:
        return [IdMap(*map(int, line.split())) for line in file]


def subordinate(which: str, uid: int | None = None) -> list[tuple[int, int]]:
    """The (start, count) of a user's lines in /etc/subuid, or /etc/subgid, which names users too.

    Lines that make no sense or overlap an earlier one are passed over, as
    newuidmap(1) does.  Raises PermissionError when none is left.
    """
    uid = os.geteuid() if uid is None else uid
    path, owners = f"/etc/sub{which}", _names(uid)
    found: list[tuple[int, int]] = []
    for start, count in _ranges(path, owners):
        if all(start + count <= other or other + n <= start for other, n in found):
            found.append((start, count))
    if not found:
        raise step_error(errno.EPERM, f"find the subordinate ids of {owners[0]} in {path}", path)
    return found


def _names(uid: int) -> tuple[str, ...]:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)


def _ranges(path: str, owners: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The valid ranges of these owners, in the order of the file."""
    try:
        with open(path, errors="surrogateescape", newline="\n") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return
    for line in lines:
        owner, _, rest = line.partition(":")
        found = re.fullmatch(r"(\d{1,10}):(\d{1,10})\s*", rest, re.ASCII)
        if owner in owners and found:
            start, count = int(found[1]), int(found[2])
            if count > 0 and start + count <= _IDS:
                yield start, count


# ------------------------------------------------------------ who writes it


class MapWriter:
    """How the maps of one child get written.

    ``self_write``: steps for the child, where the kernel lets it write them: a
    single id each, its own, after "deny" to setgroups.  Else None, and
    ``writer(pid)`` is called here while the child waits.  ``adopt_root``: the
    child's own id is not mapped but 0 is, so that it has to become root to be
    anybody: without an id it could make no file.
    """

    __slots__ = ("adopt_root", "gid", "self_write", "setgroups", "uid")

    def __init__(self, uid: tuple[IdMap, ...], gid: tuple[IdMap, ...], setgroups: str | None, own: int) -> None:
        self.adopt_root = not _covered(uid, own) and any(entry.inside == 0 for entry in uid)
        self.uid = uid
        self.gid = gid
        self.setgroups = setgroups
        self.self_write: Steps | None = None

    def writer(self, pid: int) -> None:
        """Write the maps of the child ``pid``, which must not have been waited for.

        Directly where this thread may, else with newuidmap(1) and newgidmap(1).
        OSError says which map failed and, where a program did it, what it said.
        """
        if self.setgroups == "deny":
            _write(pid, "setgroups", "deny")
        self._write_map(pid, "uid", self.uid)
        self._write_map(pid, "gid", self.gid)
        if self.setgroups == "allow":
            _write(pid, "setgroups", "allow")

    def _write_map(self, pid: int, which: str, maps: tuple[IdMap, ...]) -> None:
        if not maps:
            return
        alone = which == "uid" or self.setgroups == "deny"
        if has_capability(_CAPABILITY[which]) or (alone and _is_own(maps, _own_id(which))):
            _write(pid, f"{which}_map", text_of(maps))
        else:
            run_helper(pid, which, maps)


def map_writer(
    uid_map: Spec | None,
    gid_map: Spec | None,
    setgroups: str | None,
    slots: Slots,
    owner: tuple[int, int] | None = None,
) -> MapWriter | None:
    """How to write the maps of a recipe for a child made now; None when nothing is to be written.

    ``owner``: the (uid, gid) that the child takes before it makes the
    namespace; they are then its own ids, and its maps are written from here.
    """
    uid_spec, gid_spec = chosen(uid_map, gid_map)
    own = owner or (os.geteuid(), os.getegid())
    uid = resolve(uid_spec, "uid", own[0], own[0])
    gid = resolve(gid_spec, "gid", own[1], own[0])
    if not (uid or gid or setgroups):
        return None
    result = MapWriter(uid, gid, setgroups, own[0])
    alone = _is_own(uid, own[0]) and _is_own(gid, own[1]) and setgroups != "allow"
    if alone and owner is None:
        result.self_write = _self_write(result, slots)
    return result


def _is_own(maps: tuple[IdMap, ...], own: int) -> bool:
    """Nothing, or what an unprivileged process may map: its own id."""
    return not maps or (len(maps) == 1 and maps[0].count == 1 and maps[0].outside == own)


def _self_write(maps: MapWriter, slots: Slots) -> Steps:
    from ._plan import PlanBuilder

    builder = PlanBuilder(slots)
    if maps.gid or maps.setgroups:
        _add_write(builder.add, "self", "setgroups", "deny")
    for which, entries in ("uid", maps.uid), ("gid", maps.gid):
        if entries:
            _add_write(builder.add, "self", f"{which}_map", text_of(entries))
    return builder.build()


def _add_write(add: Callable[..., None], pid: int | str, name: str, text: str) -> None:
    path, data = f"/proc/{pid}/{name}", text.encode()
    add("write_proc", path.encode(), data, len(data), label=f"write {text.strip()!r} to {name}", filename=path)


def _write(pid: int, name: str, text: str) -> None:
    from ._plan import PlanBuilder

    builder = PlanBuilder()
    _add_write(builder.add, pid, name, text)
    builder.build().run()


def run_helper(pid: int, which: str, maps: Sequence[IdMap]) -> None:
    """newuidmap(1) or newgidmap(1); OSError quotes what it says."""
    import shutil
    import subprocess

    name = f"new{which}map"
    program = shutil.which(name)
    if program is None:
        raise step_error(errno.ENOENT, f"run {name}", name)
    ids = [str(number) for entry in maps for number in entry._values()]
    command, pipe = [program, str(pid), *ids], subprocess.PIPE
    # With DEVNULL the subprocess of Python 3.11.2 leaves that open where it can make no pipe.
    with open(os.devnull, "r+b", buffering=0) as nothing:
        done = subprocess.run(command, stdin=nothing, stdout=nothing, stderr=pipe, check=False)
    if done.returncode != 0 or not _is_written(pid, which):
        said = " ".join(os.fsdecode(done.stderr).split()) or f"exit status {done.returncode}"
        raise step_error(errno.EPERM, f"{name} {' '.join(ids)}: {said}", f"/proc/{pid}/{which}_map")


def _is_written(pid: int, which: str) -> bool:
    """Where SIGCHLD is ignored the exit status of newuidmap is lost: what counts is the map."""
    try:
        with open(f"/proc/{pid}/{which}_map", opener=kernels_own) as file:
            return bool(file.read())
    except FileNotFoundError:
        return False
