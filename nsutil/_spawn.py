"""A compiled plan and a command become a child; a failed step becomes its OSError."""

from __future__ import annotations

import os
from errno import ENOEXEC

from . import _ns
from ._errors import step_error
from ._types import NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._compile import ChildPlan
    from ._plan import Steps

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


def start(
    plan: ChildPlan,
    ending: tuple[bool, int, tuple[bool, bool]],
    command: tuple[Any, ...],
    files: tuple[Any, ...],
    identity: Steps | None,
    program: Any,
) -> tuple[int, int, int, int]:
    """Start a child: (pid, pidfd, program's pid, status descriptor or -1).

    ``ending``: whether a waiter stands between, the signal for the program
    when this process ends, and whether the program leads a session or group
    of its own.  ``command`` and ``files``: see nsutil/_command.py.
    ``identity``: what subprocess's own options ask.  ``program``: its name in
    errors.  Raises the OSError of the step that failed.
    """
    watch, end_signal, leads = ending
    shape = plan.clone_flags, plan.second, plan.init, watch, plan.joins, *leads, end_signal
    time_fd = plan.join_time.fileno() if plan.join_time else -1
    result = _with_maps(plan, identity, shape, (*command, time_fd), files)
    if len(result) == 3:
        raise _failure(plan, identity, program, *result)
    pid, pidfd, program_pid, status = result
    return pid, pidfd, program_pid, status


def _with_maps(
    plan: ChildPlan, identity: Steps | None, shape: tuple[Any, ...], command: tuple[Any, ...], files: tuple[Any, ...]
) -> tuple[int, ...]:
    """_ns.spawn, the id maps being written meanwhile where that is for us to do."""
    maps = plan.maps
    own = maps.self_write if maps is not None else None
    plans = tuple(_plan_of(steps) for steps in (plan.enter, own, plan.setup, plan.credentials, identity))
    presets = plan.slots.presets
    if maps is None or own is not None:
        return _ns.spawn(plans, presets, shape, command, files, (-1, -1, -1))
    from ._mapper import Mapper

    with Mapper(maps.writer) as mapper:
        result = _ns.spawn(plans, presets, shape, command, files, mapper.ends)
    if mapper.error is not None and len(result) == 3:
        raise mapper.error
    return result


def _plan_of(steps: Steps | None) -> _ns.Plan | None:
    return steps.plan if steps else None


def _failure(plan: ChildPlan, identity: Steps | None, program: Any, part: int, step: int, errno: int) -> OSError:
    """The OSError for what the child reported."""
    steps = {
        _ENTER: plan.enter,
        _MAPS: plan.maps and plan.maps.self_write,
        _SETUP: plan.setup,
        _CREDENTIALS: plan.credentials,
        _IDENTITY: identity,
    }.get(part)
    if steps:
        return steps.error(step, errno)
    if part == _EXEC:
        return step_error(errno, f"run {os.fsdecode(program)}", program)
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
