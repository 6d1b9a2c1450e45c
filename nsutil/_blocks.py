"""The Python side of ``with recipe:``: what ``as`` binds, and the errors.

The errors are raised by src/block.c and src/guard.c when they need one.
"""

from __future__ import annotations

import errno as _errno
import os

from . import _ns
from ._errors import RestoreError, step_error
from ._nsset import NamespaceSet
from ._types import PID, NSType, each, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from ._file import NamespaceFile
    from ._recipe import Namespace


class Inside(NamespaceSet, _ns.Guard):
    """The namespaces of a block; each is opened when the body first asks for it.

    It is the guard of that block, too, and made by C without an ``__init__``:
    a second object would cost each block as much as one of its system calls.
    """

    _ending = None
    _closed = False

    def __getattr__(self, name: str) -> Any:
        if name == "_files":
            self._files = {NSType(t): self._opener(NSType(t)) for t in each(self._recipe._types)}
            return self._files
        self._files  # noqa: B018 - makes them
        return super().__getattr__(name)

    def _opener(self, nstype: NSType) -> Any:
        def open_now() -> NamespaceFile:
            from ._handle import adopt

            if not self._active:
                raise ValueError(f"the block is over, and its {nstype} namespace was not opened inside it")
            entry = "pid_for_children" if nstype == PID else name_of(nstype)
            return adopt(_ns.open_own(entry))

        return open_now


def restore_failed(wrong: int, errno: int) -> NoReturn:
    """The thread is not back in all its namespaces."""
    types = NSType(wrong)
    reason = {
        _errno.EPERM: "the privilege to go back was given up inside the block",
        _errno.EBADF: "a saved descriptor was closed inside the block",
    }.get(errno, os.strerror(errno))
    raise RestoreError(
        f"this thread could not be moved back to its {types} namespace: {reason}; "
        f"the thread is marked and must not be used for namespaces again",
        types,
    )


def thread_is_marked(wrong: int) -> NoReturn:
    """An earlier block on this thread was never undone."""
    types = NSType(wrong)
    raise RestoreError(
        f"this thread is still in a foreign {types} namespace, which an earlier block could not leave; "
        f"use another thread",
        types,
    )


def mnt_on_main_thread(threads: int) -> NoReturn:
    """MNT needs a file system context that is not shared with other threads."""
    raise ValueError(
        f"a MNT block on the main thread of a process with {threads} threads would cut it off from their "
        f"working directory for good: use .thread(), .run() or .call(), or pass allow_main_mnt=True"
    )


def block_failed(recipe: Namespace, step: int, errno: int) -> NoReturn:
    """A step of the way in failed; the thread is back where it was."""
    if step < 0 and errno == _errno.EPERM:
        error = step_error(errno, f"check the way back to the {recipe.types} namespaces", "/proc/thread-self/ns")
        error.add_note(
            "this user namespace does not own the namespaces that the thread is in, so the block could not be left "
            "again: use .run() or .call()"
        )
        raise error
    if step < 0:
        raise step_error(errno, "save the namespaces of this thread", "/proc/thread-self/ns")
    raise recipe._block_steps().error(step, errno)
