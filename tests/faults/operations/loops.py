"""Programs and functions of an asyncio loop."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any

import nsutil
from nsutil import PID, UTS

from .programs import SHELL, shown
from .registry import Run, WrongResult, again_and_again, expect, operation, whereabouts


def in_loop(make: Callable[[], Coroutine[object, object, object]]) -> Run:
    """In a loop that was there before.

    What its own callbacks raise it only tells a handler: that ends the task, which would wait for ever.
    """
    problems: list[BaseException] = []

    def end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        problems.append(context.get("exception") or WrongResult(context["message"]))
        for task in asyncio.all_tasks(loop):
            task.cancel()

    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        runner.get_loop().set_exception_handler(end)

        def body() -> None:
            problems.clear()
            try:
                runner.run(make())
            except asyncio.CancelledError:
                raise problems[0] from None

        yield from again_and_again(body)


@operation
def aio_run() -> Run:
    async def body() -> None:
        shown(
            await nsutil.aio.run(SHELL, new=UTS | PID, hostname="inside", stdout=subprocess.PIPE, text=True), "inside"
        )

    yield from in_loop(body)


@operation
def aio_call() -> Run:
    async def body() -> None:
        found = await nsutil.aio.call(whereabouts, new=UTS | PID, hostname="inside")
        expect(found == ("inside", 2), f"where it was: {found}")

    yield from in_loop(body)
