"""Ways through the code that nobody takes on purpose: what is dropped, refused, or older than this kernel."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import faulthandler
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import older_kernel
import pytest
import support
from support import as_user, in_child, must, needs_root, ns_inodes, paused, prctl, private_mounts, refuse_calls

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, Namespace, RestoreError, _ns

pytestmark = needs_root


def moved(before: dict[str, int | None]) -> set[str]:
    return {name for name, inode in ns_inodes().items() if inode != before[name]}


def on_thread(func: Callable[[], object]) -> None:
    thread = threading.Thread(target=func)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


# Blocks that are entered by hand, as `with` does, and dropped


def enter_by_hand(types: Any = UTS) -> list[Any]:
    """All there is of a block that was entered: its exit, to be called or dropped."""
    box = Namespace(types)
    leave = box.__exit__
    box.__enter__()
    return [leave]


needs_gil = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="without a GIL the thread that made an object is the one that frees it: a block's own thread, at once",
)


def test_dropped_block_is_left() -> None:
    before = ns_inodes()
    held = enter_by_hand(UTS | IPC)
    assert moved(before) == {"uts", "ipc"}
    held.clear()
    assert moved(before) == set()


@needs_gil
def test_block_dropped_on_another_thread_is_left_by_its_owners_next() -> None:
    before = ns_inodes()
    held = enter_by_hand()
    on_thread(held.clear)
    assert moved(before) == {"uts"}, "another thread cannot leave it"
    with Namespace(IPC):
        assert moved(before) == {"ipc"}
    assert moved(before) == set()


def test_block_left_by_hand_on_another_thread_stays_entered() -> None:
    before, said = ns_inodes(), []

    def leave() -> None:
        try:
            held[0](None, None, None)
        except RuntimeError as error:
            said.append(str(error))

    held = enter_by_hand()
    on_thread(leave)
    assert moved(before) == {"uts"}
    assert re.search(r"entered on thread \d+ and left on thread \d+", said[0])
    held[0](None, None, None)
    assert moved(before) == set()


def close_saved() -> None:
    """The way back of the UTS namespace, as a program that closes what it does not know would."""
    for name in os.listdir("/proc/self/fd"):
        if "uts:[" in _target(name):
            os.close(int(name))


@needs_gil
def test_block_dropped_on_another_thread_that_cannot_be_left_is_an_error_of_its_owners_next() -> None:
    def body() -> tuple[int, str]:
        held = enter_by_hand()
        on_thread(held.clear)
        close_saved()
        with pytest.raises(RestoreError) as info, Namespace(IPC):
            pass
        with pytest.raises(RestoreError, match="earlier block"), Namespace(IPC):
            pass
        return info.value.types, str(info.value)

    types, text = in_child(body)
    assert types == UTS
    assert "closed inside the block" in text


def test_block_dropped_in_a_forked_child_is_left_by_nobody() -> None:
    """The child stays where it was forked, and has no descriptor of the block's left; the parent's block holds."""

    def child(drop: Callable[[Callable[[], object]], object]) -> set[str]:
        count = len(os.listdir("/proc/self/fd"))
        drop(held.clear)
        with Namespace(IPC):
            pass
        assert len(os.listdir("/proc/self/fd")) == count - 1
        return moved(before)

    before = ns_inodes()
    held = enter_by_hand()
    assert in_child(child, lambda func: func()) == {"uts"}
    assert in_child(child, on_thread) == {"uts"}
    assert moved(before) == {"uts"}
    held.clear()
    assert moved(before) == set()


def test_dropped_block_that_cannot_be_left_is_shown_and_marks_the_thread() -> None:
    def body() -> tuple[str, str, str]:
        shown = []
        sys.unraisablehook = shown.append
        held = enter_by_hand()
        close_saved()
        with pytest.raises(KeyError) as kept:
            list(one_and_an_error(held))
        with pytest.raises(RestoreError) as info, Namespace(IPC):
            pass
        return type(shown[0].exc_value).__name__, str(info.value), str(kept.value)

    def one_and_an_error(held: list[Any]) -> Iterator[Any]:
        """list() drops what it has with the exception on its way."""
        yield held.pop()
        raise KeyError("on the way when it is dropped")

    kind, text, kept = in_child(body)
    assert kind == "RestoreError"
    assert "uts" in text
    assert "on the way" in kept


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_exit_without_a_block_says_so(leak_check: None) -> None:
    box = Namespace(UTS)
    with pytest.raises(RuntimeError, match="not entered"):
        box.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="no block of this recipe"):
        Namespace.__exit__(box, None, None, None)
    with pytest.raises(TypeError, match="recipe"):
        Namespace.__exit__()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no arguments"):
        box.__enter__(1)  # type: ignore[call-arg]


def test_exit_by_name_leaves_the_innermost_block() -> None:
    before, box = ns_inodes(), Namespace(UTS)
    with box:
        outer = ns_inodes()
        with box:
            assert moved(outer) == {"uts"}
            Namespace.__exit__(box, None, None, None)
            assert moved(outer) == set()
            box.__enter__()
    assert moved(before) == set()


def test_mnt_blocks_left_out_of_order_keep_the_way_home() -> None:
    def body() -> tuple[set[str], bool]:
        os.chdir("/tmp")
        before, root = ns_inodes(), os.stat("/").st_ino
        outer, inner = enter_by_hand(MNT), enter_by_hand(MNT)
        with pytest.raises(RuntimeError, match="out of order"):
            outer[0](None, None, None)
        inner[0](None, None, None)
        return moved(before), os.getcwd() == "/tmp" and os.stat("/").st_ino == root

    assert in_child(body) == (set(), True)


def test_what_setns_without_a_type_moves_is_restored() -> None:
    before = ns_inodes()
    with paused(NET) as pid, open(f"/proc/{pid}/ns/net") as theirs, Namespace(UTS):
        nsutil.setns(theirs)
        assert moved(before) == {"uts", "net"}
    assert moved(before) == set()


def test_strict_block_cannot_say_that_all_is_well_when_proc_was_covered() -> None:
    def body() -> int:
        older_kernel.install(older_kernel.chosen("pidfd-namespaces"))
        private_mounts()
        with pytest.raises(RestoreError) as info, Namespace(UTS, strict=True):
            must("mount", b"none", b"/proc", b"tmpfs", 0, None)
        return info.value.types

    assert in_child(body) & (PID | TIME) == PID | TIME


def test_block_where_a_pidfd_opens_no_namespaces() -> None:
    """Linux 6.9 and 6.10 know pidfds of threads, and nothing to ask them for."""

    def body() -> set[str]:
        older_kernel.install(older_kernel.chosen("pidfd-namespaces"))
        before = ns_inodes()
        for _ in range(2):
            with Namespace([UTS, IPC]):
                assert moved(before) == {"uts", "ipc"}
        return moved(before)

    assert in_child(body) == set()


def test_mnt_block_of_a_process_that_never_had_a_second_thread() -> None:
    script = "import nsutil\nwith nsutil.Namespace('mnt'): pass"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(support.PACKAGE)}, check=True)


# Programs


@pytest.mark.parametrize("proc", ["", "/proc/thread-self/fd"], ids=["no /proc", "another /proc"])
def test_descriptors_are_closed_without_close_range_and_without_proc(proc: str) -> None:
    def body() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        private_mounts()
        must("mount", b"none", b"/proc", b"tmpfs", 0, None)
        os.makedirs(proc or "/proc", exist_ok=True)
        refuse_calls("close_range", error=errno.ENOSYS)
        reader, writer = os.pipe()
        os.dup2(writer, 50)
        os.set_inheritable(50, True)
        os.set_inheritable(reader, True)
        script = f"if : >&50; then exit 1; fi; if : <&{reader}; then exit 0; fi; exit 2"
        done = Namespace(UTS).run(["bash", "-c", script], pass_fds=[reader], stderr=subprocess.DEVNULL)
        return done.returncode

    assert in_child(body) == 0


def test_program_starts_in_a_directory_with_an_endless_name(tmp_path: Path) -> None:
    """Where it would have to be checked that it is below the root, it is refused."""

    def body() -> list[int]:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
        Path("here").touch()
        with pytest.raises(OSError, match="below the root") as info:
            Namespace(UTS, cwd=".").run(["true"])
        assert info.value.errno == errno.ENAMETOOLONG
        with paused(MNT) as pid:
            assert nsutil.enter(pid, MNT).run(["pwd"], capture_output=True).stdout == b"/\n"
        recipes = Namespace(UTS), Namespace(UTS | MNT), Namespace(PID | MNT)
        return [recipe.run(["sh", "-c", "test -e here"]).returncode for recipe in recipes]

    assert in_child(body) == [0, 0, 0]


def test_process_that_is_not_dumpable_maps_its_ids() -> None:
    """Its /proc files are root's: the child is dumpable for as long as it writes its maps, and no longer."""

    def body() -> tuple[str, int]:
        prctl(4, 0)  # PR_SET_DUMPABLE
        done = Namespace(USER, uid_map="root").run(["id", "-u"], capture_output=True, text=True)
        return done.stdout, prctl(3)

    assert as_user(body) == ("0\n", 0)


