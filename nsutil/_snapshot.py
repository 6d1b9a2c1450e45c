"""Every namespace that can be seen from here, and who holds it."""

from __future__ import annotations

from ._facts import FDS, INDEX, INODE, KEY_SHIFT, MOUNTS, SOCKETS, TASKS, TYPE_NAMES, TYPES, USER, Facts, Holder
from ._types import ALL, NSType, parse_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._tree import Tree
    from ._types import Types

__all__ = ["Holder", "NamespaceInfo", "Snapshot", "snapshot"]

FIELDS = (
    "type",
    "inode",
    "device",
    "id",
    "owner",
    "parent",
    "owner_uid",
    "user",
    "nprocs",
    "pid",
    "ppid",
    "command",
    "path",
    "netnsid",
    "nsfs",
    "holders",
)


class NamespaceInfo:
    """A namespace as a snapshot found it; the fields mean what lsns's columns mean.

    Equal to whatever is the same namespace by device and inode. Immutable and picklable.
    """

    __slots__ = ("_facts", "_key")

    if TYPE_CHECKING:
        _facts: Facts
        _key: int

    def __init__(self, facts: Facts, key: int) -> None:
        _set_facts(self, facts)
        _set_key(self, key)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a NamespaceInfo cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a NamespaceInfo cannot be changed: {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return NamespaceInfo, (self._facts, self._key)

    def __eq__(self, other: object) -> bool:
        inode, device = getattr(other, "inode", None), getattr(other, "device", None)
        return (self.inode, self.device) == (inode, device) if inode is not None else NotImplemented

    def __hash__(self) -> int:
        return hash((self.device, self.inode))

    def __repr__(self) -> str:
        where = f" pid={self.pid}" if self.pid is not None else ""
        return f"<NamespaceInfo {self}: nprocs={self.nprocs}{where}>"

    def __str__(self) -> str:
        return f"{self._type_name}:[{self.inode}]"

    @property
    def type(self) -> NSType:
        """Its type."""
        return TYPES[self._key >> KEY_SHIFT]

    @property
    def inode(self) -> int:
        """Its inode number: what the link in /proc/PID/ns shows. Lives as long as the namespace, then is used again."""
        return self._key & INODE

    @property
    def device(self) -> int:
        """The device number of nsfs, as ``os.stat(...).st_dev`` gives it."""
        return self._facts.device

    @property
    def id(self) -> int | None:
        """The 64-bit id, never used again; None where it can't be read, or before Linux 6.18 (MNT: 6.11)."""
        return self._facts.relation(self._key)[0] or None

    @property
    def owner(self) -> NamespaceInfo | None:
        """The user namespace that owns it; None for the initial one and where it is out of sight (NS_GET_USERNS)."""
        return self._other(USER, self._facts.relation(self._key)[1])

    @property
    def parent(self) -> NamespaceInfo | None:
        """The namespace above a PID or USER namespace; None for others and where it is out of sight (NS_GET_PARENT)."""
        return self._other(self._key >> KEY_SHIFT, self._facts.relation(self._key)[2])

    @property
    def owner_uid(self) -> int | None:
        """lsns's UID: the user of process ``pid``; where there is none, the creator of the owning user namespace."""
        return self._facts.uid(self._key)

    @property
    def user(self) -> str | None:
        """The name of ``owner_uid``, or its number where it has none."""
        return self._facts.user(self.owner_uid)

    @property
    def nprocs(self) -> int:
        """How many processes are in it. A process counts once, by its main thread."""
        return self._facts.counts_of(self._key)[0]

    @property
    def pid(self) -> int | None:
        """The lowest process number in it, or None."""
        return self._facts.counts_of(self._key)[1] or None

    @property
    def ppid(self) -> int | None:
        """The parent of process ``pid`` (0 when that is out of sight)."""
        return self._facts.detail(self._key)[0]

    @property
    def command(self) -> str | None:
        """The command line of process ``pid``, or its name where it has none. Bytes that are no UTF-8 are escaped."""
        return self._facts.detail(self._key)[2]

    @property
    def path(self) -> str | None:
        """A path that opens it, or None where only a socket, a device or a child holds it."""
        return self._facts.path(self._key)

    @property
    def netnsid(self) -> int | str | None:
        """The id of a NET namespace within the caller's: a number, "unassigned", or None (RTM_GETNSID)."""
        return self._facts.netnsids.get(self._key) if self.type is NSType.NET else None

    @property
    def nsfs(self) -> list[str]:
        """Where it is mounted in the caller's mount namespace. Other places: see ``holders``."""
        return self._facts.mount_points(self._key)

    @property
    def holders(self) -> list[Holder]:
        """Who holds it, by kind and process."""
        return self._facts.holders(self._key)

    @property
    def _type_name(self) -> str:
        return TYPE_NAMES[self._key >> KEY_SHIFT]

    def _other(self, index: int, inode: int) -> NamespaceInfo | None:
        return NamespaceInfo(self._facts, index << KEY_SHIFT | inode) if inode else None

    def _plain(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        plain = {name: getattr(self, name) for name in FIELDS}
        plain.update(
            type=self._type_name,
            owner=self._facts.relation(self._key)[1] or None,
            parent=self._facts.relation(self._key)[2] or None,
            holders=[holder._asdict() for holder in self.holders],
        )
        return plain


# The slots themselves: __setattr__ refuses.
_set_facts = vars(NamespaceInfo)["_facts"].__set__
_set_key = vars(NamespaceInfo)["_key"].__set__


class Snapshot:
    """The namespaces of one moment; what :func:`snapshot` returns. Immutable and picklable."""

    __slots__ = ("_facts", "_infos", "_keys")

    def __init__(self, facts: Facts, keys: list[int]) -> None:
        self._facts = facts
        self._keys = keys
        self._infos: list[NamespaceInfo] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return Snapshot, (self._facts, self._keys)

    def __repr__(self) -> str:
        unseen = f", {len(self._facts.unseen)} unseen" if self._facts.unseen else ""
        return f"<Snapshot: {len(self._keys)} namespaces{unseen}>"

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[NamespaceInfo]:
        return iter(self.namespaces)

    @property
    def namespaces(self) -> list[NamespaceInfo]:
        """All namespaces, by type and inode."""
        if self._infos is None:
            self._infos = [NamespaceInfo(self._facts, key) for key in self._keys]
        return self._infos

    @property
    def unseen(self) -> list[str]:
        """What could not be read, as "path: reason": empty when nothing was hidden from this snapshot."""
        return self._facts.unseen

    def of(self, pid: int) -> dict[NSType, NamespaceInfo]:
        """The namespaces of a process by type; empty for one that was not there or hides them. TypeError for no int."""
        if isinstance(pid, bool) or not isinstance(pid, int):
            raise TypeError(f"pid must be an int, not {pid!r}")
        keys = set(self._keys)
        mine = [NamespaceInfo(self._facts, key) for key in self._facts.of(pid) if key in keys]
        return {info.type: info for info in mine}

    def holders(self, ns: object) -> list[Holder]:
        """Who holds a namespace: a NamespaceInfo, a NamespaceFile, or an inode number. Empty when nobody was seen.

        TypeError for anything else.
        """
        inode = ns if isinstance(ns, int) and not isinstance(ns, bool) else getattr(ns, "inode", None)
        if not isinstance(inode, int):
            raise TypeError(f"a namespace or an inode number is needed, not {ns!r}")
        key = self._facts.by_inode.get(inode)
        return [] if key is None else self._facts.holders(key)

    def tree(self, by: str = "owner") -> Tree:
        """The namespaces as a tree whose ``str()`` is the drawing, each of them once.

        by: "owner" (the user namespace that owns it), "parent" (PID and USER namespaces nest), or "process" (below
        the lowest process in it, processes below their parents). ValueError for anything else.
        """
        from ._tree import build

        return build(self, by)

    def filter(self, expression: str) -> Snapshot:
        """The namespaces for which an expression holds: ``snap.filter("type == 'net' and nprocs > 1")``.

        Names are the fields of NamespaceInfo and lsns's columns, the syntax is that of ``lsns -Q`` (scols-filter(5))
        with ``in`` added. ValueError with the position for what is none.
        """
        from ._filter import compile_filter

        test = compile_filter(expression)
        return Snapshot(self._facts, [info._key for info in self.namespaces if test(info)])

    def to_json(self) -> str:
        """``{"namespaces": [...], "unseen": [...]}``: every field by its name; owner and parent are inode numbers."""
        import json

        plain = [info._plain() for info in self.namespaces]
        return json.dumps({"namespaces": plain, "unseen": self.unseen}, separators=(",", ":"))

    def to_html(self) -> str:
        """A page that needs nothing else: the tree by owner, parent or process, a search, details of each namespace."""
        from ._html import page

        return page(self)

    def _repr_html_(self) -> str:
        from ._html import frame

        return frame(self)


def snapshot(
    types: Types = ALL, tasks: bool = True, fds: bool = True, sockets: bool = True, mounts: bool = True
) -> Snapshot:
    """Read which namespaces exist and who holds them, in one pass over /proc.

    types: the types to list (a flag, a name, or an iterable of either).
    tasks: look at every thread, and at what children will be in (pid_for_children, time_for_children).
    fds: look at open namespace files and TUN devices.
    sockets: look at sockets (pidfd_getfd, Linux 5.6, and SIOCGSKNS).
    mounts: look at namespace files mounted in any mount namespace.

    With any of the four, the owners and parents that nothing else holds are found too, and all is read at once. With
    none of them only the links in /proc/PID/ns are read; owners, parents and commands follow when first asked for.

    Processes that end meanwhile are left out; what may not be read is in ``unseen``. ValueError or TypeError for bad
    types, OSError where there is no /proc. Nothing is entered, and no thread is moved. NSUTIL_NO_NEW_CALLS in the
    environment keeps to older calls. See proc_pid_ns(5), ioctl_nsfs(2).
    """
    wanted = parse_types(types)
    if not wanted:
        raise ValueError("types names no namespace type")
    flags = TASKS * bool(tasks) | FDS * bool(fds) | SOCKETS * bool(sockets) | MOUNTS * bool(mounts)
    mask = sum(1 << index for nstype, index in INDEX.items() if wanted & nstype)
    facts = Facts(mask, flags)
    return Snapshot(facts, [key for key in facts.counts if mask >> (key >> KEY_SHIFT) & 1])
