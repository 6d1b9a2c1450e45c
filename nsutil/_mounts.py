"""The mounts of a recipe, and the steps that make them.

Each class is an immutable value that names one mount; what it is given is
checked when it is made.  ``compile_mounts`` turns a recipe's mounts, root and
propagation into steps; src/mountsteps.c carries them out.
"""

from __future__ import annotations

import errno
import os
import re

from ._idmap import IdMap, current_map
from ._plan import AT_FDCWD
from ._types import MNT, NET, USER
from ._value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from ._plan import Argument, HasFileno, PlanBuilder, Slot
    from ._recipe import Namespace

    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    # A step that opens something: op, arguments, what it opens, what for.
    Source: TypeAlias = tuple[str, tuple[Argument, ...], str, str]

# mount(2); the first four are MOUNT_ATTR_* as well.
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
# What a mount can be seen through outside, and what pivot_root(2) therefore refuses.
_LEAKING = ("shared", "unchanged")
_REC, _PRIVATE, _SHARED = 0x4000, 1 << 18, 1 << 20

# The last arguments of mount_at, source and bind_at in src/mountsteps.h.
_OWN, _ONE_STRING, _ALONE = 1, 2, 4
_RECURSIVE, _READONLY, _SOURCE = 1, 2, 4
_MOST_OWN = 64

_O_PATH = os.O_PATH | os.O_CLOEXEC
# mount(2) copies one page.
_MOST_OPTIONS = 4095

