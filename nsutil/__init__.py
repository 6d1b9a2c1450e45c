"""Linux namespaces for Python.

Public names are loaded when first used, so that ``import nsutil`` stays cheap.
"""

from __future__ import annotations

from ._types import (
    ALL,
    CGROUP,
    IPC,
    MNT,
    MOUNT,
    NET,
    PID,
    TIME,
    USER,
    UTS,
    NSType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # what __getattr__ finds, for type checkers
    from . import aio as aio
    from . import doctor as doctor
    from . import ioctl as ioctl
    from . import jupyter as jupyter
    from . import named as named
    from ._call import call as call
    from ._errors import ChildDied as ChildDied
    from ._errors import NotANamespace as NotANamespace
    from ._errors import RestoreError as RestoreError
    from ._errors import StaleReference as StaleReference
    from ._errors import WrongNamespaceType as WrongNamespaceType
    from ._file import NamespaceFile as NamespaceFile
    from ._file import NamespaceReference as NamespaceReference
    from ._file import NamespaceSet as NamespaceSet
    from ._file import current as current
    from ._file import open as open
    from ._idmap import IdMap as IdMap
    from ._mounts import Bind as Bind
    from ._mounts import Dev as Dev
    from ._mounts import File as File
    from ._mounts import Mqueue as Mqueue
    from ._mounts import Overlay as Overlay
    from ._mounts import Proc as Proc
    from ._mounts import Remount as Remount
    from ._mounts import Symlink as Symlink
    from ._mounts import Sysfs as Sysfs
    from ._mounts import Tmpfs as Tmpfs
    from ._ns import clone as clone
    from ._ns import setns as setns
    from ._ns import unshare as unshare
    from ._process import Popen as Popen
    from ._process import run as run
    from ._recipe import Namespace as Namespace
    from ._recipe import enter as enter
    from ._snapshot import Holder as Holder
    from ._snapshot import NamespaceInfo as NamespaceInfo
    from ._snapshot import Snapshot as Snapshot
    from ._snapshot import snapshot as snapshot

__version__ = "0.1.0"

# Where each public name lives; see __getattr__.
_HOME = {
    "unshare": "_ns",
    "setns": "_ns",
    "clone": "_ns",
    "Namespace": "_recipe",
    "enter": "_recipe",
    "IdMap": "_idmap",
    "Bind": "_mounts",
    "Tmpfs": "_mounts",
    "Proc": "_mounts",
    "Sysfs": "_mounts",
    "Dev": "_mounts",
    "Mqueue": "_mounts",
    "Overlay": "_mounts",
    "File": "_mounts",
    "Symlink": "_mounts",
    "Remount": "_mounts",
    "run": "_process",
    "Popen": "_process",
    "call": "_call",
    "open": "_file",
    "current": "_file",
    "NamespaceFile": "_file",
    "NamespaceSet": "_file",
    "NamespaceReference": "_file",
    "snapshot": "_snapshot",
    "Snapshot": "_snapshot",
    "NamespaceInfo": "_snapshot",
    "Holder": "_snapshot",
    "RestoreError": "_errors",
    "ChildDied": "_errors",
    "StaleReference": "_errors",
    "NotANamespace": "_errors",
    "WrongNamespaceType": "_errors",
}
_MODULES = frozenset({"ioctl", "named", "doctor", "aio", "jupyter"})

__all__ = [
    "ALL", "CGROUP", "IPC", "MNT", "MOUNT", "NET", "PID", "TIME", "USER", "UTS",
    "NSType", *_HOME, *_MODULES,
]  # fmt: skip


def __getattr__(name: str) -> object:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: object) -> None:
    """``%load_ext nsutil``: the magics of nsutil.jupyter."""
    from .jupyter import load_ipython_extension as load

    load(ipython)
