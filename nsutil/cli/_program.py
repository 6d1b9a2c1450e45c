"""Becoming another program, and waiting for one, as the tools of util-linux do."""

from __future__ import annotations

import errno
import os
import signal
import sys

from ._args import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Environment = dict[bytes, bytes]

# The interpreter ignores these; whoever is run expects them as they are by default.
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFZ", "SIGXFSZ")
COERCED_LOCALES = (b"C.UTF-8", b"C.utf8", b"UTF-8")
DEFAULT_PATH = b"/bin:/usr/bin"


def default_signals() -> None:
    """Signals as a C program has them: no KeyboardInterrupt, death by SIGPIPE."""
    for name in IGNORED_BY_PYTHON:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment() -> Environment:
    """The environment as it was given to us: without the LC_CTYPE that the
    interpreter adds in the C locale (PEP 538)."""
    env = dict(os.environb)
    if env.get(b"LC_CTYPE") in COERCED_LOCALES and b"LC_CTYPE" not in _environment_at_start():
        del env[b"LC_CTYPE"]
    return env


def _environment_at_start() -> Environment:
    try:
        with open("/proc/self/environ", "rb") as file:
            return parse_environment(file.read())
    except OSError:
        return dict(os.environb)


def parse_environment(data: bytes) -> Environment:
    """The content of /proc/PID/environ."""
    pairs = (item.partition(b"=") for item in data.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


def seal_imports() -> None:
    """Look for no module any more: the root directory will be a stranger's,
    and whatever lies there must not run as a part of this program."""
    import resource  # noqa: F401 - for die_by

    from .. import doctor  # noqa: F401 - explains what fails from now on
    from ._args import debug

    if debug():
        _explain_once()

    sys.meta_path.clear()


def _explain_once() -> None:
    """Load what a traceback needs, which differs between the versions of Python."""
    import traceback

    try:
        raise OSError
    except OSError as error:
        traceback.format_exception(error)


class Program:
    """A program to run: a command line, or the user's shell as a login shell."""

    def __init__(self, argv: list[str], env: Environment | None = None) -> None:
        self.env = environment() if env is None else env
        self.file = os.fsencode(argv[0]) if argv else _shell(self.env)
        self.argv = [os.fsencode(arg) for arg in argv] or [b"-" + os.path.basename(self.file)]

    def execute(self) -> NoReturn:
        """execvp(3) with our environment; CommandError 127 when there is no such program, else 126."""
        problem = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        for path in self._candidates():
            try:
                self._exec(path)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                    problem = e
                    break
                if problem.errno != errno.EACCES:
                    problem = e if e.errno == errno.EACCES else problem
        status = 127 if problem.errno == errno.ENOENT else 126
        raise CommandError(f"failed to execute {os.fsdecode(self.file)}: {problem.strerror}", status)

    def _candidates(self) -> list[bytes]:
        if b"/" in self.file or not self.file:
            return [self.file]
        directories = self.env.get(b"PATH", DEFAULT_PATH).split(b":")
        return [os.path.join(directory, self.file) for directory in directories]

    def _exec(self, path: bytes) -> None:
        try:
            os.execve(path, self.argv, self.env)
        except OSError as e:
            if e.errno != errno.ENOEXEC:
                raise
            os.execve(b"/bin/sh", [b"sh", path, *self.argv[1:]], self.env)


def _shell(env: Environment) -> bytes:
    """$SHELL, or the one of the password file; an empty one counts for nothing."""
    shell = env.get(b"SHELL")
    if shell:
        return shell
    import pwd

    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh")
    except KeyError:
        return b"/bin/sh"


def child(prog: str, func: Callable[[], object]) -> int:
    """Fork; the child runs ``func`` and ends, never returning into our frames.

    Where SIGCHLD was ignored the kernel would reap it unseen.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        func()
        status = 0
    except BaseException as e:
        from ._args import report

        status = report(prog, e)
    finally:
        os._exit(status)


def tell(writer: int) -> None:
    """A byte down a pipe; one who is gone has ended for a reason that is reported otherwise."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.write(writer, b"1")
    except BrokenPipeError:
        pass
    finally:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


class Helper:
    """A child made before the namespaces change, to act from outside later.

    It waits for ``go()``, runs ``func``, and its failure is ours.  When this
    process ends without ``go()`` it ends too, having done nothing.
    """

    def __init__(self, prog: str, func: Callable[[], object]) -> None:
        reader, self._writer = os.pipe()

        def wait_and_run() -> None:
            os.close(self._writer)
            if os.read(reader, 1):
                func()

        self.pid = child(prog, wait_and_run)
        os.close(reader)

    def go(self) -> None:
        """Let it run, and wait until it is done; CommandError when it failed."""
        tell(self._writer)
        self.close()

    def close(self) -> None:
        """End it, unless it was let go."""
        if self.pid:
            os.close(self._writer)
            pid, self.pid = self.pid, 0
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                raise CommandError(f"a helper process was ended by signal {os.WTERMSIG(status)}")
            if status:
                raise CommandError(None)  # it has told why


def exit_like(status: int) -> int:
    """The exit status for a child's wait status, or death by the same signal."""
    return die_by(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def die_by(number: int) -> int:
    """End by a signal, without a second core dump; the exit status that stands for it where that is not possible."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number  # PID 1 of a namespace cannot kill itself
