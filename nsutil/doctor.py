"""Why something does not work here: the reason behind an errno.

``check`` tries a recipe in a child, as the real use would, and explains a
failure; ``hint`` is the sentence that every OSError of a failed step carries.
Nothing is read or probed until something failed.
"""

from __future__ import annotations

from ._case import CAUSES, Case, Finding
from ._causes import findings

__all__ = ["CAUSES", "Finding", "hint"]


def hint(err: int, step: str, context: tuple[str, ...] = ()) -> str | None:
    """One sentence on the likely cause of a failed step, or None.

    ``err`` is the errno, ``step`` the label of the step, ``context`` the names
    of the namespace types that the attempt makes or joins.  Reads files of
    /proc and makes system calls that change nothing; never raises.
    """
    try:
        found = next(findings(Case(err, step, context)), None)
    except Exception:  # a hint must never stand in the way of the error itself
        return None
    return str(found) if found else None
