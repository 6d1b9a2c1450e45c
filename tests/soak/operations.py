"""What the threads of the soak do: every way into namespaces, each with a look at what came of it.

An operation gets its Worker.  It raises Wrong where a result is not what it has to be, and counts as failed for every
exception but those that ``expected`` names; kill.py tells which others a killed child excuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, NoReturn, TypeAlias

import support

import nsutil
from nsutil import ALL, CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, IdMap, Namespace, NSType, aio, ioctl, named

Body: TypeAlias = "Callable[[Worker], object]"


class Wrong(Exception):
    """An operation came back with another result than it has to have."""


class Operation(NamedTuple):
    body: Body
    weight: float
    root: bool
    expected: tuple[type[BaseException], ...]


OPERATIONS: dict[str, Operation] = {}


def operation(
    weight: float = 1, *, root: bool = False, expected: tuple[type[BaseException], ...] = ()
) -> Callable[[Body], Body]:
    """The function below is one; ``root``: only root can, ``expected``: how it may end as well."""

    def note(body: Body) -> Body:
        OPERATIONS[body.__name__.strip("_")] = Operation(body, weight, root, expected)
        return body

    return note


class World:
    """What the threads share: a few sets of namespaces, each kept alive by whoever uses it."""

    ROOM = 6

    def __init__(self, directory: str, cgroup: str | None) -> None:
        self.directory = directory
        self.cgroup = cgroup
        self.shared: list[nsutil.NamespaceSet] = []


class Worker:
    """One thread's: its random numbers, and whether one of its children was killed meanwhile (``hurt``)."""

    def __init__(self, index: int, seed: object, world: World) -> None:
        self.index = index
        self.rng = random.Random(f"{seed} {index}")
        self.world = world
        self.root = os.geteuid() == 0
        self.hurt = False
        self.thread_id = self.ident = 0
        self.current = ""
        self.made = 0
        self.notes: list[str] = []

    def name(self) -> str:
        """One that nobody else has."""
        self.made += 1
        return f"soak-{self.index}-{self.made}"

    def some(self, of: int = ALL, least: int = 0) -> NSType:
        """Some of these types; an ordinary user needs USER to make any."""
        types = least | sum(t for t in NSType if t & of and self.rng.random() < 0.4)
        return NSType(types | (0 if self.root else USER)) or UTS | (0 if self.root else USER)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def expect(self, condition: object, what: str) -> None:
        if not condition:
            raise Wrong(what)

    def ended(self, returncode: int | None, wanted: int = 0) -> None:
        self.expect(returncode == wanted, f"it ended with {returncode}, not {wanted}")

    def refer(self, spaces: nsutil.NamespaceSet) -> None:
        """Remember some namespaces: after the round they must be gone."""
        if self.chance(0.2):
            self.notes += [pickle.dumps(file.reference()).hex() for file in spaces]


def inode(nstype: NSType, entry: str = "") -> int:
    return os.stat(f"/proc/thread-self/ns/{entry or nstype}").st_ino


def inodes(types: int) -> dict[NSType, int]:
    """Of the calling thread."""
    return {t: inode(t) for t in NSType if t & types}


def options_for(w: Worker, types: NSType) -> dict[str, Any]:
    """Some options that go with these types."""
    found: dict[str, Any] = {}
    if types & UTS and w.chance(0.5):
        found["hostname"] = w.name()
    if types & TIME and w.chance(0.5):
        found["monotonic"] = w.rng.randrange(1, 9999)
    if types & USER:
        found["uid_map"] = w.rng.choice(["root", "current"])
        if w.root and w.chance(0.3):
            found["uid_map"] = found["gid_map"] = IdMap(0, 100_000, 1000)
            found["uid"] = found["gid"] = 0
    if w.world.cgroup and w.root and not types & USER and w.chance(0.3):
        found["cgroup"] = w.world.cgroup
    return found


# ---------------------------------------------------------------- blocks

BLOCK = UTS | IPC | NET | CGROUP


@operation(6, root=True)
def block(w: Worker) -> None:
    types = w.some(BLOCK)
    before = inodes(types)
    with Namespace(types, strict=w.chance(0.2)) as inside:
        now = inodes(types)
        w.expect(not set(before.items()) & set(now.items()), f"{types} are not new")
        if w.chance(0.3):
            w.refer(inside)
        if w.chance(0.1):
            time.sleep(0.005)
    w.expect(inodes(types) == before, f"{types} are not restored")


