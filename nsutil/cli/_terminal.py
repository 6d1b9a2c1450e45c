"""A terminal of its own for a program, shown on ours.

A program that shares a terminal can push input into it (TIOCSTI), which the
shell outside then runs.  So it gets another, and what is typed and printed is
passed on.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

CHUNK = 65536


class Terminal:
    """The terminal inside (``fd``), or -1 where standard input is none."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.fd = self.leader = -1
        self.outside: list[Any] | None = None

    def __enter__(self) -> Self:
        if self.wanted and os.isatty(0):
            self.leader, self.fd = os.openpty()
            self._copy_size()
        return self

    def __exit__(self, *exc: object) -> None:
        self.restore()
        for fd in {self.leader, self.fd} - {-1}:
            os.close(fd)
        self.leader = self.fd = -1

    def streams(self) -> dict[str, int]:
        """The standard streams of the program, as Popen takes them: those that are a terminal here are one there."""
        if self.fd < 0:
            return {}
        return {name: self.fd for number, name in enumerate(("stdin", "stdout", "stderr")) if os.isatty(number)}

    def relay(self, pidfd: int, signalled: int, deadline: float | None) -> None:
        """Pass on what is typed and printed until the process ends, or the time is over.

        ``signalled``: a pipe that signals write to.  A handler that ran just before poll(2) would not end that.
        """
        poll = select.poll()
        for fd in (pidfd, signalled):
            poll.register(fd, select.POLLIN)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._make_raw()
            signal.signal(signal.SIGWINCH, lambda *_: self._copy_size())
            for fd in (0, self.leader):
                poll.register(fd, select.POLLIN)
        while deadline is None or time.monotonic() < deadline:
            ready = {
                fd for fd, _ in poll.poll(None if deadline is None else max(1, 1000 * (deadline - time.monotonic())))
            }
            if signalled in ready:
                os.read(signalled, CHUNK)
            if self.leader in ready and not self._show() and pidfd not in ready:
                poll.unregister(self.leader)  # nobody has it open just now
            if 0 in ready and not self._type():
                poll.unregister(0)
            if pidfd in ready:
                break
        while self.leader >= 0 and select.select([self.leader], [], [], 0)[0] and self._show():
            pass

    def restore(self) -> None:
        """Our terminal as it was."""
        if self.outside is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self.outside)
            self.outside = None

    def _make_raw(self) -> None:
        import termios
        import tty

        self.outside = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)  # what was typed early is not lost
        if not os.isatty(1):  # whoever reads the pipe may print here, and knows nothing of this
            mode = termios.tcgetattr(0)
            mode[1] |= termios.OPOST
            termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def _copy_size(self) -> None:
        from fcntl import ioctl
        from termios import TIOCGWINSZ, TIOCSWINSZ

        ioctl(self.leader, TIOCSWINSZ, ioctl(0, TIOCGWINSZ, bytes(8)))

    def _type(self) -> bool:
        """Pass on input; false at its end."""
        data = os.read(0, CHUNK)
        _write_all(self.leader, data)
        return bool(data)

    def _show(self) -> bool:
        """Pass on output; false when there is no one left to print any."""
        try:
            data = os.read(self.leader, CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        _write_all(1 if os.isatty(1) else 0, data)
        return bool(data)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