# What /dev holds, by device number (Documentation/admin-guide/devices.txt).
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEV_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def _path(what: str, value: object) -> str:
    """A path as str; TypeError or ValueError when it can be none."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(f"{what} must be a path, not {value!r}")
    text = os.fsdecode(value)
    if not text:
        raise ValueError(f"{what} must not be empty")
    if "\0" in text:
        raise ValueError(f"{what} must not hold a NUL byte: {text!r}")
    if len(os.fsencode(text)) >= 4096:
        raise ValueError(f"{what} is longer than the 4095 bytes of a path: {text[:40]!r}...")
    return text


def _target(what: str, value: object, root: bool = True) -> str:
    """An absolute path without doubled or trailing slashes."""
    text = _path(what, value)
    if not text.startswith("/"):
        raise ValueError(f"{what} must be an absolute path, as seen inside, not {text!r}")
    text = "/" + "/".join(part for part in text.split("/") if part not in ("", "."))
    if text == "/" and not root:
        raise ValueError(f"{what} must not be the root directory")
    return text


def _flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be True or False, not {value!r}")
    return value


class Mount(Value):
    """One mount of a recipe.  Base class of all of them."""

    __slots__ = ()
    dst: str

    # Does it make a file system, so that missing targets on it may be made?
    _own = False

    def _sources(self) -> list[Source]:
        """What has to be opened outside, before any mount."""
        return []

    def _add(self, steps: _Steps) -> None:
        """Add the steps that make the mount."""
        raise NotImplementedError


class _Steps:
    """The steps of all mounts of a recipe, as they are collected."""

    def __init__(self, builder: PlanBuilder, recipe: Namespace, mounts: Sequence[Mount]) -> None:
        self._builder = builder
        self._types = recipe.types
        self._leaking = recipe.propagation in _LEAKING
        opened = [[self._open(source) for source in mount._sources()] for mount in mounts]
        self._mounts = list(zip(mounts, opened, strict=True))
        self.opened: list[Slot] = []

    def _open(self, source: Source) -> Slot:
        op, args, path, dst = source
        slot = self._builder.slot()
        self._builder.add(op, *args, label=f"open {path} to bind it on {dst}", filename=path, out=slot)
        return slot

    def in_user_namespace(self) -> bool:
        """Another one than the initial: some file systems have their rules for that."""
        return bool(self._types & USER) or current_map("uid") != [IdMap(0, 0, 2**32 - 1)]

    def add_all(self, proc: tuple[str, int] | None) -> None:
        """All mounts in order; ``proc`` behind the last one that becomes the root, where mounts on its parts follow."""
        first = max((i + 1 for i, (mount, _) in enumerate(self._mounts) if _is_root(mount)), default=0)
        for i in range(len(self._mounts) + 1):
            if i == first and proc is not None:
                self.proc(*proc)
            if i < len(self._mounts):
                mount, self.opened = self._mounts[i]
                mount._add(self)
                if _is_root(mount):
                    self.own_root()

    def own_root(self) -> None:
        """Keep what is laid on the new root from the outside, and let pivot_root(2) have it: it refuses shared ones."""
        if self._leaking:
            # "/.." is what lies on top of "/", the root to be.
            self.add("mount", None, b"/..", None, _PRIVATE, None, label="make the new root private", dst="/")

    def add(self, op: str, *args: Argument, label: str, dst: str, ok: int = 0) -> None:
        self._builder.add(op, *args, label=label, filename=dst, ok=ok)

    def mount(self, dst: str, kind: str, flags: int, options: str = "", how: int = 0, ok: int = 0) -> None:
        args = os.fsencode(dst), kind.encode(), flags, os.fsencode(options), how
        self.add("mount_at", *args, label=f"mount {kind} on {dst}", dst=dst, ok=ok)

    def proc(self, dst: str, ok: int = 0) -> None:
        self.mount(dst, "proc", _NOSUID | _NODEV | _NOEXEC, how=_ALONE * self._leaking, ok=ok)

    def bind(self, slot: Slot, src: str, dst: str, how: int) -> None:
        label = f"bind {src} on {dst}"
        self.add("bind_at", slot, os.fsencode(dst), how, label=label, dst=dst)
        self.add("close", slot, label=label, dst=dst)

    def symlink(self, target: str, dst: str) -> None:
        self.add("symlink_at", os.fsencode(target), os.fsencode(dst), label=f"make symlink {dst}", dst=dst)


class Bind(Mount):
    """The file or directory ``src`` of the outside on ``dst``.

    ``src`` is looked up outside (symlinks are followed, a relative path starts
    at the working directory) once, before any mount of the recipe is made:
    those are not part of it.
    ``readonly`` makes it read-only, with all mounts below; flags it has, such
    as nosuid, stay.  ``recursive`` (the default) takes the mounts below
    ``src`` along; a user namespace may leave out none that it inherited.

    Raises TypeError or ValueError for what can be no path.  Read-only with
    mounts below needs Linux 5.12.  Source: mount(2), "Creating a bind mount".
    """

    __slots__ = ("src", "dst", "readonly", "recursive")  # noqa: RUF023 - the order of __init__
    src: str
    readonly: bool
    recursive: bool

    def __init__(self, src: Path, dst: Path, readonly: bool = False, recursive: bool = True) -> None:
        flags = _flag("Bind: readonly", readonly), _flag("Bind: recursive", recursive)
        self._set(_path("Bind: src", src), _target("Bind: dst", dst), *flags)

    def _sources(self) -> list[Source]:
        return [("source", (os.fsencode(self.src), self._how()), self.src, self.dst)]

    def _add(self, steps: _Steps) -> None:
        steps.bind(steps.opened[0], self.src, self.dst, self._how())

    def _how(self) -> int:
        return _SOURCE | _RECURSIVE * self.recursive | _READONLY * self.readonly


class Tmpfs(Mount):
    """An empty file system in memory on ``dst`` (nosuid, nodev).

    ``size``: bytes as an int, or a str as tmpfs takes it ("64m", "50%"); None
    is half of the memory.  ``mode``: the permissions of its root directory,
    None is 0o1777.  Raises TypeError or ValueError for others.  Source:
    tmpfs(5).
    """

    __slots__ = ("dst", "size", "mode")  # noqa: RUF023
    size: int | str | None
    mode: int | None
    _own = True

    def __init__(self, dst: Path, size: int | str | None = None, mode: int | None = None) -> None:
        self._set(_target("Tmpfs: dst", dst), _size(size), _mode(mode))

    def _add(self, steps: _Steps) -> None:
        given = {"size": self.size, "mode": None if self.mode is None else f"{self.mode:o}"}
        options = ",".join(f"{key}={value}" for key, value in given.items() if value is not None)
        steps.mount(self.dst, "tmpfs", _NOSUID | _NODEV, options, _OWN)


def _size(value: object) -> int | str | None:
    if isinstance(value, bool) or not isinstance(value, (int, str, type(None))):
        raise TypeError(f'Tmpfs: size must be bytes as an int or a str such as "64m", not {value!r}')
    if isinstance(value, int) and not 0 < value < 2**63:
        raise ValueError(f"Tmpfs: size must be at least 1 and below 2**63, not {value}")
    if isinstance(value, str) and not re.fullmatch(r"(?=0*[1-9])[0-9]{1,18}[kmgKMG%]?", value, re.ASCII):
        raise ValueError(f'Tmpfs: size must be a number, with k, m, g or % where wanted ("64m"), not {value!r}')
    return value


def _mode(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, type(None))):
        raise TypeError(f"Tmpfs: mode must be an int such as 0o755, not {value!r}")
    if value is not None and not 0 <= value <= 0o7777:
        raise ValueError(f"Tmpfs: mode must be between 0 and 0o7777, not {value:#o}")
    return value


class Proc(Mount):
    """A procfs of the PID namespace on ``dst`` (nosuid, nodev, noexec).

    It is never seen outside, whatever the propagation: ``dst`` is made private
    first where it is a mount.  In a new user namespace it needs a new PID
    namespace too, and a /proc outside of which no part is hidden
    (PermissionError otherwise).  Source:
    proc(5), user_namespaces(7).
    """

    __slots__ = ("dst",)

    def __init__(self, dst: Path = "/proc") -> None:
        self._set(_target("Proc: dst", dst))

    def _add(self, steps: _Steps) -> None:
        steps.proc(self.dst)


class Sysfs(Mount):
    """A sysfs on ``dst`` that shows the NET namespace's devices (nosuid, nodev, noexec).

    In a new user namespace it needs a new NET namespace too (PermissionError
    otherwise).  Source: sysfs(5), network_namespaces(7).
    """

    __slots__ = ("dst",)

    def __init__(self, dst: Path = "/sys") -> None:
        self._set(_target("Sysfs: dst", dst))

    def _add(self, steps: _Steps) -> None:
        steps.mount(self.dst, "sysfs", _NOSUID | _NODEV | _NOEXEC)


class Mqueue(Mount):
    """The POSIX message queues of the IPC namespace on ``dst`` (nosuid, nodev, noexec).

    In a new user namespace it needs a new IPC namespace too (PermissionError
    otherwise).  Source: mq_overview(7).
    """

    __slots__ = ("dst",)

    def __init__(self, dst: Path = "/dev/mqueue") -> None:
        self._set(_target("Mqueue: dst", dst))

    def _add(self, steps: _Steps) -> None:
        steps.mount(self.dst, "mqueue", _NOSUID | _NODEV | _NOEXEC)


class Dev(Mount):
    """A minimal /dev on ``dst``: a tmpfs, and in it

    null zero full random urandom tty (those of the outside), pts (a devpts of
    its own), ptmx, shm, fd, stdin, stdout, stderr.

    A user namespace in which id 0 is not mapped can't have a devpts; pts is
    then an empty directory.  What is no such device outside, a symlink in its
    place for instance, is refused.  Source: devpts in the kernel's
    Documentation/filesystems.
    """

    __slots__ = ("dst",)
    _own = True

    def __init__(self, dst: Path = "/dev") -> None:
        self._set(_target("Dev: dst", dst, root=False))

    def _sources(self) -> list[Source]:
        return [
            ("device", (f"/dev/{name}".encode(), os.makedev(*number)), f"/dev/{name}", f"{self.dst}/{name}")
            for name, number in _DEVICES.items()
        ]

    def _add(self, steps: _Steps) -> None:
        steps.mount(self.dst, "tmpfs", _NOSUID, "mode=755", _OWN)
        for name, slot in zip(_DEVICES, steps.opened, strict=True):
            steps.bind(slot, f"/dev/{name}", f"{self.dst}/{name}", 0)
        for name, mode in ("pts", 0o755), ("shm", 0o1777):
            path = f"{self.dst}/{name}"
            steps.add("mkdir_at", os.fsencode(path), mode, label=f"make {path}", dst=path)
        options, ok = "newinstance,ptmxmode=0666,mode=620", errno.EINVAL if steps.in_user_namespace() else 0
        steps.mount(f"{self.dst}/pts", "devpts", _NOSUID | _NOEXEC, options, ok=ok)
        for name, target in _DEV_LINKS.items():
            steps.symlink(target, f"{self.dst}/{name}")


class Overlay(Mount):
    """An overlay on ``dst``: ``lower`` seen through ``upper``, which takes all changes.

    ``lower``: a path, or several, topmost first.  ``work``: an empty directory
    on the file system of ``upper``.  Both None make it read-only, of two lower
    directories at least.  All of them are looked up outside when the mount is
    made.  Any name will do, also with commas, colons and backslashes.

    Raises ValueError for ``upper`` without ``work`` and for paths of more than
    a page together; OSError as the kernel says, EINVAL where ``upper`` is itself
    on an overlay.  In a new user namespace it needs Linux 5.11.  Source:
    mount(2); overlayfs in the kernel's Documentation/filesystems.
    """

    __slots__ = ("lower", "upper", "work", "dst")  # noqa: RUF023
    lower: tuple[str, ...]
    upper: str | None
    work: str | None
    _own = True

    def __init__(self, lower: Path | Sequence[Path], upper: Path | None, work: Path | None, dst: Path) -> None:
        below = _lower(lower)
        if (upper is None) != (work is None):
            raise ValueError("Overlay: upper and work go together, give both or neither")
        if upper is None and len(below) < 2:
            raise ValueError("Overlay: without upper there must be two lower directories at least")
        above = [None if p is None else _path(f"Overlay: {n}", p) for n, p in (("upper", upper), ("work", work))]
        self._set(below, *above, _target("Overlay: dst", dst))
        if len(os.fsencode(self._options())) > _MOST_OPTIONS - len(",userxattr"):
            raise ValueError(f"Overlay: the paths are longer than the {_MOST_OPTIONS} bytes that mount(2) takes")

    def _options(self) -> str:
        options = {"lowerdir": ":".join(map(_escape, self.lower))}
        if self.upper is not None and self.work is not None:
            options |= {"upperdir": _escape(self.upper), "workdir": _escape(self.work)}
        return ",".join(f"{key}={value}" for key, value in options.items())

    def _add(self, steps: _Steps) -> None:
        # trusted.* attributes are for the initial user namespace alone.
        options = self._options() + ",userxattr" * steps.in_user_namespace()
        steps.mount(self.dst, "overlay", _NOSUID | _NODEV, options, _OWN | _ONE_STRING)


def _lower(value: object) -> tuple[str, ...]:
    if isinstance(value, (str, bytes, os.PathLike)):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"Overlay: lower must be a path or a list of paths, not {value!r}")
    if not value:
        raise ValueError("Overlay: lower must hold one directory at least")
    return tuple(_path("Overlay: lower", path) for path in value)


def _escape(path: str) -> str:
    """As overlayfs reads its option string: it ends a name at ',' and ':' unless a backslash comes before."""
    return re.sub(r"([\\:,])", r"\\\1", path)


class File(Mount):
    """A new file ``dst`` (mode 0444) that holds ``data`` (bytes, or str as UTF-8).

    It is made on a file system of the recipe only (a Tmpfs, Dev or Overlay
    before it), with the directories to it; FileNotFoundError elsewhere,
    FileExistsError where there is anything already.  Source: open(2).
    """

    __slots__ = ("dst", "data")  # noqa: RUF023
    data: bytes

    def __init__(self, dst: Path, data: bytes | str) -> None:
        if isinstance(data, str):
            data = data.encode()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"File: data must be bytes or str, not {data!r}")
        self._set(_target("File: dst", dst, root=False), bytes(data))

    def _add(self, steps: _Steps) -> None:
        args = os.fsencode(self.dst), self.data, len(self.data)
        steps.add("write_at", *args, label=f"write file {self.dst}", dst=self.dst)


class Symlink(Mount):
    """A new symlink ``dst`` to ``target`` (any text).

    Made where ``File`` may make a file; an equal symlink may be there already,
    anything else is FileExistsError.  Source: symlink(2).
    """

    __slots__ = ("target", "dst")  # noqa: RUF023
    target: str

    def __init__(self, target: Path, dst: Path) -> None:
        self._set(_path("Symlink: target", target), _target("Symlink: dst", dst, root=False))

    def _add(self, steps: _Steps) -> None:
        steps.symlink(self.target, self.dst)


class Remount(Mount):
    """Switch the mount at ``dst`` to read-only, or back with ``readonly=False``.

    That mount alone, not those below it; ``Remount("/")`` after the others
    makes a read-only root with writable places.  OSError EINVAL where ``dst``
    is not the root of a mount, PermissionError for a mount that a user
    namespace inherited read-only.  Source: mount_setattr(2).
    """

    __slots__ = ("dst", "readonly")
    readonly: bool

    def __init__(self, dst: Path, readonly: bool = True) -> None:
        self._set(_target("Remount: dst", dst), _flag("Remount: readonly", readonly))

    def _add(self, steps: _Steps) -> None:
        label = f"remount {self.dst} {'read-only' if self.readonly else 'writable'}"
        steps.add("remount_at", os.fsencode(self.dst), int(self.readonly), label=label, dst=self.dst)


def parse_mounts(value: object) -> tuple[Mount, ...]:
    """The recipe's ``mounts``: one or several; TypeError for what is none, ValueError for too many."""
    items = (value,) if isinstance(value, Mount) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, Mount) for item in items):
        raise TypeError(f"mounts must be a list of Bind, Tmpfs, Proc, ... objects, not {value!r}")
    if sum(item._own for item in items) > _MOST_OWN:
        raise ValueError(f"mounts may hold {_MOST_OWN} of Tmpfs, Dev and Overlay together, not more")
    return tuple(items)


