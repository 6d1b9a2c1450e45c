"""What one pass of _ns.scan found, by key; the plain data behind a Snapshot.

A key is a namespace: type's index << KEY_SHIFT | inode. Types, kinds and flags are numbered as in scan.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import namedtuple
from functools import cached_property

from . import _ns
from ._errors import step_error
from ._types import NAMES, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

TYPES = tuple(NAMES.values())
TYPE_NAMES = tuple(NAMES)
INDEX = {nstype: index for index, nstype in enumerate(TYPES)}
USER, NET = INDEX[NSType.USER], INDEX[NSType.NET]
KEY_SHIFT = 48
INODE = (1 << KEY_SHIFT) - 1
TASKS, FDS, SOCKETS, MOUNTS, _OLD_KERNEL = 1, 2, 4, 8, 16
_DEEP = TASKS | FDS | SOCKETS | MOUNTS
_KINDS = ("thread", "fd", "socket", "mount", "children", "tun")
_COLUMNS = 1 + len(TYPES)  # of the table of processes: the pid and its eight inodes
_INITIAL_PID_NS = 0xEFFFFFFC
_NOBODY = (0, 0)
_NO_RELATION = (0, 0, 0, -1)
_NO_DETAIL = (None, None, None)

if TYPE_CHECKING:

    class _HolderFields(NamedTuple):
        kind: str
        pid: int | None
        tid: int | None
        fd: int | None
        path: str | None
else:
    _HolderFields = namedtuple("_HolderFields", "kind pid tid fd path")  # noqa: PYI024 - typing costs start-up time


class Holder(_HolderFields):
    """What keeps a namespace alive, or would put somebody into it.

    ``kind`` is one of

    - ``"process"``: the process ``pid`` is in it;
    - ``"thread"``: the thread ``tid`` of ``pid`` is in it, and the process is not;
    - ``"fd"``: descriptor ``fd`` of ``pid`` is an open namespace file;
    - ``"socket"``: descriptor ``fd`` is a socket of it (SIOCGSKNS), and the process is in another;
    - ``"tun"``: descriptor ``fd`` is a TUN device in it (TUNGETDEVNETNS), and the process is in another;
    - ``"mount"``: it is mounted at ``path`` in the mount namespace that ``pid`` is in (None: nobody is);
    - ``"children"``: children of ``pid`` (of its thread ``tid``) will be in it (PID and TIME).

    ``path`` is, but for mounts, where /proc shows this. What does not apply is None.
    """

    __slots__ = ()


class Facts:
    """What one pass found; shared by a snapshot, its parts and their NamespaceInfos. Never changed once read."""

    device: int
    own_mntns: int  # of the caller, an inode
    counts: dict[int, tuple[int, int]]  # {key: (nprocs, lowest pid or 0)}, by type and inode
    table: bytes  # a row of uint64 per process: pid, and by type the inode or 0
    rows: list[tuple[int, int, int, int, int, str | None, int]]  # holders but for processes, see _holder
    unseen: list[str]

    def __init__(self, types: int, flags: int) -> None:
        try:
            result = _ns.scan(types, flags | _old_kernel())
        except OSError as error:
            raise step_error(error.errno or 0, "list the namespaces", "/proc") from None
        self.device, self.own_mntns, ours, self.counts, self.table = result[:5]
        self.rows = result[7]
        self.unseen = [_reason(*refusal) for refusal in result[8]] + _out_of_sight(bool(ours))
        if flags & _DEEP:
            self.__dict__.update(relations=result[5], details=result[6])

    def __getstate__(self) -> dict[str, Any]:
        """All that can be known: whoever unpickles it may be elsewhere."""
        names = [*Facts.__annotations__, "relations", "details", "parents", "netnsids", "_users"]
        for key in self.counts:
            self.user(self.uid(key))
        return {name: getattr(self, name) for name in names}

    # Processes

    def _column(self, index: int) -> memoryview:
        return memoryview(self.table).cast("Q")[index::_COLUMNS]

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {pid: row for row, pid in enumerate(self._column(0))}

    def of(self, pid: int) -> list[int]:
        """The keys of a process."""
        row = self._row_of.get(pid)
        if row is None:
            return []
        inodes = memoryview(self.table).cast("Q")[row * _COLUMNS + 1 : (row + 1) * _COLUMNS]
        return [index << KEY_SHIFT | inode for index, inode in enumerate(inodes) if inode]

    @cached_property
    def members(self) -> dict[int, list[int]]:
        """The processes in each namespace, ascending."""
        members: dict[int, list[int]] = {}
        pids = self._column(0).tolist()
        for index in range(len(TYPES)):
            for pid, inode in zip(pids, self._column(1 + index), strict=True):
                if inode:
                    members.setdefault(index << KEY_SHIFT | inode, []).append(pid)
        return members

    # Holders

    @cached_property
    def _held(self) -> dict[int, list[tuple[Holder, int]]]:
        """Holders but for processes, each with the mount namespace of a mount."""
        held: dict[int, list[tuple[Holder, int]]] = {}
        for key, kind, pid, tid, fd, path, mntns in self.rows:
            holder = _holder(TYPE_NAMES[key >> KEY_SHIFT], kind, pid, tid, fd, path)
            held.setdefault(key, []).append((holder, mntns))
        return held

    def holders(self, key: int) -> list[Holder]:
        name = TYPE_NAMES[key >> KEY_SHIFT]
        processes = [Holder("process", pid, None, None, f"/proc/{pid}/ns/{name}") for pid in self.members.get(key, ())]
        return processes + [holder for holder, _ in self._held.get(key, ())]

    def mount_points(self, key: int) -> list[str]:
        """In the caller's mount namespace."""
        return [holder.path or "" for holder, mntns in self._held.get(key, ()) if mntns == self.own_mntns]

    def path(self, key: int) -> str | None:
        """What opens it."""
        pid = self.counts_of(key)[1]
        if pid:
            return f"/proc/{pid}/ns/{TYPE_NAMES[key >> KEY_SHIFT]}"
        held = sorted(self._held.get(key, ()), key=self._is_elsewhere)
        return next((path for each in held if (path := self._openable(*each))), None)

    def _is_elsewhere(self, held: tuple[Holder, int]) -> bool:
        return held[0].kind == "mount" and held[1] != self.own_mntns

    def _openable(self, holder: Holder, mntns: int) -> str | None:
        if holder.kind != "mount" or mntns == self.own_mntns:
            return holder.path if holder.kind not in ("socket", "tun") else None
        where = _where(holder.pid, holder.tid)
        return f"{where}/root{holder.path}" if holder.pid else None

    @cached_property
    def by_inode(self) -> dict[int, int]:
        """{inode: key}; inode numbers are unique among all types."""
        return {key & INODE: key for key in self.counts}

    # What is read when first asked for

    @cached_property
    def relations(self) -> dict[int, tuple[int, int, int, int]]:
        """{key: (id, owner's inode, parent's inode, creator's uid)}, each 0 (-1) where there is none to see."""
        self.__dict__.update(self._read())
        return self.relations

    @cached_property
    def details(self) -> dict[int, tuple[int, int, str]]:
        """{pid: (ppid, uid, command)} of the lowest processes."""
        self.__dict__.update(self._read())
        return self.details

    def _read(self) -> dict[str, Any]:
        """Relations and details together: so they belong to one moment, and cost one pass."""
        relations, details = _ask([item for key, (_, pid) in self.counts.items() if pid for item in (key, pid)])
        lost = [key for key, (nprocs, _) in self.counts.items() if nprocs > 1 and key not in relations]
        if lost:  # the lowest process ended meanwhile: some other knows
            relations |= _ask([item for key in lost for pid in self.members[key][1:9] for item in (key, pid)])[0]
        return {"relations": relations, "details": details}

    @cached_property
    def parents(self) -> dict[int, int]:
        """{pid: parent's} of the lowest processes and of all their ancestors."""
        parents = {pid: detail[0] for pid, detail in self.details.items()}
        missing = set(parents.values()) - parents.keys() - {0}
        while missing:
            _, found = _ask([item for pid in missing for item in (0, pid)])
            parents.update({pid: found[pid][0] if pid in found else 0 for pid in missing})
            missing = {parents[pid] for pid in missing} - parents.keys() - {0}
        return parents

    @cached_property
    def netnsids(self) -> dict[int, int | str]:
        """{key: number or "unassigned"} of the network namespaces that can be asked for."""
        from ._netnsid import netnsids

        return netnsids({key: (self.path(key), key & INODE) for key in self.counts if key >> KEY_SHIFT == NET})

    @cached_property
    def _users(self) -> dict[int, str]:
        return {}

    def user(self, uid: int | None) -> str | None:
        """The name of a user, or the number where there is none."""
        if uid is None:
            return None
        if uid not in self._users:
            import pwd

            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self._users[uid] = str(uid)
        return self._users[uid]

    def counts_of(self, key: int) -> tuple[int, int]:
        """(nprocs, lowest pid or 0)."""
        return self.counts.get(key, _NOBODY)

    def relation(self, key: int) -> tuple[int, int, int, int]:
        return self.relations.get(key, _NO_RELATION)

    def detail(self, key: int) -> tuple[int | None, int | None, str | None]:
        """(ppid, uid, command) of the lowest process."""
        return self.details.get(self.counts.get(key, _NOBODY)[1], _NO_DETAIL)

    def uid(self, key: int) -> int | None:
        """The user of the lowest process, else who made the owning user namespace."""
        uid = self.detail(key)[1]
        if uid is not None:
            return uid
        if key >> KEY_SHIFT != USER:
            key = USER << KEY_SHIFT | self.relation(key)[1]
        creator = self.relation(key)[3]
        return creator if creator >= 0 else None


