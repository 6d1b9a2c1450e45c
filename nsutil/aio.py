"""asyncio: programs, functions and connections in other namespaces.

The event loop stays where it is; nothing here moves its thread.  Children are
waited for by pidfd, without a thread each, and a task that is cancelled kills
its child and waits for its end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

from ._options import time_left
from ._process import Popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeVar

    from ._types import Types

    R = TypeVar("R")

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Process",
    "call",
    "create_subprocess_exec",
    "open_connection",
    "run",
    "start_server",
]

_LIMIT = 2**16


async def _readable(*fds: int) -> None:
    """Wait until one of the descriptors can be read; -1 is the pidfd of a child that others have reaped, nothing."""
    fds = tuple(fd for fd in fds if fd >= 0)
    if not fds:
        return
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    for fd in fds:
        loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        for fd in fds:
            loop.remove_reader(fd)


# ---------------------------------------------------------------- programs


class Process:
    """A program in namespaces, with the interface of asyncio.subprocess.Process.

    ``pid``, ``returncode``, ``stdin``, ``stdout``, ``stderr``; ``popen`` is the
    nsutil.Popen underneath (``program_pid``, ``namespaces``, ...).  Made by
    :func:`create_subprocess_exec`.
    """

    def __init__(self, popen: Popen[bytes]) -> None:
        self.popen = popen
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._transports: list[asyncio.BaseTransport] = []

    @property
    def pid(self) -> int:
        """The direct child: nsutil's init where there is one."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, -N after signal N, None while it runs."""
        return self.popen.poll()

    async def _connect(self, limit: int) -> None:
        if self.popen.stdin is not None:
            self.stdin = await self._writer(self.popen.stdin)
        if self.popen.stdout is not None:
            self.stdout = await self._reader(self.popen.stdout, limit)
        if self.popen.stderr is not None:
            self.stderr = await self._reader(self.popen.stderr, limit)

    async def _reader(self, pipe: Any, limit: int) -> asyncio.StreamReader:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        return reader

    async def _writer(self, pipe: Any) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        # The protocol of asyncio.subprocess for one pipe: flow control and wait_closed().
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, loop)

    async def wait(self) -> int:
        """Wait for the end, by pidfd; the return code, -N after signal N."""
        while self.popen.poll() is None:
            await _readable(self.popen.pidfd)
        assert self.popen.returncode is not None
        return self.popen.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Send ``input`` (bytes), read all output, wait for the end; (stdout, stderr), None where there is no pipe."""
        feed = self._feed(input) if self.stdin is not None else _nothing()
        _, stdout, stderr = await asyncio.gather(feed, _read_all(self.stdout), _read_all(self.stderr))
        await self.wait()
        return stdout, stderr

    async def _feed(self, data: bytes | None) -> None:
        assert self.stdin is not None
        try:
            if data:
                self.stdin.write(data)
                await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # as subprocess: a program need not read its input
        self.stdin.close()

    def send_signal(self, signal: int) -> None:
        """Send a signal to the program; nothing once it has ended."""
        self.popen.send_signal(signal)

    def terminate(self) -> None:
        """SIGTERM."""
        self.popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; in a new PID namespace to everything in it."""
        self.popen.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close pipes and pidfd of a program that has ended."""
        for transport in self._transports:
            transport.close()
        if self.popen.poll() is not None:
            self.popen._close()

    async def _end(self) -> None:
        """Kill it if it still runs, wait for it, close everything: for cancelled tasks."""
        self.popen.kill()
        for transport in self._transports:
            transport.close()
        while self.popen.poll() is None:
            # Not to be cancelled a second time: nothing may be left behind.
            await asyncio.shield(_readable(self.popen.pidfd))
        self.close()


async def _nothing() -> None:
    return None


async def _read_all(reader: asyncio.StreamReader | None) -> bytes | None:
    return None if reader is None else await reader.read()


async def create_subprocess_exec(
    program: Any,
    *args: Any,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **options: Any,
) -> Process:
    """Start a program in namespaces, as asyncio.create_subprocess_exec.

    ``options`` are those of nsutil.Popen: those of Namespace and of subprocess.
    The loop stands still until the program runs, about a millisecond; with id
    maps that newuidmap(1) writes, a few.  Raises what nsutil.Popen raises.
    """
    popen: Popen[bytes] = Popen([program, *args], stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0, **options)
    process = Process(popen)
    try:
        await process._connect(limit)
    except BaseException:
        await process._end()
        raise
    return process


async def run(
    args: Any,
    *,
    input: bytes | str | None = None,
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program in namespaces and wait for it, as nsutil.run.

    Cancelling the task kills the program and waits for its end.  Raises
    subprocess.TimeoutExpired after ``timeout`` seconds (the program is killed),
    CalledProcessError with ``check``, else as nsutil.Popen.
    """
    decode = _decoder(text, encoding, errors)
    if capture_output:
        options.update(stdout=PIPE, stderr=PIPE)
    if input is not None:
        options["stdin"] = PIPE
        input = input.encode(encoding or "utf-8") if isinstance(input, str) else input
    timeout = time_left(timeout)
    words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    process = await create_subprocess_exec(*words, **options)
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(input)
    except TimeoutError:
        await process._end()
        raise subprocess.TimeoutExpired(args, timeout or 0) from None
    except BaseException:
        await process._end()
        raise
    process.close()
    done = subprocess.CompletedProcess(args, process.popen.returncode or 0, decode(stdout), decode(stderr))
    if check:
        done.check_returncode()
    return done


