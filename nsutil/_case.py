"""One failed step, and what is found out about it."""

from __future__ import annotations

import re
from typing import NamedTuple

from ._probe import Facts
from ._types import NAMES, USER, NSType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Finding(NamedTuple):
    """Why something does not work here.

    ``cause`` is one of CAUSES, ``evidence`` what was read and where,
    ``remedy`` what would help, ``step`` the step that failed.
    """

    cause: str
    evidence: str
    remedy: str
    step: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}; {self.remedy}"


CAUSES = (
    "limit", "nesting", "seccomp", "apparmor", "userns-disabled", "chroot", "unmapped-id", "threads", "newuidmap",
    "subuid", "no-new-privs", "nosuid", "masked-proc", "locked-mount", "capability", "setgroups", "old-kernel",
)  # fmt: skip

# The kind of a step by its label; the first that matches counts.
_KINDS = (
    ("helper", re.compile(r"newuidmap|newgidmap|subuid|subgid")),
    ("map", re.compile(r"uid_map|gid_map")),
    ("setgroups", re.compile(r"setgroups|supplementary groups")),
    ("time", re.compile(r"clock offsets|timens")),
    ("umount", re.compile(r"^un?mount")),
    ("mount", re.compile(r"mount|^bind|^pivot|^make (/ |the .* root|all)|overlay|read-only")),
    ("place", re.compile(r"^create /")),
    ("create", re.compile(r"^(unshare|clone|fork|start|make a)")),
    ("join", re.compile(r"^(setns|join (?!the cgroup|process group))")),
    ("ids", re.compile(r"^set(res)? ?[ug]id|^become root")),
    ("look", re.compile(r"^open the \w+ namespace of")),
    ("caps", re.compile(r"capabilit|no_new_privs")),
    ("names", re.compile(r"^set(host|domain)name")),
    ("net", re.compile(r"loopback")),
    ("rlimit", re.compile(r"^set resource limit")),
)


class Case:
    """One failure: what was attempted, what the kernel said."""

    def __init__(self, err: int, step: str, context: Iterable[str] = (), facts: Facts | None = None) -> None:
        self.err = err
        self.step = step
        self.facts = facts or Facts()
        self.words = frozenset(context)
        self.kind = _kind_of(step)
        self.types = self._types()

    def _types(self) -> NSType:
        """The types that the step is about: its own, else the attempt's."""
        named = _types_in(re.findall(r"[a-z]+", self.step.lower())) if self.kind in ("create", "join") else NSType(0)
        return named or _types_in(self.words)

    @property
    def with_user(self) -> bool:
        """A user namespace is made or joined too, so rights come from there."""
        return bool((self.types | _types_in(self.words)) & USER)

    def found(self, cause: str, evidence: str, remedy: str) -> Finding:
        return Finding(cause, evidence, remedy, self.step)


def _kind_of(step: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.search(step.lower())), "other")


def _types_in(words: Iterable[str]) -> NSType:
    result = NSType(0)
    for word in words:
        result |= NAMES.get(word, NSType(0))
    return result
