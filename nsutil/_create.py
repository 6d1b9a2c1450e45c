"""Namespaces that nobody is in, held by descriptors."""

from __future__ import annotations

import os
import signal

from ._types import PID, TIME, NSType, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._file import NamespaceFile, NamespaceSet
    from ._recipe import Namespace

# What only a program or a function has.
_PROGRAM_ONLY = (
    "uid gid groups keep_caps ambient bounding no_new_privs cwd cgroup rlimits umask kill_child new_session timeout env"
).split()

# Of waitid(2): also a child that never became a program, which has no exit signal.
WALL = 0x40000000


def create_recipe(recipe: Namespace) -> NamespaceSet:
    """Make the namespaces of a recipe, set up as it says, and hold them.

    nsutil's init is the only process ever inside.  It goes at once unless PID
    is new: a PID namespace ends with its PID 1, so there init stays until the
    set is closed, or dropped, or this process ends.

    Raises ValueError for options that only a program has, else as popen().
    """
    from ._spawn import Launch

    refused = [name for name in _PROGRAM_ONLY if name in recipe._options]
    if refused:
        raise ValueError(f"{', '.join(refused)} means nothing without a program: use .run(), .popen() or .call()")
    if not recipe.types:
        raise ValueError("create() needs types: the recipe neither makes nor joins anything")
    launch = Launch(recipe)
    try:
        pidfd = launch.hold()
    finally:
        launch.close()
    return _take_over(recipe, _Holder(pidfd))


def _take_over(recipe: Namespace, holder: _Holder) -> NamespaceSet:
    from ._file import NamespaceSet
    from ._file import open as open_namespace

    files: dict[NSType, NamespaceFile] = {}
    try:
        for join in recipe.enter:
            if join.types & TIME:  # which init did not join
                files.update({file.type: file for file in join.files() if file.type == TIME})
        for nstype in each(recipe.types & ~sum(files)):
            files[NSType(nstype)] = open_namespace(fd=holder.pidfd, type=nstype)
        if not recipe.new & PID:
            holder.end()
    except BaseException:
        holder.end()
        for file in files.values():
            file.close()
        raise
    return NamespaceSet(files, on_close=holder.end)


class _Holder:
    """The process inside, ended once and only by the process that made it."""

    def __init__(self, pidfd: int) -> None:
        self.pidfd = pidfd
        self._maker = os.getpid()

    def end(
        self,
        send: Callable[[int, int], None] = signal.pidfd_send_signal,
        kill: int = signal.SIGKILL,
        wait: Callable[[int, int, int], object] = os.waitid,
        how: tuple[int, int] = (os.P_PIDFD, os.WEXITED | WALL),
        getpid: Callable[[], int] = os.getpid,
        close: Callable[[int], None] = os.close,
    ) -> None:
        """Kill and reap it.  The defaults are what a dying interpreter still has."""
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd < 0:
            return
        try:
            if self._maker == getpid():
                try:
                    send(pidfd, kill)
                except ProcessLookupError:
                    pass  # it has ended, and may still have to be reaped
                wait(how[0], pidfd, how[1])
        except ChildProcessError:
            pass  # somebody else reaped it
        finally:
            close(pidfd)
