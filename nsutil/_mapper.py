"""The id maps of a child that cannot write them itself, written while it waits."""

from __future__ import annotations

import fcntl
import os
import threading

from ._plan import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


# What goes through the pipes; src/child.c has the other side.
_READY, _WRITTEN, _FAILED = b"r", b"m", b"x"


class Mapper:
    """A thread that writes the maps of a child once the child is ready.

    The thread that makes the child stands still until the child runs its
    program, so it has to be another one, and it has to be there before.
    ``ends``: descriptors for the child: to say that it is ready, to hear the
    answer from, and the other end of the latter.
    """

    def __init__(self, writer: Callable[[int], None]) -> None:
        self._writer = writer
        self._fds: list[int] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        try:
            for _ in range(2):
                self._fds += os.pipe2(os.O_CLOEXEC)
            self._ready, said, heard, self._answer = self._fds
            self.ends = said, heard, self._answer
            self._thread = threading.Thread(target=self._serve, name="nsutil maps", daemon=True)
            self._thread.start()
        except BaseException:
            close_all(self._fds)
            raise
        return self

    def _serve(self) -> None:
        try:
            if os.read(self._ready, 1) == _READY:
                # The child made itself the owner of the pipe: this is its pid as seen from here.
                self._writer(fcntl.fcntl(self.ends[0], fcntl.F_GETOWN))
                os.write(self._answer, _WRITTEN)
        except BaseException as e:
            self.error = e
            os.write(self._answer, _FAILED)

    def __exit__(self, *exc: object) -> None:
        # By now there may be a child that only the caller knows: nothing here may raise.
        said = self.ends[0]
        try:
            # In case the child never came that far. An end of file would not do: a fork may hold the other end.
            os.write(said, _FAILED)
        except OSError:
            self._fds.remove(said)
            close_all([said])
        self._thread.join()
        close_all(self._fds)