@operation(3, root=True)
def block_nested(w: Worker) -> None:
    outer = Namespace(UTS, hostname="outer")
    with outer, Namespace(NET | IPC):
        with Namespace(UTS, hostname="inner"):
            w.expect(os.uname()[1] == "inner", "the inner name")
        w.expect(os.uname()[1] == "outer", "the outer name")
        w.ended(nsutil.run(["true"]).returncode)


@operation(2, root=True, expected=(ZeroDivisionError,))
def block_that_raises(w: Worker) -> None:
    with Namespace(w.some(BLOCK)):
        nsutil.unshare(int(w.some(UTS | IPC)))
        raise ZeroDivisionError


@operation(2, root=True)
def block_mnt(w: Worker) -> None:
    """Off the main thread, which may not."""
    if w.index == 0:
        return
    with Namespace(MNT | UTS, mounts=[nsutil.Tmpfs("/mnt", size="1m")]):
        with open("/mnt/file", "w") as file:
            file.write("inside")
    w.expect(not os.path.exists("/mnt/file"), "the mount got out")


@operation(3, root=True)
def block_enter(w: Worker) -> None:
    with Namespace(w.some(BLOCK)).create() as spaces, nsutil.enter(spaces):
        w.expect(all(inode(f.type) == f.inode for f in spaces), "not inside")


@operation(1, root=True)
def block_enter_pid(w: Worker) -> None:
    with Namespace(PID).create() as spaces, nsutil.enter(spaces):
        w.expect(inode(PID, "pid_for_children") == spaces.pid.inode, "not inside")
        w.ended(nsutil.run(["true"]).returncode)


@operation(2, root=True)
def decorated(w: Worker) -> None:
    own = inode(NET)
    w.expect(Namespace(NET)(inode)(NET) != own, "not inside")


# ---------------------------------------------------------------- threads


@operation(3, root=True)
def thread(w: Worker) -> None:
    types = w.some(ALL & ~USER)
    entries = {TIME: "time_for_children", PID: "pid_for_children"}

    def body() -> dict[NSType, int]:
        return {t: inode(t, entries.get(t, "")) for t in NSType if t & types}

    before = inodes(types)
    now = Namespace(types).thread(body).result(60)
    w.expect(not set(before.items()) & set(now.items()), f"{types} are not new")


@operation(1, root=True, expected=(ZeroDivisionError,))
def thread_that_raises(w: Worker) -> None:
    Namespace(w.some(ALL & ~USER)).thread(divmod, 1, 0).result(60)


@operation(1, root=True)
def executor_threads(w: Worker) -> None:
    box = Namespace(w.some(UTS | NET | IPC | MNT | PID))
    with box.executor(w.rng.choice([1, 3]), "thread") as pool:
        found = {job.result(60) for job in [pool.submit(inode, UTS) for _ in range(4)]}
    w.expect(len(found) == 1, f"several UTS namespaces: {found}")


@operation(1)
def chatter(w: Worker) -> None:
    """Holds the locks of what others flush around a fork."""
    for number in range(20):
        print("chatter", number)
    json.loads(json.dumps({"index": w.index}))
    io.StringIO().write("x" * 9999)


# -------------------------------------------------------------- functions


@operation(5)
def call(w: Worker) -> None:
    types = w.some()
    size = w.rng.choice([0, 10, 300_000])
    result = Namespace(types, **options_for(w, types)).call(lambda: (inodes(types), bytes(size)))
    w.expect(len(result[1]) == size, "the size")
    w.expect(not set(inodes(types).items()) & set(result[0].items()), f"{types} are not new")


@operation(1)
def call_as_pid_1(w: Worker) -> None:
    w.expect(Namespace(w.some(least=PID), init=False).call(os.getpid) == 1, "not PID 1")


@operation(1, expected=(ZeroDivisionError,))
def call_that_raises(w: Worker) -> None:
    Namespace(w.some()).call(divmod, 1, 0)


