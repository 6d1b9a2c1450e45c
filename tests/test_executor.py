"""box.executor: concurrent.futures with workers in one set of namespaces."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import glob
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import support
from support import as_user, in_child, needs_root

from nsutil import ALL, IPC, MNT, NET, PID, TIME, USER, UTS, Namespace

pytestmark = pytest.mark.usefixtures("leak_check")

NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@pytest.fixture(scope="module", autouse=True)
def init_is_made() -> None:
    """The descriptor of nsutil's init stays open for the next use, and is no leak."""
    if os.geteuid() == 0:
        Namespace(PID).call(int)


# Jobs, found by name in the workers.


def namespaces() -> dict[str, int]:
    return {name: os.stat(f"/proc/thread-self/ns/{name}").st_ino for name in NAMES}


def slow_pid() -> int:
    time.sleep(0.2)
    return os.getpid()


def slow_namespaces() -> tuple[int, tuple[int, ...]]:
    time.sleep(0.2)
    return threading.get_native_id(), tuple(namespaces().values())


def divide(one: int, two: int) -> float:
    return one / two


def start_sleeper() -> int:
    return subprocess.Popen(["sleep", "300"]).pid


class Odd:
    """Pickles, and does not unpickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return divide, (1, 0)


# Processes


def test_jobs_and_values() -> None:
    with Namespace().executor() as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        assert list(pool.map(pow, range(5), range(5))) == [1, 1, 4, 27, 256]
        assert pool.submit(int, "ff", base=16).result() == 255
        assert len(pool.submit(bytes, 20_000_000).result()) == 20_000_000
        assert pool.submit(len, b"x" * 20_000_000).result() == 20_000_000


def test_one_worker_keeps_its_state() -> None:
    with Namespace().executor() as pool:
        first = pool.submit(os.getpid).result()
        assert first != os.getpid()
        assert pool.submit(os.getpid).result() == first
        pool.submit(functools.partial(os.environ.__setitem__, "NSUTIL_TEST", "kept") and os.putenv, "A", "b").result()
        assert pool.submit(os.chdir, "/usr").result() is None
        assert pool.submit(os.getcwd).result() == "/usr"


def test_exceptions() -> None:
    with Namespace().executor() as pool:
        with pytest.raises(ZeroDivisionError) as info:
            pool.submit(divide, 1, 0).result()
        assert "in divide" in str(info.value.__cause__)
        with pytest.raises(SystemExit):
            pool.submit(sys.exit, 3).result()
        with pytest.raises((pickle.PicklingError, AttributeError), match=r"pickle|local object"):
            pool.submit(lambda: 1).result()
        with pytest.raises(ZeroDivisionError) as info:
            pool.submit(print, Odd()).result()
        assert "cannot be unpickled" in str(info.value.__notes__) or "before the job" in str(info.value.__notes__)
        assert pool.submit(int).result() == 0


def test_nothing_is_started_before_the_first_job() -> None:
    before = support.children()
    with Namespace().executor(2):
        assert support.children() <= before


@needs_root
@support.needs_kernel("time")
@pytest.mark.parametrize("new", [ALL, ALL & ~USER, ALL & ~PID], ids=["all", "no USER", "no PID"])
def test_workers_share_one_set(new: int) -> None:
    outside = namespaces()
    with Namespace(new).executor(3) as pool:
        found = {job.result() for job in [pool.submit(slow_namespaces) for _ in range(3)]}
    assert len({native_id for native_id, _ in found}) == 3
    assert len({inodes for _, inodes in found}) == 1
    inside = dict(zip(NAMES, next(iter(found))[1], strict=True))
    assert {name for name in NAMES if inside[name] != outside[name]} == set(str(ALL & new).split("|"))
    assert namespaces() == outside


def test_as_a_user() -> None:
    def body() -> tuple[str, int, int]:
        box = Namespace([USER, UTS, PID], uid_map="root", hostname="inside")
        with box.executor(2) as pool:
            return (
                pool.submit(socket.gethostname).result(),
                pool.submit(os.getuid).result(),
                pool.submit(slow_pid).result(),
            )

    name, uid, pid = as_user(body)
    assert (name, uid) == ("inside", 0)
    assert pid <= 5


def test_failing_set_up_is_raised_by_submit() -> None:
    def body() -> None:
        with Namespace(NET).executor() as pool:
            for _ in range(2):
                with pytest.raises(PermissionError, match="unshare"):
                    pool.submit(int)
        assert support.children() == set()

    as_user(body)


def die_soon() -> None:
    time.sleep(0.5)  # all jobs are submitted by then
    signal.raise_signal(signal.SIGKILL)


def test_a_worker_that_dies_breaks_the_pool() -> None:
    with Namespace().executor(2) as pool:
        waiting = [pool.submit(time.sleep, 100)]
        dying = pool.submit(die_soon)
        later = [pool.submit(int) for _ in range(5)]
        for job in [dying, *waiting, *later]:
            with pytest.raises(BrokenProcessPool):
                job.result(timeout=20)
        with pytest.raises(BrokenProcessPool):
            pool.submit(int)


def test_cancel() -> None:
    pool = Namespace().executor()
    running = pool.submit(time.sleep, 0.3)
    waiting = [pool.submit(int) for _ in range(3)]
    assert waiting[0].cancel()
    pool.shutdown(cancel_futures=True)
    assert running.result() is None
    assert all(job.cancelled() for job in waiting)


def test_shutdown_without_waiting() -> None:
    pool = Namespace().executor()
    job = pool.submit(slow_pid)
    pool.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    assert job.result(timeout=20) > 0


def test_shutdown_twice_and_unused() -> None:
    pool = Namespace().executor()
    pool.shutdown()
    pool.shutdown()
    pool = Namespace().executor()
    pool.submit(int).result()
    pool.shutdown()
    pool.shutdown()


def test_forgotten_pool_ends() -> None:
    pool = Namespace().executor(2)
    assert pool.submit(int).result() == 0
    del pool


@needs_root
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_end_of_the_interpreter(kind: str) -> None:
    """Without shutdown(): the jobs are done, nothing hangs, nothing is complained about."""
    script = f"""if True:
        import os, time
        from nsutil import Namespace
        pool = Namespace("uts pid".split()).executor(2, kind={kind!r})
        assert list(pool.map(abs, [1, -2])) == [1, 2]
        job = pool.submit(time.sleep, 0.2)
        job.add_done_callback(lambda job: print("done"))
    """
    command = [sys.executable, "-X", "dev", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(support.PACKAGE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@needs_root
@pytest.mark.parametrize("new", [0, PID])
def test_no_process_outlives_the_parent(new: int) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            pool = Namespace(new).executor(2)
            pids = {pool.submit(os.getpid).result()}
            busy = pool.submit(time.sleep, 300)
            found = below(os.getpid())
            os.write(writer, " ".join(map(str, found)).encode())
            busy.result()
        finally:
            os._exit(len(pids))
    tree = {int(word) for word in os.read(reader, 1000).split()}
    os.close(reader)
    os.close(writer)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(tree) >= 2
    assert wait_until(lambda: not any(alive(each) for each in tree))


@needs_root
def test_the_server_says_nothing_when_the_parent_is_killed() -> None:
    """Even with an answer on its way, that nobody read."""
    code = """
