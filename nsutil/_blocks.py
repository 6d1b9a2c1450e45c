"""The errors of ``with recipe:``, called from src/guard.c when one is needed."""

from __future__ import annotations

import errno as _errno
import os

from ._errors import RestoreError, step_error
from ._types import NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ._recipe import Namespace


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
    if step < 0:
        raise step_error(errno, "save the namespaces of this thread", "/proc/thread-self/ns")
    raise recipe._block_steps().error(step, errno)
