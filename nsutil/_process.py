"""Programs in namespaces: subprocess.Popen and run, with namespaces.

The child is made by src/spawn.c; everything around it, pipes, communicate(),
text, timeouts, is subprocess's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from errno import ENOEXEC, ESRCH

from . import _ns
from ._errors import step_error
from ._handle import newer_calls
from ._recipe import RECIPE_OPTIONS, Namespace
from ._types import NAMES, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, AnyStr, TypeAlias

    from ._compile import ChildPlan
    from ._file import NamespaceSet
    from ._plan import Steps

    Words: TypeAlias = list[Any]
else:
    AnyStr = bytes  # subprocess.Popen[...] takes anything

__all__ = ["Popen", "run", "run_recipe", "spawn_recipe"]

# The parameters of subprocess.Popen that may be given by position, after args.
_POSITIONAL = (
    "bufsize executable stdin stdout stderr preexec_fn close_fds shell cwd env universal_newlines"
    " startupinfo creationflags restore_signals start_new_session pass_fds"
).split()
# Both have these: for subprocess unless they are spelt as only a recipe does.
_SHARED = {"cwd", "env", "umask", "timeout"}
_ONLY_RECIPE = RECIPE_OPTIONS - _SHARED

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
_LOST = -1


class _Fd:
    """A descriptor that is closed with its last user.

    subprocess keeps an unfinished Popen alive after its __del__, and Python
    never calls that a second time.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.number >= 0:
            close(self.number)


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

    program_pid: int | None = None
    _pidfd: _Fd | None = None
    _status: _Fd | None = None
    _program: _Fd | None = None
    _plan: ChildPlan
    _recipe: Namespace
    _init = _watch = False

    def __init__(self, args: Any, *positional: Any, **options: Any) -> None:
        if len(positional) > len(_POSITIONAL):
            raise TypeError(f"{len(positional) + 1} positional arguments, but subprocess.Popen takes {len(_POSITIONAL) + 1}")
        options.update(zip(_POSITIONAL, positional, strict=False))
        if options.pop("preexec_fn", None) is not None:
            raise TypeError("preexec_fn is not supported: it is not safe; use the options of Namespace, or box.call(func)")
        recipe = options.pop("_recipe", None)
        self._recipe = _take_recipe(recipe, options)
        _check_identity(self._recipe, options)
        super().__init__(args, **options)

    # -------------------------------------------------------------- starting

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ) -> None:  # fmt: skip
        """Called by subprocess.Popen.__init__ where it would fork."""
        words, program = _command(args, executable, shell)
        sys.audit("subprocess.Popen", program, words, self._recipe.cwd, env)
        identity = _identity_steps(self._recipe, start_new_session, process_group, gids, gid, uid)
        files = (p2cread, c2pwrite, errwrite, _kept(pass_fds), close_fds, not newer_calls())
        leads = start_new_session or self._recipe.new_session, process_group >= 0
        self._spawn(words, program, env, files, restore_signals, identity, leads)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _spawn(
        self,
        words: Words,
        program: Any,
        env: Mapping[Any, Any] | None,
        files: tuple[Any, ...],
        restore_signals: bool,
        identity: Steps | None,
        leads: tuple[bool, bool],
    ) -> None:
        from ._compile import compile_child

        vector, search = _environment(self._recipe, env)
        plan = compile_child(self._recipe)
        try:
            self._init = plan.init
            end_signal = self._end_signal()
            self._watch = not plan.init and (bool(end_signal) or _status_would_be_lost())
            shape = plan.clone_flags, plan.second, plan.init, self._watch, plan.joins, *leads, end_signal
            time_fd = plan.join_time.fileno() if plan.join_time else -1
            command = tuple(words), vector, _candidates(program, search), restore_signals, time_fd
            self._started(_run_plan(plan, identity, shape, command, files), plan, identity, program)
        finally:
            plan.close()

    def _end_signal(self) -> int:
        """What the program gets when this process ends; 0: nothing."""
        wish = self._recipe.kill_child
        if wish is None:
            wish = self._init
        return int(signal.SIGKILL) if wish is True else int(wish)

    def _started(self, result: tuple[int, ...], plan: ChildPlan, identity: Steps | None, program: Any) -> None:
        if len(result) == 3:
            raise _failure(plan, identity, program, *result)
        self.pid, pidfd, program_pid, status = result
        self._pidfd = _Fd(pidfd)
        self._status = _Fd(status) if status >= 0 else None
        self.program_pid = program_pid or None

    # --------------------------------------------------------------- waiting

    @property
    def pidfd(self) -> int:
        """The pidfd of the direct child, still owned by this object; -1 once that is closed."""
        return self._pidfd.number if self._pidfd is not None else -1

    def _collect(self, deadstate: int | None, collect: Callable[[int, int], int | None] = _ns.collect) -> None:
        """Set returncode if the child has ended; the lock of subprocess is held."""
        if self._pidfd is None or self._pidfd.number < 0:
            self.returncode = deadstate
            return
        status = collect(self._pidfd.number, self._status.number if self._status is not None else -1)
        if status is None:
            return
        if status == _LOST:
            self.returncode = 255 if deadstate is None else deadstate
            warnings.warn(f"the exit status of {self.args!r} was taken by somebody else", RuntimeWarning, stacklevel=4)
        else:
            self.returncode = os.waitstatus_to_exitcode(status)

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:  # type: ignore[override]
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    self._collect(_deadstate)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        while self.returncode is None:
            nanoseconds = -1 if timeout is None else max(0, int(timeout * 1e9))
            if not _ns.await_exit(self.pidfd, nanoseconds):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._waitpid_lock:
                if self.returncode is None:
                    self._collect(None)
        return self.returncode

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        if self.returncode is not None:
            self._close()

    def _close(self) -> None:
        for fd in (self._pidfd, self._status, self._program):
            if fd is not None:
                fd.close()

    # -------------------------------------------------- the program and its kin

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program, if it still runs.

        It goes by pidfd and never to a stranger.  nsutil's init hands signals
        on; SIGKILL ends it, and with it every process of a new PID namespace.
        """
        if self.poll() is not None:
            return
        # These two cannot be handed on: SIGSTOP would stop init alone, and a mere waiter's end is not the program's.
        direct = (self._init and sig == signal.SIGSTOP) or (self._watch and sig in (signal.SIGSTOP, signal.SIGKILL))
        try:
            signal.pidfd_send_signal(self._program_pidfd() if direct else self.pidfd, sig)
        except ProcessLookupError:
            pass

    def _program_pidfd(self) -> int:
        """The program's own pidfd; ProcessLookupError when it has ended."""
        if self._status is None:
            return self.pidfd
        if self._program is None:
            self._program = _Fd(os.pidfd_open(self.program_pid or 0))
        # The pid is the program's for as long as its status has not come.
        if _ns.await_exit(self._status.number, 0):
            raise ProcessLookupError(ESRCH, os.strerror(ESRCH))
        return self._program.number

    @property
    def namespaces(self) -> NamespaceSet:
        """The namespaces of the program, each opened when it is first asked for."""
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

    ``timeout`` (seconds) ends the whole tree where the PID namespace is new,
    else the program, and raises subprocess.TimeoutExpired.  Raises
    subprocess.CalledProcessError with ``check=True``, else as Popen.
    """
    return _run(_take_recipe(None, options), args, positional, options)


def run_recipe(recipe: Namespace, args: Any, *positional: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program as the recipe says; options and result as subprocess.run."""
    return _run(recipe, args, positional, options)


