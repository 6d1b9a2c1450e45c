"""The lines of /proc/PID/mountinfo."""

from __future__ import annotations

from typing import NamedTuple

from ._probe import unescape


class Mount(NamedTuple):
    """One mount, as proc_pid_mountinfo(5) describes it."""

    id: int
    parent: int
    device: tuple[int, int]  # major, minor
    root: str  # the part of the file system that is mounted
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]  # "shared:N", "master:N", ...; empty: private
    fstype: str
    source: str
    super_options: tuple[str, ...]


def parse(line: str) -> Mount:
    """The mount that a line describes."""
    fields = line.rstrip("\n").split(" ")
    dash = fields.index("-", 6)
    major, minor = fields[2].split(":")
    fstype, source, options = fields[dash + 1 : dash + 4]
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=(int(major), int(minor)),
        root=unescape(fields[3]),
        target=unescape(fields[4]),
        options=tuple(fields[5].split(",")),
        propagation=tuple(fields[6:dash]),
        fstype=fstype,
        source=unescape(source),
        super_options=tuple(options.split(",")),
    )