@operation(1)
def call_that_dies(w: Worker) -> None:
    status, number = w.rng.choice([(3, None), (None, signal.SIGKILL), (None, signal.SIGTERM)])

    def end() -> None:
        if number is None:
            os._exit(3)
        os.kill(os.getpid(), number)
        time.sleep(9)

    try:
        Namespace(w.some()).call(end)
    except nsutil.ChildDied as error:
        w.expect((error.status, error.signal) == (status, number), f"it died of {error.status}, {error.signal}")
    else:
        raise Wrong("it did not die")


@operation(1, expected=(TimeoutError,))
def call_too_long(w: Worker) -> None:
    Namespace(w.some(), timeout=w.rng.uniform(0.001, 0.1)).call(time.sleep, 9)
    raise Wrong("it slept for 9 seconds")


def tree(depth: int) -> int:
    if depth:
        return nsutil.call(tree, depth - 1, new=UTS if os.geteuid() == 0 else UTS | USER)
    return subprocess.run(["true"], check=False).returncode


@operation(1)
def call_within_call(w: Worker) -> None:
    w.ended(Namespace(w.some(least=USER), uid_map="root").call(tree, 2))


@operation(1)
def call_that_leaves_children(w: Worker) -> None:
    """Those end with their PID namespace, else by themselves."""
    types = w.some()
    seconds = "9" if types & PID else "0.3"

    def leave() -> None:
        for _ in range(3):
            subprocess.Popen(["sleep", seconds]).returncode = 0  # not ours any more

    Namespace(types).call(leave)


def busy_threads() -> int:
    done: list[int] = []
    threads = [threading.Thread(target=lambda: done.append(len(json.dumps(list(range(99)))))) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return len(done)


@operation(1)
def call_with_threads(w: Worker) -> None:
    w.expect(Namespace(w.some()).call(busy_threads) == 3, "not all threads ran")


# ------------------------------------------------------------------ forks


@operation(2)
def clone(w: Worker) -> None:
    """fork() from C, in a process with threads; the child runs Python."""
    types = w.some()
    pid = nsutil.clone(int(types))
    if pid == 0:
        _in_clone(types)
    _, status = os.waitpid(pid, 0)
    w.ended(os.waitstatus_to_exitcode(status))


def _in_clone(types: NSType) -> NoReturn:
    try:
        print("in a child")
        ok = busy_threads() == 3 and bool(inodes(int(types)))
        with contextlib.suppress(OSError), Namespace(UTS):
            json.dumps(os.uname()[1])
        os._exit(0 if ok else 1)
    finally:
        os._exit(2)


@operation(1)
def plain_fork(w: Worker) -> None:
    pid = support.fork()
    if pid == 0:
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    w.ended(os.waitstatus_to_exitcode(status))


# --------------------------------------------------------------- programs


@operation(6)
def run(w: Worker) -> None:
    types = w.some()
    w.ended(Namespace(types, **options_for(w, types)).run(["true"]).returncode)


@operation(2)
def run_captured(w: Worker) -> None:
    types = w.some(least=UTS)
    done = Namespace(types, hostname="inside").run(["hostname"], capture_output=True, text=True)
    w.ended(done.returncode)
    w.expect(done.stdout == "inside\n", f"it said {done.stdout!r}")


@operation(1, expected=(FileNotFoundError,))
def run_missing(w: Worker) -> None:
    wrong: dict[str, Any] = w.rng.choice([{"cwd": "/no/such"}, {"mounts": [nsutil.Bind("/no/such", "/mnt")]}, {}])
    Namespace(w.some(least=MNT), **wrong).run(["true" if wrong else "/no/such/program"])
    raise Wrong("it ran")


@operation(1, expected=(subprocess.TimeoutExpired,))
def run_too_long(w: Worker) -> None:
    Namespace(w.some()).run(["sh", "-c", "sleep 9 & sleep 9"], timeout=w.rng.uniform(0.001, 0.1))
    raise Wrong("it slept for 9 seconds")


@operation(2)
def popen_communicate(w: Worker) -> None:
    data = os.urandom(w.rng.choice([0, 100, 300_000]))
    with Namespace(w.some()).popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(data, timeout=60)
    w.ended(process.returncode)
    w.expect(out == data, "the output is not the input")


@operation(2)
def popen_kill(w: Worker) -> None:
    """By each way to end it, and with a timeout before."""
    with Namespace(w.some()).popen(["sleep", "99"]) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=w.rng.choice([0, 0.001, 0.02]))
        if w.chance(0.3):
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)
        end = w.rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
        process.send_signal(end)
        returncode = process.wait(60)
        w.expect(process.poll() == returncode, "poll() says otherwise")
    w.ended(returncode, -end)


