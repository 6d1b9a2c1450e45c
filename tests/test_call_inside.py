"""What a called function finds: its namespaces, its process tree, and how it ends with its parent."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from support import as_user, in_child, needs_root

import nsutil
from nsutil import ALL, IPC, MNT, NET, PID, TIME, USER, UTS, ChildDied, IdMap, Namespace, call, enter
from nsutil._idmap import MapWriter

pytestmark = pytest.mark.usefixtures("leak_check")

NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
each_type = pytest.mark.parametrize("name", [support.with_time(name) if name == "time" else name for name in NAMES])


def namespaces() -> dict[str, int]:
    return {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in NAMES}


def changed(**options: object) -> set[str]:
    """The types in which a called function differs from us."""
    outside = namespaces()
    inside = call(namespaces, **options)
    assert namespaces() == outside
    return {name for name in NAMES if inside[name] != outside[name]}


@pytest.fixture(scope="module", autouse=True)
def init_is_made() -> None:
    """The descriptor of nsutil's init stays open for the next use, and is no leak."""
    if os.geteuid() == 0:
        call(int, new=PID)


# Namespaces


@needs_root
@each_type
def test_each_alone(name: str) -> None:
    assert changed(new=name) == {name}


@needs_root
@support.needs_kernel("time")
@pytest.mark.parametrize("init", [None, False])
@pytest.mark.parametrize("new", [ALL, ALL & ~USER], ids=["all", "without USER"])
def test_all_as_root(new: nsutil.NSType, init: bool | None) -> None:
    assert changed(new=new, init=init) == set(str(new).split("|"))


@each_type
def test_each_as_a_user(name: str) -> None:
    assert as_user(lambda: changed(new=["user", name])) == {"user", name}


@support.needs_kernel("time")
@pytest.mark.parametrize("init", [None, False])
def test_all_as_a_user(init: bool | None) -> None:
    assert as_user(lambda: changed(new=ALL, init=init)) == set(NAMES)


def test_one_word_makes_a_user_root() -> None:
    def inside() -> tuple[int, int, str]:
        socket.sethostname("inside")
        return os.getuid(), os.getgid(), socket.gethostname()

    assert as_user(lambda: call(inside, new=USER | UTS, uid_map="root")) == (0, 0, "inside")


@needs_root
def test_maps_written_from_outside() -> None:
    ranges = nsutil.IdMap(0, 100000, 1000)
    text = call(Path("/proc/self/uid_map").read_text, new=USER, uid_map=ranges, gid_map=ranges, uid=7, gid=8)
    assert text.split() == ["0", "100000", "1000"]
    assert call(os.getresuid, new=USER | PID, uid_map=ranges, gid_map=ranges, uid=7, gid=8) == (7, 7, 7)


@needs_root
@support.needs_kernel("time")
@pytest.mark.parametrize("more", [{}, {"new": [TIME, PID]}, {"new": [TIME, PID], "init": False}, {"kill_child": True}])
def test_clock_offsets(more: dict[str, object]) -> None:
    def clocks() -> tuple[float, float]:
        return time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)

    outside = clocks()
    inside = call(clocks, **{"new": TIME, "monotonic": 1000.5, "boottime": 5000, **more})
    assert 1000 <= inside[0] - outside[0] < 1030
    assert 5000 <= inside[1] - outside[1] < 5030


@needs_root
def test_what_a_recipe_sets_up() -> None:
    def inside() -> tuple[object, ...]:
        status = Path("/proc/self/status").read_text()
        umask = os.umask(0)
        return (
            socket.gethostname(),
            os.getcwd(),
            umask,
            os.getresuid(),
            os.getresgid(),
            os.getgroups(),
            resource.getrlimit(resource.RLIMIT_NOFILE),
            "NoNewPrivs:\t1" in status,
            os.getsid(0) == os.getpid(),
        )

    box = Namespace(
        UTS,
        hostname="inside",
        cwd="/usr/lib",
        umask=0o27,
        uid=4000,
        gid=4001,
        groups=[4002],
        rlimits={resource.RLIMIT_NOFILE: (99, 100)},
        no_new_privs=True,
        new_session=True,
    )
    assert box.call(inside) == (
        "inside",
        "/usr/lib",
        0o27,
        (4000,) * 3,
        (4001,) * 3,
        [4002],
        (99, 100),
        True,
        True,
    )