import os, select, signal, socket, sys
from nsutil import UTS, Namespace
pool = Namespace(UTS).executor()
server = pool.submit(os.getppid).result()
control = pool._server._control
ours, theirs = socket.socketpair()
socket.send_fds(control, [b"w"], [theirs.fileno()])
select.select([control], [], [])
print(server, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == ""  # which is closed by the end of the server
    assert int(done.stdout) > 1


def below(pid: int) -> set[int]:
    """A process's descendants."""
    children = [Path(path).read_text().split() for path in glob.glob(f"/proc/{pid}/task/*/children")]
    found = {int(each) for words in children for each in words}
    return found.union(*map(below, found))


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: object, patience: float = 10.0) -> bool:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)
    return bool(condition())  # type: ignore[operator]


@needs_root
def test_pid_namespace_takes_all_along() -> None:
    with Namespace([PID, MNT]).executor() as pool:
        pool.submit(start_sleeper).result()
        inside = pool.submit(os.listdir, "/proc").result()
        assert sum(name.isdigit() for name in inside) >= 3
        link = pool.submit(os.readlink, "/proc/self/ns/pid").result()
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            assert os.readlink(path) != link
        except OSError:
            continue


def test_interrupt_does_not_end_idle_workers() -> None:
    with Namespace().executor() as pool:
        pid = pool.submit(os.getpid).result()
        os.kill(pid, signal.SIGINT)
        time.sleep(0.05)
        assert pool.submit(os.getpid).result() == pid
        with pytest.raises(KeyboardInterrupt):
            pool.submit(signal.raise_signal, signal.SIGINT).result()
        assert pool.submit(os.getpid).result() == pid


