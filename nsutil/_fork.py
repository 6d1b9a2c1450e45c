"""A forked child in the namespaces of a recipe, which runs Python."""

from __future__ import annotations

import io
import os
import select
import signal
import struct
import sys
import time
from errno import ENOEXEC

from . import _ns
from ._errors import ChildDied, step_error
from ._plan import close_all
from ._status import kernels_own, status_field
from ._types import PID, TIME, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._compile import ChildPlan
    from ._plan import Steps
    from ._recipe import Namespace

# Kinds of message of the set-up (src/message.h).
FAILED, READY = 1, 2
# How long what was killed may take to end, in seconds: it may be in an uninterruptible sleep.
PATIENCE = 2.0
# How often a look at a process is tried that lacks a descriptor or memory, and the seconds in between.
TRIES, PAUSE = 5, 0.02
# What is done between the plans: enum own_step of src/forked.h.
OWN_STEPS = (
    ("unshare", None),
    ("fork into the PID namespace", None),
    ("enter the new TIME namespace", "/proc/self/ns/time_for_children"),
    ("join the TIME namespace", None),
    ("watch the parent", None),
    ("become nsutil's init", None),
    ("ask for the id maps", None),
)


class Forked:
    """The child of one recipe, from its fork to its end.

    ``child.end()`` must be called whatever happens: it kills and reaps what is
    still there, in one call that no signal handler can come between.
    """

    def __init__(self, recipe: Namespace) -> None:
        from ._compile import among_other_files

        self.recipe = recipe
        self.elsewhere = among_other_files(recipe)
        self.child = _ns.Child()
        self.waits = False
        self._plans: tuple[Steps | None, ...] = ()
        self._plan: ChildPlan

    def start(self, serve: Callable[[], object], follow: bool = True) -> None:
        """Fork; ``serve()`` runs inside, after which the child ends.

        ``follow=False``: the recipe's ``kill_child`` is not looked at, since
        ``serve()`` watches this process itself.
        Raises what making the plan raises, OSError where fork(2) fails,
        RuntimeError in a subinterpreter.
        """
        from ._compile import compile_child

        if self.elsewhere:
            from ._preload import preload

            preload()
        flush_output()
        self._plan = plan = compile_child(self.recipe)
        try:
            self._fork(plan, serve, follow)
        finally:
            plan.close()

    def _fork(self, plan: ChildPlan, serve: Callable[[], object], follow: bool) -> None:
        maps = plan.maps
        self._plans = (plan.enter, maps.self_write if maps else None, plan.setup, plan.credentials)
        new, signal_ = self.recipe.new, parent_signal(self.recipe, plan.init) if follow else 0
        second = plan.second or bool(new & PID)
        self.waits = second or bool(signal_)
        try:
            self.child.fork(
                serve,
                tuple(steps.plan if steps else None for steps in self._plans),
                plan.slots.presets,
                clone_flags=plan.clone_flags,
                second=second,
                init=plan.init,
                hides=plan.hides,
                new_time=bool(new & TIME),
                join_time=plan.join_time.fileno() if plan.join_time else -1,
                mapped=maps is not None and not maps.self_write,
                parent_signal=signal_,
                watch=bool(signal_),
            )
        except OSError as error:
            raise _fork_error(error.errno or 0) from None

    def receive(self, timeout: float | None = None) -> tuple[int, bytes]:
        """The next message that is not about the set-up.

        Raises OSError for a step that failed, ChildDied when the child ended
        without a message, TimeoutError after ``timeout`` seconds.
        """
        message = None
        while message is None:
            message = self.receive_one(timeout)
        return message

    def receive_one(self, timeout: float | None = None) -> tuple[int, bytes] | None:
        """The next message; None when it was about the set-up and is dealt with."""
        message = _ns.receive(self.child.channel, self.child.pidfd, timeout)
        if message is None:
            raise self._died(self.child.wait())
        if message[0] == READY:
            self._write_maps()
            return None
        if message[0] == FAILED:
            raise self._failed(*struct.unpack("=iii", message[1]))
        return message

    def _write_maps(self) -> None:
        assert self._plan.maps is not None
        try:
            self._plan.maps.writer(self.child.pid)
            self.child.go()
        except OSError:
            # Of a child that was killed meanwhile receive() has more to say.
            if not _ns.await_exit(self.child.pidfd, 0):
                raise

    def _failed(self, plan: int, step: int, errno: int) -> OSError:
        if plan < len(self._plans):
            steps = self._plans[plan]
            assert steps is not None
            return steps.error(step, errno)
        label, filename = OWN_STEPS[step]
        if label == "unshare":
            label = f"unshare({str(NSType(self._plan.clone_flags)).upper()})"
        return step_error(errno, label, filename)

    def _died(self, status: int | None) -> ChildDied:
        if status is None or status < 0:
            return ChildDied("the child ended without a result, and somebody else reaped it")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return ChildDied(f"the child was killed by {_signal_name(number)} before it returned", signal=number)
        code = os.WEXITSTATUS(status)
        return ChildDied(f"the child exited with status {code} before it returned", status=code)

    def wait(self, timeout: float | None = None) -> int:
        """Reap the child; its wait status, -1 when somebody else took that.

        Raises TimeoutError after ``timeout`` seconds.
        """
        status = self.child.wait(timeout)
        if status is None:
            raise TimeoutError("timed out")
        return status

    def kill_tree(self) -> None:
        """SIGKILL to the child and its descendants, which have ended on return."""
        if self.child.pid:
            kill_tree(self.child.pid, self.waits)


