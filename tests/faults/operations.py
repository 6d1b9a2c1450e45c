"""The public operations that faults are put into, each with a look at what it made.

An operation is a generator: up to its first ``yield`` it prepares; what it yields is the function that faults are put
into.  The function checks its own result by ``expect``: one that returns has to have done all.  Whether it returned is
sent to the generator, which may look further, and puts back what the next run needs before it yields again.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import support

import nsutil
from nsutil import (
    ALL,
    CGROUP,
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
    named,
)

Body: TypeAlias = Callable[[], object]
Run: TypeAlias = Generator[Body, bool, None]
Operation: TypeAlias = Callable[[], Run]

OPERATIONS: dict[str, Operation] = {}
# Those whose processes live on when the caller is killed, as promised.
LIVES_ON = {"named_pid", "remove_pid", "run_too_long"}
# Of these until they end by themselves: nsutil's init would take them along.
ORPHANS = {"run_too_long"}
# Those whose result may be without what it could not look at.
TOLERANT = {"snapshot", "snapshot_ids", "doctor", "named_look"}
# Those that do without /proc in a root that has no place for it.
WITHOUT_PROC = {"run_in_a_root", "run_container", "call_container"}


# What the harness itself is tested with.
CARELESS = "careless"


class WrongResult(Exception):
    """The operation came back as if it had worked, and had not."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise WrongResult(what)


def operation(func: Body | Operation) -> Body | Operation:
    """A generator, or a plain function that is the body itself."""
    OPERATIONS[func.__name__] = func if inspect.isgeneratorfunction(func) else lambda: again_and_again(func)
    return func


def make(name: str) -> Run:
    """The operation of that name, from the start."""
    return again_and_again(_careless) if name == CARELESS else OPERATIONS[name]()


_lost: list[int] = []


def _careless() -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        os.getcwd()
    except OSError:
        _lost.append(fd)
        raise
    os.close(fd)


def again_and_again(body: Body) -> Run:
    """Of a body that needs nothing put back."""
    while True:
        yield body


def inode(nstype: nsutil.NSType, task: object = "thread-self", entry: str = "") -> int:
    return os.stat(f"/proc/{task}/ns/{entry or nstype}").st_ino


def lo_is_up() -> bool:
    with socket.socket() as probe:
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 0))
            probe.settimeout(0.1)
            with contextlib.suppress(ConnectionRefusedError):
                probe.connect(("127.0.0.1", 1))
            return True
    return False


# ------------------------------------------------------------------ with


@operation
def block() -> None:
    with Namespace(UTS, hostname="inside"):
        expect(os.uname().nodename == "inside", "the host name")
    expect(os.uname().nodename != "inside", "the host name afterwards")


@operation
def block_several() -> Run:
    own = {nstype: inode(nstype) for nstype in (UTS, IPC, NET, CGROUP)}

    def body() -> None:
        with Namespace(UTS | IPC | NET | CGROUP) as inside:
            for nstype, number in own.items():
                expect(inode(nstype) != number, f"a new {nstype}")
                with inside[nstype] as file:
                    expect(file.inode != number, f"the handle of the new {nstype}")

    yield from again_and_again(body)


@operation
def block_mnt() -> None:
    with Namespace(MNT, mounts=[Tmpfs("/mnt")]):
        Path("/mnt/inside").touch()
    expect(not os.path.exists("/mnt/inside"), "a mount of one's own")


@operation
def block_mnt_in_a_root() -> Run:
    """The root and the working directory are those from before."""
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    os.makedirs("/mnt/proc")
    support.must("mount", b"/proc", b"/mnt/proc", None, support.MS_BIND, None)
    os.makedirs("/mnt/cellar/deep")
    os.chroot("/mnt")
    os.chdir("/cellar/deep")

    def body() -> None:
        with Namespace(MNT):
            pass
        expect(os.listdir("/") == ["cellar", "proc"] or os.listdir("/") == ["proc", "cellar"], "the root")
        expect(os.getcwd() == "/cellar/deep", "the working directory")

    yield from again_and_again(body)


@operation
def block_nested_and_moved() -> Run:
    own = inode(IPC)

    def body() -> None:
        with Namespace(UTS), Namespace(UTS | NET, loopback=False):
            nsutil.unshare(IPC)
            expect(inode(IPC) != own, "a new IPC")
        expect(inode(IPC) == own, "IPC as before")

    yield from again_and_again(body)


@operation
def block_strict() -> None:
    with Namespace(UTS, strict=True):
        nsutil.unshare(IPC)