def replaces_root(mounts: Sequence[Mount]) -> bool:
    """Does one of them become the root directory?"""
    return any(_is_root(mount) for mount in mounts)


def _is_root(mount: Mount) -> bool:
    return mount.dst == "/" and not isinstance(mount, Remount)


def compile_mounts(builder: PlanBuilder, recipe: Namespace, proc: bool | str) -> None:
    """Steps for the mounts and the root of a recipe, run where they shall be.

    ``proc``: whether to mount a procfs on /proc, or where.  Sources are opened
    first.  All mounts are made before the new root becomes the root, since a
    user namespace may mount procfs and sysfs only while it sees one.
    """
    if not recipe.new & MNT:
        _chroot(builder, recipe.root)
        return
    mounts = [*_etc_netns(recipe), *recipe.mounts]
    automatic = _automatic_proc(recipe, proc)
    if automatic and not mounts and recipe.root is None:
        _mount_proc(builder, automatic[0], recipe.propagation in _LEAKING)
        return
    steps = _Steps(builder, recipe, mounts)
    root = _open_root(builder, recipe.root)
    pivot = root is not None or replaces_root(recipe.mounts)
    if pivot and recipe.propagation in _LEAKING:
        # What is laid over "/" must not show outside.
        builder.add("mount", None, b"/", None, _PRIVATE, None, label="make the old root private", filename="/")
    if root is None:
        builder.add("mount_root", label="open the root directory", filename="/")
    else:
        builder.add("root_at", root, label=f"bind the root {recipe.root}", filename=str(recipe.root))
        builder.add("close", root, label=f"close the root {recipe.root}")
        steps.own_root()
    steps.add_all(automatic)
    if pivot:
        _pivot(builder, recipe)
    builder.add("mounts_done", label="close the root directory")


