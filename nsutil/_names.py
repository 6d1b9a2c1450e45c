"""Where names are kept: a directory of empty files with namespaces bound on them.

NET has the directory of ip-netns(8), set up and locked as ip does it; every
other type one below /run/nsutil.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from . import _ns
from ._errors import NotANamespace, step_error
from ._plan import close_all
from ._types import MNT, NET, TIME, NSType, name_of, parse_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from ._handle import NamespaceFile
    from ._plan import Argument

MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 0x40000, 0x100000
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
NAME_MAX = 255
NO_MOUNT = 2**64 - 1
O_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# How many names that are removed at once are held open, to be bound again where one cannot be deleted.
LOOKS = 200
# Somebody else may remove everything between set-up and use, but not for ever.
SETUP_TRIES = 100
# A name that was just unmounted may be busy for a moment.
BUSY_PAUSE = 0.002


class Key(NamedTuple):
    """What makes two files the same namespace."""

    device: int
    inode: int


class Store:
    """The directory of one type; one object for each type, by store_of()."""

    def __init__(self, nstype: NSType) -> None:
        self.type = nstype
        self.directory = "/run/netns" if nstype == NET else f"/run/nsutil/{nstype}"
        # What shows a new namespace to the thread that made it: for TIME that of its children.
        self.entry = f"/proc/thread-self/ns/{nstype}{'_for_children' if nstype == TIME else ''}"
        # A mount namespace cannot be bound where the bind would propagate (EINVAL).
        self._propagation = MS_PRIVATE if nstype == MNT else MS_SHARED
        # The mount that the directory was the root of when it was last set up.
        self.mount = NO_MOUNT

    def path(self, name: str) -> str:
        """The file of a name; ValueError for one that no file can have."""
        return f"{self.directory}/{check_name(name)}"

    def names(self) -> list[str]:
        """All names, in order; also those of plain files, as ip-netns(8) lists them."""
        try:
            return sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []

    def key(self, name: str) -> Key | None:
        """What the name stands for; None for a symlink or a file that is gone."""
        try:
            status = os.lstat(f"{self.directory}/{name}")
        except OSError:
            return None
        return Key(status.st_dev, status.st_ino)

    def make_directory(self) -> None:
        """The directory, as a plain one; FileExistsError never."""
        parent = os.path.dirname(self.directory)
        for directory in (self.directory,) if self.type == NET else (parent, self.directory):
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                pass
            except PermissionError as error:
                raise step_error(error.errno or 0, f"create {directory}", directory, ("name",)) from None

    def prepared(self) -> Lock:
        """A shared lock on the directory, which is a mount of its own by then."""
        for _ in range(SETUP_TRIES):
            try:
                lock = Lock(self.directory, exclusive=False)
            except FileNotFoundError:
                self.prepare()
                continue
            if _mount_at(self.directory) == self.mount:
                return lock
            lock.release()
            self.prepare()
        raise self.never_ready()

    def prepare(self) -> None:
        """Set the directory up; however many do so at the same time, one of them mounts."""
        self.make_directory()
        with Lock(self.directory, exclusive=True):
            self._become_mount()
            self.mount = _ns.mount_id(self.directory)[0]

    def never_ready(self) -> OSError:
        return OSError(errno.EBUSY, "this directory is unmounted again and again", self.directory)

    def _become_mount(self) -> None:
        """As ip-netns(8): set the propagation, and where that is no mount yet, bind it to itself."""
        path = os.fsencode(self.directory)
        share = ("mount", b"", path, b"none", self._propagation | MS_REC, None)
        err = attempt(*share)
        if err == errno.EINVAL:
            err = attempt("mount", path, path, b"none", MS_BIND | MS_REC, None)
            if err:
                raise step_error(err, f"bind {path!r} on itself", self.directory, ("name",))
            err = attempt(*share)
        if err:
            label = f"mount: set the propagation of {self.directory}"
            raise step_error(err, label, self.directory, ("name",))

    def remove_all(self, names: list[str]) -> bool:
        """Under the exclusive lock: remove names that are all there are at once; False: nothing was done."""
        if self.names() != sorted(names):
            return False
        paths = [f"{self.directory}/{name}" for name in names]
        looks: list[int] = []
        try:
            looks.extend(os.open(path, O_LOOK) for path in paths if len(paths) <= LOOKS)
            if not self._drop_mounts():
                return False
            _delete_all(paths, looks or [-1] * len(paths))
        finally:
            close_all(looks)
        return True

    def _drop_mounts(self) -> bool:
        """Unmount all names by putting a copy of the directory's own mount in its place.

        The directory's files, and the file system where it has its own, stay.
        """
        self.mount = 0  # until it is known, names are not to be made here
        done = _ns.swap_mount(self.directory) == 0
        try:
            self.mount = _ns.mount_id(self.directory)[0]
        except OSError:  # what was begun has to be gone through with
            pass
        return done


class Lock:
    """flock(2) on a directory, held from the start; ip-netns(8) takes it too while it sets one up."""

    def __init__(self, directory: str, exclusive: bool) -> None:
        import fcntl

        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        except BaseException:
            os.close(self._fd)
            raise

    def release(self) -> None:
        import fcntl

        # A child forked meanwhile has the descriptor too: closing alone would leave it locked.  What was done under
        # the lock is done: nothing here may raise.
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            pass
        close_all([self._fd])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


_stores: dict[NSType | int | str, Store] = {}


def store_of(type: NSType | int | str) -> Store:
    """The store of one type, however that is named; raises as parse_type."""
    try:
        return _stores[type]
    except (KeyError, TypeError):
        nstype = parse_type(type)
    return _stores.setdefault(nstype, Store(nstype))


def check_name(name: str) -> str:
    """The name; TypeError or ValueError where no file of a directory can have it."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be a string, not {name!r}")
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"a name must be a file name without '/', not {name!r}")
    if len(name) > NAME_MAX // 4 and len(os.fsencode(name)) > NAME_MAX:  # a character has 4 bytes at most
        raise ValueError(f"a name must have at most {NAME_MAX} bytes, not {len(os.fsencode(name))}: {name[:40]!r}...")
    return name


