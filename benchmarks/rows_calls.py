"""Python functions in children: ``call`` and the executor."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from typing import Any

import peers
from measure import Batch, Bench, Remote, loop
from rows import row
from rows_programs import available_memory, fill_memory

import nsutil
from nsutil import UTS, Namespace

FLOOR = "os.fork, unshare, pipe, pickle by hand"
GIGABYTES = 2


def _value() -> dict[str, int]:
    return {"answer": 42}


def by_hand() -> Batch:
    """What call() amounts to, with nothing that can fail looked at."""

    def child(writer: int) -> None:
        try:
            nsutil.unshare(UTS)
            os.write(writer, pickle.dumps(_value(), 5))
        finally:
            os._exit(0)

    def call() -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(writer)
        os.close(writer)
        data = b""
        while piece := os.read(reader, 65536):
            data += piece
        os.close(reader)
        os.waitpid(pid, 0)
        pickle.loads(data)

    return loop(call)


def _inside(connection: Any) -> None:
    nsutil.unshare(UTS)
    connection.send(_value())


def _multiprocessing() -> Batch:
    context = multiprocessing.get_context("fork")

    def call() -> None:
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_inside, args=(writer,))
        process.start()
        writer.close()
        reader.recv()
        reader.close()
        process.join()
        process.close()

    return loop(call)


def _send(connection: Any) -> None:
    connection.send(_value())


def _pyspaces() -> Batch:
    container = peers.module("pyspaces").Container

    def call() -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)
        process = container(target=_send, args=(writer,), uts=True)
        process.start()
        writer.close()
        reader.recv()
        reader.close()
        process.join()

    return loop(call)


@row("call", "a Python function in a new UTS namespace, its value returned")
def call(bench: Bench) -> None:
    box = Namespace(UTS)
    bench.floor(FLOOR, by_hand())
    bench.own("box.call(func)", loop(lambda: box.call(_value)))
    bench.peer("multiprocessing, fork", _multiprocessing)
    bench.peer("pyspaces", _pyspaces)
    bench.at_most("call / floor", "box.call(func)", FLOOR, 1.10)


@row("executor", f"the same at {GIGABYTES} GB, and with workers that are kept")
def executor(bench: Bench) -> None:
    if available_memory() < (2 * GIGABYTES) << 10:
        bench.notes.append(f"not measured: needs {2 * GIGABYTES} GB of free memory")
        return

    def set_up() -> dict[str, Batch]:
        fill_memory(GIGABYTES << 10)
        box = Namespace(UTS)
        workers = box.executor()
        workers.submit(_value).result()
        return {
            "floor": by_hand(),
            "call": loop(lambda: box.call(_value)),
            "executor": loop(lambda: workers.submit(_value).result()),
        }

    remote = Remote(set_up)
    bench.stack.callback(remote.close)
    bench.floor(FLOOR, remote.batch("floor"))
    bench.own("box.call(func)", remote.batch("call"))
    bench.own("executor, submit and result", remote.batch("executor"))
    bench.at_least("call / executor", "box.call(func)", "executor, submit and result", 30)
