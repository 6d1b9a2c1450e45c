"""What a program is started with: descriptors, signals, credentials; and what a failed start leaves: nothing."""

from __future__ import annotations

import errno
import mmap
import os
import random
import resource
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
from support import as_user, in_child, needs_root

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
    Namespace,
    NSType,
    Popen,
    Sysfs,
    Tmpfs,
    enter,
    run,
)

ROOT = os.geteuid() == 0
OWN = 0 if ROOT else USER
SH = "/bin/sh"
LIST_FDS = """
import os
listed = os.listdir("/proc/self/fd")
print(*sorted(int(name) for name in listed if os.path.exists(f"/proc/self/fd/{name}")))
"""

# The process shapes, by what makes them necessary.
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"new": UTS | OWN},
    "init": {"new": PID | OWN},
    "waiter": {"new": UTS | OWN, "kill_child": True},
    "pid 1 and waiter": {"new": PID | OWN, "init": False, "kill_child": True},
}
each_shape = pytest.mark.parametrize("shape", SHAPES)


@pytest.fixture(params=["new calls", "old calls"])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on this kernel, and as on one that lacks clone3, close_range and what pidfds keep."""
    if request.param == "old calls":
        monkeypatch.setenv("NSUTIL_NO_NEW_CALLS", "1")
    return str(request.param)


def output(*args: Any, **options: Any) -> str:
    return run(*args, **options, check=True, stdout=subprocess.PIPE, text=True).stdout


def python(code: str, **options: Any) -> str:
    return output([sys.executable, "-I", "-S", "-c", code], **options)


# Descriptors


@each_shape
@pytest.mark.incident("A2")
def test_exactly_three_descriptors(shape: str, calls: str, leak_check: None) -> None:
    extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    for fd in extra[::2]:
        os.set_inheritable(fd, True)
    try:
        assert python(LIST_FDS, **SHAPES[shape], stdin=subprocess.DEVNULL) == "0 1 2\n"
    finally:
        for fd in extra:
            os.close(fd)


def test_passed_descriptors(calls: str) -> None:
    extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(12)]
    passed = extra[1::3]
    try:
        wanted = " ".join(map(str, [0, 1, 2, *passed])) + "\n"
        for shape in SHAPES.values():
            assert python(LIST_FDS, **shape, stdin=subprocess.DEVNULL, pass_fds=reversed(passed)) == wanted
        assert not any(map(os.get_inheritable, passed))
    finally:
        for fd in extra:
            os.close(fd)


def test_close_fds_can_be_turned_off() -> None:
    inheritable, own = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        listed = set(map(int, python(LIST_FDS, new=UTS | OWN, stdin=subprocess.DEVNULL, close_fds=False).split()))
        assert {0, 1, 2, inheritable} <= listed
        assert own not in listed
    finally:
        os.close(inheritable)
        os.close(own)


def test_a_descriptor_that_is_not_open() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError) as caught:
        run(["true"], new=UTS | OWN, pass_fds=[fd])
    assert caught.value.errno == errno.EBADF
    assert str(fd) in caught.value.step  # type: ignore[attr-defined]
    with pytest.raises(OSError) as caught:
        run(["true"], new=UTS | OWN, stdout=fd)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("number", [subprocess.STDOUT, -5])
def test_a_stream_that_is_no_descriptor(number: int, leak_check: None) -> None:
    with pytest.raises((OSError, ValueError)) as caught:
        run(["true"], new=UTS | OWN, stdin=subprocess.PIPE, stdout=number)
    if isinstance(caught.value, OSError):
        assert caught.value.errno == errno.EBADF
    else:  # newer versions of subprocess say so themselves
        assert (number, str(caught.value)) == (subprocess.STDOUT, "STDOUT can only be used for stderr")


def test_a_negative_descriptor_to_pass(leak_check: None) -> None:
    with pytest.raises(ValueError, match="pass_fds must be open descriptors, not -1"):
        run(["true"], new=UTS | OWN, stdin=subprocess.PIPE, pass_fds=[2, -1])


def test_a_program_without_a_name() -> None:
    with pytest.raises(PermissionError) as caught:
        run([""], new=UTS | OWN)
    assert caught.value.filename == ""


def test_a_foreign_process_group_is_no_namespace_to_join() -> None:
    with pytest.raises(PermissionError) as caught:
        run(["true"], new=UTS | OWN, process_group=2**22)
    assert caught.value.hint is None  # type: ignore[attr-defined]


def low_files(order: tuple[int, int, int], folder: Path, closed: tuple[int, ...]) -> list[str]:
    """What 0, 1 and 2 of a program are, when its streams are our 0, 1, 2 in some order and some of ours are closed."""

    def move() -> None:
        for number in range(3):
            fd = os.open(folder / str(number), os.O_RDWR | os.O_CREAT)
            os.dup2(fd, number)
            os.close(fd)
        for number in closed:
            os.close(number)
        stdin, stdout, stderr = order
        code = "import os; print(*(os.readlink(f'/proc/self/fd/{n}') for n in range(3)), file=open(%r, 'w'))"
        done = run(
            [sys.executable, "-I", "-S", "-c", code % str(folder / "said")],
            new=UTS | OWN, stdin=stdin, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        os._exit(done.returncode)

    pid = support.fork()
    if pid == 0:
        try:
            move()
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return [Path(target).name for target in (folder / "said").read_text().split()]


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2), (1, 2, 0), (0, 0, 0), (2, 2, 2), (0, 1, 2), (2, 1, 0)])
def test_streams_from_low_descriptors(order: tuple[int, int, int], tmp_path: Path) -> None:
    assert low_files(order, tmp_path, ()) == [str(number) for number in order]


@pytest.mark.parametrize("order", [(2, 2, 2), (0, 0, 0), (1, 1, 1)])
def test_streams_where_ours_are_closed(order: tuple[int, int, int], tmp_path: Path) -> None:
    closed = tuple({0, 1, 2} - set(order))
    assert low_files(order, tmp_path, closed) == [str(number) for number in order]


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
@each_shape
def test_pipes_where_ours_are_closed(closed: tuple[int, ...], shape: str) -> None:
    """The pipes take the free numbers themselves."""

    def talk() -> tuple[int, bytes, bytes]:
        kept = {number: os.dup(number) for number in closed}
        for number in closed:
            os.close(number)
        try:
            pipes: dict[str, Any] = {"input": b"in", "capture_output": True}
            done = run([SH, "-c", "cat; echo err >&2; exit 5"], **SHAPES[shape], **pipes)
        finally:
            for number, fd in kept.items():
                os.dup2(fd, number)
        return done.returncode, done.stdout, done.stderr

    assert in_child(talk) == (5, b"in", b"err\n")


def test_stdin_is_not_given_to_init() -> None:
    """A reader of our pipe sees its end when the program goes, whatever init does."""
    with Popen([SH, "-c", "exec >&-; exec 2>&-; sleep 60"], **SHAPES["init"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.poll() is None
        process.kill()


# Signals


@support.needs_kernel("pidfd-info")
def test_dispositions(calls: str) -> None:
    """Caught signals are at their defaults, ignored ones stay, and Python's own ignoring is undone or not."""

    def status(**options: Any) -> dict[str, int]:
        lines = output(["/bin/cat", "/proc/self/status"], **options).splitlines()
        return {line[:6]: int(line[8:], 16) for line in lines if line.startswith(("SigB", "SigC", "SigI"))}

    def look() -> list[int]:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGRTMAX, lambda *_: None)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        found = []
        for shape in SHAPES.values():
            for restore in (True, False):
                state = status(**shape, restore_signals=restore)
                assert state["SigCgt"] == 0
                assert state["SigBlk"] == 1 << signal.SIGHUP - 1
                # Those below SIGRTMIN are libc's, whose posix_spawn ignores them: make starts its commands so.
                found.append(state["SigIgn"] & ~bits(*range(32, signal.SIGRTMIN)))
        return found

    def bits(*signals: int) -> int:
        return sum(1 << number - 1 for number in signals)

    kept = bits(signal.SIGUSR2, signal.SIGCHLD)
    assert in_child(look) == [kept, kept | bits(signal.SIGPIPE, signal.SIGXFSZ)] * len(SHAPES)