def attempt(op: str, *args: Argument) -> int:
    """One raw system call: its errno, 0 when it worked."""
    failed = _ns.run_plan(_ns.Plan([(op, args, -1, 0)]))
    return failed[1] if failed else 0


def stale(path: str) -> NotANamespace:
    """The error for a name whose namespace is not there."""
    return NotANamespace(
        f"{path} is a plain file, stale: no namespace is bound on it here "
        f"(left by an interrupted creation, a restart, or made in another mount namespace); remove() deletes it"
    )


def is_stale(path: str) -> bool:
    """Whether this is a file that no namespace is bound on, nor is going to be; a symlink is none."""
    if not _is_plain(path):
        return False
    with Lock(os.path.dirname(path), exclusive=True):  # a creation that is under way is done by then
        return _is_plain(path)


def _is_plain(path: str) -> bool:
    try:
        look = os.open(path, O_LOOK)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(look).st_mode) and not _ns.nsfs_type(look)
    finally:
        os.close(look)


def open_bound(path: str) -> NamespaceFile | None:
    """What is bound on a file itself; None where that is no namespace."""
    from ._handle import adopt

    look = os.open(path, O_LOOK)
    try:
        if not _ns.nsfs_type(look):
            return None
        return adopt(os.open(f"/proc/thread-self/fd/{look}", os.O_RDONLY | os.O_CLOEXEC), path)
    finally:
        os.close(look)


def unbind(path: str) -> None:
    """Unmount and delete a name: a namespace, a stale file, or a symlink, itself.

    One EBUSY is retried.  OSError when it cannot be done; the name is then as it was.
    """
    look = os.open(path, O_LOOK)
    try:
        _unmount_and_delete(path, look)
    finally:
        close_all([look])


def _delete_all(paths: list[str], looks: list[int]) -> None:
    """Delete names that are unmounted already; all of them are tried before an error is raised."""
    errors: list[OSError] = []
    for path, look in zip(paths, looks, strict=True):
        try:
            os.unlink(path)
        except OSError:  # still a mount point: there were several on it
            try:
                _unmount_and_delete(path, look)
            except OSError as e:
                errors.append(e)
    if errors:
        raise errors[0]


def _unmount_and_delete(path: str, look: int) -> None:
    import time

    for last in (False, True):
        err = attempt("umount2", os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)
        if err == errno.EPERM:
            raise step_error(err, f"unmount {path}", path, ("mount",))
        try:
            os.unlink(path)
            return
        except OSError as e:
            if e.errno != errno.EBUSY or last:
                _bind_again(path, look)
                raise step_error(e.errno or 0, f"delete {path}", path) from None
        time.sleep(BUSY_PAUSE)


def _bind_again(path: str, look: int) -> None:
    """Put back what was unmounted from a file that could not be deleted."""
    if look >= 0 and _is_plain(path) and _ns.nsfs_type(look):
        attempt("mount", f"/proc/thread-self/fd/{look}".encode(), os.fsencode(path), b"none", MS_BIND, None)


def discard(path: str) -> None:
    """What is left of a name that could not be made; there is an error to be raised."""
    attempt("umount2", os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW)
    try:
        os.unlink(path)
    except OSError:
        pass


def keys_of_processes(nstype: NSType) -> Iterator[tuple[int, Key]]:
    """The namespace of every process that may be looked at (proc_pid_ns(5))."""
    entry = f"ns/{name_of(nstype)}"
    for pid in os.listdir("/proc"):
        if not pid.isdecimal():
            continue
        try:
            status = os.stat(f"/proc/{pid}/{entry}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is not ours to look at
            continue
        yield int(pid), Key(status.st_dev, status.st_ino)


def _mount_at(directory: str) -> int | None:
    """The mount whose root the directory is, None when it is on its parent's."""
    try:
        number, is_root = _ns.mount_id(directory)
    except OSError:
        return None
    return number if is_root else None