def _mount_proc(builder: PlanBuilder, dst: str, leaking: bool) -> None:
    """A procfs alone, which is most of what there is to mount: one system call instead of a dozen."""
    if leaking:
        # Else it would lie on the /proc of the outside as well.
        private = None, os.fsencode(dst), None, _PRIVATE, None
        builder.add("mount", *private, label=f"make {dst} private", filename=dst, ok=errno.EINVAL)
    args = b"proc", os.fsencode(dst), b"proc", _NOSUID | _NODEV | _NOEXEC, None
    builder.add("mount", *args, label=f"mount proc on {dst}", filename=dst)


def _etc_netns(recipe: Namespace) -> list[Bind]:
    """What ip-netns(8) lays over /etc in the named network namespaces that are joined."""
    if not recipe.etc_netns:
        return []
    from ._file import NamespaceFile
    from .named import etc_netns_mounts

    joined = [join.handle for join in recipe.enter if join.types & NET]
    return [mount for file in joined if isinstance(file, NamespaceFile) for mount in etc_netns_mounts(file)]


def _chroot(builder: PlanBuilder, root: str | HasFileno | int | bool | None) -> None:
    slot = _open_root(builder, root)
    if slot is not None:
        builder.add("fchdir", slot, label=f"go to the root {root}", filename=str(root))
        builder.add("chroot", b".", label=f"chroot to {root}", filename=str(root))
        builder.add("close", slot, label=f"close the root {root}")


