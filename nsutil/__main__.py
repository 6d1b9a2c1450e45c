"""The command ``nsutil``, also as ``python -m nsutil``."""

from __future__ import annotations

import sys

from .cli._args import Arguments, CommandError, Finished, UsageError, report

HELP = """\
Usage: nsutil COMMAND [ARGUMENTS]

Linux namespaces: make them, enter them, list them.

Commands:
  unshare      run a program in new namespaces, as unshare(1)
  nsenter      run a program in existing namespaces, as nsenter(1)
  lsns         list namespaces, as lsns(8)
  netns        named network namespaces, as ip-netns(8)
  tree         draw which namespace belongs to which
  box          run a program in a container
  doctor       say whether something will work here, and why not
  demo         show the eight types, outside against inside
  completion   print the completion of a shell
  help         show this, or the help of a command

Options:
  -h, --help     show this help
  -V, --version  show the version
      --debug    show a traceback with errors, also NSUTIL_DEBUG=1

Examples:
  nsutil unshare --user --map-root-user --net ip link
  nsutil nsenter --all --target 1234
  nsutil lsns --type net
  nsutil box --hostname box
"""
COMMANDS = ("unshare", "nsenter", "lsns", "netns", "tree", "box", "doctor", "demo", "completion")


def main(argv: list[str] | None = None) -> int:
    """Run a command line (of ``sys.argv`` by default) and return its exit status."""
    from .cli._program import default_signals

    default_signals()
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    prog = ["nsutil"]
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv, prog)
        return _flush() or status
    except Exception as error:
        return report(" ".join(prog), error)


def _dispatch(argv: list[str], prog: list[str]) -> int:
    """Run the command, or print what it has to say for itself."""
    try:
        return _command(argv, prog)
    except Finished as text:
        print(text, end="")
        return 0


def _command(argv: list[str], prog: list[str]) -> int:
    """Import the command and run it; ``prog`` becomes its name, for messages."""
    arguments = Arguments(HELP, argv)
    for _ in arguments:
        pass
    if not arguments.rest:
        raise UsageError("no command")
    command, *rest = arguments.rest
    if command == "help":
        command, rest = (rest[0], ["--help"]) if rest else ("help", [])
        if not rest:
            raise Finished(HELP)
    if command not in COMMANDS:
        raise UsageError(f"unknown command '{command}'")
    prog.append(command)
    module = __import__(f"{__package__}.cli.{command}", fromlist=["main"])
    return int(module.main(rest))


def _flush() -> int:
    """Write what is buffered; 1 when that fails, told as other errors are."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        sys.stdout = None  # it would be tried again at exit
        return report("nsutil", CommandError(f"write error: {error.strerror}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
