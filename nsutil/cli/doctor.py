"""``nsutil doctor``: whether something will work here, and why not."""

from __future__ import annotations

import os

from .._types import MNT, NAMES, NSType
from ._args import Arguments, signed
from .unshare import TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..doctor import Report

HELP = """\
Usage: nsutil doctor [OPTIONS]

Try in a child what the options ask for, and say whether it works here; if
not, why, and what would help. Without options every type is tried, for an
ordinary user inside a user namespace, and then all of them together.

Namespaces, spelt as for nsutil unshare:
  -m, --mount             mounts
  -u, --uts               host name and domain name
  -i, --ipc               System V IPC, POSIX message queues
  -n, --net               network
  -p, --pid               process ids
  -U, --user              user ids, group ids, capabilities
  -C, --cgroup            control groups
  -T, --time              monotonic and boot-time clocks
  -a, --all               all eight

What is to be done with them:
  -r, --map-root-user     map the current user and group to root
  -c, --map-current-user  map the current user and group to themselves
      --map-users MAP     INNER:OUTER:COUNT, auto, subids, all
      --map-groups MAP    the same for groups
      --map-auto          --map-users=auto --map-groups=auto
      --mount-proc        mount a proc of the PID namespace (implies --mount)
  -R, --root DIR          make a directory the root (implies --mount)
      --hostname NAME     set the host name (implies --uts)
      --boottime SECONDS  offset of the boot-time clock (implies --time)
  -t, --target PID        enter the namespaces of this process as well

  -J, --json              output as JSON
  -h, --help              show this help
  -V, --version           show the version
      --debug             show a traceback with errors

Exit status: 0 when all of it works, 1 when not.

Examples:
  nsutil doctor
  nsutil doctor --user --map-root-user --net
  nsutil doctor --target 1234
"""
MAPS = {"map-root-user": "root", "map-current-user": "current", "map-auto": "auto"}


class Request:
    """The recipe that the command line describes."""

    def __init__(self, argv: list[str]) -> None:
        self.types = NSType(0)
        self.options: dict[str, Any] = {}
        self.target: int | None = None
        self.json = False
        Arguments(HELP, argv, permute=True).take_all(self._take)

    def _take(self, name: str, value: str | None) -> None:
        if name in TYPES:
            self.types |= TYPES[name]
        elif name == "all":
            self.types |= NSType.ALL
        elif name == "json":
            self.json = True
        elif name == "target":
            self.target = _pid(value)
        else:
            self._option(name, value)

    def _option(self, name: str, value: str | None) -> None:
        if name in MAPS or name in ("map-users", "map-groups"):
            self.types |= NSType.USER
            both = {"uid_map": MAPS.get(name), "gid_map": MAPS.get(name)}
            one = {"map-users": {"uid_map": value}, "map-groups": {"gid_map": value}}
            self.options |= one.get(name, both)
        elif name == "mount-proc":
            self.types |= MNT
            self.options["mount_proc"] = True
        elif name == "root":
            self.types |= MNT
            self.options["root"] = value
        elif name == "hostname":
            self.types |= NSType.UTS
            self.options["hostname"] = value
        else:
            self.types |= NSType.TIME
            self.options["boottime"] = signed(value, "boottime offset")

    @property
    def is_overview(self) -> bool:
        """Nothing in particular was asked for."""
        return not self.types and self.target is None


def _pid(value: str | None) -> int:
    from ._args import unsigned

    return unsigned(value, "pid", 2**31 - 1)


def check(request: Request) -> Report:
    """The one report of a command line."""
    from .. import doctor
    from .._recipe import enter

    options = dict(request.options)
    if request.target is not None:
        options["enter"] = enter(pid=request.target)
    return doctor.check(request.types, **options)


def overview() -> list[tuple[str, Report]]:
    """Each type, and all together."""
    from .. import doctor

    extra: dict[str, Any] = {} if os.geteuid() == 0 else {"uid_map": "root"}
    first = NSType(0) if os.geteuid() == 0 else NSType.USER
    reports = []
    for name, nstype in NAMES.items():
        options = extra if nstype | first == nstype | NSType.USER else {}
        reports.append((name, doctor.check(nstype | first, **options)))
    reports.append(("all", doctor.check(NSType.ALL, **extra)))
    return reports


def show(reports: list[tuple[str, Report]]) -> None:
    """A line for each type, then what is wrong, each cause once."""
    from ._args import describe

    told: set[str] = set()
    for name, report in reports:
        print(f"{name:<7} {'works' if report else 'does not work'}")
        for finding in report.findings:
            if finding.cause not in told:
                told.add(finding.cause)
                print(f"        {finding.cause}: {finding.evidence}\n        what helps: {finding.remedy}")
        if report.error is not None and not report.findings:
            print(f"        {describe(report.error)}")


def main(argv: list[str]) -> int:
    """Check, print, and answer by the exit status."""
    request = Request(argv)
    if not request.is_overview:
        report = check(request)
        print(report.to_json() if request.json else report)
        return 0 if report else 1
    reports = overview()
    if request.json:
        import json

        data = {"checks": [{"name": name, **json.loads(report.to_json())} for name, report in reports]}
        print(json.dumps(data, indent=2))
    else:
        uname = os.uname()
        print(f"{uname.sysname} {uname.release}, as {'root' if os.geteuid() == 0 else f'user {os.geteuid()}'}")
        show(reports)
    return 0 if all(report for _, report in reports) else 1