@needs_root
def test_limits_of_the_recipe_do_not_stop_a_large_result() -> None:
    none = {resource.RLIMIT_FSIZE: (0, 0)}
    assert len(call(lambda: b"x" * 3_000_000, new=UTS, rlimits=none)) == 3_000_000


@needs_root
def test_failing_step_is_named() -> None:
    with pytest.raises(FileNotFoundError) as info:
        call(int, new=UTS, cwd="/nonexistent/directory")
    assert info.value.filename == "/nonexistent/directory"
    assert "directory" in info.value.step  # type: ignore[attr-defined]


@needs_root
@pytest.mark.parametrize("init", [None, False])
@pytest.mark.parametrize("new", [MNT, MNT | PID], ids=["plain", "PID"])
def test_failing_set_up_inside(new: nsutil.NSType, init: bool | None) -> None:
    if init is False and not new & PID:
        init = None
    with pytest.raises(OSError, match="bind") as info:
        call(int, new=new, init=init, mounts=[nsutil.Bind("/proc/self/status", "/proc/self")])
    assert "bind" in info.value.step  # type: ignore[attr-defined]


def test_without_a_right_the_step_is_named() -> None:
    with pytest.raises(PermissionError) as info:
        as_user(lambda: call(int, new=NET))
    assert "unshare" in str(info.value)


# PID 1


def pids() -> tuple[int, int]:
    return os.getpid(), os.getppid()


@needs_root
def test_the_function_is_not_pid_one() -> None:
    assert call(pids, new=PID) == (2, 1)


@needs_root
def test_the_function_is_pid_one_on_request() -> None:
    assert call(pids, new=PID, init=False) == (1, 0)


@needs_root
def test_proc_shows_the_new_namespace() -> None:
    listing = call(os.listdir, "/proc", new=PID | MNT)
    assert sorted(int(name) for name in listing if name.isdigit()) == [1, 2]


@needs_root
def test_init_reaps_orphans() -> None:
    def orphans() -> int:
        for _ in range(100):
            if os.fork() == 0:
                if os.fork() == 0:
                    time.sleep(0.01)
                os._exit(0)
            os.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and (left := sum(name.isdigit() for name in os.listdir("/proc"))) > 2:
            time.sleep(0.01)
        return left

    assert call(orphans, new=PID | MNT) == 2


@needs_root
def test_init_ignores_and_function_keeps_sigchld_ignored() -> None:
    def inside() -> object:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with pytest.raises(ChildDied) as info:
            call(os._exit, 9, new=PID)
        return info.value.status, call(signal.getsignal, signal.SIGCHLD, new=PID) == signal.SIG_IGN

    assert in_child(inside) == (9, True)


@pytest.mark.incident("A27")
def test_status_survives_an_ignored_sigchld() -> None:
    def inside() -> object:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        assert call(int) == 0
        with pytest.raises(ChildDied):
            call(os._exit, 9)

    in_child(inside)


@needs_root
@pytest.mark.parametrize("init", [None, False])
@pytest.mark.parametrize("status", [0, 1, 127, 128 + 9, 255])
def test_exit_status_comes_through(status: int, init: bool | None) -> None:
    with pytest.raises(ChildDied) as info:
        call(os._exit, status, new=PID, init=init)
    assert (info.value.status, info.value.signal) == (status, None)


