"""Each recipe option's check: what is allowed, and the form that is stored.

A checker takes the value and returns the normal form (hashable, picklable) or
raises TypeError or ValueError naming the value and what is allowed.
"""

from __future__ import annotations

import math
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The largest id a 32-bit kernel id can be; -1 (4294967295) means "unchanged".
MAX_ID = 2**32 - 2
HOSTNAME_BYTES = 64
NANOSECONDS = 1_000_000_000
PROPAGATIONS = ("private", "slave", "shared", "unchanged")

# capability.h of Linux 6.18, by number.
CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot "
    "sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease "
    "audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read "
    "perfmon bpf checkpoint_restore"
).split()


def flag(name: str) -> Callable[[object], bool]:
    """True or False, nothing that merely looks like it."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
        return value

    return check


def integer(name: str, low: int, high: int, value: object) -> int:
    """An int within a range; bool is no int here."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return int(value)


def uid(value: object) -> int | str:
    """A user id, a user's name, or "target"."""
    if isinstance(value, str):
        return value if value == "target" else _user(value)
    return integer("uid", 0, MAX_ID, value)


def gid(value: object) -> int | str:
    """A group id, a group's name, or "target"."""
    if isinstance(value, str):
        return value if value == "target" else _group("gid", value)
    return integer("gid", 0, MAX_ID, value)


def groups(value: object) -> tuple[int, ...]:
    """Supplementary groups by id or name."""
    items = _items("groups", value)
    if len(items) > 65536:
        raise ValueError(f"groups may hold 65536 ids, not {len(items)}")
    return tuple(_group("groups", g) if isinstance(g, str) else integer("groups", 0, MAX_ID, g) for g in items)


def _user(name: str) -> int:
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f"unknown user {name!r}; give a uid as an int or the name of an existing user") from None


def _group(option: str, name: str) -> int:
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise ValueError(f"{option}: unknown group {name!r}; give an int or the name of an existing group") from None


def _items(name: str, value: object) -> tuple[object, ...]:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a sequence, not {value!r}")
    try:
        return tuple(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a sequence, not {value!r}") from None


def capability(value: object) -> int:
    """A capability by number or name, with or without CAP_."""
    if isinstance(value, str):
        name = value.lower().removeprefix("cap_")
        if name not in CAPABILITIES:
            raise ValueError(f"unknown capability {value!r}; one of {', '.join(CAPABILITIES)}")
        return CAPABILITIES.index(name)
    return integer("a capability", 0, 63, value)


def capabilities(name: str) -> Callable[[object], tuple[int, ...]]:
    """One capability or several, as sorted numbers."""

    def check(value: object) -> tuple[int, ...]:
        items = (value,) if isinstance(value, (str, int)) else _items(name, value)
        return tuple(sorted({capability(item) for item in items}))

    return check


def hostname(name: str) -> Callable[[object], str]:
    """What sethostname(2) and setdomainname(2) take: at most 64 bytes."""

    def check(value: object) -> str:
        text = text_of(name, value)
        if len(os.fsencode(text)) > HOSTNAME_BYTES:
            raise ValueError(f"{name} may have {HOSTNAME_BYTES} bytes, {text!r} has {len(os.fsencode(text))}")
        return text

    return check


def text_of(name: str, value: object) -> str:
    """A str (or bytes) without NUL."""
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    if "\0" in value:
        raise ValueError(f"{name} must not hold a NUL byte: {value!r}")
    return value


def path(name: str) -> Callable[[object], str]:
    """A non-empty path as str."""

    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, bytes, os.PathLike)):
            raise TypeError(f"{name} must be a path, not {value!r}")
        text = text_of(name, os.fspath(value))
        if not text:
            raise ValueError(f"{name} must not be empty")
        return text

    return check


def path_or_fd(name: str) -> Callable[[object], object]:
    """A path, a directory's descriptor, or True (the target's)."""
    check_path = path(name)

    def check(value: object) -> object:
        if value is True:
            return True
        if isinstance(value, int) and not isinstance(value, bool):
            return integer(name, 0, 2**31 - 1, value)
        return value if hasattr(value, "fileno") else check_path(value)

    return check


def session(value: object) -> object:
    """True, False, or the descriptor of the session's terminal."""
    if isinstance(value, bool) or hasattr(value, "fileno"):
        return value
    return integer("new_session", 0, 2**31 - 1, value)


def offset(name: str) -> Callable[[object], int]:
    """Seconds (int or float, may be negative), stored as nanoseconds."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be seconds as int or float, not {value!r}")
        if not abs(value) <= 2**33:  # nor NaN; math.isfinite() refuses large ints
            raise ValueError(f"{name} must be within +-{2**33} seconds, not {value!r}")
        return value * NANOSECONDS if isinstance(value, int) else round(value * NANOSECONDS)

    return check


def choice(name: str, allowed: tuple[str, ...]) -> Callable[[object], str]:
    """One of a few words."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        return value

    return check


def umask(value: object) -> int:
    """File mode creation mask."""
    return integer("umask", 0, 0o777, value)


def seconds(value: object) -> float:
    """A timeout."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"timeout must be seconds as int or float, not {value!r}")
    if not value >= 0:  # nor NaN
        raise ValueError(f"timeout must be seconds from 0 up, not {value!r}")
    # Larger than a float may be is for ever, too.
    return value if value < 2**63 else math.inf


def time_left(value: object) -> float | None:
    """A timeout of subprocess or asyncio: what is over already is due at once."""
    if value is None:
        return None
    return seconds(0 if isinstance(value, (int, float)) and value < 0 else value)


def signal_or_flag(value: object) -> int | bool:
    """kill_child: False, True (SIGKILL), or a signal by number or name."""
    if isinstance(value, bool):
        return value
    return signal_number("kill_child", value)


def signal_number(name: str, value: object) -> int:
    """A signal by number (1 to 64), Signals member or name, with or without SIG."""
    import signal

    if isinstance(value, str):
        spelled = value.upper()
        spelled = spelled if spelled.startswith("SIG") else f"SIG{spelled}"
        if spelled not in signal.Signals.__members__:
            raise ValueError(f"{name}: unknown signal {value!r}; a number, or a name such as TERM")
        return int(signal.Signals[spelled])
    return integer(name, 1, 64, value)


def rlimits(value: object) -> tuple[tuple[int, int, int], ...]:
    """{resource.RLIMIT_X: (soft, hard)} as sorted (resource, soft, hard)."""
    if not isinstance(value, dict):
        raise TypeError(f"rlimits must be a dict of resource: (soft, hard), not {value!r}")
    return tuple(sorted(_rlimit(key, pair) for key, pair in value.items()))


def _rlimit(key: object, pair: object) -> tuple[int, int, int]:
    number = integer("rlimits: a resource", 0, 15, key)
    values = _items(f"rlimits[{number}]", (pair, pair) if isinstance(pair, int) else pair)
    if len(values) != 2:
        raise ValueError(f"rlimits[{number}] must be (soft, hard), not {pair!r}")
    soft, hard = (integer(f"rlimits[{number}]", -1, 2**63 - 1, v) for v in values)
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"rlimits[{number}]: the soft limit {soft} is above the hard limit {hard}")
    return number, soft, hard
