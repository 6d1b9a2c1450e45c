"""Named namespaces, and what becomes of their names."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import support

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, enter, named

from .registry import Run, again_and_again, expect, inode, operation


def creating(nstype: nsutil.NSType, **options: object) -> Run:
    """A name comes whole or not at all."""
    named.create("old", nstype).close()
    named.remove("old", nstype)
    own = inode(nstype)
    made: list[nsutil.NamespaceFile] = []

    def body() -> None:
        made.append(named.create("name", nstype, **options))

    while True:
        worked = yield body
        expect(named.list(nstype) == ["name"] * worked, f"the names afterwards: {named.list(nstype)}")
        if worked:
            with made.pop() as file, named.open("name", nstype) as found:
                expect(found == file and file.type == nstype and file.inode != own, "a new namespace")
            named.remove("name", nstype)


def removing(nstype: nsutil.NSType, wanted: str = "a", there: str = "a") -> Run:
    """A name is gone or untouched."""

    def body() -> None:
        named.remove(list(wanted), nstype)

    try:
        while True:
            for name in there:
                if name not in named.list(nstype):
                    named.create(name, nstype).close()
            worked = yield body
            left = named.list(nstype)
            expect(set(left) <= set(there) - set(wanted if worked else ""), f"the names afterwards: {left}")
            for name in left:
                named.open(name, nstype).close()
    finally:
        named.remove(named.list(nstype), nstype)


@operation
def named_first() -> Run:
    """The first name of this machine."""
    made: list[nsutil.NamespaceFile] = []

    def body() -> None:
        made.append(named.create("name"))

    while True:
        worked = yield body
        expect(named.list() == ["name"] * worked, f"the names afterwards: {named.list()}")
        if worked:
            made.pop().close()
            named.remove("name")


@operation
def named_net() -> Run:
    yield from creating(NET)


@operation
def named_uts() -> Run:
    yield from creating(UTS, hostname="name")


@operation
def named_ipc() -> Run:
    yield from creating(IPC)


@operation
def named_cgroup() -> Run:
    yield from creating(CGROUP)


@operation
def named_mnt() -> Run:
    yield from creating(MNT)


@operation
def named_time() -> Run:
    yield from creating(TIME, monotonic=9)


@operation
def named_user() -> Run:
    yield from creating(USER)


@operation
def named_pid() -> Run:
    yield from creating(PID)


@operation
def named_net_beside_threads() -> Run:
    """A process with threads makes the namespace on one of its own."""
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        yield from creating(NET)
    finally:
        stop.set()
        other.join()


@operation
def remove_net() -> Run:
    yield from removing(NET, there="ab")


@operation
def remove_uts() -> Run:
    yield from removing(UTS, there="ab")


@operation
def remove_several() -> Run:
    yield from removing(NET, "ab", "abc")


@operation
def remove_all() -> Run:
    yield from removing(NET, "abc", "abc")


@operation
def remove_pid() -> Run:
    yield from removing(PID)


@operation
def named_look() -> Run:
    named.create("name").close()
    with named.open("name") as file, sleeping_in(file) as pid:

        def body() -> None:
            named.open("name").close()
            expect(named.identify(pid) == ["name"], "what it is called")
            expect(pid in named.pids("name"), "who is there")

        yield from again_and_again(body)


@operation
def named_attach() -> Run:
    with support.paused(NET) as pid:
        while True:
            worked = yield lambda: named.attach("name", pid)
            expect(named.list() == ["name"] * worked, f"the names afterwards: {named.list()}")
            if worked:
                with named.open("name") as file:
                    expect(file.inode == inode(NET, pid), "its namespace")
                named.remove("name")


@operation
def named_watch() -> Run:
    named.create("old", UTS).close()
    named.remove("old", UTS)
    plain = Path("/run/nsutil/uts/plain")

    def body() -> None:
        with named.watch(UTS) as watch:
            plain.touch()
            expect(next(watch) == ("add", "plain"), "what came")

    while True:
        yield body
        plain.unlink(missing_ok=True)


@contextlib.contextmanager
def sleeping_in(file: nsutil.NamespaceFile) -> Iterator[int]:
    with enter(file).popen(["/bin/sleep", "20"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def names() -> list[str]:
    """Each file in the directories of named namespaces, those that are no names too."""
    found = []
    for directory in ("/run/netns", "/run/nsutil"):
        for place, _, files in os.walk(directory):
            found += [f"{place}/{file}" for file in files]
    return sorted(found)


def check_names() -> list[str]:
    """What is wrong with the names that a killed caller left: each must be whole or stale, and removable."""
    wrong = []
    for nstype in nsutil.NSType.ALL:
        for name in named.list(nstype):
            try:
                with contextlib.suppress(nsutil.NotANamespace):
                    named.open(name, nstype).close()
                named.remove(name, nstype)
                named.create(name, nstype).close()
                named.remove(name, nstype)
            except Exception as error:
                wrong.append(f"{nstype} {name}: {error!r}")
    return wrong
