"""What an operation is, the list of them, and what they look at their result with."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
from collections.abc import Callable, Generator
from typing import TypeAlias

import nsutil

Body: TypeAlias = Callable[[], object]
Run: TypeAlias = Generator[Body, bool, None]
Operation: TypeAlias = Callable[[], Run]

REGISTERED: dict[str, Operation] = {}
# Those whose processes live on when the caller is killed, as promised.
LIVES_ON = {"named_pid", "remove_pid", "run_too_long"}
# Of these until they end by themselves: nsutil's init would take them along.
ORPHANS = {"run_too_long"}
# Those whose result may be without what it could not look at.
TOLERANT = {"snapshot", "snapshot_ids", "doctor", "named_look"}
# Those that do without /proc in a root that has no place for it.
WITHOUT_PROC = {"run_in_a_root", "run_container", "call_container"}


# What the harness itself is tested with.
CARELESS = "careless"


class WrongResult(Exception):
    """The operation came back as if it had worked, and had not."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise WrongResult(what)


def operation(func: Body | Operation) -> Body | Operation:
    """A generator, or a plain function that is the body itself."""
    REGISTERED[func.__name__] = func if inspect.isgeneratorfunction(func) else lambda: again_and_again(func)
    return func


def make(name: str) -> Run:
    """The operation of that name, from the start."""
    return again_and_again(_careless) if name == CARELESS else REGISTERED[name]()


_lost: list[int] = []


def _careless() -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        os.getcwd()
    except OSError:
        _lost.append(fd)
        raise
    os.close(fd)


def again_and_again(body: Body) -> Run:
    """Of a body that needs nothing put back."""
    while True:
        yield body


def inode(nstype: nsutil.NSType, task: object = "thread-self", entry: str = "") -> int:
    return os.stat(f"/proc/{task}/ns/{entry or nstype}").st_ino


def whereabouts() -> tuple[str, int]:
    return os.uname().nodename, os.getpid()


def lo_is_up() -> bool:
    with socket.socket() as probe:
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 0))
            probe.settimeout(0.1)
            with contextlib.suppress(ConnectionRefusedError):
                probe.connect(("127.0.0.1", 1))
            return True
    return False
