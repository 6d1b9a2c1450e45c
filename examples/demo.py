"""The host name of one thread, changed and brought back: what a namespace is, in ten lines."""

from __future__ import annotations

import os
import socket
import sys

from nsutil import UTS, Namespace


def main() -> int:
    if os.geteuid() != 0:
        print("this example makes a UTS namespace of its own: run it as root")
        return 1
    outside = socket.gethostname()
    with Namespace(UTS, hostname="box"):
        print(f"inside:  {socket.gethostname()}")
    print(f"outside: {socket.gethostname()}")
    return 0 if socket.gethostname() == outside else 1


if __name__ == "__main__":
    sys.exit(main())