@each_shape
@pytest.mark.incident("A27")
@support.needs_kernel("pidfd-info")
def test_ignored_sigchld(shape: str, calls: str) -> None:
    """The kernel reaps the child before we can; the code is right all the same."""

    def ends() -> list[int]:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        codes = [run([SH, "-c", script], **SHAPES[shape]).returncode for script in ("exit 7", "exit 0")]
        process = Popen([SH, "-c", "exit 8"], **SHAPES[shape])
        time.sleep(0.1)
        return [*codes, process.wait()]

    assert in_child(ends) == [7, 0, 8]


@each_shape
@pytest.mark.incident("A28")
@support.needs_kernel("pidfd-info")
def test_somebody_else_reaps(shape: str) -> None:
    """A greedy os.wait() takes the child; its status is known nevertheless (Linux 6.15, or through init)."""

    def ends() -> int:
        process = Popen([SH, "-c", "exit 9"], **SHAPES[shape])
        os.wait()
        return process.wait()

    assert in_child(ends) == 9


def test_handlers_run_in_us_alone() -> None:
    """A storm of signals to the whole group while programs start: no handler runs in a child's copy of our memory."""

    def storm() -> tuple[int, int]:
        os.setpgid(0, 0)
        ours = os.getpid()
        strangers = []
        signal.signal(signal.SIGUSR1, lambda *_: strangers.append(os.getpid()) if os.getpid() != ours else None)
        killer = os.fork()
        if killer == 0:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            while os.getppid() == ours:
                os.killpg(ours, signal.SIGUSR1)
                time.sleep(0.0005)
            os._exit(0)
        bad = 0
        for _ in range(40):
            # The program itself may get one too: death by that signal is right.
            bad += run([SH, "-c", "exit 3"], new=UTS | OWN).returncode not in (3, -signal.SIGUSR1)
        os.kill(killer, signal.SIGKILL)
        os.waitpid(killer, 0)
        return bad, len(strangers)

    assert in_child(storm) == (0, 0)


