"""A function on a fresh thread in other namespaces.

The thread ends with the function, so nothing has to be restored, and types
that a thread cannot leave again (new PID and TIME) are possible.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from concurrent.futures import Future

from . import _ns
from ._types import PID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from ._file import NamespaceSet
    from ._recipe import Namespace

    R = TypeVar("R")


def thread_recipe(
    recipe: Namespace, func: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Future[R]:
    """Run ``func(*args, **kwargs)`` on a fresh thread inside; the result is a Future.

    The context variables are the caller's.  A step that fails is the Future's
    OSError.  Raises ValueError for recipes that need a process of their own.
    """
    from ._checks import check_thread

    if not callable(func):
        raise TypeError(f"thread() runs a function, not {func!r}")
    check_thread(recipe)
    _ns.check_thread()
    future: Future[R] = Future()
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=_body, args=(recipe, future, context, func, args, kwargs), name=f"nsutil-{recipe.types}"
    )
    thread.start()
    return future


def _body(
    recipe: Namespace,
    future: Future[R],
    context: contextvars.Context,
    func: Callable[..., R],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        held = enter_for_good(recipe)
        try:
            result = context.run(func, *args, **kwargs)
        finally:
            if held is not None:
                held.close()
    except BaseException as error:
        future.set_exception(error)
        # The traceback refers to this frame, and this frame to the Future.
        del future
    else:
        future.set_result(result)


def enter_for_good(recipe: Namespace) -> NamespaceSet | None:
    """Move the calling thread in, never to come back.

    Returns what keeps a new PID namespace alive (nsutil's init is its PID 1:
    without one the first child that ends would take the namespace with it),
    or None.  Raises OSError naming the step that failed.
    """
    from ._compile import thread_steps
    from ._recipe import Namespace

    sys.audit("nsutil.enter", recipe)
    held = None
    if recipe.new & PID and recipe.init is not False:
        held = Namespace(PID).create()
        recipe = recipe.replace(new=recipe.new & ~PID, enter=[*recipe.enter, held.pid], init=None)
    try:
        thread_steps(recipe).run()
    except BaseException:
        if held is not None:
            held.close()
        raise
    return held
