"""Namespaces with a name: they stay when the process that made them ends.

NET names are those of ip-netns(8), in /run/netns; names of the other types
are kept in /run/nsutil/TYPE.  Making and removing a name takes CAP_SYS_ADMIN,
as mounting does.
"""

from __future__ import annotations

import errno
import os
import sys
from builtins import list as List  # noqa: N812 - there is a list() below
from typing import NamedTuple

from . import _name_makers, _ns
from ._errors import NotANamespace, WrongNamespaceType
from ._names import Key, Lock, Store, is_stale, keys_of_processes, open_bound, stale, store_of, unbind
from ._types import NET, PID, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from ._handle import NamespaceFile
    from ._mounts import Bind

__all__ = [
    "Event",
    "Watch",
    "attach",
    "create",
    "etc_netns_mounts",
    "identify",
    "list",
    "open",
    "pids",
    "remove",
    "watch",
]


def create(name: str, type: NSType | int | str = NET, **options: Any) -> NamespaceFile:
    """Make a namespace and give it a name; nobody is moved into it.

    ``options`` are those of a recipe that set the namespace itself up: for
    NET ``loopback`` (up by default), for UTS ``hostname`` and ``domainname``,
    for TIME ``monotonic`` and ``boottime`` (seconds), for USER the maps and
    ``setgroups``, for MNT ``mounts``, ``root`` and ``propagation``.  A named
    PID namespace has nsutil's init as PID 1 until the name is removed.

    Raises FileExistsError when the name exists, also as a stale file, and
    ValueError for a name that no file can have and for other options.
    Source: ip-netns(8), namespaces(7).
    """
    store = store_of(type)
    path = store.path(name)
    try:
        return _name_makers.make(store, path, options)
    except FileExistsError as error:
        _name_makers.explain_existing(error, path)
        raise


def attach(name: str, pid: int, type: NSType | int | str = NET) -> None:
    """Give the namespace of a running process a name.

    Raises FileExistsError when the name exists, ProcessLookupError when there
    is no such process.  Source: ip-netns(8).
    """
    from . import _file

    store = store_of(type)
    path = store.path(name)
    sys.audit("nsutil.named", "attach", path)
    namespace = _file.open(pid, store.type)
    try:
        with store.prepared():
            _name_makers.bind_new(path, namespace.fileno())
    except FileExistsError as error:
        _name_makers.explain_existing(error, path)
        raise
    finally:
        try:
            namespace.close()
        except OSError:  # which would say that there is no name
            pass


def remove(name_or_names: str | Iterable[str], type: NSType | int | str = NET) -> None:
    """Take names away; a namespace ends when nothing else holds it.

    A stale file is deleted, of a symlink the link.  A named PID namespace
    ends with all its processes.  All names are looked at first: when one does
    not exist, FileNotFoundError is raised and nothing is removed.  Removing
    all that there are takes little longer than removing one.
    PermissionError without CAP_SYS_ADMIN.  Source: ip-netns(8), umount(2).
    """
    store = store_of(type)
    names = [name_or_names] if isinstance(name_or_names, str) else List(dict.fromkeys(name_or_names))
    paths = [store.path(name) for name in names]
    for path in paths:
        sys.audit("nsutil.named", "remove", path)
    try:
        lock = Lock(store.directory, exclusive=True)  # whoever is making one of them is done by then
    except FileNotFoundError:
        _check_exist(store, names)
        if names:  # somebody has made them just now
            raise
        return
    with lock:
        _check_exist(store, names)
        if store.type == PID:
            _name_makers.remove_pids(paths)
        elif len(names) < 2 or not store.remove_all(names):
            for path in paths:
                unbind(path)


def _check_exist(store: Store, names: List[str]) -> None:
    there = set(store.names()) if len(names) > 1 else ()
    for name in names:
        path = store.path(name)
        if name not in there and not os.path.lexists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def list(type: NSType | int | str = NET) -> List[str]:  # noqa: A001
    """All names of a type, sorted; also those whose namespace is gone.  Source: ip-netns(8)."""
    return store_of(type).names()


def open(name: str, type: NSType | int | str = NET) -> NamespaceFile:
    """Open a named namespace.

    Raises FileNotFoundError when there is no such name, NotANamespace for a
    stale file and for a symlink, which is never followed, and
    WrongNamespaceType when something else was bound there; ValueError for a
    name that no file can have.  Source: ip-netns(8).
    """
    store = store_of(type)
    path = store.path(name)
    file = open_bound(path)
    if file is None and not is_stale(path):  # it was just being made
        file = open_bound(path)
    if file is None:
        raise NotANamespace(f"{path} is a symlink") if os.path.islink(path) else stale(path)
    if file.type != store.type:
        file.close()
        raise WrongNamespaceType(f"{path} is a {file.type} namespace, not a {store.type} namespace")
    return file


