"""The ids that a network namespace has for others: what cannot be told is left out."""

from __future__ import annotations

import os

from support import needs_root

from nsutil._netnsid import netnsids

OWN = "/proc/self/ns/net"


@needs_root
def test_only_what_can_be_told_is(leak_check: None) -> None:
    inode = os.stat(OWN).st_ino
    wanted = {
        "itself": (OWN, inode),
        "another by now": (OWN, inode + 1),
        "nowhere": (None, inode),
        "gone": ("/nonexistent", inode),
        "no namespace": ("/etc/passwd", os.stat("/etc/passwd").st_ino),
        "of another type": ("/proc/self/ns/uts", os.stat("/proc/self/ns/uts").st_ino),
    }
    assert netnsids(wanted) == {"itself": "unassigned"}