def test_inherited_capabilities_do_not_reach_the_program() -> None:
    def body() -> list[str]:
        status = Path("/proc/self/status").read_text()
        permitted = int(re.search(r"^CapPrm:\s*(\w+)", status, re.M)[1], 16)  # type: ignore[index]
        low, high = permitted & 0xFFFFFFFF, permitted >> 32
        header, data = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", low, low, low, high, high, high)
        assert _ns.run_plan(_ns.Plan([("capset", (header, data), -1, 0)])) is None
        command = ["sed", "-n", "s/^CapInh:[[:space:]]*//p", "/proc/self/status"]
        return [
            subprocess.run(command, capture_output=True, text=True).stdout.strip(),
            Namespace(UTS, uid=support.USER_ID).run(command, capture_output=True, text=True).stdout.strip(),
        ]

    plain, ours = in_child(body)
    assert int(plain, 16)
    assert int(ours, 16) == 0


@support.needs_kernel("time")
def test_joined_time_leaves_the_capability_for_it_where_it_was_asked_for() -> None:
    """To join takes CAP_SYS_ADMIN, which is taken back otherwise."""
    with nsutil.Popen(["sleep", "60"], new=TIME, monotonic=1000) as process:
        joined = nsutil.enter(process, TIME, uid=support.USER_ID, ambient=["sys_admin"])
        command = ["sed", "-nE", "s/^Cap(Inh|Eff|Amb):[[:space:]]*//p", "/proc/self/status"]
        lines = joined.run(command, capture_output=True, text=True).stdout.split()
        process.kill()
    assert [int(line, 16) for line in lines] == [1 << 21] * 3


