"""A container from a root directory: what ``docker run`` sets up, as one recipe.

    python container.py ROOT [COMMAND [ARGUMENT ...]]

ROOT is a directory with a system in it, for instance from
``debootstrap --variant=minbase stable ROOT``; ``busybox_root`` below makes a
small one.  It is never written to: the container sees it read-only, with
file systems in memory on /tmp and /run.

Works as root and as an ordinary user.  All eight namespaces are new.  The
program has no capabilities and can't gain any: as root it runs as uid 1000 of
a range of ids that belongs to nobody, as an ordinary user it keeps its uid.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from nsutil import ALL, Dev, File, IdMap, Mqueue, Namespace, Remount, Sysfs, Tmpfs

RANGE = IdMap(0, 100_000, 65_536)
FACTS = """
id; hostname; ls /; cat /proc/net/dev
grep -E 'CapEff|NoNewPrivs' /proc/self/status
touch /file || echo The root is read-only.
"""


def identity() -> dict[str, Any]:
    """Ids that have no rights outside."""
    if os.geteuid() == 0:
        return {"uid_map": RANGE, "gid_map": RANGE, "uid": 1000, "gid": 1000}
    return {"uid_map": "current", "gid_map": "current"}


def container(root: str | Path, hostname: str = "container", cgroup: str | None = None) -> Namespace:
    """The recipe: ``container(root).run(["sh"])``."""
    return Namespace(
        ALL,
        **identity(),
        root=root,
        hostname=hostname,
        mounts=[
            Sysfs(),
            Dev(),
            Mqueue(),
            Tmpfs("/tmp", size="64m"),
            Tmpfs("/run", size="16m", mode=0o755),
            File("/run/hosts", f"127.0.0.1 localhost {hostname}\n"),
            Remount("/"),
        ],
        cwd="/",
        cgroup=cgroup,
        no_new_privs=True,
        new_session=not os.isatty(0),
        umask=0o022,
    )


def limited(name: str, **limits: str) -> str | None:
    """A cgroup with limits such as ``memory_max="64M"``; None where we may make none in cgroup v2.

    A limit whose controller cgroup v2 does not have is left out.
    """
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    if top is None or not os.access(top, os.W_OK):
        return None
    group = top / name
    group.mkdir(exist_ok=True)
    for key, value in limits.items():
        file = group / key.replace("_", ".", 1)
        if file.exists():
            file.write_text(value)
    return str(group)


def busybox_root(root: str | Path) -> Path:
    """A root directory around a static busybox, for a try."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError(2, "needs a statically linked busybox (Debian: busybox-static)", "busybox")
    root = Path(root)
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
        root.joinpath(name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if not os.path.lexists(root / "bin" / applet):
            root.joinpath("bin", applet).symlink_to("busybox")
    root.joinpath("etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    return root


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    command = sys.argv[2:] or ["sh", "-c", FACTS]
    group = limited("nsutil-container", memory_max="256M", pids_max="100")
    try:
        box = container(sys.argv[1], cgroup=group)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": os.environ.get("TERM", "dumb")}
        return box.run(command, env=environment).returncode
    finally:
        if group:
            os.rmdir(group)


if __name__ == "__main__":
    sys.exit(main())
