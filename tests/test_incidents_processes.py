"""What went wrong with processes, threads and descriptors of other tools (docs/explanation/incidents.toml)."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
from support import in_child, must, needs_root

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, Namespace, Sysfs, Tmpfs, enter

ROOT = os.geteuid() == 0
OWN = nsutil.NSType(0) if ROOT else USER


def inode(name: str, task: object = "thread-self") -> int:
    return os.stat(f"/proc/{task}/ns/{name}").st_ino


def without_cloexec() -> list[str]:
    """The descriptors of this process that a program would inherit."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > 2 and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


# A17 to A21: threads and descriptors


@needs_root
@pytest.mark.incident("A17")
def test_a17_threads_beside_an_executor_stay_outside() -> None:
    def body() -> tuple[set[int], set[int]]:
        own = inode("uts")
        beside: set[int] = set()
        with Namespace(UTS).executor(3, kind="thread") as pool:
            workers = set(pool.map(lambda _: inode("uts"), range(12)))
            other = threading.Thread(target=lambda: beside.add(inode("uts")))
            other.start()
            other.join()
            beside |= {inode("uts", f"self/task/{tid}") for tid in support.threads()} - workers
        return workers - {own}, beside - {own}

    inside, beside = in_child(body)
    assert len(inside) == 1
    assert beside == set()


@needs_root
@pytest.mark.incident("A20")
def test_a20_every_descriptor_is_close_on_exec() -> None:
    """While each operation holds whatever it holds; looked at from another thread where that one is not ours."""

    def body() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"before": without_cloexec()}
        with Namespace(UTS | IPC | NET | CGROUP | MNT) as inside:
            files = list(inside)
            found["block"] = without_cloexec()
        with Namespace(UTS | PID | USER, uid_map="root").create() as held:
            found["create"] = without_cloexec()
            reference = (nsutil.current(UTS) if support.lacks("ns-handles") else held.uts).reference()
            found["relations"] = [*without_cloexec()]
            owner = held.uts.owner()
            with reference.open(), nsutil.current(NET) as net, net.socket():
                found["handles"] = without_cloexec()
        with Namespace(PID).popen(["/bin/sleep", "10"], stdin=subprocess.PIPE) as process:
            spaces = list(process.namespaces)
            process.send_signal(signal.SIGSTOP)
            found["popen"] = without_cloexec()
            process.kill()
        with Namespace(UTS).executor(2) as pool:
            pool.submit(os.getpid).result()
            found["executor"] = without_cloexec()
        with contextlib.closing(nsutil.named.watch(UTS)):
            found["watch"] = without_cloexec()
        del files, spaces, owner
        return found

    def apart() -> dict[str, list[str]]:
        support.private_run()
        return body()

    found = in_child(apart)
    assert {name: fds for name, fds in found.items() if fds != found["before"]} == {}


@needs_root
@pytest.mark.incident("A20")
def test_a20_a_program_started_beside_inherits_nothing() -> None:
    """subprocess with close_fds=False, from another thread, all the time."""

    def body() -> set[str]:
        stop, seen = threading.Event(), set()

        def start() -> None:
            while not stop.is_set():
                out = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True)
                seen.update(line.split(" -> ")[1].split(":")[0] for line in out.stdout.splitlines() if " -> " in line)

        thread = threading.Thread(target=start)
        thread.start()
        for _ in range(40):
            with Namespace(UTS | NET):
                pass
            Namespace(UTS | PID).run(["/bin/true"])
            Namespace(UTS).create().close()
        stop.set()
        thread.join()
        return seen

    assert not {"uts", "net", "pid", "anon_inode", "/memfd"} & in_child(body, timeout=60)


@needs_root
@pytest.mark.incident("A21", "A39")
@pytest.mark.parametrize("options", [{}, {"uid": support.USER_ID, "gid": support.USER_ID}], ids=["root", "setuid"])
@pytest.mark.parametrize("new", [UTS, PID | MNT], ids=str)
def test_a39_the_program_ends_with_the_process_and_not_with_the_thread(
    new: nsutil.NSType, options: dict[str, Any]
) -> None:
    """kill_child: bound to the caller, also across a change of ids, which clears what the kernel was asked for."""
    reader, writer = os.pipe()
    caller = support.fork()
    if caller == 0:
        try:
            started: list[nsutil.Popen[bytes]] = []
            box = Namespace(new, kill_child=True, **options)
            maker = threading.Thread(target=lambda: started.append(box.popen(["/bin/sleep", "60"], cwd="/")))
            maker.start()
            maker.join()
            time.sleep(0.3)
            os.write(writer, f"{started[0].program_pid} {started[0].poll()}".encode())
            signal.pause()
        finally:
            os._exit(0)
    os.close(writer)
    program, state = os.read(reader, 100).decode().split()
    pidfd = os.pidfd_open(int(program))
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    ended = support.select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    os.close(reader)
    assert state == "None"  # it outlived the thread
    assert ended