MS_NOEXEC = 8


def test_what_is_taken_over_from_the_target(tmp_path: Path) -> None:
    """Its ids, working directory and root, each as the option says."""

    def target() -> None:
        os.chroot(tmp_path)
        os.chdir("/below")
        os.setresgid(4243, 4243, 4243)
        os.setresuid(4242, 4242, 4242)

    def look() -> list[int | tuple[int, int]]:
        return [os.stat("/").st_ino, os.stat(".").st_ino, os.getuid(), os.getgid()]

    (tmp_path / "below").mkdir()
    root, below, slash = (os.stat(path).st_ino for path in (tmp_path, tmp_path / "below", "/"))
    support.preload()
    with support.standing(target) as (pid, _):
        here = os.stat(".").st_ino
        for options, expected in (
            ({"uid": "target"}, [slash, here, 4242, 0]),
            ({"uid": "target", "gid": "target"}, [slash, here, 4242, 4243]),
            ({"root": True}, [root, root, 0, 0]),
            ({"root": True, "cwd": True}, [root, below, 0, 0]),
        ):
            assert nsutil.enter(pid, UTS, **options).call(look) == expected, options


def test_cgroup_by_descriptor() -> None:
    def body() -> list[str]:
        private_mounts()
        must("mount", b"none", b"/mnt", b"cgroup2", 0, None)
        os.mkdir(group)
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        try:
            command = ["sed", "-n", "s/^0:://p", "/proc/self/cgroup"]
            recipes = [Namespace(UTS, cgroup=cgroup) for cgroup in (fd, group)]
            return [recipe.run(command, capture_output=True, text=True).stdout for recipe in recipes]
        finally:
            os.rmdir(group)

    group = f"/mnt/nsutil-{os.getpid()}"
    assert in_child(body) == [f"{group.removeprefix('/mnt')}\n"] * 2


# In this order.
PLACES = ("/dev/shm", "/run", "/tmp", "/var/tmp")


