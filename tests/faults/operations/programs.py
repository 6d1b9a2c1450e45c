"""Programs: run() and Popen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import support

import nsutil
from nsutil import (
    ALL,
    IPC,
    MNT,
    NET,
    PID,
    TIME,
    USER,
    UTS,
    Bind,
    Dev,
    File,
    IdMap,
    Mqueue,
    Namespace,
    Overlay,
    Remount,
    Symlink,
    Sysfs,
    Tmpfs,
    enter,
)

from .registry import Run, WrongResult, again_and_again, expect, inode, operation

SHOW = "hostname; echo $(ls /proc/self/fd | wc -w) $$"
SHELL = ["/bin/sh", "-c", SHOW]


def shown(done: subprocess.CompletedProcess[str], host: str, pid: int | None = None) -> None:
    if done.returncode < 0:
        raise nsutil.ChildDied("the program was killed", signal=-done.returncode)
    lines = done.stdout.split()
    expect(done.returncode == 0 and len(lines) == 3, f"the program's end: {done!r}")
    expect(lines[0] == host, f"the program's host name: {lines}")
    expect(lines[1] == "4", f"the program's descriptors (ls has one more): {lines}")
    expect(pid is None or lines[2] == str(pid), f"the program's pid: {lines}")


def run_inside(box: Namespace, host: str = "inside", pid: int | None = None, **options: object) -> None:
    shown(box.run(SHELL, stdout=subprocess.PIPE, text=True, **options), host, pid)


@operation
def run() -> None:
    run_inside(Namespace(UTS, hostname="inside"))


@operation
def run_init() -> None:
    run_inside(Namespace(UTS | PID | MNT, hostname="inside"), pid=2)


@operation
def run_as_pid_1() -> None:
    run_inside(Namespace(UTS | PID | MNT, hostname="inside", init=False), pid=1)


@operation
def run_all() -> None:
    box = Namespace(ALL, hostname="inside", uid_map="root", monotonic=1000, mounts=[Tmpfs("/mnt", size="1m")])
    run_inside(box, pid=2)


@operation
def run_mapped() -> None:
    """Maps that are written from outside."""
    maps = [IdMap(0, 100000, 1000)]
    run_inside(Namespace(USER | UTS, hostname="inside", uid_map=maps, gid_map=maps))


@operation
def run_subordinate() -> Run:
    """Maps that newuidmap(1) writes for an ordinary user."""
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    for name in ("subuid", "subgid"):
        Path(f"/mnt/{name}").write_text(f"{support.USER_ID}:200000:65536\n")
        support.must("mount", f"/mnt/{name}".encode(), f"/etc/{name}".encode(), None, support.MS_BIND, None)
    support.drop_to_user()
    yield from again_and_again(lambda: run_inside(Namespace(USER | UTS, hostname="inside", uid_map="auto", cwd="/")))


def make_root(*empty: str) -> None:
    """The programs of this machine in /mnt, beside empty directories."""
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    for name in empty:
        os.makedirs(f"/mnt/{name}")
    for name in ("bin", "lib", "lib64", "usr"):
        os.makedirs(f"/mnt/{name}")
        if os.path.isdir(f"/{name}"):
            source, target = f"/{name}".encode(), f"/mnt/{name}".encode()
            support.must("mount", source, target, None, support.MS_BIND | support.MS_REC, None)


@operation
def run_in_a_root() -> Run:
    make_root("proc", "tmp")
    box = Namespace(UTS | MNT | PID, hostname="inside", root="/mnt", mounts=[Tmpfs("/tmp")], cwd="/tmp", uid=1, gid=1)

    def body() -> None:
        run_inside(box, pid=2)

    yield from again_and_again(body)


def container() -> Namespace:
    """As a container starts: all of its own, and every kind of mount."""
    make_root("proc", "tmp", "dev", "sys", "etc")
    os.makedirs("/mnt/home/user")
    Path("/mnt/home/user/file").touch()
    return Namespace(
        ALL - TIME,
        root="/mnt",
        hostname="inside",
        uid_map=IdMap(0, 100000, 65536),
        gid_map=IdMap(0, 100000, 65536),
        uid=0,
        gid=0,
        no_new_privs=True,
        mounts=[
            Tmpfs("/tmp"),
            Dev("/dev"),
            Mqueue("/dev/mqueue"),
            Sysfs("/sys"),
            Tmpfs("/etc", mode=0o755),
            File("/etc/hostname", "inside\n"),
            Symlink("/proc/self/mounts", "/etc/mtab"),
            Bind("/mnt/home/user", "/home", readonly=True),
            Remount("/etc"),
        ],
    )


@operation
def run_container() -> Run:
    box = container()
    yield from again_and_again(lambda: run_inside(box, pid=2))


@operation
def call_container() -> Run:
    box = container()

    def body() -> None:
        found = box.call(lambda: (os.listdir("/home"), os.readlink("/etc/mtab"), os.getresuid()))
        expect(found == (["file"], "/proc/self/mounts", (0, 0, 0)), f"what it saw: {found}")

    yield from again_and_again(body)


@operation
def run_overlay() -> Run:
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    for name in ("lower", "upper", "work", "dst"):
        os.makedirs(f"/mnt/{name}")
    box = Namespace(UTS | MNT, hostname="inside", mounts=[Overlay("/mnt/lower", "/mnt/upper", "/mnt/work", "/mnt/dst")])
    yield from again_and_again(lambda: run_inside(box))


@operation
def run_refused() -> None:
    """A step that fails anyway is told as ever, or else what the fault was."""
    try:
        run_inside(Namespace(MNT | PID, mounts=[Tmpfs("/nonexistent/target")]))
    except FileNotFoundError:
        return
    raise WrongResult("it started")


@operation
def run_watched() -> None:
    run_inside(Namespace(UTS, hostname="inside", kill_child=True))


@operation
def run_entered() -> Run:
    with support.paused(UTS | NET | PID | MNT) as pid:
        nodename = os.uname().nodename
        own = inode(NET, pid)

        def body() -> None:
            box = enter(pid, UTS | NET | PID)
            shown(box.run([*SHELL], stdout=subprocess.PIPE, text=True), nodename)
            done = box.run(["/bin/readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE, text=True)
            expect(done.returncode < 0 or done.stdout == f"net:[{own}]\n", f"its NET: {done}")

        yield from again_and_again(body)


@operation
def run_entered_and_new() -> Run:
    with support.paused(NET | IPC) as pid:
        yield from again_and_again(
            lambda: run_inside(Namespace(UTS | PID | MNT, enter=enter(pid), hostname="inside"), pid=2)
        )


@operation
def run_in_joined_time() -> Run:
    with Namespace(TIME | UTS, monotonic=5000).create() as held:
        number = held.time.inode
        box = enter(held.time)

        def body() -> None:
            done = box.run(["/bin/readlink", "/proc/self/ns/time"], stdout=subprocess.PIPE, text=True)
            expect(done.returncode < 0 or done.stdout == f"time:[{number}]\n", f"its TIME: {done}")

        yield from again_and_again(body)


@operation
def popen() -> None:
    with Namespace(UTS | PID).popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate("text\n")
        expect(process.returncode < 0 or out == "text\n", f"what came through: {out!r}")


@operation
def popen_handles() -> None:
    with Namespace(UTS | PID).popen(["/bin/sleep", "20"]) as process:
        try:
            with process.namespaces as spaces:
                expect(spaces.pid != spaces.user, "its namespaces")
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(10)
        except BaseException:
            process.kill()
            raise
        expect(process.returncode != 0, f"its end: {process.returncode}")


def too_long(box: Namespace) -> None:
    """The whole tree is killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = box.run(["/bin/sh", "-c", "sleep 20 & sleep 20"])
        expect(done.returncode < 0, f"it returned: {done}")


@operation
def run_too_long() -> None:
    too_long(Namespace(UTS, timeout=0.05))


@operation
def run_init_too_long() -> None:
    too_long(Namespace(UTS | PID, timeout=0.05))


@operation
def run_missing_program() -> None:
    try:
        done = Namespace(UTS | PID).run(["/nonexistent/program"])
    except FileNotFoundError:
        return
    expect(done.returncode < 0, "an error")  # unless it was killed before it could look