def test_with_asyncio() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with Namespace().executor(2) as pool:
            return await asyncio.gather(*(loop.run_in_executor(pool, abs, -n) for n in range(5)))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_many_jobs_from_many_threads() -> None:
    with Namespace().executor(3) as pool:

        def work(base: int) -> None:
            found.extend(pool.map(abs, range(base, base + 50)))

        found: list[int] = []
        threads = [threading.Thread(target=work, args=(50 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == list(range(200))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((0,), ValueError), ((-1,), ValueError), (("2",), TypeError), ((True,), TypeError), ((1, "fiber"), ValueError)],
)
def test_bad_arguments(arguments: tuple[object, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        Namespace().executor(*arguments)  # type: ignore[arg-type]


# Threads


@needs_root
@pytest.mark.incident("A17")
def test_threads_share_one_set() -> None:
    outside = namespaces()
    with Namespace(UTS | NET | IPC | MNT, hostname="inside").executor(3, kind="thread") as pool:
        found = {job.result() for job in [pool.submit(slow_namespaces) for _ in range(3)]}
        assert pool.submit(lambda: socket.gethostname()).result() == "inside"
        assert {job.result() for job in [pool.submit(os.getcwd) for _ in range(9)]} == {os.getcwd()}
    assert len({native_id for native_id, _ in found}) == 3
    assert len({inodes for _, inodes in found}) == 1
    inside = dict(zip(NAMES, next(iter(found))[1], strict=True))
    assert {name for name in NAMES if inside[name] != outside[name]} == {"uts", "net", "ipc", "mnt"}
    assert namespaces() == outside


@needs_root
def test_threads_raise_what_the_job_raises() -> None:
    with Namespace(UTS).executor(kind="thread") as pool, pytest.raises(ZeroDivisionError):
        pool.submit(divide, 1, 0).result()


def test_threads_that_cannot_enter_say_so() -> None:
    def body() -> None:
        with Namespace(UTS).executor(2, kind="thread") as pool:
            for job in [pool.submit(int) for _ in range(4)]:
                with pytest.raises(PermissionError, match="unshare"):
                    job.result()

    as_user(body)


@pytest.mark.parametrize("options", [{"new": USER}, {"new": UTS, "uid": 5}])
def test_threads_refuse_what_needs_a_process(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="run"):
        Namespace(**options).executor(kind="thread")  # type: ignore[arg-type]


def test_threads_cannot_share_a_new_time_namespace() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        Namespace(TIME).executor(2, kind="thread")


@needs_root
@support.needs_kernel("time")
def test_thread_in_a_new_time_namespace() -> None:
    def child_clock() -> float:
        script = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))"
        return float(subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, check=True).stdout)

    def body() -> float:
        with Namespace(TIME, boottime=100_000).executor(kind="thread") as pool:
            return pool.submit(child_clock).result() - time.clock_gettime(time.CLOCK_BOOTTIME)

    assert 99_999 < in_child(body) < 100_100