def _old_kernel() -> int:
    return _OLD_KERNEL if "NSUTIL_NO_NEW_CALLS" in os.environ else 0


def _ask(wanted: list[int]) -> tuple[dict[int, tuple[int, int, int, int]], dict[int, tuple[int, int, str]]]:
    """Relations and details for pairs of key and pid; key 0 asks for the process alone."""
    from array import array

    result = _ns.scan_details(array("q", wanted), _old_kernel())
    return result[5], result[6]


def _where(pid: int | None, tid: int | None) -> str:
    return f"/proc/{pid}/task/{tid}" if tid else f"/proc/{pid}"


def _holder(name: str, kind: int, pid: int, tid: int, fd: int, path: str | None) -> Holder:
    """A row of the pass as a Holder; 0 and -1 mean none there."""
    word = _KINDS[kind]
    if word == "thread":
        path = f"{_where(pid, tid)}/ns/{name}"
    elif word == "children":
        path = f"{_where(pid, tid)}/ns/{name}_for_children"
    elif fd >= 0:
        path = f"/proc/{pid}/fd/{fd}"
    return Holder(word, pid or None, tid or None, fd if fd >= 0 else None, path)


def _reason(kind: int, pid: int, tid: int, fd: int, error: int, inode: int) -> str:
    """A refusal as "path: reason"."""
    if error == errno.EXDEV:
        return "/proc: sockets and devices cannot be asked: it belongs to another PID namespace"
    where = _where(pid, tid)
    what = (
        f"{where}/ns",
        f"{where}/ns" if tid else f"{where}/task",
        f"{where}/fd",
        f"{where}/fd/{fd} (socket)",
        f"{where}/fd/{fd} (TUN device)",
        f"mounts in mnt:[{inode}]",
    )[kind]
    return f"{what}: {os.strerror(error)}"


def _out_of_sight(ours: bool) -> list[str]:
    """Processes that /proc does not show are not refused one by one: say so. ours: it is that of our PID namespace."""
    missing = []
    with contextlib.suppress(OSError):
        own = os.stat("/proc/self/ns/pid").st_ino
        if ours and own != _INITIAL_PID_NS:
            missing.append(f"/proc: processes outside pid:[{own}] are not shown: other PID namespace")
    if os.geteuid() != 0 and _hides_processes():
        missing.append("/proc: processes of other users are not shown: mounted with hidepid")
    return missing


def _hides_processes() -> bool:
    """Whether /proc leaves out other users' processes (hidepid=invisible or ptraceable, proc(5))."""
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            return any(b" /proc " in line and re.search(rb" - proc .*hidepid=[2-4ip]", line) for line in mounts)
    except OSError:
        return False