# A25, A28, A37: whom it waits for, and where the caller is afterwards


@needs_root
@pytest.mark.incident("A28", "B4")
def test_a28_only_the_own_child_is_waited_for() -> None:
    def body() -> list[int]:
        others = []
        for code in range(5):
            pid = os.fork()
            if pid == 0:
                os._exit(code)
            others.append(pid)
        time.sleep(0.05)  # all are zombies now
        Namespace(UTS | PID).run(["/bin/true"])
        Namespace(UTS).run(["/bin/true"])
        Namespace(UTS | PID).call(os.getpid)
        Namespace(UTS).create().close()
        with Namespace(UTS).executor() as pool:
            pool.submit(os.getpid).result()
        with Namespace(UTS).popen(["/bin/sleep", "0"]) as process:
            process.wait()
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in others]

    assert in_child(body) == [0, 1, 2, 3, 4]


@needs_root
@pytest.mark.incident("A25")
@pytest.mark.parametrize("new", [PID, UTS], ids=str)
def test_a25_grandchildren_end_with_the_caller(tmp_path: Path, new: nsutil.NSType) -> None:
    """Those that have a session of their own, too."""
    note = tmp_path / "grandchild"
    caller = support.fork()
    if caller == 0:
        try:
            script = f"setsid sleep 61.25 & echo started > {note}; wait"
            Namespace(new, kill_child=True).popen(["/bin/sh", "-c", script])
            signal.pause()
        finally:
            os._exit(0)
    _until(lambda: note.exists() and note.read_text() == "started\n" and bool(_running("61.25")))
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    _until(lambda: _running("61.25") == [])


def _running(argument: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"\0{argument}\0".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_root
@pytest.mark.incident("A37")
def test_a37_an_exception_between_entering_and_the_body() -> None:
    """A signal handler that raises as soon as the block is entered."""

    def body() -> list[str]:
        before = support.ns_inodes()

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGUSR1, interrupt)
        with contextlib.suppress(KeyboardInterrupt), Namespace(UTS | IPC):
            signal.raise_signal(signal.SIGUSR1)
        return [name for name, number in support.ns_inodes().items() if number != before[name]]

    assert in_child(body) == []


