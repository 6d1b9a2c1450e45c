"""Each system call of a process tree, stopped for a supervisor that lets it be, fails it, delays it or kills there.

seccomp(2) with user notification: unlike strace's injection it counts over the whole tree, so that exactly one call
of one process fails, and it leaves the processes as they are (no tracer).  Linux 5.5.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from faults.calls import UNSEEN, numbers

_libc = ctypes.CDLL(None, use_errno=True)

MARKER = 0x5EED  # the number of no system call: how the processes talk to the supervisor
BEGIN, END = 1, 2

_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 1, 8, 32
_RECV, _SEND = 0xC0502100, 0xC0182101
_SET_FLAGS, _SYNC_WAKE_UP = 0x40082104, 1
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_ADD, _SET_FD, _ADD_FD = 0x40182103, 1, struct.Struct("=QIIII")


def supported() -> str | None:
    """Why this can't run here; None where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if platform.machine() != "x86_64":
        return "written for x86_64"
    with open("/proc/self/status") as file:
        if "Seccomp:\t2" in file.read():
            return "under a seccomp filter, whose answers would go first"
    action = ctypes.c_uint32(_NOTIFY)
    if _libc.syscall(317, 2, 0, ctypes.byref(action)) != 0:  # SECCOMP_GET_ACTION_AVAIL
        return "the kernel has no seccomp user notification"
    return None


def mark(command: int, value: int = 0) -> int:
    """Tell the supervisor something, from a process of the tree; its answer."""
    return _libc.syscall(MARKER, command, value)  # type: ignore[no-any-return]


def install() -> int:
    """From now on every call of this process and its descendants is stopped; the supervisor's descriptor."""
    unseen = [numbers()[name] for name in UNSEEN if name in numbers()]
    code = [(0x20, 0, 0, 0)]  # load the number of the call
    for at, number in enumerate(unseen):
        code.append((0x15, len(unseen) - at, 0, number))
    code += [(0x06, 0, 0, _NOTIFY), (0x06, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    listener: int = _libc.syscall(317, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def listener_of(pid: int, timeout: float = 10.0) -> int:
    """The supervisor's descriptor out of the process that has called install()."""
    deadline = time.monotonic() + timeout
    with open_pidfd(pid) as pidfd:
        while time.monotonic() < deadline:
            for name in os.listdir(f"/proc/{pid}/fd"):
                if "seccomp notify" in _link(f"/proc/{pid}/fd/{name}"):
                    fd: int = _libc.syscall(numbers()["pidfd_getfd"], pidfd, int(name), 0)
                    if fd >= 0:
                        return fd
            time.sleep(0.01)
    raise TimeoutError("no listener")


class open_pidfd:
    def __init__(self, pid: int) -> None:
        self.fd = os.pidfd_open(pid)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


class Call(NamedTuple):
    """One stopped call."""

    cookie: int
    tid: int
    number: int
    arguments: tuple[int, ...]


class Listener:
    """The supervisor's end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = bytearray(_NOTIFICATION.size)
        self._zeros = bytes(_NOTIFICATION.size)
        self._nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # Linux 6.6: one waits for the other, on one processor
            fcntl.ioctl(fd, _SET_FLAGS, _SYNC_WAKE_UP)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._nothing)

    def receive(self) -> Call | None:
        """The next stopped call; None where it is gone again."""
        self._buffer[:] = self._zeros
        try:
            fcntl.ioctl(self.fd, _RECV, self._buffer)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise
            return None
        cookie, tid, _, number, _, _, *arguments = _NOTIFICATION.unpack(self._buffer)
        return Call(cookie, tid, number, tuple(arguments))

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self.fd, _SEND, response)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the process was killed meanwhile
                raise

    def go_on(self, call: Call) -> None:
        self._send(_RESPONSE.pack(call.cookie, 0, 0, _CONTINUE))

    def fail(self, call: Call, error: int) -> None:
        self._send(_RESPONSE.pack(call.cookie, 0, -error, 0))

    def replace(self, call: Call, fd: int) -> None:
        """Close a descriptor of the stopped process, so that its number stands for nothing of interest."""
        request = _ADD_FD.pack(call.cookie, _SET_FD, self._nothing, fd, os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, _ADD, request)

    def answer(self, call: Call, value: int) -> None:
        self._send(_RESPONSE.pack(call.cookie, value, 0, 0))


def memory_text(tid: int, address: int, size: int = 100) -> str:
    """A string in the memory of a stopped process; empty where there is none."""
    try:
        with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size).split(b"\0")[0].decode(errors="replace")
    except (OSError, OverflowError, ValueError):
        return ""


def serve(listener: Listener, control: int, handle: Callable[[Call], float | None], deadline: float) -> Iterator[None]:
    """Serve stopped calls; yields when `control` is readable; ends past the deadline.

    ``handle`` answers a call itself, or returns the seconds after which the call goes on.
    """
    poll = select.poll()
    poll.register(listener.fd, select.POLLIN)
    poll.register(control, select.POLLIN)
    late: list[tuple[float, Call]] = []
    while (now := time.monotonic()) < deadline:
        for due in [item for item in late if item[0] <= now]:
            late.remove(due)
            listener.go_on(due[1])
        until = min([deadline, *(when for when, _ in late)])
        for fd, events in poll.poll(max(0.0, until - time.monotonic()) * 1000 + 0.5):
            if fd == control:
                yield
            elif events & select.POLLIN:
                call = listener.receive()
                delay = handle(call) if call else None
                if call and delay is not None:
                    late.append((time.monotonic() + delay, call))
            else:  # nobody is left
                return
