"""Executors whose workers live in one set of namespaces."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import weakref
from concurrent.futures import Executor, ThreadPoolExecutor

from . import _ns
from ._errors import step_error
from ._fork import Forked
from ._forkserver import FAILED, JOB, NEW_WORKER, STARTED, STOP, STOP_SERVER, receive_with_fds, serve
from ._outcome import restore
from ._plan import close_all
from ._types import MNT, PID, TIME, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future
    from typing import Any, Literal, NoReturn, ParamSpec, TypeVar

    from ._handle import NamespaceFile
    from ._nsset import NamespaceSet
    from ._recipe import Namespace

    P = ParamSpec("P")
    R = TypeVar("R")

# How long workers whose jobs are done may take to end, in seconds.
PATIENCE = 5.0


def executor_recipe(
    recipe: Namespace, max_workers: int = 1, kind: Literal["process", "thread"] = "process"
) -> Executor:
    """The body of Namespace.executor()."""
    if isinstance(max_workers, bool) or not isinstance(max_workers, int):
        raise TypeError(f"max_workers must be an int, not {max_workers!r}")
    if max_workers < 1:
        raise ValueError(f"max_workers must be at least 1, not {max_workers}")
    if kind == "process":
        return ProcessExecutor(recipe, max_workers)
    if kind == "thread":
        return ThreadExecutor(recipe, max_workers)
    raise ValueError(f"kind must be 'process' or 'thread', not {kind!r}")


class _Executor(Executor):
    """Threads that each do a job in their own way; subclasses say which."""

    def __init__(self, recipe: Namespace, max_workers: int) -> None:
        self._recipe = recipe
        self._threads = ThreadPoolExecutor(max_workers, f"nsutil-{recipe.types}")
        self._lock = threading.Lock()
        self._shut_down = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule ``fn(*args, **kwargs)`` in the namespaces; its Future.

        The first call makes the namespaces: OSError names the step that failed.  RestoreError on a
        thread that a block could not bring back.
        """
        with self._lock:
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            _ns.check_thread()  # which the threads of the pool inherit from
            job = self._prepare()
        return self._threads.submit(job, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more jobs; with ``wait`` return when all have ended, and the workers with them."""
        with self._lock:
            self._shut_down = True
        self._threads.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            self._finish()
        else:
            threading.Thread(target=self._finish, name="nsutil-shutdown").start()

    def _finish(self) -> None:
        self._threads.shutdown(wait=True)
        self._release()

    def _prepare(self) -> Callable[..., Any]:
        """What a thread is to call with each job."""
        raise NotImplementedError

    def _release(self) -> None:
        """Give back what the workers shared, after the last job."""


class ProcessExecutor(_Executor):
    """Workers are processes; jobs, values and exceptions are pickled."""

    def __init__(self, recipe: Namespace, max_workers: int) -> None:
        super().__init__(recipe, max_workers)
        self._server: _Server | None = None

    def _prepare(self) -> Callable[..., Any]:
        if self._server is None:
            self._server = self._start_server()
        self._server.check()
        return self._server.do

    def _start_server(self) -> _Server:
        server = _Server(self._recipe)
        try:
            server.start()
        except BaseException:
            server.close()
            raise
        return server

    def _release(self) -> None:
        if self._server is not None:
            self._server.stop()


class _Worker:
    """This side of one worker process: its socket, and its pidfd."""

    def __init__(self, sock: socket.socket, pidfd: int) -> None:
        self.socket = sock
        self.pidfd = pidfd

    def ask(self, kind: int, data: bytes) -> tuple[int, bytes] | None:
        """Send a message and return the answer; None when the worker has ended."""
        try:
            _ns.send(self.socket.fileno(), kind, data)
        except OSError:
            return None
        return _ns.receive(self.socket.fileno(), self.pidfd)

    def stop(self) -> None:
        try:
            _ns.send(self.socket.fileno(), STOP, b"")
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        close_all([self.socket.detach(), self.pidfd])


class _Server:
    """The process that makes the namespaces and forks the workers; this side of it."""

    def __init__(self, recipe: Namespace) -> None:
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._own = threading.local()
        self._broken = False
        self._forked = Forked(recipe)
        self._control, self._far_end = socket.socketpair()
        # Of a pool that nobody shut down, too; its last job is done.  At the end of the interpreter that is before its
        # modules go, which a __del__ would need.
        parts = self._workers, self._control, self._far_end, self._forked
        self._closing = weakref.finalize(self, _end_server, *parts)

    def start(self) -> None:
        """Fork it, and wait until it is inside."""
        child, ours, theirs = self._forked.child, self._control, self._far_end
        parent = os.pidfd_open(os.getpid())
        try:
            self._forked.start(lambda: serve(child, theirs, ours, parent, self._forked.elsewhere), follow=False)
            self._forked.receive()
        finally:
            close_all([theirs.detach(), parent])

    def check(self) -> None:
        """Raise BrokenProcessPool once a worker has died."""
        if self._broken:
            from concurrent.futures.process import BrokenProcessPool

            raise BrokenProcessPool("a worker process ended while it had a job; this executor is of no more use")

    def do(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One job, on this thread's worker."""
        self.check()
        data = pickle.dumps((fn, args, kwargs), 5)
        answer = self._worker().ask(JOB, data)
        if answer is None:
            self._break()
        assert answer is not None
        return restore(*answer)

    def _break(self) -> NoReturn:
        """A worker died: end all, as concurrent.futures does."""
        with self._lock:
            self._broken = True
            self._forked.kill_tree()
            self._forked.child.end()
        self.check()
        raise AssertionError("unreachable")

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            ours, theirs = socket.socketpair()
            try:
                answer, fds = self._request(theirs.fileno())
            finally:
                close_all([theirs.detach()])
            if answer != STARTED:
                close_all([ours.detach()])
                self._refused(answer)
            self._own.worker = worker = _Worker(ours, fds[0])
            self._workers.append(worker)
        return worker

    def _request(self, fd: int) -> tuple[bytes, list[int]]:
        """Ask for a worker at the other end of fd: the server's answer, empty when it is gone, and descriptors."""
        with self._lock:
            try:
                socket.send_fds(self._control, [NEW_WORKER], [fd])
                return receive_with_fds(self._control, 512)
            except OSError:
                return b"", []

    def _refused(self, answer: bytes) -> NoReturn:
        if answer.startswith(FAILED):
            raise step_error(int(answer[1:]), "fork a worker")
        self._break()

    def stop(self) -> None:
        """End workers and server; they have no jobs any more."""
        while self._workers:
            self._workers.pop().stop()
        try:
            self._control.send(STOP_SERVER)
        except OSError:
            pass
        self._forked.child.wait(PATIENCE)
        self.close()

    def close(self) -> None:
        """End what is still there."""
        self._closing()


def _end_server(workers: list[_Worker], control: socket.socket, far_end: socket.socket, forked: Forked) -> None:
    while workers:
        workers.pop().close()
    # The far end is closed already, where the server was started.
    close_all([fd for fd in (control.detach(), far_end.detach()) if fd >= 0])
    forked.child.end()


class ThreadExecutor(_Executor):
    """Workers are threads of this process; types as for ``thread()``."""

    def __init__(self, recipe: Namespace, max_workers: int) -> None:
        from ._checks import check_thread

        check_thread(recipe)
        if recipe.new & TIME and max_workers > 1:
            raise ValueError(
                "threads cannot join a TIME namespace, so with a new one max_workers must be 1; or use kind='process'"
            )
        super().__init__(recipe, max_workers)
        self._inside = _SharedByThreads(recipe)

    def _prepare(self) -> Callable[..., Any]:
        return self._inside.do

    def _release(self) -> None:
        self._inside.close()


class _SharedByThreads:
    """The namespaces that the first thread made and the others join."""

    def __init__(self, recipe: Namespace) -> None:
        self._recipe = recipe
        self._lock = threading.Lock()
        self._handles: list[NamespaceFile] | None = None
        self._own = threading.local()
        self._opened: list[NamespaceFile | NamespaceSet] = []
        self._closing = weakref.finalize(self, _close_each, self._opened)

    def do(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One job, on this thread, which is moved in for its first one."""
        if not hasattr(self._own, "error"):
            self._own.error = self._enter()
        if self._own.error is not None:
            raise self._own.error
        return fn(*args, **kwargs)

    def _enter(self) -> BaseException | None:
        """Move this thread; what went wrong is the outcome of each job it gets, since it may be half-way in."""
        try:
            with self._lock:
                if self._handles is None:
                    self._make()
                else:
                    self._join(self._handles)
        except BaseException as error:
            return error
        return None

    def _make(self) -> None:
        from ._file import current
        from ._thread import enter_for_good

        held = enter_for_good(self._recipe)
        if held is not None:
            self._opened.append(held)
        handles = []
        for nstype in each(self._recipe.new & ~PID):
            handles.append(current(nstype))
            self._opened.append(handles[-1])
        if held is not None:
            handles.append(held.pid)
        self._handles = handles

    def _join(self, handles: list[NamespaceFile]) -> None:
        from ._recipe import Namespace
        from ._thread import enter_for_good

        directory = _working_directory()
        enter_for_good(Namespace(enter=[*self._recipe.enter, *handles]))
        if directory is not None and self._recipe.types & MNT:
            _try_chdir(directory)

    def close(self) -> None:
        """Let go of the namespaces; the last job is done."""
        self._closing()


def _close_each(opened: list[NamespaceFile | NamespaceSet]) -> None:
    while opened:
        opened.pop().close()


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _try_chdir(directory: str) -> None:
    """Of this thread alone, which has a MNT namespace and with it a directory of its own."""
    try:
        os.chdir(directory)
    except OSError:
        pass
