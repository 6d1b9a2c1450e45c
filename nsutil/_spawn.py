"""A recipe made ready to start programs, and the child that is started."""

from __future__ import annotations

import os
import signal
from errno import EBADF, ENOEXEC

from . import _ns
from ._compile import compile_child, ids_for
from ._errors import step_error
from ._types import MNT, TIME, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ._handle import NamespaceFile
    from ._plan import Steps
    from ._recipe import Namespace

# Bits of _ns.spawn (src/process.c).
SECOND, INIT, WATCH, HIDE, NEW_SESSION, NEW_GROUP, CLOSE_FDS, RESTORE_SIGNALS = (1 << bit for bit in range(8))
CHANGES_IDS = 1 << 8

# enum spawn_part of src/spawn.h
_ENTER, _MAPS, _SETUP, _CREDENTIALS, _IDENTITY = range(5)
_CLONE, _AWAIT_MAPS, _INNER_CLONE, _FILES, _JOIN_TIME, _EXEC, _INIT, _PREPARE = range(5, 13)
_PARTS = {
    _AWAIT_MAPS: "wait for the id maps",
    _INNER_CLONE: "start the process inside the namespaces",
    _INIT: "run nsutil's init",
    _PREPARE: "prepare the child",
}
_NO_INIT_HERE = "nsutil's init exists for x86_64 and aarch64 only; pass init=False to run the program as PID 1"
_NO_MAPS = (-1, -1, -1)
INHERITED = (-1, -1, -1)  # stdin, stdout, stderr


class Child:
    """A started process: what _ns.spawn fills in before any signal handler can run, so that none is ever lost.

    ``pid`` and ``pidfd``: this process's child.  ``program_pid``: the
    program's, 0 where it cannot be seen from here.  ``status``: where nsutil's
    init reports the program's end, -1 without it.  ``program``: for a pidfd of
    the program.  The descriptors are closed with the last user: subprocess
    keeps an unfinished Popen alive after its __del__, and Python never calls
    that a second time.
    """

    __slots__ = ("pid", "pidfd", "program", "program_pid", "status")

    def __init__(self) -> None:
        self.pid = self.program_pid = 0
        self.pidfd = self.status = self.program = -1

    def close(self, release: Callable[[Child], None] = _ns.release) -> None:
        """Close the descriptors, once."""
        release(self)

    __del__ = close

    def abandon(self) -> None:
        """Kill and reap what was started, if anything was: nobody is going to hold it."""
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _ns.await_exit(self.pidfd, None)
        _ns.collect(self.pidfd, -1)
        self.close()

    def end_tree(self, init: bool) -> None:
        """The same with all that it has started, as far as that can be found; ``init``: PID 1 takes that along."""
        if self.program_pid and not init and not _ns.await_exit(self.pidfd, 0):
            from ._fork import kill_tree

            kill_tree(self.program_pid, waits=False)
        self.abandon()


