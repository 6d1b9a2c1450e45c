"""How the outcome of a function travels from one process to another.

Values and exceptions are pickled (protocol 5).  What cannot be pickled, or not
be unpickled on the other side, arrives as an exception that says so.
"""

from __future__ import annotations

import pickle
import traceback

from ._preload import add_sources, without_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# Kinds of message; those below 16 are for the set-up (src/message.h).
VALUE = 16
ERROR = 17


class RemoteTraceback(Exception):
    """The traceback of an exception in another process; its ``str()`` shows it."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class RemoteError(RuntimeError):
    """Stands for an exception that could not be brought over from another process.

    ``type_name`` is the name of the original type.
    """

    def __init__(self, message: str, type_name: str) -> None:
        super().__init__(message)
        self.type_name = type_name

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteError, (self.args[0], self.type_name), {k: v for k, v in vars(self).items() if k != "type_name"}


def outcome(
    func: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, Any],
    passing: tuple[type[BaseException], ...] = (),
) -> tuple[int, bytes]:
    """Call func; the kind and the bytes of what came of it.  Exceptions of the types ``passing`` are raised here."""
    try:
        value = func(*args, **kwargs)
    except passing:
        raise
    except BaseException as error:
        return ERROR, pack_error(error)
    try:
        return VALUE, pickle.dumps(value, 5)
    except Exception as error:
        error.add_note(f"the value that {_name(func)} returned, of type {_name(type(value))}, cannot be pickled")
        return ERROR, pack_error(error)


def pack_error(error: BaseException) -> bytes:
    """The bytes of an exception for restore()."""
    # The first frame is this module's or its caller's, and of no use to the reader.
    tb = error.__traceback__.tb_next if error.__traceback__ else None
    text = without_sources(lambda: "".join(traceback.format_exception(type(error), error, tb)))
    chained = error.__cause__ or error.__context__
    return pickle.dumps((_pickled(error), _pickled(chained), _name(type(error)), _text(error), text), 5)


def restore(kind: int, data: bytes) -> Any:
    """The value of an outcome, or its exception raised with the remote traceback as ``__cause__``."""
    if kind == VALUE:
        return _restore_value(data)
    raise restored_error(data)


def restored_error(data: bytes) -> BaseException:
    """The exception of an ERROR outcome."""
    pickled, chained, type_name, message, text = pickle.loads(data)
    error = _unpickled(pickled)
    if error is None:
        error = RemoteError(f"{type_name}: {message}" if message else type_name, type_name)
    error.__cause__ = RemoteTraceback(add_sources(text))
    # Not shown, since the text has it, but there for who looks.
    error.__context__ = _unpickled(chained)
    return error


def _restore_value(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception as error:
        error.add_note("the value that the function returned was pickled, but cannot be unpickled here")
        raise


def _pickled(error: BaseException | None) -> bytes | None:
    try:
        return pickle.dumps(error, 5)
    except Exception:  # whatever its __reduce__ does
        return None


def _unpickled(data: bytes | None) -> BaseException | None:
    try:
        error = pickle.loads(data) if data else None
    except Exception:  # many exceptions pickle and do not unpickle
        return None
    return error if isinstance(error, BaseException) else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<its text cannot be shown>"


def _name(thing: Any) -> str:
    name = getattr(thing, "__qualname__", None) or repr(thing)
    module = getattr(thing, "__module__", None)
    return name if module in (None, "builtins", "__main__") else f"{module}.{name}"