@pytest.mark.parametrize("count", range(len(PLACES) + 1))
def test_init_lies_in_the_first_place_from_which_it_can_be_run(count: int) -> None:
    """Where there are no memfds, and some directories are mounted noexec."""

    def body() -> str:
        private_mounts()
        os.environ.pop("XDG_RUNTIME_DIR", None)
        for place in PLACES[:count]:
            must("mount", b"none", place.encode(), b"tmpfs", MS_NOEXEC, None)
        refuse_calls("memfd_create", error=errno.ENOSYS)
        try:
            with nsutil.Popen(["sleep", "60"], new=PID) as process:
                file = os.readlink(f"/proc/{process.pid}/exe")
                process.kill()
                return file
        except PermissionError as error:
            return str(error)

    place = PLACES[count] if count < len(PLACES) else "init"
    assert re.search(rf"^{place}/#\d+ \(deleted\)$|Permission denied.*{place}", in_child(body))


@pytest.mark.incident("D15")
@pytest.mark.parametrize("forged", ["program", "pipe"])
def test_init_is_never_a_program_that_lies_over_its_file(forged: str) -> None:
    """Without memfds, where root of a joined MNT namespace has laid something on /proc."""

    def body() -> str:
        private_mounts()
        must("mount", b"none", b"/mnt", b"tmpfs", 0, None)
        os.makedirs("/mnt/thread-self/fd")
        for fd in range(64):
            path = f"/mnt/thread-self/fd/{fd}"
            shutil.copy("/bin/true", path) if forged == "program" else os.mkfifo(path)
        support.preload()
        must("mount", b"/mnt", b"/proc", None, support.MS_BIND, None)
        refuse_calls("memfd_create", error=errno.ENOSYS)
        try:
            with nsutil.Popen(["sleep", "60"], new=PID) as process:
                process.kill()
        except PermissionError as error:
            return str(error)
        return "started"

    assert "init" in in_child(body)


def test_ambient_capability_that_one_does_not_have() -> None:
    def body() -> str:
        with pytest.raises(PermissionError) as info:
            Namespace(ambient="net_admin").run(["true"])
        return str(getattr(info.value, "step", ""))

    assert "ambient" in as_user(body)


def test_waiter_of_a_clone_that_crashed_ends_by_the_same_signal() -> None:
    """Unlike SIGKILL it can be blocked, and was."""

    def body() -> int:
        faulthandler.disable()
        pid = nsutil.clone(USER | PID)
        if pid == 0:
            ctypes.string_at(0)
        return os.waitpid(pid, 0)[1]

    assert os.waitstatus_to_exitcode(in_child(body)) == -signal.SIGSEGV


def test_waiter_of_a_clone_goes_on_when_its_child_is_stopped() -> None:
    def body() -> int:
        pid = nsutil.clone(USER | PID)
        if pid == 0:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            while True:
                signal.pause()
        (inner,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        os.kill(inner, signal.SIGSTOP)
        while " (stopped)" not in Path(f"/proc/{inner}/status").read_text():
            time.sleep(0.001)
        os.kill(inner, signal.SIGCONT)
        ended = status = 0
        while not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(inner, signal.SIGTERM)  # again, until it has come to its handler
            time.sleep(0.01)
            ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status)

    assert in_child(body) == 7


# Functions, jobs and sets


def test_function_that_cannot_be_forked_for() -> None:
    def body() -> str:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with pytest.raises(BlockingIOError) as info:
            nsutil.call(int, new=USER)
        return str(info.value)

    assert "[fork a child" in as_user(body)


def test_worker_that_cannot_be_forked() -> None:
    def body() -> str:
        with Namespace([USER, UTS]).executor(2) as pool:
            assert pool.submit(int, "7").result() == 7
            (server,) = support.children()
            resource.prlimit(server, resource.RLIMIT_NPROC, (0, 0))
            refused: list[BaseException] = []
            while not refused:  # two at once, of which the one worker that there is does one
                jobs = [pool.submit(time.sleep, 0.2) for _ in range(2)]
                refused = [error for job in jobs if (error := job.exception(30))]
            return repr(refused)

    assert re.fullmatch(r"\[BlockingIOError\(.*\[fork a worker.*\]", as_user(body))