@needs_root
@pytest.mark.parametrize("moment", ["before the maps", "after the maps"])
def test_a_child_killed_while_it_waits_for_its_maps(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = MapWriter.writer

    def kill(writer: MapWriter, pid: int) -> None:
        if moment == "after the maps":
            write(writer, pid)
        os.kill(pid, signal.SIGKILL)
        pidfd = os.pidfd_open(pid)
        select.select([pidfd], [], [])
        os.close(pidfd)
        if moment == "before the maps":
            write(writer, pid)

    monkeypatch.setattr(MapWriter, "writer", kill)
    with pytest.raises(ChildDied) as info:
        call(int, new=USER, uid_map=[IdMap(0, 0, 9)], gid_map=[IdMap(0, 0, 9)])
    assert info.value.signal == signal.SIGKILL


@needs_root
def test_every_signal_comes_through() -> None:
    def die(number: int) -> None:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    harmless = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    for number in sorted(set(signal.valid_signals()) - harmless - stopping):
        with pytest.raises(ChildDied) as info:
            call(die, number, new=PID)
        assert info.value.signal == number


# Joining


@pytest.fixture
def target() -> Iterator[int]:
    """A process in namespaces of its own, as root of a new USER namespace."""
    if support.lacks("time"):
        pytest.skip("this kernel has no time")
    process = subprocess.Popen(
        ["unshare", "-UrmuinpTf", "--mount-proc", "--kill-child", "sh", "-c", "echo; exec sleep 100"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    yield int(children.read_text())
    process.kill()
    process.wait()


TARGET_TYPES = {"user", "mnt", "uts", "ipc", "net", "pid", "time"}


@needs_root
def test_join_everything(target: int) -> None:
    assert changed(enter=target) == TARGET_TYPES
    wanted = {name: os.stat(f"/proc/{target}/ns/{name}").st_ino for name in TARGET_TYPES}
    inside = call(namespaces, enter=target)
    assert {name: inside[name] for name in TARGET_TYPES} == wanted


@needs_root
@pytest.mark.parametrize("name", sorted(TARGET_TYPES - {"user", "mnt"}))
def test_join_one(target: int, name: str) -> None:
    assert enter(target, name).call(namespaces)[name] == os.stat(f"/proc/{target}/ns/{name}").st_ino


@support.needs_kernel("time")
def test_join_as_a_user() -> None:
    def body() -> set[str]:
        process = subprocess.Popen(["/usr/bin/unshare", "-UrmuinpTf", "sleep", "100"])
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not (text := children.read_text()):
                time.sleep(0.01)
            while not Path(f"/proc/{text.strip()}/uid_map").read_text():
                time.sleep(0.01)
            return changed(enter=int(text))
        finally:
            os.kill(int(children.read_text()), signal.SIGKILL)
            process.wait()

    assert as_user(body) == TARGET_TYPES


@needs_root
def test_join_and_make(target: int) -> None:
    box = Namespace(NET | IPC, enter=enter(target, "uts pid".split()))
    outside, inside = namespaces(), box.call(namespaces)
    assert {name for name in NAMES if inside[name] != outside[name]} == {"net", "ipc", "uts", "pid"}
    assert inside["uts"] == os.stat(f"/proc/{target}/ns/uts").st_ino
    assert inside["net"] != os.stat(f"/proc/{target}/ns/net").st_ino


@needs_root
@pytest.mark.incident("A2")
def test_a_function_that_joined_is_not_dumpable(target: int) -> None:
    assert call(support.prctl, 3, enter=target) == 0
    assert call(support.prctl, 3, new=UTS) == 1


@needs_root
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_in_a_joined_pid_namespace(target: int, number: int) -> None:
    with pytest.raises(ChildDied) as info:
        enter(target, PID).call(lambda: os.kill(os.getpid(), number))
    assert info.value.signal == number


# How it ends with its parent


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], patience: float = 60.0) -> bool:
    """Whether it comes true; on a machine that does much else it can take long until somebody runs at all.

    Time alone is no patience: a command line in /proc can be waited for as long as the process's memory is locked, so
    that few looks may take all of it.
    """
    deadline, looks = time.monotonic() + patience, 0
    while not condition():
        looks += 1
        if looks > 50 and time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def caller(box: Namespace, func: Callable[[], object], how: str) -> int:
    """A process that calls func in box from its main thread or another; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            if how == "thread":
                thread = threading.Thread(target=box.call, args=(func,))
                thread.start()
                thread.join()
            else:
                box.call(func)
        finally:
            os._exit(0)
    return pid


def marked_sleepers(mark: str) -> set[int]:
    """The processes whose command line has the mark."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.add(int(path.parent.name))
    return found


MARKS = itertools.count()


def leave_family(mark: str) -> Callable[[], None]:
    """A function that starts a child and a daemon, both running, and goes on for long."""

    def family() -> None:
        program = [sys.executable, "-S", "-c", "import time; time.sleep(300)", mark]
        subprocess.Popen(program)
        subprocess.Popen(["sh", "-c", '"$@" & exit', "sh", *program], start_new_session=True).wait()
        time.sleep(300)

    return family


ENDS = [
    pytest.param({"new": PID}, id="PID"),
    pytest.param({"new": PID, "kill_child": True}, id="PID-True"),
    pytest.param({"kill_child": True}, id="True"),
    pytest.param({"new": UTS, "kill_child": "KILL"}, id="KILL"),
]


@needs_root
@pytest.mark.parametrize("how", ["main", "thread"])
@pytest.mark.parametrize("options", ENDS)
@pytest.mark.incident("A22")
def test_the_tree_ends_with_its_parent(options: dict[str, object], how: str) -> None:
    mark = f"nsutil-test-{os.getpid()}-{next(MARKS)}"
    pid = caller(Namespace(**options), leave_family(mark), how)  # type: ignore[arg-type]
    try:
        assert wait_until(lambda: len(marked_sleepers(mark)) == 2), f"never complete: {marked_sleepers(mark)}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert wait_until(lambda: not marked_sleepers(mark)), f"still there: {marked_sleepers(mark)}"


@needs_root
@pytest.mark.parametrize("options", [{}, {"new": UTS}, {"new": PID, "kill_child": False}])
def test_the_function_lives_on(options: dict[str, object], tmp_path: Path) -> None:
    def func() -> None:
        (tmp_path / "started").touch()
        wait_until((tmp_path / "go").exists)
        (tmp_path / "done").touch()

    pid = caller(Namespace(**options), func, "main")  # type: ignore[arg-type]
    assert wait_until((tmp_path / "started").exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.1)
    (tmp_path / "go").touch()
    assert wait_until((tmp_path / "done").exists)


@needs_root
@pytest.mark.incident("A23")
def test_a_milder_signal_for_the_function(tmp_path: Path) -> None:
    def func() -> None:
        signal.signal(signal.SIGTERM, lambda *_: (tmp_path / "term").touch())
        (tmp_path / "started").touch()
        wait_until((tmp_path / "term").exists)

    for options in ({"kill_child": "TERM"}, {"new": PID, "kill_child": "TERM"}):
        pid = caller(Namespace(**options), func, "main")  # type: ignore[arg-type]
        assert wait_until((tmp_path / "started").exists)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert wait_until((tmp_path / "term").exists)
        (tmp_path / "term").unlink()
        (tmp_path / "started").unlink()


@needs_root
@pytest.mark.parametrize("options", ENDS[:3])
def test_timeout_ends_the_tree(options: dict[str, object]) -> None:
    mark = f"nsutil-test-{os.getpid()}-{next(MARKS)}"
    with pytest.raises(TimeoutError):
        call(leave_family(mark), timeout=3, **options)
    assert not {pid for pid in marked_sleepers(mark) if alive(pid)}


# Signals for the parent


def interrupt_after(seconds: float, times: int = 1) -> threading.Thread:
    def body() -> None:
        for _ in range(times):
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def raise_interrupt(*args: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("options", [{}, {"new": PID}])
def test_interrupt_while_waiting_ends_the_child(options: dict[str, object]) -> None:
    def body() -> None:
        signal.signal(signal.SIGALRM, raise_interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            call(time.sleep, 100, **options)
        assert time.monotonic() - start < 10
        assert support.children() == set()

    if options and os.geteuid() != 0:
        pytest.skip("needs root")
    in_child(body)


@pytest.mark.parametrize("options", [{}, {"new": PID}])
def test_storm_of_interrupts_leaves_nothing(options: dict[str, object]) -> None:
    """Each call ends by its value or by the interrupt, wherever that came, and nothing is left."""

    def body() -> tuple[int, int]:
        sys.settrace(None)  # an exception inside the code of a tracer leaves its locks held
        signal.signal(signal.SIGALRM, raise_interrupt)
        fds = len(support.open_fds())
        done = interrupted = 0
        start = time.monotonic()
        while (took := time.monotonic() - start) < 3 or (interrupted <= 10 and took < 15):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00002 * (done + interrupted) % 0.004)
                    call(int, **options)
                    done += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert support.children() == set()
        assert len(support.open_fds()) == fds
        return done, interrupted

    if options and os.geteuid() != 0:
        pytest.skip("needs root")
    done, interrupted = in_child(body)
    assert interrupted > 10, (done, interrupted)


def test_with_standard_descriptors_closed() -> None:
    def body() -> list[object]:
        for fd in range(3):
            os.close(fd)
        return [call(int), call(os.getpid, new=PID) if os.geteuid() == 0 else 2]

    assert in_child(body) == [0, 2]