@operation
def block_moved_into_others() -> Run:
    """Joined by the thin call, left by the block."""
    own = inode(NET)
    with support.paused(NET) as pid, nsutil.open(pid, NET) as net:

        def body() -> None:
            with Namespace(UTS):
                nsutil.setns(net.fileno(), NET)
                expect(inode(NET) == net.inode, "the NET of the other")
            expect(inode(NET) == own, "NET as before")

        yield from again_and_again(body)


@operation
def block_around_a_function() -> Run:
    inside = Namespace(UTS, hostname="inside")(_whereabouts)
    yield from again_and_again(lambda: expect(inside()[0] == "inside", "the host name"))


@operation
def block_enter() -> Run:
    with support.paused(UTS | NET | IPC) as pid:
        box = enter(pid)
        there = inode(NET, pid)

        def body() -> None:
            with box:
                expect(inode(NET) == there, "the NET of the target")

        yield from again_and_again(body)


@operation
def block_enter_by_name() -> Run:
    with named.create("name", UTS, hostname="named"):

        def body() -> None:
            with enter(name="name", types=UTS):
                expect(os.uname().nodename == "named", "the host name")

        yield from again_and_again(body)


@operation
def block_enter_pid_and_mnt() -> Run:
    with support.paused(PID | MNT) as pid:
        there = inode(PID, pid)

        def body() -> None:
            with enter(pid, PID | MNT):
                expect(inode(PID, entry="pid_for_children") == there, "the PID of the target")

        yield from again_and_again(body)


# ------------------------------------------------------------------ thin calls and handles


def end_with(test: Callable[[], bool]) -> NoReturn:
    """End a child: with 0 where the test holds, 1 where not, 2 where it could not be made."""
    status = 2
    try:
        status = int(not test())
    finally:
        os._exit(status)