def _run(recipe: Namespace, args: Any, positional: Sequence[Any], options: dict[str, Any]) -> subprocess.CompletedProcess[Any]:
    data, check = options.pop("input", None), options.pop("check", False)
    timeout = options.pop("timeout", recipe.timeout)
    _take_pipes(options, data, options.pop("capture_output", False))
    with Popen(args, *positional, _recipe=recipe, **options) as process:
        try:
            stdout, stderr = process.communicate(data, timeout=timeout)
        except BaseException:
            process.kill()
            raise
        code = process.poll()
    if check and code:
        raise subprocess.CalledProcessError(code, process.args, stdout, stderr)
    return subprocess.CompletedProcess(process.args, code or 0, stdout, stderr)


def _take_pipes(options: dict[str, Any], data: Any, capture: bool) -> None:
    """The pipes that input= and capture_output= stand for."""
    if data is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input may not both be used")
        options["stdin"] = subprocess.PIPE
    if capture:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr may not be used with capture_output")
        options["stdout"] = options["stderr"] = subprocess.PIPE


# ------------------------------------------------------------------- options


def _take_recipe(recipe: Namespace | None, options: dict[str, Any]) -> Namespace:
    """The recipe of a call, its options taken out of the others."""
    changes = {name: options.pop(name) for name in _ONLY_RECIPE & options.keys()}
    if recipe is not None and changes:
        raise TypeError(f"{', '.join(sorted(changes))}: set it in the recipe, with .replace() for a changed copy")
    cwd, umask = options.pop("cwd", None), options.pop("umask", -1)
    if cwd is not None:
        changes["cwd"] = cwd
    if umask is not None and umask >= 0:
        changes["umask"] = umask
    if options.get("env") == "target":
        changes["env"] = options.pop("env")
    if recipe is None:
        return Namespace(**changes)
    return recipe.replace(**changes) if changes else recipe


