"""Why something does not work here: the reason behind an errno.

``check`` tries a recipe in a child, as the real use would, and explains a
failure; ``hint`` is the sentence that every OSError of a failed step carries.
Nothing is read or probed until something failed.
"""

from __future__ import annotations

import errno
import signal

from ._case import CAUSES, Case, Finding
from ._causes import findings
from ._errors import ChildDied
from ._types import ALL, PID, USER, NSType, each

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ._recipe import Namespace
    from ._types import Types

__all__ = ["CAUSES", "Finding", "Report", "check", "hint"]


def hint(err: int, step: str, context: tuple[str, ...] = ()) -> str | None:
    """One sentence on the likely cause of a failed step, or None.

    ``err`` is the errno, ``step`` the label of the step.  ``context`` has the
    names of the namespace types that the attempt makes or joins, and "child"
    when it was a child that failed.  Reads files of /proc and makes system
    calls that change nothing; never raises.
    """
    try:
        found = next(findings(Case(err, step, context)), None)
    except Exception:  # a hint must never stand in the way of the error itself
        return None
    return str(found) if found else None


class Report:
    """What came of a check: true when all of it worked.

    ``findings`` (a list of Finding) says why not, as far as that can be read
    from this system; ``error`` is the first exception, or None; ``recipe``
    what was tried.  A report that is false may have no finding.
    """

    def __init__(self, recipe: Namespace, error: Exception | None, findings: list[Finding]) -> None:
        self.recipe = recipe
        self.error = error
        self.findings = findings

    def __bool__(self) -> bool:
        return self.error is None

    def __repr__(self) -> str:
        causes = [finding.cause for finding in self.findings]
        return f"<Report: {self.recipe!r} {'works' if self else f'fails, {causes}'}>"

    def __str__(self) -> str:
        lines = [f"{self.recipe!r}: {'works' if self else 'does not work'}"]
        if self.error is not None:
            lines.append(f"  {self.error}")
        for finding in self.findings:
            lines += [f"  {finding.cause}: {finding.evidence}", f"    what helps: {finding.remedy}"]
        if not self and not self.findings:
            lines.append("  no cause that could be read from this system")
        return "\n".join(lines)

    def to_json(self) -> str:
        """As an object: recipe (text), works, error (text or null), findings (objects)."""
        import json

        found = [finding._asdict() for finding in self.findings]
        error = None if self.error is None else str(self.error)
        return json.dumps(
            {"recipe": repr(self.recipe), "works": bool(self), "error": error, "findings": found}, indent=2
        )

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in finding) + "</tr>" for finding in self.findings
        )
        head = "".join(f"<th>{name}</th>" for name in Finding._fields)
        table = f"<table><tr>{head}</tr>{rows}</table>" if rows else ""
        error = "" if self.error is None else f"<p>{escape(str(self.error))}</p>"
        return f"<p><code>{escape(repr(self.recipe))}</code>: {'works' if self else 'does not work'}</p>{error}{table}"


def check(new: Types = ALL, **options: Any) -> Report:
    """Try a recipe and say whether it works here, and why not.

    The options are those of Namespace, ``enter`` included.  Everything up to
    the start of a program or function is really done, in children, with all
    types and options together: both in the way of ``run``, where the clone
    makes the namespaces, and in the way of ``call``, where unshare does.
    Nothing of it stays.

    Raises ValueError and TypeError as Namespace does, and nothing else for what
    does not work.
    """
    from ._recipe import Namespace

    recipe = Namespace(new, **options)
    errors = [error for error in (_failure(_run, recipe), _failure(_call, recipe)) if error is not None]
    found: dict[str, Finding] = {}
    for error in errors:
        for finding in _explain(recipe, error):
            found.setdefault(finding.cause, finding)
    return Report(recipe, errors[0] if errors else None, list(found.values()))


def _failure(attempt: Callable[[Namespace], None], recipe: Namespace) -> Exception | None:
    try:
        attempt(recipe)
    except (OSError, ChildDied) as error:
        return error
    return None


# That it cannot be found is the proof that everything before it worked.
_NO_PROGRAM = "/no-such-program-of-nsutil-doctor"


def _run(recipe: Namespace) -> None:
    """All that run() does, up to a program that does not exist."""
    try:
        done = recipe.run([_NO_PROGRAM])
    except FileNotFoundError as error:
        if error.filename == _NO_PROGRAM:
            return
        raise
    ended_by = -done.returncode if done.returncode < 0 else None
    raise ChildDied("the child ended before it could run a program", signal=ended_by)


def _call(recipe: Namespace) -> None:
    """All that call() does, with a function that does nothing."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside other threads
        recipe.call(_nothing)


def _nothing() -> None:
    pass


def _explain(recipe: Namespace, error: Exception) -> Iterator[Finding]:
    """The likeliest cause of a failed attempt."""
    step = getattr(error, "step", None) or str(error)
    if isinstance(error, ChildDied):
        if error.signal == signal.SIGSYS:
            yield Finding("seccomp", "a seccomp filter killed the child (SIGSYS)", "allow the call in the filter", step)
        return
    assert isinstance(error, OSError)
    words = {*map(str, each(recipe.types)), "child"}
    case = Case(error.errno or 0, step, words)
    if case.kind == "create" and case.err == errno.ENOSPC:
        case.types = _used_up(case.types)
    yield from _first(findings(case))


def _first(found: Iterator[Finding]) -> Iterator[Finding]:
    for finding in found:
        yield finding
        return


def _used_up(types: NSType) -> NSType:
    """Of types that cannot be made together, those that cannot be made each by itself.

    All of them when each alone can be.
    """
    from ._recipe import Namespace

    def fails(some: NSType) -> bool:
        error = _failure(_run, Namespace(some, init=False if some & PID else None, mount_proc=False))
        return isinstance(error, OSError) and error.errno == errno.ENOSPC

    base = types & USER
    if base and fails(base):
        return base
    return NSType(sum(t for t in each(types & ~USER) if fails(base | t))) or types
