"""nsutil-init: PID 1 and the waiter, seen from outside and inside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
from support import as_user, in_child, needs_root

from nsutil import MNT, PID, USER, UTS, Popen, run

ROOT = os.geteuid() == 0
OWN = 0 if ROOT else USER
SH = "/bin/sh"

# How a program can be run: as a child of the caller, of PID 1, or of a waiter; or being PID 1.
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"new": UTS | OWN},
    "init": {"new": PID | OWN},
    "waiter": {"new": UTS | OWN, "kill_child": True},
    "pid 1": {"new": PID | OWN, "init": False},
    "pid 1 and waiter": {"new": PID | OWN, "init": False, "kill_child": True},
}
each_shape = pytest.mark.parametrize("shape", SHAPES)


# An interpreter for each of hundreds of programs would take minutes.
EXIT_SOURCE = r"""
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (argv[1][0] != '-')
        return atoi(argv[1]);
    signal(atoi(argv[1] + 1), SIG_DFL);
    kill(getpid(), atoi(argv[1] + 1));
    return 250;
}
"""


@pytest.fixture(scope="module")
def exit_as(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that exits with a code, or by the signal -N."""
    folder = tmp_path_factory.mktemp("exit")
    (folder / "exit.c").write_text(EXIT_SOURCE)
    subprocess.run(["cc", "-O1", "-static", "-o", folder / "exit", folder / "exit.c"], check=True, timeout=60)
    return str(folder / "exit")


def until(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Whatever is true in the end."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return result


def is_gone(pid: int) -> bool:
    """No such process, or nothing but its entry in the table."""
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True


def read_pid(process: Popen[Any]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


# How a program ends


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["plain", "init", "waiter"])
def test_every_exit_code(shape: str, exit_as: str, leak_check: None) -> None:
    run([exit_as, "0"], **SHAPES[shape])
    codes = [run([exit_as, str(code)], **SHAPES[shape]).returncode for code in range(256)]
    assert codes == list(range(256))


@pytest.mark.parametrize("shape", ["plain", "init", "waiter"])
def test_every_fatal_signal(shape: str, exit_as: str) -> None:
    harmless = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    stopping = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    for number in sorted(signal.valid_signals() - harmless - stopping):
        assert run([exit_as, f"-{int(number)}"], **SHAPES[shape]).returncode == -number


@each_shape
def test_exit_and_signal_are_told_apart(shape: str) -> None:
    assert run([SH, "-c", "exit 137"], **SHAPES[shape]).returncode == 137
    if "pid 1" not in shape:  # which ignores its own signals
        assert run([SH, "-c", "kill -KILL $$"], **SHAPES[shape]).returncode == -9


def test_waiter_itself_ends_like_the_program() -> None:
    """Whoever waits by waitpid() sees the same as by the handle."""

    def wait() -> tuple[int, int]:
        statuses = []
        for script in ("exit 9", "kill -TERM $$"):
            process = Popen([SH, "-c", script], **SHAPES["waiter"])
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]))
            process.returncode = 0
        return statuses[0], statuses[1]

    assert in_child(wait) == (9, -15)


def test_init_exits_as_a_shell_would_say() -> None:
    """PID 1 cannot die by a signal of its own: 128 + N for others; the handle knows better."""
    process = Popen([SH, "-c", "kill -TERM $$"], **SHAPES["init"])
    assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 143
    assert process.wait() == -15


# Reaping


@pytest.mark.incident("A28")
def test_orphans_are_reaped() -> None:
    script = """
        for i in $(seq 100); do (sleep 0.02 &) ; done
        sleep 0.3
        for f in /proc/[0-9]*; do read -r a b state rest < $f/stat; echo $state; done
    """
    states = run([SH, "-c", script], new=PID | MNT | OWN, capture_output=True, text=True).stdout.split()
    assert "Z" not in states
    assert len(states) <= 4


