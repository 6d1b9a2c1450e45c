"""Call a Python function in a forked child inside namespaces."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback

from . import _ns
from ._fork import Forked, flush_output, renew_output
from ._outcome import outcome, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn, TypeVar

    from ._recipe import Namespace
    from ._types import Types

    R = TypeVar("R")


def call(func: Callable[..., R], /, *args: Any, new: Types = 0, **options: Any) -> R:
    """Call ``func(*args)`` in a forked child in namespaces; its value comes back.

    ``new`` and ``options`` are those of Namespace; keywords for func itself go
    through ``Namespace(...).call(func, *args, **kwargs)``, which see for errors.
    """
    from ._recipe import Namespace

    return Namespace(new, **options).call(func, *args)


def call_recipe(recipe: Namespace, func: Callable[..., R], args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
    """The body of Namespace.call()."""
    if not callable(func):
        raise TypeError(f"call() takes a function, not {func!r}")
    sys.audit("nsutil.call", func)
    deadline = None if recipe.timeout is None else time.monotonic() + recipe.timeout
    forked = Forked(recipe)
    child = forked.child
    try:
        try:
            forked.start(lambda: serve(child, func, args, kwargs, forked.elsewhere))
            kind, data = forked.receive(_left(deadline))
            forked.wait(_left(deadline))
        except BaseException:
            forked.kill_tree()
            raise
    except TimeoutError:
        raise TimeoutError(f"{func!r} did not return within {recipe.timeout} seconds") from None
    finally:
        child.end()
    return restore(kind, data)  # type: ignore[no-any-return]


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def serve(
    child: _ns.Child, func: Callable[..., object], args: Sequence[Any], kwargs: Mapping[str, Any], elsewhere: bool
) -> NoReturn:
    """In the child: call func, send what came of it, end.  ``elsewhere``: its files are others than the parent's."""
    status = 1
    try:
        child.unblock()
        become_child(elsewhere)
        kind, data = outcome(func, args, kwargs, (SystemExit,))
        # Whatever comes from now on must not tear the message in two.
        child.block()
        flush_output()
        _ns.send(child.channel, kind, data)
        status = 0
    except SystemExit as error:
        status = exit_status(error)
    except ConnectionError:  # the parent has ended
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        flush_output()
        # By its name, since coverage puts its own in place.
        os._exit(status)


def become_child(elsewhere: bool) -> None:
    """Take leave of what belongs to the parent: its event loop, its wake-up descriptor, its files."""
    signal.set_wakeup_fd(-1)
    renew_output()
    if elsewhere:
        from ._preload import read_sources_as_text

        read_sources_as_text()
    if "asyncio" in sys.modules:
        sys.modules["asyncio"]._set_running_loop(None)


def exit_status(error: SystemExit) -> int:
    """What the interpreter makes of SystemExit: its code, or its message on stderr and 1."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1
