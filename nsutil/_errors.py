"""What nsutil raises beyond OSError, and how a failed step becomes an OSError."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._types import NSType


class RestoreError(RuntimeError):
    """A thread could not be brought back into its namespaces.

    ``types`` names what is still wrong.  The thread is marked: nsutil refuses
    to enter or to start anything from it again.
    """

    def __init__(self, message: str, types: NSType | None = None) -> None:
        super().__init__(message)
        self.types = types


class ChildDied(RuntimeError):
    """A child ended before it could report a result.

    ``signal`` is the number of the signal that killed it, or None; ``status``
    its exit status, or None; ``step`` the set-up step it was in, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        signal: int | None = None,
        status: int | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message)
        self.signal = signal
        self.status = status
        self.step = step

    def __reduce__(self) -> tuple[object, ...]:
        state = {"signal": self.signal, "status": self.status, "step": self.step}
        return (ChildDied, self.args, state)


class StaleReference(OSError):
    """The namespace that a reference named is gone, or nothing leads to it (errno ESTALE)."""

    def __init__(self, message: str, filename: str | None = None) -> None:
        super().__init__(errno.ESTALE, message, filename)

    def __reduce__(self) -> tuple[Callable[..., StaleReference], tuple[str, str | None], dict[str, object]]:
        return type(self), (self.strerror or "", self.filename), vars(self)


class NotANamespace(ValueError):
    """A file that is no namespace file, or a name whose namespace is gone."""


class WrongNamespaceType(ValueError):
    """A namespace of another type than the one asked for."""


def step_error(err: int, step: str, filename: str | bytes | None = None, context: Iterable[str] = ()) -> OSError:
    """The OSError for a failed step, with ``step``, ``hint`` and a note.

    The subclass is the one that the errno stands for (PermissionError, ...).
    """
    shown = os.fsdecode(filename) if filename is not None else None
    error = (
        OSError(err, f"{os.strerror(err)} [{step}]", shown)
        if shown is not None
        else OSError(err, f"{os.strerror(err)} [{step}]")
    )
    hint = _hint(err, step, context)
    error.step = step  # type: ignore[attr-defined]
    error.hint = hint  # type: ignore[attr-defined]
    if hint:
        error.add_note(f"hint: {hint}")
    return error


def _hint(err: int, step: str, context: Iterable[str]) -> str | None:
    """The doctor's sentence; a hint must never replace the error it explains."""
    try:
        from .doctor import hint

        return hint(err, step, tuple(context))
    except Exception:  # pragma: no cover - whatever goes wrong here matters less
        return None
