"""What a test, or anything else, left behind in this process."""

from __future__ import annotations

import gc
import os
import threading
import time

from . import _ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Threads and children that are ending get this long, in seconds.
PATIENCE = 1.0
# libffi keeps the file open that it maps its trampolines from, itself or what it is linked into: importing ctypes, or
# its first callback, opens it for good.
LIBFFI = "libffi.so", "memfd:libffi", "_ctypes."


class Held:
    """What this process holds: descriptors, children, threads, mounts, namespaces."""

    __slots__ = ("children", "fds", "mounts", "namespaces", "threads")

    def __init__(self) -> None:
        self.fds = dict(_descriptors())
        self.children = set(_children())
        self.threads = {t.ident: t.name for t in threading.enumerate()}
        self.mounts = set(_mounts())
        self.namespaces = dict(_namespaces())

    @classmethod
    def now(cls) -> Held:
        """What is held at this moment; garbage is not."""
        gc.collect()
        return cls()

    def leaked(self) -> list[str]:
        """What is held now and was not before, a line each."""
        deadline = time.monotonic() + PATIENCE
        found = list(self._difference(Held.now()))
        while found and time.monotonic() < deadline:
            time.sleep(0.02)
            found = list(self._difference(Held.now()))
        return found

    def _difference(self, now: Held) -> Iterator[str]:
        yield from (f"descriptor {fd}: {what}" for fd, what in now.fds.items() if self.fds.get(fd) != what)
        yield from (f"child process {pid}" for pid in now.children - self.children)
        yield from (f"thread {name}" for ident, name in now.threads.items() if ident not in self.threads)
        yield from (f"mount {line}" for line in sorted(now.mounts - self.mounts))
        yield from (
            f"this thread in another {name} namespace ({identity[0]})"
            for name, identity in now.namespaces.items()
            if self.namespaces.get(name) != identity
        )


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            what = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed the directory
        if not what.rpartition("/")[2].startswith(LIBFFI):
            yield int(name), what


def _children() -> Iterator[int]:
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                yield from map(int, file.read().split())
        except OSError:
            continue


def _mounts() -> Iterator[str]:
    with open("/proc/thread-self/mountinfo", errors="surrogateescape", newline="\n") as file:
        for line in file:
            fields = line.split(" ")
            yield f"{fields[4]} ({fields[fields.index('-') + 1]}, id {fields[0]})"


def _namespaces() -> Iterator[tuple[str, tuple[int, int | None]]]:
    """The inode of each, and the id (Linux 6.18): an inode may soon be that of a newer namespace."""
    for name in os.listdir("/proc/thread-self/ns"):
        try:
            fd = os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # a PID namespace without its first process
        try:
            yield name, _ns.nsfs_identity(fd, _ns.newer_calls())[2:]
        finally:
            os.close(fd)
