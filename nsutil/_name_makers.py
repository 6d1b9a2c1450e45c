"""How each type of namespace is made and bound on its name's file.

Nobody is moved: a thread or a process that ends makes the namespace.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from functools import lru_cache

from . import _ns
from ._blocks import restore_failed
from ._errors import step_error
from ._handle import NamespaceFile, adopt
from ._names import MS_BIND, SETUP_TRIES, attempt, discard, is_stale, open_bound, store_of, unbind
from ._plan import AT_FDCWD, PlanBuilder, close_all
from ._types import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._names import Store
    from ._plan import Steps
    from ._recipe import Namespace

# What can be said about a namespace itself; every other option is about a process.
_OPTIONS: dict[NSType, frozenset[str]] = {
    CGROUP: frozenset(),
    IPC: frozenset(),
    MNT: frozenset({"propagation", "mounts", "root", "mount_proc"}),
    NET: frozenset({"loopback"}),
    PID: frozenset(),
    TIME: frozenset({"monotonic", "boottime"}),
    USER: frozenset({"uid_map", "gid_map", "setgroups", "owner"}),
    UTS: frozenset({"hostname", "domainname"}),
}
_O_NEW = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_O_NS = os.O_RDONLY | os.O_CLOEXEC


def make(store: Store, path: str, options: dict[str, Any]) -> NamespaceFile:
    """Make the namespace and bind it on a new file at path.

    FileExistsError when there is one already.  Whatever fails, no file stays.
    """
    if store.type in _MAKERS:
        recipe = _recipe(store.type, options)
        sys.audit("nsutil.named", "create", path)
        with store.prepared():
            make_file(path)
            try:
                return _MAKERS[store.type](path, recipe)
            except BaseException:
                discard(path)
                raise
    try:
        # Their types too: True and 1 are one key, and not one option.
        key = tuple([(name, value.__class__, value) for name, value in options.items()]) if options else ()
        steps = _steps(store.type, key)
    except TypeError:  # an option that cannot be hashed: let its own check speak
        _recipe(store.type, options)
        raise
    return _make_apart(store, path, steps)


def _recipe(nstype: NSType, options: dict[str, Any]) -> Namespace:
    """The recipe; ValueError for options that a namespace without a process cannot keep."""
    from ._recipe import RECIPE_OPTIONS, Namespace

    refused = sorted(RECIPE_OPTIONS & (options.keys() - _OPTIONS[nstype]))
    if refused:
        allowed = ", ".join(sorted(_OPTIONS[nstype])) or "none"
        raise ValueError(f"{', '.join(refused)} cannot be kept by a named {nstype} namespace; its options: {allowed}")
    return Namespace(nstype, **options)


@lru_cache(maxsize=32)
def _steps(nstype: NSType, options: tuple[tuple[str, Any, Any], ...]) -> Steps:
    """The same steps serve every name that is made with the same options."""
    from ._compile import thread_steps

    return thread_steps(_recipe(nstype, {key: value for key, _, value in options}), ("name",))


def make_file(path: str) -> None:
    """The empty file that a namespace is bound on, as ip-netns(8) makes it; none stays where this fails."""
    try:
        fd = os.open(path, _O_NEW, 0)
    except PermissionError as error:
        raise step_error(error.errno or 0, f"create {path}", path, ("name",)) from None
    try:
        os.close(fd)
    except BaseException:
        discard(path)
        raise


def bind_new(path: str, fd: int) -> None:
    """Bind an open namespace on a new file at path."""
    make_file(path)
    try:
        _bind(path, fd)
    except BaseException:
        discard(path)
        raise


def _bind(path: str, fd: int) -> None:
    err = attempt("mount", f"/proc/thread-self/fd/{fd}".encode(), os.fsencode(path), b"none", MS_BIND, None)
    if err:
        raise step_error(err, f"mount: bind the namespace on {path}", path, ("name",))


def explain_existing(error: FileExistsError, path: str) -> None:
    """Say so when the file is only a remnant: it looks like a name and is none.

    No lock may be held: this waits for whoever is making the name just now.
    """
    if is_stale(path):
        error.add_note(f"{path} is a plain file without a namespace; remove() deletes it")


# ---------------------------------------------------------------- all but MNT, PID, USER

# The parts of a creation, as src/named.c counts them.
_LOCK, _FILE, _THREAD, _PLAN, _BIND, _OPEN, _BACK = range(7)


def _make_apart(store: Store, path: str, steps: Steps) -> NamespaceFile:
    """File, unshare, set-up and bind in one C call."""
    for _ in range(SETUP_TRIES):
        result = _ns.name_create(
            store.directory, store.mount, path, int(store.type), store.entry, steps.plan, steps.slots.presets
        )
        if isinstance(result, int):
            return _adopt_or_discard(result, path)
        if result is not None:
            raise _failure(store, path, steps, *result)
        store.prepare()
    raise store.never_ready()


def _adopt_or_discard(fd: int, path: str) -> NamespaceFile:
    try:
        return adopt(fd, path)
    except BaseException:
        discard(path)
        raise


def _failure(store: Store, path: str, steps: Steps, part: int, step: int, err: int) -> OSError:
    if part == _PLAN:
        return steps.error(step, err)
    if part == _BACK:
        restore_failed(int(store.type), err)
    if part == _LOCK:
        return step_error(err, f"lock {store.directory}", store.directory)
    labels = {_FILE: f"create {path}", _THREAD: "start a thread", _BIND: f"mount: bind {store.entry} on {path}"}
    return step_error(err, labels.get(part, f"open {store.entry}"), path, ("name",))


# ---------------------------------------------------------------- MNT


def _make_mnt(path: str, recipe: Namespace) -> NamespaceFile:
    """The caller binds, since the thread is in the new one by then.

    Linux 6.18 takes mount namespaces made on another CPU for older than the
    caller's own, and refuses to bind them (EINVAL): each CPU gets a try, and
    the one that made the caller's namespace succeeds.
    """
    for cpu in (-1, *sorted(os.sched_getaffinity(0))):
        namespace = _mnt_on_cpu(recipe, cpu)
        try:
            namespace.bind(path)
        except OSError as e:
            namespace.close()
            error = e
            if e.errno != errno.EINVAL:
                break
        else:
            return namespace
    raise error


def _mnt_on_cpu(recipe: Namespace, cpu: int) -> NamespaceFile:
    from ._compile import thread_steps

    steps = thread_steps(recipe, ("name",))
    builder = PlanBuilder(steps.slots)
    entry = store_of(MNT).entry
    builder.add("openat", AT_FDCWD, entry.encode(), _O_NS, 0, label=f"open {entry}", out=builder.slot())
    parts = (steps, builder.build())
    slot = len(steps.slots.presets) - 1
    result = _ns.run_apart(tuple(part.plan for part in parts), steps.slots.presets, slot, cpu)
    if isinstance(result, int):
        return adopt(result)
    part, step, err = result
    raise parts[part].error(step, err)


# ---------------------------------------------------------------- USER, PID


def _make_user(path: str, recipe: Namespace) -> NamespaceFile:
    """A process makes it and ends; the bind keeps it, with its maps."""
    with recipe.create() as held:
        _bind(path, held[USER].fileno())
        return adopt(os.dup(held[USER].fileno()), path)


def _make_pid(path: str, _recipe: Namespace) -> NamespaceFile:
    """PID 1 has to stay, since nothing can enter without one; it ends with the file."""
    result = _ns.hold_pid(os.fsencode(path))
    if not isinstance(result, int):
        step, err = result
        raise step_error(err, step, path)
    return _bind_held(path, result)


def _bind_held(path: str, pidfd: int) -> NamespaceFile:
    from . import _file

    try:
        with _file.open(fd=pidfd, type=PID) as namespace:
            namespace.bind(path)
            return adopt(os.dup(namespace.fileno()), path)
    except BaseException:
        _kill(pidfd)
        raise
    finally:
        close_all([pidfd])


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


# What src/holder.c starts, and nothing else is called.
_HELD = (b"nsutil-init\0w\x000\x009\0named\0", b"nsutil-init\0w\x000\x000\0named\0")
# More is not read: root inside can make the command line of PID 1 as long as its memory.
_LONGEST_HELD = max(map(len, _HELD)) + 1
# Processes that were killed may take a moment to go.
_END_TIMEOUT = 5.0
# A command line that stays empty this long, in milliseconds, was emptied on purpose.
_EXEC_TRIES = 1000
# More pidfds than this are not held at a time.
_AT_ONCE = 100


def remove_pids(paths: Sequence[str]) -> None:
    """Delete names, and with each PID 1 and all processes inside, where it is there for the name's sake."""
    for start in range(0, len(paths), _AT_ONCE):
        held: list[int] = []
        gone = 0
        try:
            for path in paths[start : start + _AT_ONCE]:
                pidfd = _named_init(path)
                held += [] if pidfd is None else [pidfd]
                unbind(path)
                gone = len(held)
        finally:
            close_all(held[gone:])
            _end(held[:gone])


def _end(pidfds: list[int]) -> None:
    """Kill these processes, and wait for a while until they are gone."""
    deadline = time.monotonic() + _END_TIMEOUT
    try:
        for pidfd in pidfds:
            _kill(pidfd)
        for pidfd in pidfds:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        close_all(pidfds)


def _named_init(path: str) -> int | None:
    """The pidfd of PID 1, if it is there for the name's sake."""
    from ._file import pin

    namespace = open_bound(path)
    if namespace is None or namespace.type != PID:
        return None
    try:
        with namespace:
            pid = namespace.pid_from(1)
        pidfd = pin(pid)
    except ProcessLookupError:
        return None
    try:
        if _is_held(pid, pidfd):
            return pidfd
    except BaseException:
        close_all([pidfd])
        raise
    close_all([pidfd])
    return None


def _is_held(pid: int, pidfd: int) -> bool:
    """By its command line, which is empty for a moment while it becomes what it is to be, and when it has ended."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    for _ in range(_EXEC_TRIES):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read(_LONGEST_HELD)
        except (FileNotFoundError, ProcessLookupError):
            return False
        if line or ended.poll(1):
            return line in _HELD
    return False


_MAKERS = {MNT: _make_mnt, PID: _make_pid, USER: _make_user}
