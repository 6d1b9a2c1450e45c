"""What this process may do, and what an ordinary user needs in addition."""

from __future__ import annotations

from ._status import status_field
from ._types import USER, NSType, parse_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAP_SYS_ADMIN = 21


def has_capability(number: int) -> bool:
    """Whether the calling thread has that capability in effect (capabilities(7))."""
    effective = int(status_field("thread-self", "CapEff") or "0", 16)
    return bool(effective >> number & 1)


def needs_user() -> bool:
    """Whether this thread may not make namespaces without USER."""
    return not has_capability(CAP_SYS_ADMIN)


def privileged(options: dict[str, Any], types: NSType) -> dict[str, Any]:
    """The options of a recipe of these types and its own, with USER where there is no other way."""
    types |= parse_types(options.get("new", 0))
    if types and not types & USER and needs_user():
        return {"uid_map": "root", **options, "new": types | USER}
    return {**options, "new": types}