def _fork_error(errno: int) -> OSError:
    error = step_error(errno, "fork a child")
    if errno == ENOEXEC:
        error.add_note("nsutil's init exists for x86_64 and aarch64 only; pass init=False to make func PID 1")
    return error


def parent_signal(recipe: Namespace, init: bool) -> int:
    """What the child gets when this process ends; 0: nothing."""
    if recipe.kill_child is None:
        return int(signal.SIGKILL) if init else 0
    return int(signal.SIGKILL) if recipe.kill_child is True else int(recipe.kill_child)


def flush_output() -> None:
    """Write out what is buffered, so that parent and child do not both do it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):  # None, closed, or nobody reads
            pass


def renew_output() -> None:
    """In a child: empty buffers, and locks that nobody holds.

    Another thread may have been writing at the fork. Python mends this for the
    streams it made itself, not for those put in their place.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            buffer = stream.buffer
            if type(buffer) is io.BufferedWriter and type(buffer.raw) is io.FileIO:
                io.BufferedWriter.__init__(buffer, buffer.raw)
        except (AttributeError, ValueError, OSError):  # None, of another kind, detached or closed
            pass


def kill_tree(pid: int, waits: bool) -> None:
    """SIGKILL to a child of this process and to its descendants; returns when they have ended.

    ``waits``: the child only waits for its own child, and ends by itself.
    Each is stopped before its children are looked up, so that none is missed;
    those that left the tree (daemons outside of a PID namespace) are.
    """
    tree, pidfds = [(pid, 0)], list[int]()
    try:
        if waits:
            tree = [(child, pid) for child in _children(pid)]
        for each, parent in tree:
            if _hold(each, parent, pidfds):
                tree += [(child, each) for child in _children(each)]
        for pidfd in pidfds:
            _send(pidfd, signal.SIGKILL)
        for pidfd in pidfds:
            _wait_readable(pidfd, PATIENCE)
    finally:
        close_all(pidfds)


def _wait_readable(fd: int, seconds: float) -> None:
    poll = select.poll()  # select(2) refuses large descriptors
    poll.register(fd, select.POLLIN)
    poll.poll(seconds * 1000)


def _hold(pid: int, parent: int, pidfds: list[int]) -> bool:
    """Stop a process and add its pidfd; False where it has ended.

    ``parent``: who had it as a child a moment ago, or 0; if somebody else has,
    the number is a stranger's by now.
    """
    pidfd = _insist(os.pidfd_open, pid)
    if pidfd is None:
        return False
    if parent and _insist(_read_parent, pid) != parent:
        os.close(pidfd)
        return False
    pidfds.append(pidfd)
    return _send(pidfd, signal.SIGSTOP)


def _read_parent(pid: int) -> int:
    """Of a process of which a pidfd is open: so the answer is about that one."""
    return int(status_field(pid, "PPid") or 0)


def _send(pidfd: int, number: int) -> bool:
    """False where it has ended; one that we may not signal may have children that we may."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _children(pid: int) -> list[int]:
    """The pids of its children; empty where it has ended, or where the kernel keeps no such list."""
    return _insist(_read_children, pid) or []


def _read_children(pid: int) -> list[int]:
    found = list[int]()
    for task in _tasks(pid):
        try:
            with open(f"/proc/{pid}/task/{task}/children", opener=kernels_own) as file:
                found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):  # that thread has ended, and its children are another's
            pass
    return found


def _tasks(pid: int) -> list[str]:
    directory = _ns.open_proc(f"/proc/{pid}/task")
    try:
        return os.listdir(directory)
    finally:
        os.close(directory)


def _insist(look: Callable[[int], Any], pid: int) -> Any:
    """The result of a look at a process; None where it has ended, or can't be looked at."""
    for _ in range(TRIES):
        try:
            return look(pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:  # whoever is missed here lives on
            time.sleep(PAUSE)
    return None


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