def test_a_child_that_fails_makes_no_sigchld() -> None:
    def count() -> int:
        seen = []
        signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
        for name, shape in SHAPES.items():
            if name != "init":  # which is a program by the time that its own cannot be found
                with pytest.raises(FileNotFoundError):
                    run(["/nonexistent"], **shape)
        return len(seen)

    assert in_child(count) == 0


# Rights


def capabilities(**options: Any) -> dict[str, int]:
    lines = output(["cat", "/proc/self/status"], **options).splitlines()
    return {line[:6]: int(line[8:], 16) for line in lines if line.startswith("Cap")}


@pytest.mark.parametrize("options", [{}, {"uid": 0}, {"uid_map": "root", "new": USER}, support.with_time({"new": ALL})])
@pytest.mark.incident("A11")
def test_no_capability_is_inheritable(options: dict[str, Any]) -> None:
    given = {"new": OWN, **options}
    given["new"] |= OWN
    if OWN and "uid" in given:
        given["uid_map"] = "root"
    found = capabilities(**given)
    assert found["CapInh"] == found["CapAmb"] == 0


@needs_root
def test_ids_of_subprocess() -> None:
    def ids(**options: Any) -> list[list[str]]:
        lines = output(["cat", "/proc/self/status"], new=UTS, **options).splitlines()
        return [line.split()[1:] for line in lines if line.startswith(("Uid:", "Gid:", "Groups:"))]

    found = ids(user=65534, group=65533, extra_groups=[1, 2])
    assert found == [["65534"] * 4, ["65533"] * 4, ["1", "2"]]
    assert ids(extra_groups=[]) == [["0"] * 4, ["0"] * 4, []]
    assert ids(user="nobody") == [["65534"] * 4, ["0"] * 4, list(map(str, os.getgroups()))]


@needs_root
def test_our_dumpable_flag_stays() -> None:
    """A child that shares our memory and changes its ids makes us undumpable, for a moment."""

    def flags() -> list[int]:
        found = []
        for value in (1, 0):
            support.prctl(4, value)
            for options in ({"uid": 65534}, {"user": 65534}, {"gid": 1}, {"uid": 0}):
                run(["true"], new=UTS, **options)
                found.append(support.prctl(3))
        return found

    assert in_child(flags) == [1] * 4 + [0] * 4