def _check_identity(recipe: Namespace, options: dict[str, Any]) -> None:
    """ValueError where subprocess and the recipe both say who the program is."""
    for ours, theirs in (("uid", "user"), ("gid", "group"), ("groups", "extra_groups")):
        if options.get(theirs) is None:
            continue
        for name in ("uid", "gid") if ours != "groups" else ("groups",):
            if getattr(recipe, name) is not None:
                raise ValueError(f"{theirs}= of the call and {name}= of the recipe contradict each other; give one")
        if ours == "uid" and (recipe.ambient or recipe.keep_caps):
            raise ValueError("user= would drop the capabilities of ambient= and keep_caps=; use uid= instead")


def _command(args: Any, executable: Any, shell: bool) -> tuple[Words, Any]:
    """The argument vector and the program, as subprocess reads them."""
    if isinstance(args, (str, bytes)):
        words: Words = [args]
    elif isinstance(args, os.PathLike):
        if shell:
            raise TypeError("path-like args is not allowed when shell is true")
        words = [args]
    else:
        words = list(args)
    if shell:
        words = ["/bin/sh", "-c", *words]
        if executable:
            words[0] = executable
    if not words:
        raise ValueError("args must name a program, not be empty")
    return words, words[0] if executable is None else executable


def _environment(recipe: Namespace, env: Mapping[Any, Any] | None) -> tuple[tuple[bytes, ...] | None, Mapping[Any, Any] | None]:
    """The environment as a vector, None for this process's own, and as where PATH is looked up."""
    if env is None and recipe.env == "target":
        env = _target_environment(recipe)
    if env is None:
        return None, None
    items = [(os.fsencode(name), os.fsencode(value)) for name, value in env.items()]
    for name, _ in items:
        if b"=" in name:
            raise ValueError("illegal environment variable name")
    return tuple(name + b"=" + value for name, value in items), env


def _target_environment(recipe: Namespace) -> dict[bytes, bytes]:
    """The environment of the process that is entered."""
    from ._compile import _process_target

    pairs = (entry.partition(b"=") for entry in _process_target(recipe).read("environ").split(b"\0"))
    return {name: value for name, separator, value in pairs if separator}


def _candidates(program: Any, env: Mapping[Any, Any] | None) -> tuple[bytes, ...]:
    """The paths to try, inside: the program's own, or one for each directory of PATH."""
    name = os.fsencode(program)
    if os.path.dirname(name):
        return (name,)
    return tuple(os.path.join(os.fsencode(directory), name) for directory in os.get_exec_path(env))


def _kept(pass_fds: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({int(fd) for fd in pass_fds})) if pass_fds else ()


def _identity_steps(
    recipe: Namespace, new_session: bool, group: int, groups: Sequence[int] | None, gid: int | None, uid: int | None
) -> Steps | None:
    """What subprocess's own options ask of the child, in its order."""
    if not (new_session or group >= 0) and groups is None and gid is None and uid is None:
        return None
    from ._plan import PlanBuilder

    builder = PlanBuilder()
    if new_session and not recipe.new_session:
        builder.add("setsid", label="start a new session")
    if group >= 0:
        builder.add("setpgid", 0, group, label=f"join process group {group}")
    if groups is not None:
        builder.add("setgroups", len(groups), list(groups), label=f"set supplementary groups {list(groups)}")
    if gid is not None:
        builder.add("setresgid", gid, gid, gid, label=f"set gid {gid}")
    if uid is not None:
        builder.add("setresuid", uid, uid, uid, label=f"set uid {uid}")
    return builder.build()


def _status_would_be_lost() -> bool:
    """Whether the kernel would reap the program unseen: SIGCHLD is ignored, and it is older than 6.15."""
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN:
        return False
    release = os.uname().release.split(".")
    return not newer_calls() or (int(release[0]), int(release[1])) < (6, 15)


# ------------------------------------------------------------------ the spawn


def _run_plan(
    plan: ChildPlan, identity: Steps | None, shape: tuple[Any, ...], command: tuple[Any, ...], files: tuple[Any, ...]
) -> tuple[int, ...]:
    """_ns.spawn, with the id maps written meanwhile where that is for us to do."""
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