def _open_root(builder: PlanBuilder, root: str | HasFileno | int | bool | None) -> Slot | None:
    """A slot with the directory that ``root=`` names; True, the target's root, is not for here.

    A descriptor belongs to a mount of the caller's MNT namespace, which nothing
    in a copy of it may bind: its path is opened, and must lead to the same file.
    """
    if root is None or isinstance(root, bool):
        return None
    path = root if isinstance(root, str) else os.readlink(f"/proc/self/fd/{_fileno(root)}")
    slot, args = builder.slot(), (AT_FDCWD, os.fsencode(path), _O_PATH | os.O_DIRECTORY, 0)
    builder.add("openat", *args, label=f"open the root {root}", filename=path, out=slot)
    if not isinstance(root, str):
        status = os.stat(_fileno(root))
        builder.add("same_file", slot, status.st_dev, status.st_ino, label=f"verify the root {root}", filename=path)
    return slot


def _fileno(file: HasFileno | int) -> int:
    return file if isinstance(file, int) else file.fileno()


def _pivot(builder: PlanBuilder, recipe: Namespace) -> None:
    builder.add("pivot", label="pivot_root to the new root", filename=str(recipe.root or "/"))
    if recipe.propagation == "shared":
        builder.add("mount", None, b"/", None, _REC | _SHARED, None, label="make all mounts shared", filename="/")


def _automatic_proc(recipe: Namespace, proc: bool | str) -> tuple[str, int] | None:
    """Where to mount the procfs that ``mounts`` does not spell out, and the errno that it may fail with."""
    dst = _target("mount_proc", proc) if isinstance(proc, str) else "/proc"
    if not proc or any(isinstance(mount, Proc) and mount.dst == dst for mount in recipe.mounts):
        return None
    return dst, errno.ENOENT if recipe.mount_proc is None and recipe.root is not None else 0
