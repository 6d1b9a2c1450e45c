"""Processes stopped at each of their system calls, to see what happens when another one ends just then (ptrace(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator

import support

_CONT, _SYSCALL, _SEIZE = 7, 24, 0x4206
_FORK, _VFORK, _CLONE, _SYSGOOD, _EXITKILL = 1 << 1, 1 << 2, 1 << 3, 1, 1 << 20
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000
# Who was being started when its parent was killed shows within so many seconds.
_STRAYS = 0.3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long] * 4


def _ptrace(request: int, pid: int, data: int = 0) -> bool:
    """False where the process has ended meanwhile."""
    return _libc.ptrace(request, pid, 0, data) == 0


class Tree:
    """A process that runs body(), and all that it starts, each stopped whenever it enters or leaves a system call.

    To be used in a process of one thread without other children.
    """

    def __init__(self, body: Callable[[], object]) -> None:
        reader, writer = os.pipe()
        self.root = support.fork()
        if self.root == 0:
            try:
                os.close(writer)
                os.read(reader, 1)
                body()
            finally:
                os._exit(0)
        os.close(reader)
        assert _ptrace(_SEIZE, self.root, _FORK | _VFORK | _CLONE | _SYSGOOD | _EXITKILL)
        os.close(writer)
        self.living = {self.root}
        self._of_root = {self.root}

    def stops(self, patience: float) -> Iterator[int]:
        """Who stopped, each time; all but the root, until nobody is left or nothing happened for so many seconds.

        It goes on when the next one is asked for.
        """
        quiet = time.monotonic() + patience
        while self.living and time.monotonic() < quiet:
            pid, status = os.waitpid(-1, _WALL | os.WNOHANG)
            if pid == 0:
                time.sleep(0.001)
                continue
            quiet = time.monotonic() + patience
            if not os.WIFSTOPPED(status):
                self.living.discard(pid)
                continue
            self.living.add(pid)
            number = os.WSTOPSIG(status)
            if number == _SYSCALL_STOP and not self._is_of_root(pid):
                yield pid
            event = status >> 16
            passed = 0 if event or number == _SYSCALL_STOP else number
            _ptrace(_CONT if self._is_of_root(pid) else _SYSCALL, pid, passed)

    def _is_of_root(self, pid: int) -> bool:
        if pid not in self._of_root and os.path.exists(f"/proc/{self.root}/task/{pid}"):
            self._of_root.add(pid)
        return pid in self._of_root

    def end_process(self, leader: int) -> None:
        """Kill the root, or another one of one thread, and wait for its end, while the others stand where they are."""
        os.kill(leader, signal.SIGKILL)
        threads = self._of_root if leader == self.root else {leader}
        while leader in self.living:
            # The first thread is the last to be reported.
            for pid in threads & self.living:
                found, status = os.waitpid(pid, _WALL | os.WNOHANG)
                if found and not os.WIFSTOPPED(status):
                    self.living.discard(pid)
            time.sleep(0.001)

    def end(self) -> None:
        """Kill who is left, and who was being started: the next tree is not to see them."""
        for pid in self.living:
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + _STRAYS
        with contextlib.suppress(ChildProcessError):
            while self.living or time.monotonic() < end:
                pid, status = os.waitpid(-1, _WALL | os.WNOHANG)
                self.living.discard(pid)
                if pid and os.WIFSTOPPED(status):
                    self.living.add(pid)
                    os.kill(pid, signal.SIGKILL)
                elif not pid:
                    time.sleep(0.001)
