"""The ids that the caller's network namespace has for others (``ip netns list-id``), over rtnetlink."""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as sockets
    from collections.abc import Mapping
    from typing import TypeVar

    K = TypeVar("K")

_RTM_GETNSID, _NLMSG_ERROR, _NLM_F_REQUEST = 90, 2, 1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_MESSAGE = struct.Struct("=IHHII4xHHI")  # header, rtgenmsg padded, one attribute of four bytes
_FAMILY = 4  # the padded rtgenmsg


def netnsids(wanted: Mapping[K, tuple[str | None, int]]) -> dict[K, int | str]:
    """{key: number or "unassigned"}, given {key: (path, inode)}; without those that cannot be opened any more."""
    import socket

    found: dict[K, int | str] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as route:
        route.settimeout(5)
        for key, (path, inode) in wanted.items():
            nsid = None if path is None else _ask(route, path, inode)
            if nsid is not None:
                found[key] = nsid if nsid >= 0 else "unassigned"
    return found


def _ask(route: sockets.socket, path: str, inode: int) -> int | None:
    """The id of one namespace, -1 for none; None when it cannot be asked for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_ino != inode:
            return None
        route.send(_MESSAGE.pack(_MESSAGE.size, _RTM_GETNSID, _NLM_F_REQUEST, 1, 0, 8, _NETNSA_FD, fd))
        return _answer(route.recv(4096))
    except OSError:
        return None
    finally:
        os.close(fd)


def _answer(data: bytes) -> int | None:
    length, kind = _HEADER.unpack_from(data)[:2]
    if kind == _NLMSG_ERROR:
        return None
    at = _HEADER.size + _FAMILY
    while at + 8 <= length:
        size, attribute = struct.unpack_from("=HH", data, at)
        if attribute == _NETNSA_NSID:
            return int(struct.unpack_from("=i", data, at + 4)[0])
        at += max(4, (size + 3) & ~3)
    return None
