"""Running the commands: in a forked child for speed, as a program of its own, and beside the tool they stand for."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Self

import support

PACKAGE = support.PACKAGE


def _environment() -> dict[str, str]:
    """For ``python -m nsutil``: this nsutil, compiled once."""
    cache = tempfile.mkdtemp(prefix="nsutil-tests-pyc-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**env, "PYTHONPATH": str(PACKAGE), "PYTHONPYCACHEPREFIX": cache}


ENV = _environment()

# What a program sees of where it is. The namespaces, maps and the like are those of every process here.
PROBE = r"""
for n in cgroup ipc mnt net pid pid_for_children time time_for_children user uts; do
    echo "ns $n $(readlink /proc/self/ns/$n)"
done
echo "pid $$ $PPID"
for f in uid_map gid_map setgroups timens_offsets; do echo "$f" $(cat /proc/self/$f 2>&1 | tr '\n' ';'); done
grep -E '^(Cap|SigBlk|SigIgn|Groups|Uid|Gid|NoNewPrivs|Umask)' /proc/self/status
echo "cwd $(pwd 2>&1)"
echo "proc $(readlink /proc/self)" | sed 's/[0-9][0-9]*/N/'
grep -E ' / / | /proc ' /proc/self/mountinfo | sed 's/^[0-9]* [0-9]* [0-9:]* //; s/:[0-9]*//g'
ls -d /proc/1/cwd 2>&1 | head -n 1
hostname
env | grep -vE '^(_|COVERAGE_PROCESS_CONFIG)=' | sort
"""


class Done(NamedTuple):
    """How a command ended: exit status (-N: signal N), standard output and error."""

    status: int
    out: str
    err: str


def _become_command(argv: Sequence[str], pipes: tuple[int, int, int], env: dict[str, str] | None) -> None:
    for target, fd in enumerate(pipes):
        os.dup2(fd, target)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, closefd=False), os.fdopen(1, "w"), os.fdopen(2, "w")
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    from nsutil.__main__ import main

    status = main(list(argv))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def nsutil(
    *argv: str,
    uid: int | None = None,
    env: dict[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float = 20,
    close: Sequence[int] = (),
) -> Done:
    """``nsutil ARGV`` in a forked child of this process; with ``uid`` as that ordinary user."""
    (out, out_child), (err, err_child) = os.pipe(), os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    with support_warnings():
        pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(0)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if cwd is not None:
                os.chdir(cwd)
            if uid is not None:
                import resource  # noqa: F401 - for what runs as that user, as support.preload()

                import_module("nsutil.__main__")  # the checkout may lie where only root can read

                support.drop_to_user(uid)
            for fd in close:
                os.close(fd)
            _become_command(argv, (null, out_child, err_child), env)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(99)
    for fd in (null, out_child, err_child):
        os.close(fd)
    try:
        texts = _drain((out, err), timeout)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return Done(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts)


@contextlib.contextmanager
def support_warnings() -> Iterator[None]:
    """Forks of tests beside pytest's own threads are fine."""
    import warnings

    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _drain(fds: Sequence[int], timeout: float) -> list[str]:
    """All that comes out of the pipes, until their ends are closed."""
    data = {fd: bytearray() for fd in fds}
    open_fds, deadline = set(fds), time.monotonic() + timeout
    while open_fds:
        ready, _, _ = select.select(list(open_fds), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no end of {bytes(b''.join(data.values()))!r}")
        for fd in ready:
            chunk = os.read(fd, 65536)
            data[fd] += chunk
            if not chunk:
                open_fds.discard(fd)
                os.close(fd)
    return [data[fd].decode(errors="surrogateescape") for fd in fds]


def tool(*argv: str, env: dict[str, str] | None = None, cwd: str | Path | None = None, timeout: float = 20) -> Done:
    """Any program."""
    done = subprocess.run(
        argv, env=env, cwd=cwd, capture_output=True, text=True, errors="surrogateescape",
        stdin=subprocess.DEVNULL, timeout=timeout, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def program(*argv: str, **options: object) -> Done:
    """``python -m nsutil ARGV``, started as a user would."""
    env = dict(options.pop("env", None) or ENV)  # type: ignore[call-overload]
    env["PYTHONPATH"] = str(PACKAGE)
    return tool(sys.executable, "-m", "nsutil", *argv, env=env, **options)  # type: ignore[arg-type]


def normal(text: str) -> str:
    """What a probe printed, with namespaces as "same" or "new", and without what differs from run to run."""
    for name, inode in support.ns_inodes().items():
        text = text.replace(f"ns {name} {name.removesuffix('_for_children')}:[{inode}]", f"ns {name} same")
    text = re.sub(r"\[\d+\]", "new", text)
    return re.sub(r"^pid (\d+) \d+", lambda m: f"pid {'1' if m[1] == '1' else 'N'}", text, flags=re.M)


@contextlib.contextmanager
def running(*argv: str) -> Iterator[int]:
    """A program that runs meanwhile; its pid. It has started when it closes its standard output or prints."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def child_of(pid: int) -> int:
    """The only child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def fork_on_terminal() -> tuple[int, int]:
    """pty.fork(), where this user may have a pseudo-terminal."""
    for fd in support.openpty():
        os.close(fd)
    with support_warnings():
        return pty.fork()


def terminal(*argv: str, env: dict[str, str] | None = None, timeout: float = 20) -> str:
    """What ``nsutil ARGV`` shows on a terminal of its own, line ends as in a file."""
    pid, fd = fork_on_terminal()
    if pid == 0:
        try:
            signal.alarm(0)
            _become_command(argv, (0, 1, 2), env)
        finally:
            os._exit(99)
    data, deadline = bytearray(), time.monotonic() + timeout
    try:
        while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data += os.read(fd, 65536)
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return data.decode(errors="surrogateescape").replace("\r\n", "\n")


class Session:
    """``nsutil ARGV`` on a terminal of its own, as a program that is typed at."""

    def __init__(
        self, *argv: str, env: dict[str, str] = ENV, size: tuple[int, int] = (24, 80), timeout: float = 20
    ) -> None:
        self.seen = ""
        self.deadline = time.monotonic() + timeout
        self.pid, self.fd = fork_on_terminal()
        if self.pid == 0:
            try:
                self.resize(*size, fd=0)
                os.execve(sys.executable, [sys.executable, "-m", "nsutil", *argv], env)
            finally:
                os._exit(99)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def resize(self, rows: int, columns: int, fd: int | None = None) -> None:
        """A terminal of that size from now on."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.fd if fd is None else fd, termios.TIOCSWINSZ, size)

    def type(self, text: str, expected: str) -> None:
        """Type, and wait until what is expected has been shown."""
        start = len(self.seen)
        os.write(self.fd, text.encode())
        while expected not in self.seen[start:]:
            if not self._read():
                raise AssertionError(f"{expected!r} is not in {self.seen[start:]!r}")

    def _read(self) -> bool:
        if not select.select([self.fd], [], [], max(0.0, self.deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: closed on the other side
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, in whole lines: as it was to begin with."""
        flags = termios.tcgetattr(self.fd)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def wait(self) -> int:
        """The exit status; all that was shown has been read then."""
        while self._read():
            pass
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
