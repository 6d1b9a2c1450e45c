"""Programs in namespaces: subprocess.Popen and run, with namespaces.

The child is made by src/spawn.c; everything around it, pipes, communicate(),
text, timeouts, is subprocess's own.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import warnings
from errno import ESRCH

from . import _command, _ns
from ._options import time_left
from ._plan import close_all
from ._spawn import CLOSE_FDS, INHERITED, RESTORE_SIGNALS, Child, Launch, launch_of, ready_launch
from ._types import NAMES, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, AnyStr

    from ._file import NamespaceSet
    from ._recipe import Namespace
else:
    AnyStr = bytes  # subprocess.Popen[...] takes anything

__all__ = ["Popen", "run", "run_recipe", "spawn_recipe"]

_LOST = -1
# Older ones, Debian 12's 3.11.2, leave the pipes open that they made where one cannot be made.
_CLOSES_HANDLES = hasattr(subprocess.Popen, "_on_error_fd_closer")
_UNSET = object()


class Popen(subprocess.Popen[AnyStr]):
    """A program in namespaces: subprocess.Popen with the options of Namespace.

    ``new``, ``enter`` and every other option of Namespace are keywords beside
    those of subprocess.Popen; where both have one (cwd, umask) it means the
    same.  ``env="target"`` takes the environment of the process that is
    entered.  ``preexec_fn`` is a TypeError.

    ``pid`` and ``pidfd`` (an int, open until the ``with`` block or the object
    ends) are those of the direct child: nsutil's init where there is one, else
    the program.  ``program_pid`` is the program's as seen from here,
    ``namespaces`` the program's NamespaceSet.  Signals go to the program; with
    a new PID namespace kill() ends all processes in it.

    A step that fails raises the OSError of its errno, with ``step`` and
    ``filename``.  Needs Linux 5.4.  Source: clone(2), namespaces(7).
    """

    _child: Child
    _recipe: Namespace
    _init = _watch = False
    if TYPE_CHECKING:  # subprocess.Popen's own
        _waitpid_lock: Any
        _close_pipe_fds: Any
        pipesize: int

    def __init__(self, args: Any, *positional: Any, **options: Any) -> None:
        self._child = options.pop("_child", None) or Child()
        self._recipe = _command.settle(options.pop("_recipe", None), positional, options)
        super().__init__(args, **options)

    # -------------------------------------------------------------- starting

    def _get_handles(self, *streams: Any) -> Any:
        if streams == (None, None, None):
            return -1, -1, -1, -1, -1, -1
        if _CLOSES_HANDLES:
            return super()._get_handles(*streams)  # type: ignore[misc]
        pipes: list[tuple[int, ...]] = [(-1, -1)] * 3
        try:
            for i in range(3):
                if streams[i] == subprocess.PIPE:
                    pipes[i] = os.pipe()
                    if self.pipesize > 0:
                        fcntl.fcntl(pipes[i][1], fcntl.F_SETPIPE_SZ, self.pipesize)
            inside = [pipes[i][i > 0] if pipes[i][0] >= 0 else streams[i] for i in range(3)]
            stdin, _, _, stdout, _, stderr = super()._get_handles(*inside)  # type: ignore[misc]
        except BaseException:
            close_all([fd for fd in (*sum(pipes, ()), vars(self).pop("_devnull", -1)) if fd >= 0])
            raise
        return stdin, pipes[0][1], pipes[1][0], stdout, pipes[2][0], stderr

    def _execute_child(self, *given: Any) -> None:
        """Called by subprocess.Popen.__init__ where it would fork."""
        args, executable, _, close_fds, pass_fds, _, env, _, _, shell, *rest = given
        *pipes, restore_signals, gid, gids, uid, _, new_session, group = rest
        words, program = _command.words(args, executable, shell)
        bits = CLOSE_FDS * bool(close_fds) | RESTORE_SIGNALS * bool(restore_signals)
        self._start(program, words, env, bits, pipes, pass_fds, (new_session, group, gids, gid, uid))
        self._child_created = True

    def _start(
        self,
        program: Any,
        words: list[Any],
        env: _command.Environment,
        bits: int,
        pipes: list[int],
        pass_fds: Sequence[int],
        who: tuple[Any, ...],
    ) -> None:
        """Start it and close the ends of the pipes that are its own; after a failure of either there is no program."""
        launch = launch_of(self._recipe)
        streams = pipes[0], pipes[3], pipes[5]
        try:
            sys.audit("subprocess.Popen", program, words, launch.cwd, env)
            if env is None and launch.env is not None:
                env = _command.target_environment(self._recipe)
            envp = None if env is None else _command.environment(env)
            leading, identity = _command.identity(launch.new_session, *who)
            where = _command.candidates(program, env)
            launch.start(self._child, program, words, envp, where, bits | leading, streams, pass_fds, identity)
            if streams != INHERITED:
                self._close_pipe_fds(*pipes)
        except BaseException:
            self._child.abandon()
            raise
        finally:
            if not launch.lasting:
                launch.close()
        self.pid = self._child.pid
        reported = self._child.status >= 0
        self._init, self._watch = reported and launch.init, reported and not launch.init

    # --------------------------------------------------------------- waiting

    @property
    def pidfd(self) -> int:
        """The pidfd of the direct child, owned by this object; -1 once that is closed.  pidfd_open(2)."""
        return self._child.pidfd

    @property
    def program_pid(self) -> int | None:
        """The pid of the program; None where it cannot be seen from this PID namespace."""
        return self._child.program_pid or None

    def _collect(self, deadstate: int | None, collect: Callable[[int, int], int | None] = _ns.collect) -> None:
        """Set returncode if the child has ended; the lock of subprocess is held."""
        if self._child.pidfd < 0:
            self.returncode = deadstate
            return
        status = collect(self._child.pidfd, self._child.status)
        if status is None:
            return
        if status == _LOST:
            self.returncode = _lost(self.args, 4) if deadstate is None else deadstate
        else:
            self.returncode = os.waitstatus_to_exitcode(status)

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    self._collect(_deadstate)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        while self.returncode is None:
            if not _ns.await_exit(self.pidfd, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._waitpid_lock:
                if self.returncode is None:
                    self._collect(None)
        return self.returncode

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)  # type: ignore[arg-type]
        if self.returncode is not None:
            self._close()

    def _close(self) -> None:
        self._child.close()

    # -------------------------------------------------- the program and its kin

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program, if it still runs.

        It goes by pidfd and never to a stranger.  nsutil's init hands signals
        on; SIGKILL ends it, and with it every process of a new PID namespace.
        PermissionError where the program is another user's.  pidfd_send_signal(2).
        """
        if self.poll() is not None:
            return
        # These two cannot be handed on: SIGSTOP would stop init alone, and a mere waiter's end is not the program's.
        direct = (self._init and sig == signal.SIGSTOP) or (self._watch and sig in (signal.SIGSTOP, signal.SIGKILL))
        try:
            signal.pidfd_send_signal(self._program_pidfd() if direct else self.pidfd, sig)
        except ProcessLookupError:
            pass

    def _kill_tree(self) -> None:
        """SIGKILL to the program and what it has started, as far as that can be found without a PID namespace."""
        if not self._init and self.program_pid and self.poll() is None:
            from ._fork import kill_tree

            kill_tree(self.program_pid, waits=False)
        self.kill()

    def _program_pidfd(self) -> int:
        """The program's own pidfd; ProcessLookupError when it has ended."""
        child = self._child
        if child.status < 0:
            return child.pidfd
        if child.program < 0:
            from ._file import pin

            child.program = pin(child.program_pid)
        # The pid is the program's for as long as its status has not come.
        if _ns.await_exit(child.status, 0):
            raise ProcessLookupError(ESRCH, os.strerror(ESRCH))
        return child.program

    @property
    def namespaces(self) -> NamespaceSet:
        """The namespaces of the program, each opened when it is first asked for.

        Opening raises ProcessLookupError when the program has ended.
        """
        from ._file import NamespaceSet
        from ._file import open as open_namespace

        def opener(nstype: NSType) -> Callable[[], Any]:
            return lambda: open_namespace(fd=self._program_pidfd(), type=nstype)

        return NamespaceSet({nstype: opener(nstype) for nstype in NAMES.values()})