def pids(name: str, type: NSType | int | str = NET) -> List[int]:
    """The processes in a named namespace, sorted, as far as they may be looked at.

    Errors as :func:`open`.  Source: ip-netns(8).
    """
    with open(name, type) as file:
        key = Key(file.device, file.inode)
        return sorted(pid for pid, other in keys_of_processes(file.type) if other == key)


def identify(pid: int, type: NSType | int | str = NET) -> List[str]:
    """The names of the namespace that a process is in, sorted.

    Raises ProcessLookupError for a pid that does not exist, PermissionError
    where the process may not be looked at.  Source: ip-netns(8).
    """
    from . import _file

    store = store_of(type)
    with _file.open(pid, store.type) as file:
        return _names_of(store, file)


def _names_of(store: Store, file: NamespaceFile) -> List[str]:
    key = Key(file.device, file.inode)
    return [name for name in store.names() if store.key(name) == key]


def etc_netns_mounts(namespace: str | NamespaceFile) -> List[Bind]:
    """What ip-netns(8) lays over /etc for programs in a named network namespace.

    A bind of each entry of /etc/netns/NAME on the entry of that name in /etc.
    ``namespace`` is a name, or an open network namespace that has one.
    """
    from ._mounts import Bind

    names = [namespace] if isinstance(namespace, str) else _names_of(store_of(NET), namespace)
    for name in names:
        directory = store_of(NET).path(name).replace("/run/netns", "/etc/netns", 1)
        try:
            entries = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        return [Bind(f"{directory}/{entry}", f"/etc/{entry}") for entry in entries]
    return []


# ---------------------------------------------------------------- watch

_IN_CREATE, _IN_DELETE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x100, 0x200, 0x40, 0x80
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ONLYDIR = 0x4000, 0x8000, 0x1000000
_ORDER = sys.byteorder
_EVENT_HEAD = 16  # int wd; uint32_t mask, cookie, len


class Event(NamedTuple):
    """``event`` is "add" or "delete"."""

    event: str
    name: str


class Watch:
    """The names that come and go from now on: an iterator, and a context manager that closes it.

    ``fileno()`` is readable when an event is there.  "add" comes when the file
    is made, a moment before the namespace is bound on it, as in
    ``ip netns monitor``.
    """

    def __init__(self, store: Store) -> None:
        store.make_directory()
        mask = _IN_CREATE | _IN_DELETE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_ONLYDIR
        self._fd = _ns.inotify(store.directory, mask)
        self._events: List[Event] = []
        self._ended = False

    def fileno(self) -> int:
        """The inotify(7) descriptor; ValueError when closed."""
        if self._fd < 0:
            raise ValueError("this watch is closed")
        return self._fd

    def close(self) -> None:
        """Stop watching."""
        fd = _ns.swap(self, "_fd", -1)
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event, waiting for it; the iteration ends when the directory goes away.

        OSError (ENOBUFS) when events were lost: list the names anew.
        """
        while not self._events:
            if self._ended:
                raise StopIteration
            self._read()
        return self._events.pop(0)

    def _read(self) -> None:
        data = os.read(self.fileno(), 64 * 1024)
        while data:
            mask, _, length = (int.from_bytes(data[at : at + 4], _ORDER) for at in (4, 8, 12))
            name = os.fsdecode(data[_EVENT_HEAD : _EVENT_HEAD + length].rstrip(b"\0"))
            data = data[_EVENT_HEAD + length :]
            self._note(mask, name)

    def _note(self, mask: int, name: str) -> None:
        if mask & _IN_Q_OVERFLOW:
            raise OSError(errno.ENOBUFS, "events were lost: list the names anew")
        if mask & _IN_IGNORED:
            self._ended = True
        elif mask & (_IN_CREATE | _IN_MOVED_TO):
            self._events.append(Event("add", name))
        else:
            self._events.append(Event("delete", name))


def watch(type: NSType | int | str = NET) -> Watch:
    """Names as they are added and deleted: ``for event, name in watch(): ...``.

    The directory is made where it is missing.  Source: inotify(7),
    ``ip netns monitor``.
    """
    return Watch(store_of(type))