def _decoder(text: bool | None, encoding: str | None, errors: str | None) -> Callable[[bytes | None], Any]:
    if not (text or encoding or errors):
        return lambda data: data
    return lambda data: (
        None if data is None else data.decode(encoding or "utf-8", errors or "strict").replace("\r\n", "\n")
    )


# --------------------------------------------------------------- functions


async def call(func: Callable[..., R], *args: Any, new: Types = 0, **options: Any) -> R:
    """Call a function in a forked child in namespaces, as nsutil.call, with its errors.

    Cancelling the task kills the child and waits for its end.  ``timeout``
    (seconds) among the options raises TimeoutError.
    """
    from ._call import serve
    from ._fork import Forked
    from ._outcome import restore
    from ._recipe import Namespace

    recipe = Namespace(new, **options)
    forked = Forked(recipe)
    try:
        forked.start(lambda: serve(forked.child, func, args, {}, forked.elsewhere))
        async with asyncio.timeout(recipe.timeout):
            message = None
            while message is None:
                await _readable(forked.child.channel, forked.child.pidfd)
                message = forked.receive_one()
            await _readable(forked.child.pidfd)
    except BaseException:
        forked.kill_tree()
        raise
    finally:
        forked.child.end()
    return restore(*message)  # type: ignore[no-any-return]


# ------------------------------------------------------------- connections


async def open_connection(
    host: str, port: int, *, enter: object, limit: int = _LIMIT, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection made inside a NET namespace, as asyncio.open_connection.

    ``enter``: what nsutil.enter takes, with a NET namespace; ValueError for
    none.  Names are looked up outside.  ``options``: those of
    asyncio.open_connection (ssl, ...).  OSError when no address answers,
    PermissionError without CAP_SYS_ADMIN to enter.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=_STREAM)
    errors: list[OSError] = []
    for family, kind, proto, _, address in found:
        sock = _socket_in(enter, family, kind, proto)
        try:
            await loop.sock_connect(sock, address)
            return await asyncio.open_connection(sock=sock, limit=limit, **options)
        except OSError as error:
            sock.close()
            errors.append(error)
        except BaseException:
            sock.close()
            raise
    raise errors[0]


async def start_server(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None],
    host: str,
    port: int,
    *,
    enter: object,
    limit: int = _LIMIT,
    **options: Any,
) -> asyncio.Server:
    """A TCP server that listens inside a NET namespace, as asyncio.start_server.

    ``enter`` and errors as :func:`open_connection`.  The callback runs in the
    loop, outside.
    """
    import socket

    loop = asyncio.get_running_loop()
    family, kind, proto, _, address = (await loop.getaddrinfo(host, port, type=_STREAM, flags=socket.AI_PASSIVE))[0]
    sock = _socket_in(enter, family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return await asyncio.start_server(connected, sock=sock, limit=limit, **options)
    except BaseException:
        sock.close()
        raise


_STREAM = 1  # socket.SOCK_STREAM


def _socket_in(target: object, family: int, kind: int, proto: int) -> Any:
    """A non-blocking socket of the target's NET namespace."""
    from ._recipe import enter
    from ._types import NET

    recipe = enter(target)
    for join in recipe.enter:
        for file in join.files():
            if file.type == NET:
                sock = file.socket(family, kind, proto)
                sock.setblocking(False)
                return sock
    raise ValueError(f"{target!r} leads to no NET namespace other than this one")
