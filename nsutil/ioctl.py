"""The ioctls of namespace files and pidfds: ints in, ints out, OSError as the kernel says.

Every fd may also be an object with ``fileno()``; every new fd is CLOEXEC and the caller's to close.
:class:`nsutil.NamespaceFile` offers the same as methods that tell apart what these leave to errno.
"""

from __future__ import annotations

from typing import NamedTuple

from . import _ns
from ._ns import (
    get_id,
    get_mntns_id,
    get_nstype,
    get_owner_uid,
    get_parent,
    get_pid_from_pidns,
    get_pid_in_pidns,
    get_tgid_from_pidns,
    get_tgid_in_pidns,
    get_userns,
    pidfd_get_namespace,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = [
    "MountNamespaceInfo",
    "get_id",
    "get_mntns_id",
    "get_nstype",
    "get_owner_uid",
    "get_parent",
    "get_pid_from_pidns",
    "get_pid_in_pidns",
    "get_tgid_from_pidns",
    "get_tgid_in_pidns",
    "get_userns",
    "mnt_get_info",
    "mnt_get_next",
    "mnt_get_prev",
    "pidfd_get_namespace",
]


class MountNamespaceInfo(NamedTuple):
    """``struct mnt_ns_info``: the number of mounts in a mount namespace, and its 64-bit id."""

    nr_mounts: int
    id: int


def mnt_get_info(fd: FileDescriptorLike, /) -> MountNamespaceInfo:
    """The size and id of a mount namespace, NS_MNT_GET_INFO.

    Linux 6.12.  OSError: EINVAL for other types, EBADF, ENOTTY.  ioctl_nsfs(2).
    """
    _, count, ident = _ns.mnt_get_info(fd)
    return MountNamespaceInfo(count, ident)


def mnt_get_next(fd: FileDescriptorLike, /) -> tuple[int, MountNamespaceInfo]:
    """A new fd for the mount namespace with the next higher id, and its info, NS_MNT_GET_NEXT.

    Linux 6.12.  OSError: ENOENT after the last one, EPERM without CAP_SYS_ADMIN in the initial
    user namespace and, on newer kernels, outside of the initial PID namespace, EINVAL for other
    types, EBADF, ENOTTY.  ioctl_nsfs(2).
    """
    new, count, ident = _ns.mnt_get_next(fd)
    return new, MountNamespaceInfo(count, ident)


def mnt_get_prev(fd: FileDescriptorLike, /) -> tuple[int, MountNamespaceInfo]:
    """A new fd for the mount namespace with the next lower id, and its info, NS_MNT_GET_PREV.

    Linux 6.12.  OSError: as :func:`mnt_get_next`.  ioctl_nsfs(2).
    """
    new, count, ident = _ns.mnt_get_prev(fd)
    return new, MountNamespaceInfo(count, ident)