@needs_root
@pytest.mark.incident("A2")
def test_we_are_hidden_while_joining() -> None:
    """Root of a namespace that is joined could read our memory through the child (CVE-2016-9962)."""

    def watch() -> tuple[set[int], int]:
        seen: set[int] = set()
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                seen.add(support.prctl(3))

        with Popen(["sleep", "60"], new=PID | USER | UTS, uid_map="root") as target:
            thread = threading.Thread(target=look)
            thread.start()
            for _ in range(10):
                run(["true"], enter=target)
            stop.set()
            thread.join()
            target.kill()
        return seen, support.prctl(3)

    assert in_child(watch) == ({0, 1}, 1)


@needs_root
def test_overlapping_spawns_restore_the_dumpable_flag() -> None:
    def overlap() -> int:
        boxes = [Namespace(UTS, uid=65534), Namespace(UTS), Namespace(IPC, gid=1)]
        threads = [threading.Thread(target=lambda b=box: [b.run(["true"]) for _ in range(10)]) for box in boxes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return support.prctl(3)

    assert in_child(overlap) == 1


# Namespaces


def inodes(**options: Any) -> dict[str, int]:
    script = "for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done"
    pairs = [line.rstrip("]").split(":[") for line in output([SH, "-c", script], **options).split()]
    return {name: int(number) for name, number in pairs}


def own() -> dict[str, int]:
    return {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in ("cgroup ipc mnt net pid time user uts".split())}


@needs_root
@pytest.mark.parametrize("name", [*"cgroup ipc mnt net pid user uts".split(), support.with_time("time")])
def test_each_type_alone(name: str, leak_check: None) -> None:
    before = own()
    found = inodes(new=name)
    assert {key for key in before if found[key] != before[key]} == {name}
    assert own() == before


def all_and_again() -> tuple[set[str], bool, bool]:
    before = own()
    with Popen(["sleep", "60"], new=ALL, uid_map="root") as process:
        made = {file.type.name.lower(): file.inode for file in process.namespaces}  # type: ignore[union-attr]
        joined = inodes(enter=process)
        process.kill()
    return {name for name in before if made[name] != before[name]}, made == joined, own() == before


@support.needs_kernel("time")
@pytest.mark.incident("B2", "A35")
def test_all_eight_made_and_joined_again() -> None:
    everything = set("cgroup ipc mnt net pid time user uts".split())
    assert all_and_again() == (everything, True, True)
    assert as_user(all_and_again) == (everything, True, True)


@needs_root
@pytest.mark.parametrize("name", [*"cgroup ipc mnt net pid uts".split(), support.with_time("time")])
def test_each_type_joined_alone(name: str, leak_check: None) -> None:
    before = own()
    with Popen(["sleep", "60"], new=name) as process:
        found = inodes(enter=enter(process, name))
        assert {key for key in before if found[key] != before[key]} == {name}
        process.kill()


@needs_root
@support.needs_kernel("time")
@pytest.mark.parametrize("options", [{}, {"uid": 65534}, {"user": 65534}, {"uid": 65534, "ambient": ["net_admin"]}])
@pytest.mark.incident("A35")
def test_joined_time_takes_no_rights_along(options: dict[str, Any]) -> None:
    """The capability that the second stage needs is gone when the program runs."""
    with Popen(["sleep", "60"], new=TIME, monotonic=100000) as process:
        joined = enter(process, "time", **{k: v for k, v in options.items() if k != "user"})
        call = {"user": options["user"]} if "user" in options else {}
        lines = joined.run(["cat", "/proc/self/status"], **call, stdout=subprocess.PIPE, text=True).stdout
        process.kill()
    found = {line[:6]: int(line[8:], 16) for line in lines.splitlines() if line.startswith("Cap")}
    wanted = 1 << 12 if "ambient" in options else 0
    assert (found["CapInh"], found["CapAmb"]) == (wanted, wanted)
    if options:
        assert found["CapPrm"] == found["CapEff"] == wanted


@needs_root
@support.needs_kernel("time")
def test_joined_time_and_descriptors(calls: str) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        with Popen(["sleep", "60"], new=TIME) as process:
            box = enter(process, "time")
            assert python(LIST_FDS, enter=box, stdin=subprocess.DEVNULL, pass_fds=[fd]) == f"0 1 2 {fd}\n"
            assert box.run([SH, "-c", "exit 6"]).returncode == 6
            with pytest.raises(FileNotFoundError) as caught:
                box.run(["nonexistent-program"])
            assert caught.value.filename == "nonexistent-program"
            with pytest.raises(PermissionError):
                box.run(["/etc/passwd"])
            process.kill()
    finally:
        os.close(fd)


@needs_root
@support.needs_kernel("time")
def test_joined_time_while_others_fork() -> None:
    """Forks that live on hold what should tell that the program runs."""

    def join() -> float:
        stop = threading.Event()
        forked: list[int] = []

        def fork() -> None:
            while not stop.is_set() and len(forked) < 300:
                pid = support.fork()
                if pid == 0:
                    time.sleep(20)
                    os._exit(0)
                forked.append(pid)

        with Popen(["sleep", "60"], new=TIME) as process:
            box = enter(process, "time")
            thread = threading.Thread(target=fork)
            thread.start()
            started = time.monotonic()
            for _ in range(20):
                box.run(["true"])
            took = time.monotonic() - started
            stop.set()
            thread.join()
            process.kill()
        for pid in forked:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return took

    assert in_child(join) < 10


@needs_root
def test_joined_and_new_in_one_spawn() -> None:
    with Popen(["sleep", "60"], new=NET | UTS, hostname="joined") as process:
        before, theirs = own(), {f.type.name.lower(): f.inode for f in process.namespaces}  # type: ignore[union-attr]
        found = inodes(enter=enter(process, NET | UTS), new=PID | MNT | IPC)
        assert {name for name in found if found[name] == theirs[name] != before[name]} == {"net", "uts"}
        assert {name for name in found if found[name] not in (theirs[name], before[name])} == {"pid", "mnt", "ipc"}
        script = "hostname; echo $$ $PPID"
        assert output([SH, "-c", script], enter=enter(process, UTS), new=PID | MNT) == "joined\n2 1\n"
        process.kill()


def pid_of(pidfd: int) -> int:
    return int(Path(f"/proc/self/fdinfo/{pidfd}").read_text().partition("Pid:")[2].split()[0])


@needs_root
@pytest.mark.parametrize(
    ("new", "options", "pid"),
    [
        (PID | MNT, {}, "2"),
        (PID | UTS, {"init": False}, "1"),
        (PID | MNT | USER, {"uid_map": "root"}, "2"),
        support.with_time(PID | MNT | TIME, {"monotonic": 99}, "2"),
        (PID, {"init": False, "kill_child": True}, "1"),
    ],
)
def test_a_pid_namespace_within_one_that_the_block_joined(
    new: NSType, options: dict[str, Any], pid: str, calls: str
) -> None:
    """The children of the thread go elsewhere: clone(2) refuses to make a PID namespace there."""
    with Namespace(PID).create() as outer:
        recipe = Namespace(new, **options)
        with enter(outer.pid):
            assert recipe.run([SH, "-c", "test $$ = " + pid]).returncode == 0
            with recipe.popen(["sleep", "60"]) as process:
                try:
                    made = process.namespaces.pid
                    assert made.parent() == outer.pid
                    assert process.returncode is None
                    assert process.pid == pid_of(process.pidfd)
                finally:
                    process.kill()
        if "kill_child" not in options and options.get("init") is not False:
            with enter(outer.pid), recipe.create() as inner:
                assert inner.pid.parent() == outer.pid
        process.kill()


@needs_root
def test_a_program_in_a_joined_pid_namespace_is_our_child() -> None:
    with Popen(["sleep", "60"], new=PID | MNT) as target:
        with Popen([SH, "-c", "echo $$; exec sleep 60"], enter=target, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline()) > 1
            assert process.pid == process.program_pid
            stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            assert int(stat[1]) == os.getpid()
            target.kill()
            assert process.wait(5) == -9


def test_ranges_are_written_from_outside() -> None:
    if not ROOT:
        pytest.skip("needs root")
    script = "cat /proc/self/uid_map; id -u; id -g"
    said = output([SH, "-c", script], new=USER | PID, uid_map="0:0:1000", gid_map="0:0:1000").split()
    assert said == ["0", "0", "1000", "0", "0"]


@needs_root
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
@each_shape
def test_filtered_calls(shape: str, error: int) -> None:
    """What container engines refuse, each in its way: the older calls serve."""

    def start() -> tuple[str, int]:
        extra = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
        os.set_inheritable(extra[0], True)
        support.refuse_calls("clone3", "close_range", "memfd_create", error=error)
        listed = python(LIST_FDS, **SHAPES[shape], stdin=subprocess.DEVNULL)
        return listed, run([SH, "-c", "exit 12"], **SHAPES[shape]).returncode

    assert in_child(start) == ("0 1 2\n", 12)


# Failures

NOWHERE = "/nonexistent"
FAILURES: list[tuple[dict[str, Any], list[str], type[OSError], str, str | None]] = [
    ({}, ["nonexistent-program"], FileNotFoundError, "run ", "nonexistent-program"),
    ({}, ["/nonexistent"], FileNotFoundError, "run ", "/nonexistent"),
    ({}, ["/etc/passwd"], PermissionError, "run ", "/etc/passwd"),
    ({}, ["/etc"], PermissionError, "run ", "/etc"),
    ({"cwd": "/nonexistent"}, ["true"], FileNotFoundError, "working directory", "/nonexistent"),
    ({"cwd": "/etc/passwd"}, ["true"], NotADirectoryError, "working directory", "/etc/passwd"),
    ({"new": MNT, "mounts": [Bind(NOWHERE, "/mnt")]}, ["true"], FileNotFoundError, NOWHERE, NOWHERE),
    ({"new": MNT, "mounts": [Tmpfs(NOWHERE)]}, ["true"], FileNotFoundError, NOWHERE, NOWHERE),
    ({"new": MNT, "root": NOWHERE}, ["true"], FileNotFoundError, NOWHERE, NOWHERE),
    ({"new": MNT | USER, "mounts": [Sysfs("/sys")]}, ["true"], PermissionError, "sysfs", "/sys"),
    ({"new": USER, "uid_map": "0:4000000000:1", "uid": 5}, ["true"], OSError, "set uid 5", None),
]


@needs_root
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure[3].strip()}-{failure[1][0]}")
@each_shape
@pytest.mark.incident("B7")
def test_failures(failure: tuple[Any, ...], shape: str, leak_check: None) -> None:
    options, args, kind, step, filename = failure
    new = SHAPES[shape]["new"] | options.get("new", 0)
    with pytest.raises(kind) as caught:
        run(args, **{**SHAPES[shape], **options, "new": new})
    assert step in caught.value.step  # type: ignore[attr-defined]
    assert caught.value.filename == filename
    assert hasattr(caught.value, "hint")


