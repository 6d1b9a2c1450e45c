"""The numbers that a network namespace has for others: RTM_NEWNSID and RTM_GETNSID of rtnetlink(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UNASSIGNED = -1
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_NSID, _FD, _TARGET, _CURRENT = 1, 3, 4, 5  # attributes
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_MESSAGE_OF_ACK = 1  # attribute of an extended acknowledgement
_HEADER = struct.Struct("=IHHII")
_FAMILY = bytes(4)  # rtgenmsg, padded


class Route:
    """A socket to ask the kernel by."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self.socket.settimeout(10)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            try:
                self.socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:  # an older kernel: less is said of errors, more is listed
                pass

    def assign(self, fd: int, nsid: int) -> None:
        """Give a namespace a number here; UNASSIGNED lets the kernel choose. OSError says what the kernel says."""
        self._ask(_RTM_NEWNSID, _REQUEST | _ACK, {_FD: fd, _NSID: nsid})

    def number(self, fd: int) -> int:
        """The number of an open namespace here, or UNASSIGNED."""
        return next(self._ask(_RTM_GETNSID, _REQUEST, {_FD: fd}), {}).get(_NSID, UNASSIGNED)

    def numbers(self, nsid: int | None = None, target: int | None = None) -> list[tuple[int, int | None]]:
        """All numbers here, or that one's.  With ``target`` those in the namespace of that number, each with the
        number of the same namespace here."""
        wanted = {key: value for key, value in ((_NSID, nsid), (_TARGET, target)) if value is not None}
        flags = _REQUEST if nsid is not None else _REQUEST | _DUMP
        answers = self._ask(_RTM_GETNSID, flags, wanted)
        return [(answer.get(_NSID, UNASSIGNED), answer.get(_CURRENT)) for answer in answers]

    def _ask(self, kind: int, flags: int, attributes: dict[int, int]) -> Iterator[dict[int, int]]:
        body = _FAMILY + b"".join(struct.pack("=HHi", 8, key, value) for key, value in attributes.items())
        self.socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        return iter(list(self._answers(flags & (_DUMP | _ACK) != 0)))

    def _answers(self, more: bool) -> Iterator[dict[int, int]]:
        """The attributes of each message; ``more``: until the kernel says that it is done."""
        while True:
            data = self.socket.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind, flags = _HEADER.unpack_from(data)[:3]
                body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _check(body, kind, flags)
                    return
                yield _attributes(body[len(_FAMILY) :])
            if not more:
                return


def _check(body: bytes, kind: int, flags: int) -> None:
    """Raise what an error message says."""
    number = -int.from_bytes(body[:4], "little", signed=True) if len(body) >= 4 else 0
    if number > 0:
        start = 4 + (_HEADER.size if kind == _NLMSG_ERROR else 0)
        text = _texts(body[start:]).get(_MESSAGE_OF_ACK, "") if flags & 0x200 else ""
        raise OSError(number, text or os.strerror(number))


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, key = struct.unpack_from("=HH", data)
        yield key, data[4:length]
        data = data[max(4, (length + 3) & ~3) :]


def _attributes(data: bytes) -> dict[int, int]:
    return {key: struct.unpack("=i", value)[0] for key, value in _split(data) if len(value) == 4}


def _texts(data: bytes) -> dict[int, str]:
    return {key: value.rstrip(b"\0").decode(errors="replace") for key, value in _split(data)}


def is_missing(error: OSError) -> bool:
    """Whether an error says that nobody has that number."""
    return error.errno in (errno.EINVAL, errno.ENOENT)
