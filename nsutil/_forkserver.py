"""The process inside that forks an executor's workers, and the workers.

It runs no job itself: with one thread and nothing of the user's, it can fork
at any time, and it always notices when its parent ends.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import sys
import traceback

from . import _ns
from ._call import become_child
from ._fork import flush_output
from ._outcome import ERROR, VALUE, outcome, pack_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, TypeAlias

    Handler: TypeAlias = Callable[[int, Any], Any] | int | None

# Messages to a worker; its answers are outcomes.
JOB, STOP = 32, 33
# Requests to the server (NEW_WORKER comes with the worker's socket) and its
# answers: STARTED with the worker's pidfd, FAILED followed by an errno.
NEW_WORKER, STOP_SERVER = b"w", b"q"
STARTED, FAILED = b"+", b"-"
_FD_SIZE = 4
# How long a worker that was told to stop may take, in seconds.
PATIENCE = 1.0


def serve(child: _ns.Child, control: socket.socket, foreign: socket.socket, parent: int, elsewhere: bool) -> NoReturn:
    """The life of the server: ``control`` is its socket, ``foreign`` the other end, ``parent`` a pidfd.

    ``elsewhere``: the files inside are others than the parent's.
    """
    status = 1
    try:
        # Ctrl-C at a terminal is for the jobs and for the parent.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        child.unblock()
        become_child(elsewhere)
        foreign.close()
        _ns.send(child.channel, VALUE, b"")
        _Server(control, parent, interrupt).run()
        status = 0
    except ConnectionError:  # the parent has ended
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def receive_with_fds(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """A message and the descriptors that came with it, close-on-exec: socket.recv_fds() drops its flags."""
    room = socket.CMSG_SPACE(_FD_SIZE)
    data, items, _, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    return data, [int.from_bytes(item[2][:_FD_SIZE], sys.byteorder) for item in items]


class _Server:
    def __init__(self, control: socket.socket, parent: int, interrupt: Handler) -> None:
        self._control = control
        self._parent = parent
        self._interrupt = interrupt
        self._workers: dict[int, _ns.Child] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(parent, select.POLLIN)

    def run(self) -> None:
        """Until told to stop, or until the parent has ended."""
        patience: float | None = None
        while patience is None:
            for fd, _ in self._poll.poll():
                if fd == self._parent:
                    patience = 0
                elif fd in self._workers:
                    self._poll.unregister(fd)
                    self._workers.pop(fd).end()
                elif not self._answer():
                    patience = PATIENCE
        for worker in self._workers.values():
            worker.wait(patience)
            worker.end()

    def _answer(self) -> bool:
        """One request; False for the last."""
        request, fds = receive_with_fds(self._control, 1)
        if request != NEW_WORKER:
            return False
        try:
            worker = self._fork(fds[0])
            socket.send_fds(self._control, [STARTED], [worker.pidfd])
        except OSError as error:
            self._control.send(FAILED + str(error.errno).encode())
        return True

    def _fork(self, fd: int) -> _ns.Child:
        worker = _ns.Child()
        try:
            worker.fork(lambda: self._become_worker(worker, fd), (None,) * 4, parent_signal=signal.SIGKILL)
        finally:
            os.close(fd)
        self._workers[worker.pidfd] = worker
        self._poll.register(worker.pidfd, select.POLLIN)
        return worker

    def _become_worker(self, child: _ns.Child, fd: int) -> NoReturn:
        status = 1
        try:
            child.unblock()
            self._control.close()
            os.close(self._parent)
            work(fd, self._interrupt)
            status = 0
        except ConnectionError:  # the parent has ended
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            flush_output()
            os._exit(status)


def work(fd: int, interrupt: Handler) -> None:
    """The life of a worker: do the jobs that come through the socket until told to stop.

    ``interrupt`` is the handler of SIGINT during a job; otherwise it is ignored.
    """
    while (message := _ns.receive(fd)) is not None and message[0] == JOB:
        answer = _do(message[1], interrupt)
        flush_output()
        _ns.send(fd, *answer)


def _do(job: bytes, interrupt: Handler) -> tuple[int, bytes]:
    try:
        func, args, kwargs = pickle.loads(job)
        signal.signal(signal.SIGINT, signal.default_int_handler if interrupt is None else interrupt)
        return outcome(func, args, kwargs)
    except BaseException as error:
        error.add_note("raised in the worker before the job could be started")
        return ERROR, pack_error(error)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