def test_the_kernel_makes_no_more_namespaces() -> None:
    code = f"import sys\nsys.path[:0] = {sys.path!r}\nfrom pathlib import Path\nfrom nsutil import UTS, run\n"
    code += "Path('/proc/sys/user/max_uts_namespaces').write_text('0')\n"
    code += "try: run(['true'], new=UTS)\nexcept OSError as e: print(e.errno, e.step)"
    assert output([sys.executable, "-c", code], new=USER, uid_map="root") == f"{errno.ENOSPC} clone(UTS)\n"


@needs_root
@pytest.mark.parametrize("shape", [*SHAPES, "joined", "joined with init", "joined with waiter"])
@pytest.mark.incident("B7")
def test_failures_inside_leave_nothing(shape: str, leak_check: None) -> None:
    """At each part of the way, in each shape: no zombie, descriptor, mount or thread."""
    with Popen(["sleep", "60"], new=PID | UTS | MNT) as target:
        into = {
            "joined": {"enter": target},
            "joined with init": {"enter": enter(target, "uts"), "new": PID | MNT},
            "joined with waiter": {"enter": target, "kill_child": True},
        }
        options = SHAPES.get(shape) or into[shape]
        for wrong in ({"cwd": "/nonexistent"}, {"rlimits": {resource.RLIMIT_NOFILE: (2**40, 2**40)}}):
            with pytest.raises(OSError):
                run(["true"], **{**options, **wrong})
        with pytest.raises(OSError):
            run(["/nonexistent"], **options)
        target.kill()