def spawn_recipe(recipe: Namespace, args: Any, *positional: Any, **options: Any) -> Popen[Any]:
    """Start a program as the recipe says; options as subprocess.Popen."""
    return Popen(args, *positional, _recipe=recipe, **options)


def run(args: Any, *positional: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program in namespaces and wait: subprocess.run with the options of Namespace.

    ``timeout`` (seconds) ends the program and all that it has started, and
    raises subprocess.TimeoutExpired; without a new PID namespace that misses
    what has left the tree.  Raises subprocess.CalledProcessError with
    ``check=True``, else as Popen.
    """
    return run_recipe(_command.take_recipe(None, options), args, *positional, **options)


def run_recipe(
    recipe: Namespace,
    args: Any,
    *positional: Any,
    input: Any = None,  # noqa: A002 - as subprocess calls it
    capture_output: bool = False,
    timeout: Any = _UNSET,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program as the recipe says; options and result as subprocess.run."""
    timeout = recipe._options.get("timeout") if timeout is _UNSET else time_left(timeout)
    if positional or options or capture_output or input is not None or timeout is not None:
        launch = None
    else:
        launch = ready_launch(recipe)
    if launch is not None:
        returncode, stdout, stderr = _run_ready(launch, args), None, None
    else:
        if input is not None or capture_output:
            _command.take_pipes(options, input, capture_output)
        returncode, stdout, stderr = _run_whole(recipe, args, positional, options, input, timeout)
    if check and returncode:
        raise subprocess.CalledProcessError(returncode, args, stdout, stderr)
    return subprocess.CompletedProcess(args, returncode, stdout, stderr)


def _run_ready(launch: Launch, args: Any) -> int:
    """A program that gets our streams and no time limit needs no Popen: making one takes as long as a small program."""
    if subprocess._active:  # type: ignore[attr-defined]
        subprocess._cleanup()  # type: ignore[attr-defined]  # as Popen() does
    words, program = _command.words(args, None, False)
    sys.audit("subprocess.Popen", program, words, launch.cwd, None)
    status = launch.run(program, words, _command.candidates(program, None))
    if status == 0:
        return 0
    return _lost(args, 4) if status == _LOST else os.waitstatus_to_exitcode(status)


def _run_whole(
    recipe: Namespace, args: Any, positional: Any, options: dict[str, Any], data: Any, timeout: float | None
) -> tuple[int, Any, Any]:
    """What subprocess.run does: the exit code and what came out of the pipes."""
    process: Popen[Any] | None = None
    child = Child()
    try:
        process = Popen(args, *positional, _recipe=recipe, _child=child, **options)
        stdout, stderr = process.communicate(data, timeout=timeout)
    except BaseException as e:
        if process is None:
            child.abandon()
        else:
            process._kill_tree()
            process.__exit__(None, None, None)  # waits, even after an interrupt: it has been killed
        if isinstance(e, subprocess.TimeoutExpired):
            e.timeout = timeout or 0  # subprocess names what was left of it
        raise
    child.close()
    return process.returncode, stdout, stderr


def _lost(args: Any, stacklevel: int) -> int:
    """The exit code where somebody else has reaped our child."""
    warnings.warn(f"the exit status of {args!r} was taken by somebody else", RuntimeWarning, stacklevel=stacklevel + 1)
    return 255
