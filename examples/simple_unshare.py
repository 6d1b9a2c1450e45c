"""Run a program in new namespaces: the example of unshare(2)'s manual page, on nsutil's thin calls.

    python simple_unshare.py [-C] [-i] [-m] [-n] [-p] [-t] [-u] [-U] program [argument ...]

It does what the system call does and nothing more: the mounts stay shared as they are, the ids of
a new user namespace are unmapped, and with -p it is the program's first child that becomes PID 1.
``python -m nsutil unshare`` is the command with everything.
"""

from __future__ import annotations

import getopt
import os
import signal
import sys

import nsutil

OPTIONS = {
    "-C": nsutil.CGROUP,
    "-i": nsutil.IPC,
    "-m": nsutil.MNT,
    "-n": nsutil.NET,
    "-p": nsutil.PID,
    "-t": nsutil.TIME,
    "-u": nsutil.UTS,
    "-U": nsutil.USER,
}


def main(arguments: list[str]) -> int:
    try:
        options, program = getopt.getopt(arguments, "CimnptuU")
        if not program:
            raise getopt.GetoptError("no program given")
    except getopt.GetoptError as e:
        print(f"{e}\nusage: simple_unshare.py [-CimnptuU] program [argument ...]", file=sys.stderr)
        return 2
    flags = 0
    for option, _ in options:
        flags |= OPTIONS[option]
    try:
        nsutil.unshare(flags)
        # Python ignores it, and an ignored signal stays so in the program.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(program[0], program)
    except OSError as e:
        print(f"simple_unshare.py: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
