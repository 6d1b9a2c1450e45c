"""The eight namespace types, and how a caller may name them."""

from __future__ import annotations

from enum import IntFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias, Union

    Types: TypeAlias = Union["NSType", int, str, "Iterable[NSType | int | str]"]


class NSType(IntFlag):
    """A namespace type or a set of types; the values are CLONE_NEW* of clone(2).

    ``str()`` of a single type is its name in /proc/PID/ns, of a set the names
    joined by ``|``.  Source: namespaces(7); TIME needs Linux 5.6, CGROUP 4.6.
    """

    CGROUP = 0x02000000
    IPC = 0x08000000
    MNT = 0x00020000
    NET = 0x40000000
    PID = 0x20000000
    TIME = 0x00000080
    USER = 0x10000000
    UTS = 0x04000000
    MOUNT = MNT
    ALL = CGROUP | IPC | MNT | NET | PID | TIME | USER | UTS

    def __str__(self) -> str:
        return "|".join(_NAME_OF[t] for t in each(self))


CGROUP = NSType.CGROUP
IPC = NSType.IPC
MNT = MOUNT = NSType.MNT
NET = NSType.NET
PID = NSType.PID
TIME = NSType.TIME
USER = NSType.USER
UTS = NSType.UTS
ALL = NSType.ALL

# The order is the one in which namespaces are listed: by name.
NAMES: dict[str, NSType] = {
    "cgroup": CGROUP,
    "ipc": IPC,
    "mnt": MNT,
    "net": NET,
    "pid": PID,
    "time": TIME,
    "user": USER,
    "uts": UTS,
}
_NAME_OF = {t: name for name, t in NAMES.items()}
_ALIASES = {"mount": MNT, "all": ALL}
_BITS = tuple((int(t), t) for t in NAMES.values())
_ALL_BITS = int(ALL)
_ALLOWED = ", ".join(NAMES)


def each(types: int) -> Iterator[NSType]:
    """The single types of a set, by name."""
    bits = int(types)  # an IntFlag's operators take ten times as long as an int's
    return (t for bit, t in _BITS if bits & bit)


def name_of(nstype: int) -> str:
    """The name of one type as in /proc/PID/ns."""
    return _NAME_OF[nstype]  # type: ignore[index]


def parse_types(types: Types) -> NSType:
    """The set that a flag, a name, or an iterable of either stands for.

    Raises ValueError for an unknown name or bit, TypeError for anything else.
    """
    if isinstance(types, bool):
        raise TypeError(f"namespace types must be flags or names, not {types!r}")
    if isinstance(types, int):
        return _from_int(types)
    if isinstance(types, str):
        return _from_name(types)
    try:
        items = list(types) if not isinstance(types, (bytes, bytearray)) else [types]
    except TypeError:
        raise TypeError(f"namespace types must be flags, names or an iterable of them, not {types!r}") from None
    result = NSType(0)
    for item in items:
        if not isinstance(item, (int, str)):
            raise TypeError(f"a namespace type must be a flag or a name, not {item!r}")
        result |= parse_types(item)
    return result


def parse_type(nstype: NSType | int | str) -> NSType:
    """Exactly one type; ValueError for none or several."""
    if not isinstance(nstype, (int, str)):
        raise TypeError(f"a namespace type must be a flag or a name, not {nstype!r}")
    result = parse_types(nstype)
    if result not in _NAME_OF:
        raise ValueError(f"exactly one namespace type is needed, not {nstype!r}; one of {_ALLOWED}")
    return result


def _from_int(value: int) -> NSType:
    if value & ~_ALL_BITS or value < 0:
        raise ValueError(f"{value:#x} has bits that are no namespace type; allowed are CLONE_NEW* flags: {_ALLOWED}")
    return NSType(value)


def _from_name(name: str) -> NSType:
    found = NAMES.get(name) or _ALIASES.get(name)
    if found is None:
        raise ValueError(f"unknown namespace type {name!r}; one of {_ALLOWED}")
    return found