def wait_for(pid: int) -> None:
    """The end of a child that exits with 0 where it is as it should be."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 2:
        raise nsutil.ChildDied(f"the child ended with {status}")
    expect(status == 0, "what the child saw")


@operation
def clone_uts() -> Run:
    own = inode(UTS)

    def body() -> None:
        pid = nsutil.clone(UTS)
        if pid == 0:
            end_with(lambda: inode(UTS) != own)
        wait_for(pid)

    yield from again_and_again(body)


@operation
def clone_pid() -> None:
    pid = nsutil.clone(PID)
    if pid == 0:
        end_with(lambda: os.getpid() == 1)
    wait_for(pid)


@operation
def clone_time() -> Run:
    own = inode(TIME)

    def body() -> None:
        pid = nsutil.clone(TIME | USER)
        if pid == 0:
            end_with(lambda: inode(TIME) != own)
        wait_for(pid)

    yield from again_and_again(body)


@operation
def handles() -> Run:
    with support.paused(UTS | NET | MNT | PID) as pid:
        support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
        Path("/mnt/name").touch()

        def body() -> None:
            with nsutil.open(pid, NET) as net, nsutil.current(NET) as own:
                expect(net != own, "another's NET")
                owner = net.owner()
                expect(owner is None or owner.type == USER, "its owner")
                if owner is not None:
                    owner.close()
                with net.socket() as inside:
                    expect(inside.fileno() >= 0, "a socket")
                net.reference()
            with nsutil.open(pid, PID) as namespace:
                expect(namespace.pid_from(1) == pid, "the pid")
            with nsutil.open(pid, MNT) as namespace, namespace.open("/proc/self/comm") as file:
                file.read()

        yield from again_and_again(body)


@operation
def handles_of_mounts() -> Run:
    with support.paused(MNT) as pid:

        def body() -> None:
            with nsutil.open(pid, MNT) as file:
                expect(file.mounts(), "its mounts")
                expect(file.id != 0, "its id")

        yield from again_and_again(body)


@operation
def bind() -> Run:
    """A namespace that is kept by a file; unmounted outside of the body, where no fault hits what only puts back."""
    support.must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    Path("/mnt/name").touch()
    with support.paused(NET) as pid, nsutil.open(pid, NET) as net:
        while True:
            worked = yield lambda: net.bind("/mnt/name")
            bound = os.stat("/mnt/name").st_ino == net.inode
            expect(bound == worked, "what the file is")
            if bound:
                support.must("umount2", b"/mnt/name", 2)


@operation
def reference() -> Run:
    """Found again after its handle was closed."""
    with support.paused(NET) as pid:
        with nsutil.open(pid, NET) as net:
            found = net.reference()

        def body() -> None:
            with found.open() as again:
                expect(again.inode == inode(NET, pid), "the same namespace")

        yield from again_and_again(body)


# ------------------------------------------------------------------ programs

_SHOW = "hostname; echo $(ls /proc/self/fd | wc -w) $$"
_SHELL = ["/bin/sh", "-c", _SHOW]


def shown(done: subprocess.CompletedProcess[str], host: str, pid: int | None = None) -> None:
    if done.returncode < 0:
        raise nsutil.ChildDied("the program was killed", signal=-done.returncode)
    lines = done.stdout.split()
    expect(done.returncode == 0 and len(lines) == 3, f"the program's end: {done!r}")
    expect(lines[0] == host, f"the program's host name: {lines}")
    expect(lines[1] == "4", f"the program's descriptors (ls has one more): {lines}")
    expect(pid is None or lines[2] == str(pid), f"the program's pid: {lines}")


def run_inside(box: Namespace, host: str = "inside", pid: int | None = None, **options: object) -> None:
    shown(box.run(_SHELL, stdout=subprocess.PIPE, text=True, **options), host, pid)


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
            shown(box.run([*_SHELL], stdout=subprocess.PIPE, text=True), nodename)
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


# ------------------------------------------------------------------ functions


def _whereabouts() -> tuple[str, int]:
    return os.uname().nodename, os.getpid()


def call_inside(box: Namespace, pid: int | None = None) -> None:
    host, number = box.call(_whereabouts)
    expect(host == "inside", f"its host name: {host}")
    expect(pid is None or number == pid, f"its pid: {number}")


@operation
def call() -> None:
    call_inside(Namespace(UTS, hostname="inside"))


@operation
def call_init() -> None:
    call_inside(Namespace(UTS | PID | MNT, hostname="inside"), pid=2)


@operation
def call_as_pid_1() -> None:
    call_inside(Namespace(UTS | PID, hostname="inside", init=False), pid=1)


@operation
def call_all() -> None:
    call_inside(Namespace(ALL, hostname="inside", uid_map="root", boottime=5), pid=2)


@operation
def call_mapped() -> None:
    maps = [IdMap(0, 100000, 1000)]
    call_inside(Namespace(USER | UTS, hostname="inside", uid_map=maps, gid_map=maps))


@operation
def call_entered() -> Run:
    with support.paused(NET | PID | UTS) as pid:
        there = inode(NET, pid)

        def body() -> None:
            expect(enter(pid).call(inode, NET, "self") == there, "the NET of the target")

        yield from again_and_again(body)


@operation
def call_raises() -> None:
    try:
        Namespace(UTS).call(_raise)
    except LookupError as error:
        expect(error.args == ("there is none",), f"its arguments: {error.args}")
    else:
        raise WrongResult("it returned")


def _raise() -> NoReturn:
    raise LookupError("there is none")


@operation
def call_too_long() -> Run:
    """The whole tree is killed."""
    never, _end = os.pipe()

    def body() -> None:
        with contextlib.suppress(TimeoutError):
            Namespace(PID | UTS, timeout=0.05).call(os.read, never, 1)
            raise WrongResult("it returned")

    yield from again_and_again(body)


@operation
def call_watched() -> None:
    call_inside(Namespace(UTS, hostname="inside", kill_child=True))


@operation
def call_large_result() -> None:
    expect(Namespace(UTS).call(bytes, 300_000) == bytes(300_000), "the result")


@operation
def executor() -> None:
    with Namespace(UTS, hostname="inside").executor(2) as pool:
        for host, _ in pool.map(lambda_free, range(3)):
            expect(host == "inside", f"its host name: {host}")


def lambda_free(_: int) -> tuple[str, int]:
    return _whereabouts()


@operation
def executor_init() -> None:
    with Namespace(UTS | PID, hostname="inside").executor(1) as pool:
        expect(pool.submit(_whereabouts).result()[0] == "inside", "its host name")


@operation
def executor_entered() -> Run:
    with support.paused(NET | PID | UTS) as pid:
        there = inode(NET, pid)

        def body() -> None:
            with enter(pid).executor(1) as pool:
                expect(pool.submit(inode, NET, "self").result() == there, "the NET of the target")

        yield from again_and_again(body)


@operation
def executor_threads() -> None:
    with Namespace(UTS | NET, hostname="inside").executor(2, kind="thread") as pool:
        for host, _ in pool.map(lambda_free, range(3)):
            expect(host == "inside", f"its host name: {host}")


@operation
def thread() -> None:
    host, _ = Namespace(UTS | MNT, hostname="inside").thread(_whereabouts).result(20)
    expect(host == "inside", f"its host name: {host}")


@operation
def thread_pid_and_time() -> Run:
    own = inode(PID)

    def body() -> None:
        box = Namespace(PID | TIME, monotonic=77)
        expect(box.thread(inode, PID, entry="pid_for_children").result(20) != own, "a new PID")

    yield from again_and_again(body)


@operation
def thread_mnt_entered() -> Run:
    with support.paused(MNT | NET) as pid:
        there = inode(MNT, pid)

        def body() -> None:
            expect(enter(pid).thread(inode, MNT).result(20) == there, "the MNT of the target")

        yield from again_and_again(body)


# ------------------------------------------------------------------ asyncio


def in_loop(make: Callable[[], Coroutine[object, object, object]]) -> Run:
    """In a loop that was there before.

    What its own callbacks raise it only tells a handler: that ends the task, which would wait for ever.
    """
    problems: list[BaseException] = []

    def end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        problems.append(context.get("exception") or WrongResult(context["message"]))
        for task in asyncio.all_tasks(loop):
            task.cancel()

    with asyncio.Runner() as runner:
        runner.run(asyncio.sleep(0))
        runner.get_loop().set_exception_handler(end)

        def body() -> None:
            problems.clear()
            try:
                runner.run(make())
            except asyncio.CancelledError:
                raise problems[0] from None

        yield from again_and_again(body)


@operation
def aio_run() -> Run:
    async def body() -> None:
        shown(
            await nsutil.aio.run(_SHELL, new=UTS | PID, hostname="inside", stdout=subprocess.PIPE, text=True), "inside"
        )

    yield from in_loop(body)


@operation
def aio_call() -> Run:
    async def body() -> None:
        found = await nsutil.aio.call(_whereabouts, new=UTS | PID, hostname="inside")
        expect(found == ("inside", 2), f"where it was: {found}")

    yield from in_loop(body)


# ------------------------------------------------------------------ held


@operation
def create() -> Run:
    own = {nstype: inode(nstype) for nstype in (UTS, NET, USER)}

    def body() -> None:
        with Namespace(UTS | NET | USER, uid_map="root", hostname="held").create() as held:
            for nstype, number in own.items():
                expect(held[nstype].inode != number, f"a new {nstype}")

    yield from again_and_again(body)


@operation
def create_pid() -> Run:
    own = inode(PID)

    def body() -> None:
        with Namespace(PID | MNT | TIME).create() as held:
            expect(held.pid.inode != own, "a new PID")
            expect(held.pid.pid_from(1) > 1, "its PID 1")

    yield from again_and_again(body)


@operation
def create_mnt() -> Run:
    own = inode(MNT)

    def body() -> None:
        box = Namespace(USER | MNT | IPC, uid_map="root", mounts=[Tmpfs("/mnt"), File("/mnt/file", "text")])
        with box.create() as held:
            expect(held.mnt.inode != own, "a new MNT")
            with held.mnt.open("/mnt/file") as file:
                expect(file.read() in ("text", b"text"), "its file")

    yield from again_and_again(body)


@operation
def create_entered() -> Run:
    with support.paused(NET | IPC) as pid:
        there = inode(NET, pid)

        def body() -> None:
            with Namespace(UTS, enter=enter(pid, NET), hostname="held").create() as held:
                expect(held.net.inode == there, "the NET of the target")

        yield from again_and_again(body)


# ------------------------------------------------------------------ named


def creating(nstype: nsutil.NSType, **options: object) -> Run:
    """A name comes whole or not at all."""
    named.create("old", nstype).close()
    named.remove("old", nstype)
    own = inode(nstype)
    made: list[nsutil.NamespaceFile] = []

    def body() -> None:
        made.append(named.create("name", nstype, **options))

    while True:
        worked = yield body
        expect(named.list(nstype) == ["name"] * worked, f"the names afterwards: {named.list(nstype)}")
        if worked:
            with made.pop() as file, named.open("name", nstype) as found:
                expect(found == file and file.type == nstype and file.inode != own, "a new namespace")
            named.remove("name", nstype)


def removing(nstype: nsutil.NSType, wanted: str = "a", there: str = "a") -> Run:
    """A name is gone or untouched."""

    def body() -> None:
        named.remove(list(wanted), nstype)

    try:
        while True:
            for name in there:
                if name not in named.list(nstype):
                    named.create(name, nstype).close()
            worked = yield body
            left = named.list(nstype)
            expect(set(left) <= set(there) - set(wanted if worked else ""), f"the names afterwards: {left}")
            for name in left:
                named.open(name, nstype).close()
    finally:
        named.remove(named.list(nstype), nstype)


@operation
def named_first() -> Run:
    """The first name of this machine."""
    made: list[nsutil.NamespaceFile] = []

    def body() -> None:
        made.append(named.create("name"))

    while True:
        worked = yield body
        expect(named.list() == ["name"] * worked, f"the names afterwards: {named.list()}")
        if worked:
            made.pop().close()
            named.remove("name")


@operation
def named_net() -> Run:
    yield from creating(NET)


@operation
def named_uts() -> Run:
    yield from creating(UTS, hostname="name")


@operation
def named_ipc() -> Run:
    yield from creating(IPC)


@operation
def named_cgroup() -> Run:
    yield from creating(CGROUP)


@operation
def named_mnt() -> Run:
    yield from creating(MNT)


@operation
def named_time() -> Run:
    yield from creating(TIME, monotonic=9)


@operation
def named_user() -> Run:
    yield from creating(USER)


@operation
def named_pid() -> Run:
    yield from creating(PID)


@operation
def named_net_beside_threads() -> Run:
    """A process with threads makes the namespace on one of its own."""
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        yield from creating(NET)
    finally:
        stop.set()
        other.join()


@operation
def remove_net() -> Run:
    yield from removing(NET, there="ab")


@operation
def remove_uts() -> Run:
    yield from removing(UTS, there="ab")


@operation
def remove_several() -> Run:
    yield from removing(NET, "ab", "abc")


@operation
def remove_all() -> Run:
    yield from removing(NET, "abc", "abc")


@operation
def remove_pid() -> Run:
    yield from removing(PID)


@operation
def named_look() -> Run:
    named.create("name").close()
    with named.open("name") as file, sleeping_in(file) as pid:

        def body() -> None:
            named.open("name").close()
            expect(named.identify(pid) == ["name"], "what it is called")
            expect(pid in named.pids("name"), "who is there")

        yield from again_and_again(body)


@operation
def named_attach() -> Run:
    with support.paused(NET) as pid:
        while True:
            worked = yield lambda: named.attach("name", pid)
            expect(named.list() == ["name"] * worked, f"the names afterwards: {named.list()}")
            if worked:
                with named.open("name") as file:
                    expect(file.inode == inode(NET, pid), "its namespace")
                named.remove("name")


@operation
def named_watch() -> Run:
    named.create("old", UTS).close()
    named.remove("old", UTS)
    plain = Path("/run/nsutil/uts/plain")

    def body() -> None:
        with named.watch(UTS) as watch:
            plain.touch()
            expect(next(watch) == ("add", "plain"), "what came")

    while True:
        yield body
        plain.unlink(missing_ok=True)


@contextlib.contextmanager
def sleeping_in(file: nsutil.NamespaceFile) -> Iterator[int]:
    with enter(file).popen(["/bin/sleep", "20"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


# ------------------------------------------------------------------ looking


@operation
def snapshot() -> Run:
    with support.paused(UTS | NET | PID) as pid:
        there = inode(UTS, pid)

        def body() -> None:
            found = nsutil.snapshot()
            expect(
                found.unseen or any(space.inode == there for space in found.namespaces), "the namespace of the child"
            )
            found.to_json()

        yield from again_and_again(body)


@operation
def snapshot_ids() -> None:
    nsutil.snapshot(tasks=False, fds=False, sockets=False, mounts=False)


@operation
def doctor() -> None:
    nsutil.doctor.check("uts")


def names() -> list[str]:
    """Each file in the directories of named namespaces, those that are no names too."""
    found = []
    for directory in ("/run/netns", "/run/nsutil"):
        for place, _, files in os.walk(directory):
            found += [f"{place}/{file}" for file in files]
    return sorted(found)


def check_names() -> list[str]:
    """What is wrong with the names that a killed caller left: each must be whole or stale, and removable."""
    wrong = []
    for nstype in nsutil.NSType.ALL:
        for name in named.list(nstype):
            try:
                with contextlib.suppress(nsutil.NotANamespace):
                    named.open(name, nstype).close()
                named.remove(name, nstype)
                named.create(name, nstype).close()
                named.remove(name, nstype)
            except Exception as error:
                wrong.append(f"{nstype} {name}: {error!r}")
    return wrong