@pytest.mark.incident("A37")
def test_a37_the_plugin_moves_nobody_at_import_and_collection(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import pytest, nsutil, does_not_exist\n")
    (tmp_path / "conftest.py").write_text(
        "import os\n"
        "def names(): return sorted(os.readlink(f'/proc/thread-self/ns/{n}') for n in os.listdir('/proc/self/ns'))\n"
        "before = names()\n"
        "def pytest_sessionfinish(): print('MOVED' if names() != before else 'STAYED')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "nsutil.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(support.PACKAGE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, env=environment, timeout=60)
    assert "STAYED" in done.stdout
    assert done.returncode == 2


# A40: stacks


@pytest.mark.incident("A40")
def test_a40_children_have_room(tmp_path: Path) -> None:
    """Long vectors, many candidates, deep Python: nothing of it lies on the stack of a child that shares memory."""
    environment = {"PATH": ":".join(f"/nowhere/{number}" for number in range(3000)) + ":/bin"}
    words = ["x" * 1000] * 500
    assert Namespace(UTS | OWN).run(["true", *words], env=environment).returncode == 0
    assert Namespace(PID | OWN).run(["true", *words], env=environment).returncode == 0

    def deep(level: int) -> int:
        return level if level == 0 else deep(level - 1)

    assert Namespace(PID | OWN).call(deep, 800) == 0


@needs_root
@pytest.mark.incident("A40")
def test_a40_stacks_that_share_memory_end_in_unreachable_pages() -> None:
    def body() -> list[str]:
        Namespace(UTS).run(["/bin/true"])
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        ranges = [(*(int(end, 16) for end in line[0].split("-")), line[1], line[-1]) for line in lines]
        sizes = []
        for (low, high, mode, _), (above, top, rights, _) in itertools.pairwise(ranges):
            if mode == "---p" and rights == "rw-p" and high == above and top - above == 64 * 1024:
                sizes.append(high - low)
        return sizes

    assert in_child(body).count(64 * 1024) >= 4


# B and C: libraries for Python


@needs_root
@pytest.mark.incident("B2")
def test_b02_a_closed_handle_is_never_the_next_file_of_its_number() -> None:
    def body() -> list[str]:
        with support.paused(UTS | NET) as pid:
            net = nsutil.open(pid, NET)
            box, number = enter(net), net.fileno()
            net.close()
            wrong = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)
            os.dup2(wrong, number)
            ended = []
            for use in (
                box.__enter__,
                lambda: box.run(["/bin/true"]),
                lambda: enter(net),
                lambda: nsutil.open(net),
                net.fileno,
                lambda: net.bind("/mnt"),
            ):
                with pytest.raises(ValueError) as caught:
                    use()
                ended.append(type(caught.value).__name__)
            with pytest.raises(ValueError):
                enter(fd=number, types=NET)
            return ended

    assert in_child(body) == ["ValueError"] * 6


@needs_root
@pytest.mark.incident("B3")
def test_b03_unused_recipes_hold_what_they_pin_and_no_more() -> None:
    def body() -> tuple[int, int]:
        support.gc.collect()  # what earlier tests left in cycles is not counted, and would be gone later
        with support.paused(UTS | NET) as pid:
            before = len(support.open_fds())
            boxes = [enter(pid, UTS | NET) for _ in range(10)]
            for box in boxes:
                with pytest.raises(OSError), box.replace(hostname=None):
                    os.close(99)
            held = len(support.open_fds()) - before
            del boxes, box
            support.gc.collect()
            return held, len(support.open_fds()) - before

    held, after = in_child(body)
    assert held <= (30 if support.lacks("pidfd-setns") else 20)  # then the files of the two types as well
    assert after == 0


@pytest.mark.incident("B5")
def test_b05_a_missing_program_is_an_error_at_once() -> None:
    started = time.monotonic()
    for new in (UTS | OWN, PID | OWN):
        with pytest.raises(FileNotFoundError, match="/no/such/program"):
            Namespace(new).run(["/no/such/program"])
        with pytest.raises(FileNotFoundError):
            Namespace(new).popen(["no-such-program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert time.monotonic() - started < 5


@needs_root
@pytest.mark.incident("B7")
def test_b07_dropped_handles_leave_no_process() -> None:
    def body() -> set[int]:
        before = support.children()
        for _ in range(3):
            Namespace(PID | NET).create()
            Namespace(UTS).executor(2).submit(os.getpid).result()
            enter(os.getpid(), UTS)
        support.gc.collect()
        _until(lambda: support.children() <= before)
        return support.children() - before

    assert in_child(body) == set()


@needs_root
@pytest.mark.incident("B9", "B10")
def test_b10_propagation_comes_before_any_mount() -> None:
    """Where / is shared, as on most machines: neither /proc nor a tmpfs of the inside appears outside."""

    def body() -> tuple[list[str], bool]:
        support.private_mounts()
        must("mount", None, b"/", None, (1 << 20) | support.MS_REC, None)  # MS_SHARED
        before = support.mounts()
        for start in (
            lambda: Namespace(PID | MNT, mounts=[Tmpfs("/mnt")]).run(["/bin/true"]),
            lambda: Namespace(PID | MNT, mount_proc=True, mounts=[Tmpfs("/mnt")]).call(os.getpid),
            lambda: Namespace(MNT, mounts=[Tmpfs("/mnt")]).thread(os.getpid).result(),
            lambda: Namespace(MNT, mounts=[Tmpfs("/mnt")]).create().close(),
        ):
            start()
        with Namespace(MNT, mounts=[Tmpfs("/mnt")]):
            pass
        return [line for line in support.mounts() if line not in before], os.readlink("/proc/self") == str(os.getpid())

    new, own = in_child(body)
    assert new == []
    assert own


@needs_root
@pytest.mark.incident("B12")
def test_b12_a_failing_function_never_runs_the_callers_code(tmp_path: Path) -> None:
    note = tmp_path / "note"

    def fail() -> None:
        raise ZeroDivisionError

    def caller(new: nsutil.NSType, ending: Callable[[], object]) -> None:
        try:
            Namespace(new).call(ending)
        except (ZeroDivisionError, nsutil.ChildDied):
            pass
        finally:
            with note.open("a") as file:
                file.write(f"{os.getpid()}\n")

    for new in (UTS, PID, PID | MNT):
        for ending in (fail, sys.exit, lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL)):
            caller(new, ending)
    assert note.read_text() == f"{os.getpid()}\n" * 12


@needs_root
@pytest.mark.incident("B15")
def test_b15_sysfs_of_the_namespace() -> None:
    listed = ["/bin/ls", "/sys/class/net"]
    outside = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    old = Namespace(NET).run(listed, capture_output=True, text=True).stdout.split()
    new = Namespace(NET | MNT, mounts=[Sysfs("/sys")]).run(listed, capture_output=True, text=True).stdout.split()
    assert old == outside
    assert new == ["lo"]


@needs_root
@pytest.mark.incident("C3")
def test_c03_what_a_thread_sees_is_its_own() -> None:
    """current() and the block's handles, on a thread whose namespaces are not the main thread's."""

    def body() -> list[bool]:
        def on_thread() -> list[bool]:
            nsutil.unshare(UTS | NET)
            own = nsutil.current(UTS), nsutil.current("net")
            equal = [file.inode == inode(str(file.type)) != inode(str(file.type), "self") for file in own]
            with Namespace(UTS) as inside:
                equal.append(inside.uts.inode == inode("uts") != own[0].inode)
            return [*equal, own[0].inode == inode("uts")]

        result: list[list[bool]] = []
        thread = threading.Thread(target=lambda: result.append(on_thread()))
        thread.start()
        thread.join()
        return result[0]

    assert in_child(body) == [True] * 4


@needs_root
@pytest.mark.incident("C4")
def test_c04_a_block_moves_its_own_thread_alone() -> None:
    def body() -> tuple[set[int], int]:
        stop = threading.Event()
        others = [threading.Thread(target=stop.wait) for _ in range(4)]
        for thread in others:
            thread.start()
        own = inode("uts")
        with Namespace(UTS | NET | IPC):
            seen = {inode("uts", f"self/task/{thread.native_id}") for thread in others}
            inside = inode("uts")
        stop.set()
        for thread in others:
            thread.join()
        return seen - {own}, int(inside != own)

    assert in_child(body) == (set(), 1)


def several() -> list[int]:
    ended = []
    for code in range(3):
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return ended


@needs_root
@pytest.mark.incident("C5")
def test_c05_many_children_in_a_pid_namespace() -> None:
    """The end of the first one does not end the namespace."""

    def body() -> list[list[int]]:
        ended = [Namespace(PID).call(several), Namespace(PID).thread(several).result(20)]
        with Namespace(PID).executor(2) as pool:
            ended += [pool.submit(several).result() for _ in range(3)]
        with Namespace(PID).create() as held:
            ended += [enter(held.pid).call(several) for _ in range(2)]
            with enter(held.pid):
                ended.append(several())
        return ended

    assert in_child(body) == [[0, 1, 2]] * 8


@needs_root
@support.needs_kernel("time")
@pytest.mark.incident("A35")
@pytest.mark.parametrize("options", [{"monotonic": 5}, {"boottime": -5}, {"monotonic": 1, "boottime": 1}])
def test_a35_offsets_without_a_new_time_namespace(options: dict[str, int]) -> None:
    for make in (
        lambda: Namespace(UTS, **options),
        lambda: enter(os.getpid(), UTS, **options),
        lambda: nsutil.run(["/bin/true"], new=PID, **options),
    ):
        with pytest.raises(ValueError, match=r"monotonic|boottime"):
            make()
    with Namespace(TIME, **options).create() as held:
        code = "import time; print(int(time.clock_gettime(time.CLOCK_MONOTONIC)))"
        joined = enter(held.time).run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
        shift = int(joined.stdout) - time.clock_gettime(time.CLOCK_MONOTONIC)
        assert abs(shift - options.get("monotonic", 0)) < 3


@needs_root
@pytest.mark.incident("B16")
def test_b16_what_threads_forbid_is_refused_by_name() -> None:
    """As after importing numpy: the process has threads that nobody asked for."""

    def body() -> list[str]:
        stop = threading.Event()
        extra = [threading.Thread(target=stop.wait) for _ in range(2)]
        for thread in extra:
            thread.start()
        said = []
        try:
            with support.paused(MNT) as pid:
                for box in (Namespace(USER), Namespace(MNT), enter(pid, MNT), Namespace(TIME)):
                    with pytest.raises(ValueError) as caught:
                        box.__enter__()
                    said.append(str(caught.value))
                assert [box.call(os.getpid) > 0 for box in (Namespace(USER), Namespace(MNT), enter(pid, MNT))]
        finally:
            stop.set()
            for thread in extra:
                thread.join()
        return said

    said = in_child(body)
    assert len(said) == 4
    assert all("run()" in text and "call()" in text for text in said)


@needs_root
@pytest.mark.incident("A24", "A26")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3])
def test_a26_signals_to_the_child_reach_the_program(number: int) -> None:
    script = f'trap "exit 7" {number}; echo ready; while :; do sleep 0.02; done'
    with Namespace(PID | UTS).popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, number)  # as a stranger would, without the handle
        assert process.wait(10) == 7
