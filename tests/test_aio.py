"""nsutil.aio: programs, functions and connections from an event loop that never moves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest
from support import needs_root

import nsutil
from nsutil import MNT, NET, PID, UTS, Namespace, aio

pytestmark = needs_root


@pytest.fixture(autouse=True)
def nothing_left():
    """No descriptor, child or thread more than before."""
    import threading

    nsutil.run(["true"], new=PID)
    asyncio.run(asyncio.sleep(0))
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_run():
    async def body():
        return await asyncio.gather(
            *(
                aio.run(["sh", "-c", "hostname; exit 3"], new=UTS, hostname=f"box{n}", capture_output=True, text=True)
                for n in range(5)
            )
        )

    results = asyncio.run(body())
    assert [(r.stdout, r.returncode) for r in results] == [(f"box{n}\n", 3) for n in range(5)]


def test_run_with_input_and_check():
    async def body():
        done = await aio.run(["cat"], new=UTS, input="text", capture_output=True, text=True)
        assert done.stdout == "text"
        big = await aio.run(["cat"], new=UTS, input=b"x" * 3_000_000, capture_output=True)
        assert len(big.stdout) == 3_000_000
        with pytest.raises(subprocess.CalledProcessError):
            await aio.run(["false"], new=UTS, check=True)
        with pytest.raises(FileNotFoundError):
            await aio.run(["/no/such/program"], new=UTS)

    asyncio.run(body())


@pytest.mark.parametrize("new", [UTS, PID | MNT])
def test_cancellation_kills_the_child_and_waits(new):
    async def body():
        task = asyncio.create_task(aio.run(["sleep", "60"], new=new, stdout=aio.PIPE))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    start = time.monotonic()
    asyncio.run(body())
    assert time.monotonic() - start < 5


def test_timeout():
    async def body():
        with pytest.raises(subprocess.TimeoutExpired):
            await aio.run(["sleep", "60"], new=UTS, timeout=0.1, capture_output=True)

    asyncio.run(body())


def test_create_subprocess_exec():
    async def body():
        process = await aio.create_subprocess_exec("cat", new=UTS | PID, stdin=aio.PIPE, stdout=aio.PIPE)
        process.stdin.write(b"one\n")
        await process.stdin.drain()
        assert await process.stdout.readline() == b"one\n"
        assert process.returncode is None
        process.terminate()
        assert await process.wait() == -15
        await process.communicate()
        process.close()

    asyncio.run(body())


def test_call():
    def inside(x, *, fail=False):
        return os.uname().nodename, x

    async def body():
        assert await aio.call(inside, 1, new=UTS, hostname="called") == ("called", 1)
        assert await aio.call(os.getpid, new=PID) == 2
        with pytest.raises(ZeroDivisionError):
            await aio.call(lambda: 1 / 0, new=UTS)
        with pytest.raises(TimeoutError):
            await aio.call(time.sleep, 60, new=UTS, timeout=0.1)
        ticks = 0
        task = asyncio.create_task(aio.call(time.sleep, 0.3, new=UTS))
        while not task.done():
            await asyncio.sleep(0.02)
            ticks += 1
        assert ticks > 5
        task = asyncio.create_task(aio.call(time.sleep, 60, new=UTS))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(body())


def test_call_with_maps_written_from_outside():
    async def body():
        maps = await aio.call(
            lambda: Path("/proc/self/uid_map").read_text().split(),
            new="user",
            uid_map=[nsutil.IdMap(0, 0), nsutil.IdMap(5, 1000, 3)],
        )
        assert maps == ["0", "0", "1", "5", "1000", "3"]

    asyncio.run(body())


def test_connections_inside_a_net_namespace():
    async def body(net):
        before = os.stat("/proc/thread-self/ns/net").st_ino
        served = []

        async def connected(reader, writer):
            served.append(await reader.readline())
            writer.write(b"pong\n")
            await writer.drain()
            writer.close()

        server = await aio.start_server(connected, "127.0.0.1", 7000, enter=net)
        async with server:
            reader, writer = await aio.open_connection("127.0.0.1", 7000, enter=net)
            writer.write(b"ping\n")
            assert await reader.readline() == b"pong\n"
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", 7000)
            with pytest.raises(ConnectionRefusedError):
                await aio.open_connection("127.0.0.1", 7001, enter=net)
        assert served == [b"ping\n"]
        assert os.stat("/proc/thread-self/ns/net").st_ino == before

    with Namespace(NET).create() as held:
        asyncio.run(body(held.net))