class Launch:
    """What every program of a recipe has in common.

    ``init``: PID 1 is nsutil's.  ``end_signal``: what the program gets when
    this process ends, 0 for nothing.  ``lasting``: nothing but the recipe and
    this process's ids went in, so that it serves for the next program too.
    """

    __slots__ = ("_bits", "_plan", "_plans", "cwd", "end_signal", "env", "init", "lasting", "new_session", "ready")

    def __init__(self, recipe: Namespace) -> None:
        self._plan = plan = compile_child(recipe)
        self.init = plan.init
        self.end_signal = _end_signal(recipe.kill_child, plan.init)
        self.cwd, self.env, self.new_session = recipe.cwd, recipe.env, recipe.new_session is not False
        watch = bool(self.end_signal) and not plan.init
        other_ids = recipe.uid is not None or recipe.owner or (plan.maps and plan.maps.adopt_root)
        chosen = (SECOND, plan.second), (INIT, plan.init), (WATCH, watch), (HIDE, plan.hides), (CHANGES_IDS, other_ids)
        self._bits = sum(bit for bit, wanted in chosen if wanted)
        own = plan.maps.self_write if plan.maps else None
        self._plans = tuple(_plan_of(steps) for steps in (plan.enter, own, plan.setup, plan.credentials, None))
        looks_around = recipe.joined & MNT or "target" in (recipe.uid, recipe.gid) or recipe.etc_netns
        looks_around = looks_around or not isinstance(recipe.root, (str, type(None)))
        self.lasting = not looks_around and not plan.keep and (plan.maps is None or own is not None)
        self.ready: tuple[type[Child], tuple[int, int, int], Any, Any, int, int, int] | None = None
        if self.lasting and not plan.join_time and self.env is None:
            bits = self._bits | CLOSE_FDS | RESTORE_SIGNALS | NEW_SESSION * self.new_session
            setting = self._plans, plan.slots.presets, plan.clone_flags, bits, self.end_signal
            self.ready = Child, _NO_MAPS, *setting

    def start(
        self,
        child: Child,
        program: Any,
        words: Sequence[Any],
        envp: Sequence[bytes] | None,
        candidates: Sequence[Any],
        bits: int,
        streams: tuple[int, int, int],
        pass_fds: Sequence[int] = (),
        identity: Steps | None = None,
    ) -> None:
        """Start a child, which ``child`` then holds.

        ``program``: its name in errors.  ``bits``: more of them.  ``identity``:
        what subprocess's own options ask.  Raises the OSError of the step that
        failed.
        """
        time = self._time_to_join() if self._plan.join_time else None
        kept = tuple(sorted({int(fd) for fd in pass_fds})) if pass_fds else ()
        if kept and kept[0] < 0:
            raise ValueError(f"pass_fds must be open descriptors, not {kept[0]}")
        if min(streams) < INHERITED[0]:  # where src/spawn.c has the errors of its own pipes
            raise self._failure(program, identity, _FILES, -1, EBADF)
        command = words, envp, candidates, time.fileno() if time else -1
        bits |= self._bits | CHANGES_IDS * (identity is not None)
        failure = self._run(child, identity, bits, self.end_signal, *command, *streams, kept)
        if failure is not None:
            raise self._failure(program, identity, *failure)

    def run(self, program: Any, words: Sequence[Any], candidates: Sequence[Any]) -> int:
        """Start a program with this process's streams and environment, wait: its raw status, -1 where that is lost.

        One call into C with everything ready; only where ``ready``.  A signal
        handler that raises meanwhile ends the program.  Raises as start().
        """
        assert self.ready is not None
        result = _ns.run(*self.ready, words, None, candidates, -1, *INHERITED, ())
        if isinstance(result, tuple):
            raise self._failure(program, None, *result)
        return result

    def _time_to_join(self) -> NamespaceFile:
        """The TIME namespace that the last stage joins; by then a pidfd may need rights that are gone."""
        assert self._plan.join_time is not None
        return next(file for file in self._plan.join_time.files() if file.type == TIME)

    def hold(self) -> int:
        """Start nsutil's init alone, which holds the namespaces until it is killed or this process ends: its pidfd.

        A TIME namespace to join is left out: nobody is inside to see it.
        Raises the OSError of the step that failed.
        """
        child, bits = Child(), self._bits | NEW_SESSION | CLOSE_FDS
        try:
            failure = self._run(child, None, bits, int(signal.SIGKILL), ("nsutil-init",), (), (), -1, *INHERITED, ())
        except BaseException:
            child.abandon()
            raise
        if failure is not None:
            raise self._failure("nsutil's init", None, *failure)
        pidfd, child.pidfd = child.pidfd, -1
        return pidfd

    def _run(
        self, child: Child, identity: Steps | None, bits: int, end_signal: int, *command: Any
    ) -> tuple[int, int, int] | None:
        """_ns.spawn; id maps that are for us to write are written while the child waits."""
        plan, maps = self._plan, self._plan.maps
        plans = self._plans if identity is None else (*self._plans[:-1], identity.plan)
        setting = plans, plan.slots.presets, plan.clone_flags, bits, end_signal
        if maps is None or maps.self_write:
            return _ns.spawn(child, _NO_MAPS, *setting, *command)
        from ._mapper import Mapper

        with Mapper(maps.writer) as mapper:
            failure = _ns.spawn(child, mapper.ends, *setting, *command)
        if mapper.error is not None and failure is not None:
            raise mapper.error
        return failure

    def close(self) -> None:
        """Close what was opened for one child."""
        self._plan.close()

    def _failure(self, program: Any, identity: Steps | None, part: int, step: int, errno: int) -> OSError:
        """The OSError for what the child reported."""
        plan = self._plan
        own = plan.maps.self_write if plan.maps else None
        by_part = {_ENTER: plan.enter, _MAPS: own, _SETUP: plan.setup, _CREDENTIALS: plan.credentials}
        steps = identity if part == _IDENTITY else by_part.get(part)
        if steps:
            return steps.error(step, errno)
        if part == _EXEC:
            error = step_error(errno, f"run {os.fsdecode(program)}", program)
            error.strerror = os.strerror(errno)  # as subprocess: the file name says it all
            return error
        if part == _CLONE:
            return step_error(errno, f"clone({str(NSType(plan.clone_flags)).upper()})")
        if part == _JOIN_TIME and plan.join_time:
            return step_error(errno, plan.join_time.label, str(plan.join_time.handle))
        if part == _FILES:
            return step_error(errno, "redirect the standard streams" if step < 0 else f"pass descriptor {step}")
        error = step_error(errno, _PARTS[part])
        if part == _INIT and errno == ENOEXEC:
            error.add_note(_NO_INIT_HERE)
        return error


def launch_of(recipe: Namespace) -> Launch:
    """The Launch of a recipe, made once where it is lasting; to be closed where not."""
    key = ids_for(recipe)
    launch: Launch | None = recipe._kept.launches.get(key)
    if launch is None:
        launch = Launch(recipe)
        if launch.lasting:
            recipe._kept.launches[key] = launch
    return launch


def ready_launch(recipe: Namespace) -> Launch | None:
    """The Launch of a recipe if it has one that can run programs at once."""
    launch = recipe._kept.launches.get(ids_for(recipe))
    return launch if launch is not None and launch.ready is not None else None


def _end_signal(kill_child: int | bool | None, init: bool) -> int:
    wish = init if kill_child is None else kill_child
    return int(signal.SIGKILL) if wish is True else int(wish)


def _plan_of(steps: Steps | None) -> _ns.Plan | None:
    return steps.plan if steps else None