def test_a_subreaper_gets_no_zombie() -> None:
    """Children of failed children would come to the nearest subreaper, and that may be us."""

    def fail() -> set[int]:
        support.prctl(36, 1)
        for shape in SHAPES.values():
            with pytest.raises(FileNotFoundError):
                run(["/nonexistent"], **shape)
        return support.children()

    assert in_child(fail) == set()


@needs_root
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.incident("A3")
def test_a_directory_outside_the_root(shape: str) -> None:
    """A directory kept open from outside would be a way out (CVE-2024-21626)."""
    fd = os.open("/", os.O_RDONLY)
    try:
        for cwd in (f"/proc/self/fd/{fd}", f"/proc/{os.getpid()}/fd/{fd}", fd):
            box = {**SHAPES[shape], "new": SHAPES[shape]["new"] | MNT, "root": "/usr", "mount_proc": True}
            with pytest.raises(OSError):
                run(["/bin/true"], **box, cwd=cwd)
    finally:
        os.close(fd)


# Strain


def test_our_memory_is_not_copied() -> None:
    """A copy would leave each page to be taken back, with a fault, when it is written to again."""
    pages = 4096

    def faults(start: Callable[[], object]) -> int:
        with mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            for at in range(0, len(memory), mmap.PAGESIZE):
                memory[at] = 1
            start()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for at in range(0, len(memory), mmap.PAGESIZE):
                memory[at] = 2
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def measure() -> tuple[int, int]:
        box = Namespace(UTS | OWN)
        return faults(lambda: box.run(["true"])), faults(lambda: box.call(int))

    shared, copied = in_child(measure, timeout=60)
    assert copied >= pages
    assert shared < pages // 8