@operation(1)
def popen_dropped(w: Worker) -> None:
    """Nobody waits for it but the next Popen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        Namespace(w.some()).popen(["sleep", "0.05"])


@operation(2)
def popen_entered(w: Worker) -> None:
    with Namespace(w.some()).popen(["sleep", "9"]) as process:
        try:
            with process.namespaces as inside:
                w.expect(inside.uts.inode > 0 and process.pidfd >= 0, "its namespaces")
            way: dict[str, Any] = w.rng.choice(
                [{"target": process}, {"pid": process.program_pid}, {"pidfd": process.pidfd}]
            )
            joining = nsutil.enter(**way)
            w.ended(joining.run(["true"]).returncode)
            if joining.types:
                w.expect(joining.call(inode, UTS) == inode_of(process.program_pid), "in another UTS namespace")
        finally:
            process.kill()


def inode_of(pid: int | None) -> int:
    return os.stat(f"/proc/{pid}/ns/uts").st_ino


# --------------------------------------------------------- sets and handles


@operation(3)
def create(w: Worker) -> None:
    types = w.some()
    options = {key: value for key, value in options_for(w, types).items() if key not in ("uid", "gid", "cgroup")}
    spaces = Namespace(types, **options).create()
    w.expect(spaces.types == types, "the types")
    w.refer(spaces)
    if w.chance(0.7):  # the others are dropped
        spaces.close()


@operation(2)
def share(w: Worker) -> None:
    """Made here, used by all."""
    shared = w.world.shared
    shared.append(Namespace(w.some(least=UTS)).create())
    while len(shared) > World.ROOM:
        with contextlib.suppress(IndexError):
            del shared[0]


@operation(3)
def enter_shared(w: Worker) -> None:
    try:
        spaces = w.rng.choice(w.world.shared)
    except IndexError:
        return
    joining = nsutil.enter(spaces)
    try:
        if w.chance(0.5):
            w.expect(joining.call(inode, UTS) == spaces.uts.inode, "in another UTS namespace")
        else:
            w.ended(joining.run(["true"]).returncode)
    finally:  # it may have been harmed before, or on behalf of others
        w.hurt = w.hurt or not is_alive(spaces)


def is_alive(spaces: nsutil.NamespaceSet) -> bool:
    """Whether a process can be made there: PID 1 is there, if one is needed, and is not ending."""
    if PID not in spaces.types:
        return True
    try:
        with open(f"/proc/{spaces.pid.pid_from(1)}/stat") as file:
            return not int(file.read().rpartition(")")[2].split()[6]) & 4  # PF_EXITING
    except OSError:
        return False


@operation(2)
def handles(w: Worker) -> None:
    nstype = w.rng.choice(list(NSType))
    entry = "pid_for_children" if nstype == PID else nstype
    with nsutil.current(nstype) as here, nsutil.open(f"/proc/thread-self/ns/{entry}", nstype) as again:
        w.expect(here == again and here.type == nstype, "the same namespace")
        for relative in (here.owner(), here.parent() if nstype in (PID, USER) else None):
            if relative is not None:
                relative.close()
        with here.reference().open() as found:
            w.expect(found == here, "its reference")


@operation(1)
def ioctls(w: Worker) -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        with contextlib.suppress(OSError):  # a newer kernel's
            fd = ioctl.pidfd_get_namespace(pidfd, w.rng.choice(["net", "uts", "mnt", "user"]))
            try:
                ioctl.get_nstype(fd)
                ioctl.get_id(fd)
            finally:
                os.close(fd)
    finally:
        os.close(pidfd)


@operation(1)
def stale_reference(w: Worker) -> None:
    with Namespace(w.some(least=UTS)).create() as spaces:
        reference = spaces.uts.reference()
        if reference._handle is None:  # before Linux 6.18 nothing leads to what a descriptor alone holds
            return
        with reference.open() as found:
            w.expect(found == spaces.uts, "its reference")


@operation(1, root=True)
def sockets(w: Worker) -> None:
    own = inode(NET)
    with Namespace(NET).create() as spaces, spaces.net.socket() as sock:
        sock.bind(("127.0.0.1", 7000))
        w.expect(inode(NET) == own, "this thread was moved")


# -------------------------------------------------------------- executors


@operation(1)
def executor(w: Worker) -> None:
    pool = Namespace(w.some()).executor(w.rng.choice([1, 2]))
    try:
        jobs = [pool.submit(divmod, number, 7) for number in range(6)]
        w.expect([job.result(60) for job in jobs] == [divmod(number, 7) for number in range(6)], "the results")
        try:
            pool.submit(divmod, 1, 0).result(60)
        except ZeroDivisionError:
            pass
        else:
            raise Wrong("1 / 0")
    finally:
        pool.shutdown(wait=w.chance(0.7))


@operation(1, expected=(BrokenProcessPool,))
def executor_broken(w: Worker) -> None:
    with Namespace(w.some()).executor(2) as pool:
        other = pool.submit(time.sleep, 0.01)
        try:
            pool.submit(*w.rng.choice([(os._exit, 3), (signal.raise_signal, signal.SIGKILL)])).result(60)
        finally:
            other.exception(60)
    raise Wrong("a worker that ended gave a result")


# ------------------------------------------------------------- containers


@operation(1)
def container(w: Worker) -> None:
    """From a root directory, with all eight types and most kinds of mounts."""
    mounts = [nsutil.Bind("/usr", "/usr", readonly=True), nsutil.Dev(), nsutil.Tmpfs("/tmp", size="1m")]
    mounts += [
        nsutil.Mqueue(),
        nsutil.File("/tmp/hosts", "127.0.0.1 localhost\n"),
        nsutil.Symlink("hosts", "/tmp/link"),
    ]
    mounts += [nsutil.Sysfs()] if w.chance(0.5) else []
    box = Namespace(
        ALL,
        uid_map="root",
        root=w.world.directory,
        hostname="container",
        mounts=[*mounts, nsutil.Remount("/")],
        no_new_privs=True,
    )
    done = box.run(["sh", "-c", "cat /tmp/link; hostname; echo $$"], capture_output=True, text=True)
    w.ended(done.returncode)
    w.expect(done.stdout.split() == ["127.0.0.1", "localhost", "container", "2"], f"it said {done.stdout!r}")


# ------------------------------------------------------------------ names

NAMED = (NET, UTS, IPC, MNT, PID, USER, TIME, CGROUP)


@contextlib.contextmanager
def cleared(names: list[str], nstype: NSType) -> Iterator[None]:
    """No name is left where the operation fails half-way, since one of its processes was killed."""
    try:
        yield
    except BaseException:
        for own in names:
            with contextlib.suppress(FileNotFoundError):
                named.remove(own, nstype)
        raise


@operation(3, root=True)
def name(w: Worker) -> None:
    nstype, own = w.rng.choice(NAMED), w.name()
    with cleared([own], nstype):
        _use_name(w, nstype, own)


def _use_name(w: Worker, nstype: NSType, own: str) -> None:
    with named.create(own, nstype) as made:
        w.expect(own in named.list(nstype), "it is not listed")
        with named.open(own, nstype) as found:
            w.expect(found == made, "another one has the name")
        if nstype in (NET, UTS):
            with nsutil.enter(name=own, types=nstype):
                w.expect(inode(nstype) == made.inode, "not inside")
    if w.chance(0.3):
        found_pids = named.pids(own, nstype)
        w.expect(nstype != PID or len(found_pids) == 1, f"{found_pids} are inside")
    named.remove(own, nstype)
    w.expect(own not in named.list(nstype), "the name is still there")


@operation(1, root=True)
def names(w: Worker) -> None:
    nstype = w.rng.choice((NET, UTS, PID))
    several = [w.name() for _ in range(4)]
    with cleared(several, nstype):
        for own in several:
            named.create(own, nstype).close()
        named.remove(several, nstype)
    w.expect(not set(several) & set(named.list(nstype)), "names are still there")


@operation(1, root=True)
def name_attached(w: Worker) -> None:
    own = w.name()
    with Namespace(NET).popen(["sleep", "9"]) as process:
        try:
            named.attach(own, process.program_pid or 0, NET)
        finally:
            process.kill()
    with named.open(own) as file:
        file.socket().close()
    named.remove(own)


@operation(1, root=True)
def name_watched(w: Worker) -> None:
    own = w.name()
    with named.watch(UTS) as watch:
        named.create(own, UTS).close()
        named.remove(own, UTS)
        wanted = [named.Event("add", own), named.Event("delete", own)]
        found = [event for _, event in zip(wanted, _mine(watch, own), strict=False)]
        w.expect(found == wanted, f"the events: {found}")


def _mine(watch: named.Watch, own: str) -> Iterator[named.Event]:
    return (event for event in watch if event.name == own)


# ---------------------------------------------------------------- looking


@operation(1)
def snapshot(w: Worker) -> None:
    found = nsutil.snapshot(w.some() if w.chance(0.5) else ALL, fds=w.chance(0.5))
    w.expect(found.of(os.getpid()), "this process is in none")
    str(found.tree(w.rng.choice(["owner", "parent", "process"])))
    found.filter("nprocs == 1 or type == 'time'").to_json()


@operation(0.5)
def doctor(w: Worker) -> None:
    w.expect(nsutil.doctor.check(w.some()), "it would not work")


# ---------------------------------------------------------------- asyncio


@operation(1)
def async_run(w: Worker) -> None:
    types = w.some()

    async def body() -> None:
        done = await aio.run(["cat"], new=types, input=b"x" * 9999, capture_output=True)
        w.ended(done.returncode)
        w.expect(len(done.stdout) == 9999, "the output")
        w.expect(await aio.call(divmod, 7, 2, new=types) == (3, 1), "the result")

    asyncio.run(body())


@operation(1, expected=(TimeoutError,))
def async_cancelled(w: Worker) -> None:
    types, seconds = w.some(), w.rng.uniform(0.001, 0.05)

    async def body() -> None:
        slow = aio.run(["sleep", "9"], new=types) if w.chance(0.5) else aio.call(time.sleep, 9, new=types)
        await asyncio.wait_for(slow, seconds)

    asyncio.run(body())
    raise Wrong("it slept for 9 seconds")


@operation(0.5, root=True)
def async_connection(w: Worker) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def body() -> None:
        with Namespace(NET).create() as spaces:
            async with await aio.start_server(answer, "127.0.0.1", 7000, enter=spaces):
                reader, writer = await aio.open_connection("127.0.0.1", 7000, enter=spaces)
                writer.write(b"line\n")
                w.expect(await reader.readline() == b"line\n", "the answer")
                writer.close()
                await writer.wait_closed()

    asyncio.run(body())


# --------------------------------------------------------------- commands


@operation(0.3)
def commands(w: Worker) -> None:
    """``python -m nsutil``, where this user can run the interpreter."""
    if not os.access(os.path.realpath(sys.executable), os.X_OK):
        return
    flags = [] if w.root else ["--map-root-user"]
    with Namespace(w.some(least=UTS)).popen(["sleep", "9"]) as process:
        target = str(process.program_pid)
        words = w.rng.choice(
            [
                ["unshare", *flags, "--uts", "--pid", "--fork", "true"],
                ["lsns", "--json", "-p", target],
                ["nsenter", "-t", target, "-a" if w.root else "-U", "--preserve-credentials", "true"],
            ]
        )
        done = subprocess.run([sys.executable, "-m", "nsutil", *words], capture_output=True, text=True, check=False)
        process.kill()
    w.expect(done.returncode == 0, f"{words}: {done.returncode} {done.stderr}")


@operation(1, expected=(ValueError, TypeError, OSError))
def bad_input(w: Worker) -> None:
    w.rng.choice(
        [
            lambda: Namespace(UTS, monotonic=1),
            lambda: nsutil.open(2**22 + 1, NET),
            lambda: nsutil.setns(-1),
            lambda: named.open("no such name"),
            lambda: nsutil.enter(pid=2**22 + 1),
            lambda: Namespace(USER).thread(os.getpid),
            lambda: Namespace(UTS).executor(0),
            lambda: nsutil.run(["true"], new=UTS, preexec_fn=print),
            lambda: socket.socket().close() or nsutil.open(fd=0, type=NET),
        ]
    )()
    raise Wrong("it was taken")