def test_call_beside_closed_streams() -> None:
    def body() -> int:
        with open(os.devnull, "w") as sys.stdout:
            pass
        sys.stderr = None
        return Namespace(UTS).call(int, "7")

    assert in_child(body) == 7


def test_executor_where_the_working_directory_is_gone(tmp_path: Path) -> None:
    """The second thread joins what the first has made, and would go back to where it was."""

    def body() -> list[int]:
        os.chdir(tmp_path / "gone")
        os.rmdir(tmp_path / "gone")
        both = threading.Barrier(2, timeout=20)
        with Namespace(MNT).executor(2, "thread") as pool:
            return sorted(job.result() for job in [pool.submit(both.wait) for _ in range(2)])

    (tmp_path / "gone").mkdir()
    assert in_child(body) == [0, 1]


def test_thread_whose_set_up_fails_leaves_no_pid_namespace(leak_check: None) -> None:
    future = Namespace([PID, MNT], mounts=[nsutil.Bind("/no/such", "/mnt")]).thread(os.getpid)
    with pytest.raises(FileNotFoundError, match="open /no/such to bind it"):
        future.result(30)


@support.needs_kernel("time")
def test_set_that_joined_time_holds_it_too(leak_check: None) -> None:
    with nsutil.Popen(["sleep", "60"], new=TIME, monotonic=1000) as process:
        inode = os.stat(f"/proc/{process.pid}/ns/time").st_ino
        with Namespace(UTS, enter=nsutil.enter(process, TIME)).create() as box:
            assert (box.types, box.time.inode) == (UTS | TIME, inode)
        process.kill()


def test_set_whose_init_somebody_else_ended() -> None:
    def body() -> list[int]:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        box = Namespace(PID).create()
        (init,) = support.children()
        os.kill(init, signal.SIGKILL)
        while init in support.children():
            time.sleep(0.001)
        box.close()
        return [len(support.children()), box.closed]

    assert in_child(body) == [0, True]


def test_program_that_does_not_read_its_input(leak_check: None) -> None:
    done = asyncio.run(nsutil.aio.run(["true"], new=UTS, input=b"x" * (1 << 20)))
    assert done.returncode == 0


def test_error_of_a_child_that_died_travels() -> None:
    with pytest.raises(nsutil.ChildDied) as info:
        Namespace(UTS).call(os._exit, 3)
    error = pickle.loads(pickle.dumps(info.value))
    assert (error.args, error.status, error.signal, error.step) == (info.value.args, 3, None, None)


def test_pidfd_of_a_process_that_was_reaped(leak_check: None) -> None:
    with paused() as pid:
        pidfd = os.pidfd_open(pid)
    try:
        for use in lambda: nsutil.enter(pidfd=pidfd, types=UTS), lambda: nsutil.open(fd=pidfd, type=UTS):
            with pytest.raises(ProcessLookupError):
                use()
    finally:
        os.close(pidfd)


# Snapshots


# A hundred processes that only are there, until their group is killed.
IDLE = "for i in {1..100}; do { kill -STOP $BASHPID; } & done; echo; wait"


def test_snapshot_tells_a_namespace_from_the_next_one_with_its_inode() -> None:
    """A number is used again at once, often for another type, while the pass goes on.

    It looks at many idle processes between those that change: time for a number to come to another of them.
    """

    def churn() -> None:
        while True:
            for types in (UTS, CGROUP, UTS, UTS, CGROUP, CGROUP):
                nsutil.unshare(types)

    def body() -> list[list[str]]:
        pids, groups = [], []
        try:
            for _ in range(3):
                pids.append(os.fork())
                if pids[-1] == 0:
                    churn()
                groups.append(subprocess.Popen(["bash", "-c", IDLE], stdout=-1, start_new_session=True))
                groups[-1].stdout.readline()
            twice = []
            for _ in range(25):
                found = nsutil.snapshot(UTS | CGROUP, tasks=False, fds=False, sockets=False, mounts=False).namespaces
                counts = Counter(each.inode for each in found)
                twice += [
                    [repr(each) for each in found if each.inode == inode] for inode in counts if counts[inode] > 1
                ]
            return twice
        finally:
            for group in groups:
                os.killpg(group.pid, signal.SIGKILL)
                group.communicate()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    assert in_child(body, timeout=90) == []
