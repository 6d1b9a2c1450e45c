"""The host name of one thread or one child, changed and gone again: what a namespace is, in ten lines."""

from __future__ import annotations

import os
import socket
import sys

import nsutil
from nsutil import USER, UTS


def inside() -> str:
    """The host name as root sees it in a block, and as anybody may see it in a child with a user namespace."""
    if os.geteuid() == 0:
        with nsutil.Namespace(UTS, hostname="box"):
            return socket.gethostname()
    return nsutil.call(socket.gethostname, new=USER | UTS, hostname="box")


def main() -> int:
    outside = socket.gethostname()
    print(f"outside: {outside}")
    print(f"inside:  {inside()}")
    print(f"outside: {socket.gethostname()}")
    return 0 if socket.gethostname() == outside else 1


if __name__ == "__main__":
    sys.exit(main())
