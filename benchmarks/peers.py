"""The programs and packages that nsutil is compared with.

Packages of PyPI go into an environment of their own below build/bench, so
that nothing of theirs gets into the project's; programs come from the
distribution, which this installs only as root where apt-get is.  What can't
be had is left out of the figures, by name and with the reason.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from floors import BUILD

PACKAGES = ("pyroute2", "nsenter", "netns", "lxns", "linuxnamespaces", "pyspaces")
# Each program and the Debian package that has it.
PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "lsns": "util-linux",
    "ip": "iproute2",
    "bwrap": "bubblewrap",
    "crun": "crun",
    "runc": "runc",
    "tini": "tini",
    "catatonit": "catatonit",
    "dumb-init": "dumb-init",
}
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_ENVIRONMENT = BUILD / f"peers-{sys.version_info[0]}.{sys.version_info[1]}"


class Skip(Exception):
    """A method cannot be measured here; the text says why."""


def install() -> None:
    """Get what is missing; a failure shows as skipped methods later."""
    os.environ["PATH"] = _PATH
    _install_programs()
    python = _ENVIRONMENT / "bin" / "python"
    if not python.exists():
        _quietly([sys.executable, "-m", "venv", str(_ENVIRONMENT)])
    for name in PACKAGES:
        if not _site(_ENVIRONMENT) or not _distribution(name):
            _say(f"installing {name}")
            _quietly([str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", "install", name])


def _install_programs() -> None:
    missing = sorted({package for name, package in PROGRAMS.items() if not shutil.which(name)})
    if not missing or os.geteuid() or not shutil.which("apt-get"):
        return
    _say(f"installing {', '.join(missing)}")
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    _quietly([*apt, "update"])
    for package in missing:  # one by one: one that does not exist keeps no other away
        _quietly([*apt, "-y", "--no-install-recommends", "install", package])


def _quietly(args: list[str]) -> None:
    """Run something that may fail."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    null = subprocess.DEVNULL
    subprocess.run(args, env=environment, stdin=null, stdout=null, stderr=null, timeout=600, check=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _site(environment: Path) -> str:
    found = sorted(environment.glob("lib/python*/site-packages"))
    return str(found[0]) if found else ""


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    return next(iter(importlib.metadata.distributions(name=name, path=[_site(_ENVIRONMENT)])), None)


def site() -> str:
    """Where the packages are."""
    return _site(_ENVIRONMENT)


def module(name: str) -> ModuleType:
    """A peer's module; Skip where it is not there or can't be imported.

    Its environment comes last on the path: some bring old copies of modules
    of the standard library along.
    """
    if site() not in sys.path:
        sys.path.append(site())
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever an old package does on a new Python
        raise Skip(f"import fails: {type(error).__name__}: {error}") from None


def command(name: str) -> str:
    """The path of a program; Skip where it is not installed."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise Skip("not installed")
    return path


def versions() -> dict[str, str]:
    """What was found, by name."""
    found = {}
    for name in PACKAGES:
        distribution = _distribution(name)
        if distribution:
            found[name] = distribution.version
    for name in PROGRAMS:
        path = shutil.which(name, path=_PATH)
        if path:
            found[f"{name}(1)"] = _version_of(path)
    return found


def _version_of(path: str) -> str:
    option = "-V" if path.endswith("/ip") else "--version"
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return "?"
    match = re.search(r"\d+\.\d[\w.]*", done.stdout + done.stderr)
    return match.group() if match else "?"
