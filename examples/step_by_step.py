"""Six namespaces, entered one after the other, each with a look before and after.

    python step_by_step.py

Only the thin calls are used: ``unshare`` moves this process, ``clone`` makes a child where the
process itself cannot move (PID).  Root is not needed: an ordinary user enters USER first, which
gives the rights that the other five ask for.  Nothing remains when the program ends.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable

import nsutil
from nsutil import IPC, MNT, NET, PID, USER, UTS


def show(when: str, what: str) -> None:
    print(f"    {when:7} {what}", flush=True)


def put(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def mnt() -> None:
    """Mounts: what is mounted from now on is seen in here alone."""
    with tempfile.TemporaryDirectory() as folder:
        show("before", f"{folder} is a mount: {os.path.ismount(folder)}")
        nsutil.unshare(MNT)
        # On most systems mounts are shared: without this ours would appear outside, too.
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "step-by-step", folder], check=True)
        show("after", f"{folder} is a mount: {os.path.ismount(folder)}")
        subprocess.run(["umount", folder], check=True)


def net() -> None:
    """Network: no interface but a loopback that is down."""
    show("before", "interfaces: " + ", ".join(name for _, name in socket.if_nameindex()))
    nsutil.unshare(NET)
    show("after", "interfaces: " + ", ".join(name for _, name in socket.if_nameindex()))


def queues() -> str:
    with open("/proc/sysvipc/msg") as file:
        return f"{len(file.readlines()) - 1} message queues"


def ipc() -> None:
    """System V IPC and POSIX message queues: what is made from now on ends with the namespace."""
    show("before", queues())
    nsutil.unshare(IPC)
    subprocess.run(["ipcmk", "-Q"], check=True, stdout=subprocess.DEVNULL)
    show("after", f"{queues()}, made in here")


def uts() -> None:
    """The host's name: ours to change."""
    show("before", f"hostname {socket.gethostname()}")
    nsutil.unshare(UTS)
    socket.sethostname("step-by-step")
    show("after", f"hostname {socket.gethostname()}")


def user() -> None:
    """Ids: nobody at first, and root as soon as a map says so."""
    uid, gid = os.geteuid(), os.getegid()
    show("before", f"uid {uid}, gid {gid}")
    nsutil.unshare(USER)
    show("inside", f"uid {os.geteuid()}, gid {os.getegid()}: not mapped yet")
    put("/proc/self/uid_map", f"0 {uid} 1")
    put("/proc/self/setgroups", "deny")  # else the next line needs privileges outside
    put("/proc/self/gid_map", f"0 {gid} 1")
    show("after", f"uid {os.geteuid()}, gid {os.getegid()}")


def pid() -> None:
    """Process ids: a process keeps the one it was born with, so a child shows it."""
    show("before", f"pid {os.getpid()}")
    child = nsutil.clone(PID)
    if child == 0:
        show("after", f"pid {os.getpid()} in the child")
        os._exit(0)
    os.waitpid(child, 0)
    show("outside", f"waited for as {child}")


def main() -> None:
    steps: list[Callable[[], None]] = [mnt, net, ipc, uts, user, pid]
    if os.geteuid() != 0:
        steps.remove(user)
        steps.insert(0, user)
    for number, step in enumerate(steps, 1):
        print(f"{number}. {step.__name__.upper()}  {step.__doc__}")
        step()


if __name__ == "__main__":
    try:
        main()
    except OSError as e:
        sys.exit(f"step_by_step.py: {e}")
