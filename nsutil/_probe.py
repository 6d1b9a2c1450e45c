"""What a thread can read about its own rights and surroundings."""

from __future__ import annotations

import os

from . import _ns
from ._status import status_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# capabilities(7), the ones that namespaces ask for.
CAPS = {
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_SYS_TIME": 25,
    "CAP_SETFCAP": 31,
}
# The inode of the first user namespace (PROC_USER_INIT_INO of linux/proc_ns.h).
_INITIAL_USER = 0xEFFFFFFD


class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    __slots__ = ("fstype", "options", "point", "root")

    def __init__(self, line: str) -> None:
        head, _, tail = line.partition(" - ")
        fields = head.split(" ")  # no other white space is escaped
        self.root = unescape(fields[3])
        self.point = unescape(fields[4])
        self.options = frozenset(fields[5].split(","))
        self.fstype = tail.split()[0]


def unescape(path: str) -> str:
    """Undo the octal escapes of mountinfo (``\\040`` is a space)."""
    if "\\" not in path:
        return path
    for code in (r"\040", r"\011", r"\012", r"\043"):
        path = path.replace(code, chr(int(code[1:], 8)))
    return path.replace(r"\134", "\\")


def lines_of(text: str) -> list[str]:
    """Lines end in a newline only: a path may hold anything else that str.splitlines() breaks at."""
    return [line for line in text.split("\n") if line]


class Facts:
    """Files of /proc and /etc as the calling thread sees them, each read once.

    A file that cannot be read is None: nothing here raises OSError.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str | None] = {}
        self._mounts: list[Mount] | None = None

    def text(self, path: str) -> str | None:
        if path not in self._texts:
            self._texts[path] = _read(path)
        return self._texts[path]

    def number(self, path: str) -> int | None:
        text = self.text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def status(self, field: str) -> str | None:
        """A field of this thread's status file (proc_pid_status(5))."""
        try:
            return status_field("thread-self", field)
        except OSError:
            return None

    def lacks(self, *caps: str) -> list[str]:
        """Those of the capabilities that are not effective; none when unknown."""
        effective = self.status("CapEff")
        if effective is None:
            return [] if os.geteuid() == 0 else list(caps)
        mask = int(effective, 16)
        return [cap for cap in caps if not mask >> CAPS[cap] & 1]

    @property
    def threads(self) -> int:
        """Tasks of this process; 1 when that cannot be read."""
        try:
            return len(os.listdir("/proc/self/task"))
        except OSError:
            return 1

    @property
    def has_proc(self) -> bool:
        return self.text("/proc/thread-self/status") is not None

    @property
    def in_initial_user(self) -> bool:
        try:
            return os.stat("/proc/thread-self/ns/user").st_ino == _INITIAL_USER
        except OSError:
            return False

    @property
    def mounts(self) -> list[Mount]:
        if self._mounts is None:
            self._mounts = [Mount(line) for line in lines_of(self.text("/proc/thread-self/mountinfo") or "")]
        return self._mounts

    def mount_of(self, path: str) -> Mount | None:
        """The topmost mount that path lies on."""
        path = os.path.realpath(path)
        best: Mount | None = None
        for mount in self.mounts:
            if _is_below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
                best = mount
        return best

    def id_lines(self, kind: str) -> list[tuple[int, int, int]] | None:
        """The lines of this thread's uid_map or gid_map (kind "uid", "gid")."""
        text = self.text(f"/proc/thread-self/{kind}_map")
        if text is None:
            return None
        rows = [line.split() for line in text.splitlines()]
        return [(int(inside), int(outside), int(count)) for inside, outside, count in rows]

    def is_mapped(self, kind: str, number: int) -> bool:
        """Whether that id exists in the own user namespace; True when unknown."""
        lines = self.id_lines(kind)
        return lines is None or any(inside <= number < inside + count for inside, _, count in lines)

    def chroot(self) -> str | None:
        """What shows that this thread is in a chroot, or None."""
        if self.mounts and not any(mount.point == "/" for mount in self.mounts):
            return "/proc/self/mountinfo has no mount on /"
        if _ns.chrooted():
            return "/ is not the root of the mount namespace"
        return None

    def confinement(self) -> str | None:
        """The AppArmor label of this thread, None when unconfined or without AppArmor."""
        for path in ("/proc/thread-self/attr/apparmor/current", "/proc/thread-self/attr/current"):
            label = self.text(path)
            if label and label.endswith(")"):
                return f"/proc/self/attr/current is {label!r}"
        return None


def filtered(call: str, flags: int) -> int:
    """The errno with which a seccomp filter answers that call, 0: none does.

    The call is malformed so that the kernel itself refuses it before it looks
    at rights; whoever answers otherwise is not the kernel.
    """
    return _ns.filtered(call, flags)


def over(mounts: list[Mount], top: str) -> Iterator[Mount]:
    """The mounts that lie over something below top."""
    return (mount for mount in mounts if mount.point != top and _is_below(mount.point, top))


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            return file.read().strip("\n\0")
    except OSError:
        return None