def start_many(seed: int, count: int, problems: list[str]) -> None:
    """Programs of all shapes, some of which do not exist."""
    boxes = [Namespace(UTS | OWN), Namespace(IPC | OWN, kill_child=True), Namespace(PID | OWN), Namespace(NET | OWN)]
    chance = random.Random(seed)
    for turn in range(count):
        box = boxes[0] if turn % 8 else chance.choice(boxes)
        code = chance.randrange(256)
        try:
            if turn % 5 == 0:
                with pytest.raises(FileNotFoundError):
                    box.run(["/nonexistent"])
            elif (found := box.run([SH, "-c", f"exit {code}"], timeout=60).returncode) != code:
                problems.append(f"{found} instead of {code}")
        except BaseException as e:
            problems.append(repr(e))


def allocate(stop: threading.Event) -> None:
    while not stop.is_set():
        blocks = [bytearray(random.randrange(1, 200_000)) for _ in range(50)]
        del blocks


def disturb(stop: threading.Event) -> None:
    while not stop.is_set():
        os.kill(os.getpid(), signal.SIGUSR1)
        pid = support.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(0.002)


@pytest.mark.slow
def test_a_thousand_starts_from_eight_threads() -> None:
    """Under signals, allocations and forks of other threads."""

    def strain() -> tuple[list[str], set[int]]:
        stop, problems = threading.Event(), list[str]()
        signal.signal(signal.SIGUSR1, lambda *_: None)
        helpers = [threading.Thread(target=work, args=[stop]) for work in (allocate, disturb)]
        threads = [threading.Thread(target=start_many, args=[seed, 125, problems]) for seed in range(8)]
        for thread in helpers + threads:
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        for thread in helpers:
            thread.join()
        return problems[:10], support.children()

    assert in_child(strain, timeout=110) == ([], set())


def test_threads_start_programs_side_by_side() -> None:
    """The GIL is free while a child starts and while it runs."""
    box = Namespace(UTS | OWN)
    started = time.monotonic()
    threads = [threading.Thread(target=box.run, args=[["sleep", "0.4"]]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 1.2