def test_the_program_is_not_pid_1() -> None:
    assert run([SH, "-c", "echo $$ $PPID"], **SHAPES["init"], capture_output=True).stdout == b"2 1\n"
    assert run([SH, "-c", "echo $$ $PPID"], **SHAPES["pid 1"], capture_output=True).stdout == b"1 0\n"


def test_nothing_outlives_the_program() -> None:
    """The namespace ends with the program, even if it left others behind."""
    with Popen([SH, "-c", "sleep 60 >/dev/null & exit 3"], **SHAPES["init"]) as process:
        assert process.wait(5) == 3
        assert until(lambda: is_gone(process.pid))


# Signals

TRAP = "trap 'exit 33' {0}; echo $$; while :; do sleep 0.02; done"


@pytest.mark.parametrize("shape", ["plain", "init", "waiter"])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "WINCH", "RTMIN"])
@pytest.mark.incident("A26")
def test_signals_reach_the_program(shape: str, name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    trap = f"trap 'exit 33' {int(number)}; echo $$; while :; do sleep 0.02; done"
    with Popen(["bash", "-c", trap], **SHAPES[shape], stdout=subprocess.PIPE) as process:
        read_pid(process)
        process.send_signal(number)
        assert process.wait(5) == 33


@each_shape
def test_kill(shape: str) -> None:
    with Popen(["sleep", "60"], **SHAPES[shape]) as process:
        process.kill()
        assert process.wait(5) == -9


@pytest.mark.parametrize("shape", ["plain", "init", "waiter"])
@pytest.mark.incident("A24")
def test_terminate(shape: str) -> None:
    with Popen(["sleep", "60"], **SHAPES[shape]) as process:
        process.terminate()
        assert process.wait(5) == -15
        process.terminate()


@pytest.mark.parametrize("shape", ["plain", "init", "waiter"])
def test_stop_and_continue(shape: str) -> None:
    def state() -> str:
        return Path(f"/proc/{process.program_pid}/stat").read_text().rpartition(")")[2].split()[0]

    with Popen(["sleep", "60"], **SHAPES[shape]) as process:
        process.send_signal(signal.SIGSTOP)
        assert until(lambda: state() == "T")
        process.send_signal(signal.SIGCONT)
        assert until(lambda: state() == "S")
        process.kill()


@pytest.mark.incident("A25")
def test_kill_ends_the_whole_tree() -> None:
    script = "sleep 61 & sleep 61 & setsid sleep 61 & echo $$; wait"
    with Popen([SH, "-c", script], **SHAPES["init"], stdout=subprocess.PIPE) as process:
        read_pid(process)
        tree = descendants(process.pid)
        assert len(tree) == 4
        process.kill()
        assert process.wait(5) == -9
    assert until(lambda: all(map(is_gone, tree)))


def test_terminal_signals_come_once() -> None:
    """^C goes to the whole foreground group: what init hands on would be the second one."""
    script = "import signal, os; n = 0\n"
    script += "def count(*a):\n global n; n += 1; os.write(1, b'!')\n"
    script += "signal.signal(signal.SIGINT, count); os.write(1, b'#')\n"
    script += "import time\nfor i in range(40): time.sleep(0.01)\n"
    leader, follower = support.openpty()

    def session() -> int:
        os.setsid()
        import fcntl
        import termios

        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        trap = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n{script}"
        command = [sys.executable, "-I", "-S", "-c", trap]
        return run(command, **SHAPES["init"], stdin=follower, stdout=follower).returncode

    pid = support.fork()
    if pid == 0:
        try:
            os._exit(session())
        finally:
            os._exit(99)
    try:
        assert read_until(leader, b"#")
        os.write(leader, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        os.set_blocking(leader, False)
        assert os.read(leader, 100).count(b"!") == 1
    finally:
        os.close(leader)
        os.close(follower)


def read_until(fd: int, mark: bytes) -> bool:
    seen = b""
    while mark not in seen:
        seen += os.read(fd, 1)
    return True


def descendants(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in descendants(child)]


# The end of the parent


def orphaned_tree(kill_child: Any, shape: dict[str, Any], script: str, out: Path) -> list[int]:
    """A tree whose maker was killed: the pids of its handle, program and the program's children."""

    def make() -> None:
        process = Popen([SH, "-c", script], **shape, kill_child=kill_child, stdout=subprocess.PIPE)
        read_pid(process)
        pids = [process.pid, process.program_pid, *descendants(process.program_pid or 0)]
        out.write_text(" ".join(map(str, pids)))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(support.ChildFailed, match="SIGKILL"):
        in_child(make)
    return [int(pid) for pid in out.read_text().split()]


ENDING = [
    ({"new": PID | OWN}, None),
    ({"new": PID | OWN}, True),
    ({"new": PID | OWN, "init": False}, True),
    ({"new": UTS | OWN}, True),
    ({}, True),
]


@pytest.mark.parametrize(("shape", "kill_child"), ENDING)
@pytest.mark.incident("A22")
def test_the_tree_ends_with_its_maker(shape: dict[str, Any], kill_child: Any, tmp_path: Path) -> None:
    pids = orphaned_tree(kill_child, shape, "sleep 62 & setsid sleep 62 & echo $$; wait", tmp_path / "pids")
    assert len(set(pids)) >= 3
    try:
        assert until(lambda: all(map(is_gone, pids)))
    finally:
        end(pids)


@pytest.mark.parametrize(("shape", "kill_child"), [({"new": PID | OWN}, False), ({"new": UTS | OWN}, None)])
def test_the_tree_lives_on(shape: dict[str, Any], kill_child: Any, tmp_path: Path) -> None:
    pids = orphaned_tree(kill_child, shape, "echo $$; sleep 63 & wait", tmp_path / "pids")
    try:
        time.sleep(0.1)
        assert not any(map(is_gone, pids))
    finally:
        end(pids)


@pytest.mark.parametrize("shape", [{"new": PID | OWN}, {"new": UTS | OWN}])
@pytest.mark.incident("A23")
def test_the_signal_is_the_callers_choice(shape: dict[str, Any], tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = f"trap 'echo bye > {note}; exit' TERM; echo $$; while :; do sleep 0.02; done"
    pids = orphaned_tree("TERM", shape, script, tmp_path / "pids")
    try:
        assert until(lambda: note.exists() and note.read_text() == "bye\n")
        assert until(lambda: all(map(is_gone, pids[:2])))
    finally:
        end(pids)


def test_a_fork_of_the_maker_does_not_keep_the_tree(tmp_path: Path) -> None:
    """Only the maker counts, not who else holds its descriptors."""
    maker = support.fork()
    if maker == 0:
        process = Popen([SH, "-c", "echo $$; exec sleep 64"], new=PID | OWN, stdout=subprocess.PIPE)
        read_pid(process)
        sibling = support.fork()
        if sibling == 0:
            time.sleep(20)
            os._exit(0)
        (tmp_path / "pids").write_text(f"{process.pid} {process.program_pid} {sibling}")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(maker, 0)
    *tree, sibling = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    try:
        assert until(lambda: all(map(is_gone, tree)))
        assert not is_gone(sibling)
    finally:
        end([*tree, sibling])


def end(pids: list[int]) -> None:
    """Should a test have failed; by then their numbers are still theirs, or nobody's."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # PID 1 takes the others along
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


@each_shape
@pytest.mark.incident("A21")
def test_a_short_lived_thread_may_be_the_maker(shape: str) -> None:
    import threading

    made: list[Popen[Any]] = []
    thread = threading.Thread(target=lambda: made.append(Popen(["sleep", "60"], **SHAPES[shape])))
    thread.start()
    thread.join()
    with made[0] as process:
        time.sleep(0.1)
        assert process.poll() is None
        process.kill()


# What init is


def memory(pid: int) -> int:
    """Proportional set size in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@needs_root
@pytest.mark.parametrize("shape", ["init", "waiter"])
def test_init_is_small_and_holds_nothing(shape: str) -> None:
    with Popen(["sleep", "60"], **SHAPES[shape], cwd="/usr") as process:
        pid = process.pid
        assert memory(pid) <= 64
        held = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        kinds = sorted(target.split(":")[0].removeprefix("anon_inode") for target in held.values())
        assert kinds == ["", "", "socket"]
        assert sorted(held.values())[:2] == ["anon_inode:[pidfd]", "anon_inode:[signalfd]"]
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert Path(f"/proc/{pid}/comm").read_text() == "nsutil-init\n"
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        process.kill()


@needs_root
@pytest.mark.incident("A1")
def test_init_cannot_be_changed_from_inside() -> None:
    """Root of the namespaces must not get at what the next ones will run (CVE-2019-5736)."""
    script = "exec 3>/proc/1/exe"
    box = {"new": PID | MNT | USER, "uid_map": "root"}
    done = run([SH, "-c", script], **box, capture_output=True, text=True)
    assert done.returncode != 0
    with Popen(["sleep", "60"], **box) as process:
        with pytest.raises(OSError):
            os.open(f"/proc/{process.pid}/exe", os.O_WRONLY)
        fd = os.open(f"/proc/{process.pid}/exe", os.O_RDONLY)
        process.kill()
        process.wait()
        # What still holds the file once nobody runs it can write to it no more than before, where it has seals.
        try:
            if support.lacks("memfd"):
                return
            writable = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            with pytest.raises(PermissionError):
                os.write(writable, b"x")
            with pytest.raises(PermissionError):
                os.ftruncate(writable, 0)
            os.close(writable)
        finally:
            os.close(fd)


@pytest.mark.incident("A1")
def test_init_is_not_dumpable() -> None:
    def look() -> bool:
        # Root is not mapped: what is hidden belongs to the root outside.
        with Popen(["sleep", "60"], new=PID | USER, uid_map="current") as process:
            assert until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "nsutil-init\n")
            hidden = os.stat(f"/proc/{process.pid}/environ").st_uid == 0
            process.kill()
        return hidden

    assert as_user(look)


# Where a memfd may not be executed


@needs_root
def test_without_executable_memfds(leak_check: None) -> None:
    """vm.memfd_noexec is a limit of a PID namespace and those below it."""
    if not Path("/proc/sys/vm/memfd_noexec").exists():
        pytest.skip("this kernel lets every memfd be executed")
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
open("/proc/sys/vm/memfd_noexec", "w").write("2")
import os, nsutil
from nsutil import PID, Popen
from nsutil import run
assert run(["sh", "-c", "exit 7"], new=PID).returncode == 7
before = len(os.listdir("/proc/self/fd"))
with Popen(["sleep", "60"], new=PID) as process:
    print(os.readlink(f"/proc/{{process.pid}}/exe"))
    process.kill()
assert before == len(os.listdir("/proc/self/fd"))
"""
    done = run([sys.executable, "-c", code], new=PID | MNT, capture_output=True, text=True)
    assert done.stderr == ""
    assert "memfd" not in done.stdout
    assert "(deleted)" in done.stdout


def test_init_alone() -> None:
    """Without arguments it does nothing."""

    def execute() -> None:
        process = Popen(["sleep", "60"], new=PID | USER)
        exe = os.open(f"/proc/{process.pid}/exe", os.O_RDONLY)
        process.kill()
        process.wait()
        os.set_inheritable(exe, True)
        assert subprocess.run([f"/proc/self/fd/{exe}"], pass_fds=[exe], timeout=5, check=False).returncode == 0

    if ROOT:
        in_child(execute)
    else:
        pytest.skip("init's file is for root to open")
