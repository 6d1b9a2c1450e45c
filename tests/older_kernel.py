"""An older kernel, or a container's seccomp profile, played on this one: a filter answers as those would.

`pytest --older-kernel=5.6` runs all tests as if everything newer were missing, `--older-kernel=openat2,clone3` without
these alone, `python tests/older_kernel.py docker COMMAND...` runs any command. What no filter can see stays
as it is: the flags behind pointers, the fields of structures, which file system a descriptor is on.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

SYSTEM_CALLS = {  # name: (x86_64, aarch64)
    "clone": (56, 220),
    "fork": (57, None),
    "ioctl": (16, 29),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "pivot_root": (155, 41),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "umount2": (166, 39),
    "unshare": (272, 97),
}
# The same number everywhere.
SYSTEM_CALLS |= {
    name: (number, number)
    for name, number in {
        "open_tree": 428,
        "move_mount": 429,
        "fsopen": 430,
        "fsconfig": 431,
        "fsmount": 432,
        "fspick": 433,
        "pidfd_open": 434,
        "clone3": 435,
        "close_range": 436,
        "openat2": 437,
        "pidfd_getfd": 438,
        "mount_setattr": 442,
        "statmount": 457,
        "listmount": 458,
        "listns": 470,
    }.items()
}

# What a rule asks of an argument: all bits of a mask have a value, any bit of it is set, more than one bit is set.
EQUAL, ANY, SEVERAL = "equal", "any", "several"
ALL_BITS = 0xFFFFFFFF


class Rule(NamedTuple):
    """A call, the errno it gets, and what its argument must be for that (None: anything)."""

    call: str
    error: int
    argument: int | None = None
    kind: str = EQUAL
    value: int = 0
    mask: int = ALL_BITS


def _calls(*names: str, error: int = errno.ENOSYS) -> list[Rule]:
    return [Rule(name, error) for name in names]


def _ioctls(*requests: int, mask: int = ALL_BITS) -> list[Rule]:
    return [Rule("ioctl", errno.ENOTTY, 1, EQUAL, request, mask) for request in requests]


MOUNT_CALLS = ("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick")
NEW_TYPES = 0x7E020000  # all but TIME, which clone(2) cannot make

# Each interface: the Linux that brought it, and what its lack looks like.
FEATURES: dict[str, tuple[str, list[Rule]]] = {
    "memfd": ("3.17", _calls("memfd_create")),
    "mount-calls": ("5.2", _calls(*MOUNT_CALLS)),
    "clone3": ("5.3", _calls("clone3")),
    "time": (
        "5.6",
        [Rule("unshare", errno.EINVAL, 0, ANY, 0x80), Rule("setns", errno.EINVAL, 1, ANY, 0x80), *_calls("clone3")],
    ),
    "openat2": ("5.6", _calls("openat2")),
    "pidfd-getfd": ("5.6", _calls("pidfd_getfd")),
    # With one type the filter cannot tell a pidfd from a namespace's file.
    "pidfd-setns": ("5.8", [Rule("setns", errno.EINVAL, 1, SEVERAL)]),
    "close-range": ("5.9", _calls("close_range")),
    "mount-setattr": ("5.12", _calls("mount_setattr")),
    "statmount": ("6.8", _calls("statmount", "listmount")),
    "pidfd-thread": ("6.9", [Rule("pidfd_open", errno.EINVAL, 1, ANY, os.O_EXCL)]),
    "pidfd-namespaces": ("6.11", _ioctls(*range(0xFF01, 0xFF0B))),
    "mnt-id": ("6.11", _ioctls(0x8008B705, 0xB705)),
    "pid-translation": ("6.11", _ioctls(*range(0x8004B706, 0x8004B70A))),
    "mnt-next": ("6.12", _ioctls(0x8010B70A, 0x8010B70B, 0x8010B70C)),
    # The size of the structure is part of the request.
    "pidfd-info": ("6.13", _ioctls(0xFF0B, mask=0xFFFF)),
    "ns-id": ("6.18", _ioctls(0x8008B70D)),
    "ns-handles": ("6.18", _calls("name_to_handle_at", "open_by_handle_at", error=errno.EOPNOTSUPP)),
    "listns": ("6.19", _calls("listns")),
    # What a container's profile refuses to who has no CAP_SYS_ADMIN there.
    "docker": (
        "-",
        [
            Rule("clone", errno.EPERM, 0, ANY, NEW_TYPES),
            *_calls("clone3"),
            *_calls("unshare", "setns", "mount", "umount2", "pivot_root", "sethostname", error=errno.EPERM),
            *_calls("setdomainname", "mount_setattr", "open_by_handle_at", *MOUNT_CALLS, error=errno.EPERM),
        ],
    ),
}


def chosen(text: str) -> list[Rule]:
    """The rules of names and versions between commas; a version means all that is newer."""
    rules: list[Rule] = []
    for word in text.split(","):
        if word in FEATURES:
            rules += FEATURES[word][1]
        elif word.replace(".", "").isdigit():
            rules += [rule for since, each in FEATURES.values() if since != "-" and newer(since, word) for rule in each]
        else:
            raise ValueError(f"{word!r} is neither a Linux version nor one of {', '.join(FEATURES)}")
    return rules


def newer(version: str, than: str) -> bool:
    first, second = (tuple(map(int, text.split("."))) for text in (version, than))
    return first > second


# Classic BPF: (code, jump if true, jump if false, value)
LOAD, EQUALS, HAS_BITS, AND, AND_X, SUBTRACT, TO_X, RETURN = 0x20, 0x15, 0x45, 0x54, 0x5C, 0x14, 0x07, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
ARGUMENTS = 16  # where they begin in struct seccomp_data


def _test(rule: Rule) -> list[tuple[int, int, int, int]]:
    """Falls through where the argument is meant, jumps one further where it is not."""
    if rule.argument is None:
        return []
    load = (LOAD, 0, 0, ARGUMENTS + 8 * rule.argument)
    if rule.kind == ANY:
        return [load, (HAS_BITS, 0, 1, rule.value)]
    if rule.kind == SEVERAL:  # x & (x - 1)
        return [load, (TO_X, 0, 0, 0), (SUBTRACT, 0, 0, 1), (AND_X, 0, 0, 0), (EQUALS, 1, 0, 0)]
    return [load, (AND, 0, 0, rule.mask), (EQUALS, 0, 1, rule.value)]


def program(rules: Iterable[Rule]) -> bytes:
    """The filter; the first rule that fits answers."""
    lines: list[tuple[int, int, int, int]] = []
    for rule in rules:
        number = SYSTEM_CALLS[rule.call][platform.machine() != "x86_64"]
        if number is not None:
            test = _test(rule)
            lines += [(LOAD, 0, 0, 0), (EQUALS, 0, len(test) + 1, number), *test, (RETURN, 0, 0, REFUSE | rule.error)]
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def install(rules: Iterable[Rule]) -> None:
    """For the rest of this process's life, its threads and what it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(text := program(rules), len(text))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(text) // 8, ctypes.addressof(code)))
    seccomp = {"x86_64": 317}.get(platform.machine(), 277)
    for attempt in range(2):
        # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
        if libc.syscall(seccomp, 1, 1, header) == 0:
            return
        if attempt or ctypes.get_errno() != errno.EACCES:
            break
        # Without CAP_SYS_ADMIN: the price is that setuid programs are powerless.
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: older_kernel.py NAME|VERSION[,...] COMMAND...")
    install(chosen(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
