"""``with Namespace(...)``: enter, leave, and everything that goes wrong between."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import random
import signal
import sys
import threading
import time

import pytest
from support import SLOWER, in_child, needs_kernel, needs_root

import nsutil
from nsutil import CGROUP, IPC, MNT, NET, PID, TIME, USER, UTS, Namespace, RestoreError, enter

pytestmark = needs_root

ENTRIES = sorted(os.listdir("/proc/thread-self/ns"))
BLOCK_TYPES = [UTS, IPC, NET, CGROUP]


def ids() -> dict[str, int]:
    """The ten namespaces of the calling thread."""
    return {name: os.stat(f"/proc/thread-self/ns/{name}").st_ino for name in ENTRIES}


def moved(before: dict[str, int]) -> set[str]:
    return {name for name, inode in ids().items() if inode != before[name]}


def on_thread(func, *args):
    """Run on a worker thread; its result or exception."""
    result = []

    def body():
        try:
            result.append((func(*args), None))
        except BaseException as e:
            result.append((None, e))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    value, error = result[0]
    if error is not None:
        raise error
    return value


def here(func, *args):
    return func(*args)


def in_fresh_process(func, *args):
    """Single-threaded, whatever pytest started."""
    return in_child(func, *args)


PLACES = pytest.mark.parametrize("place", [here, on_thread, in_fresh_process])


@PLACES
@pytest.mark.parametrize("types", [*BLOCK_TYPES, UTS | IPC | NET | CGROUP], ids=str)
@pytest.mark.incident("B14")
def test_new_and_back(place, types):
    def body():
        before = ids()
        with Namespace(types):
            inside = moved(before)
        return inside, moved(before)

    inside, after = place(body)
    assert inside == set(str(types).split("|"))
    assert after == set()


@PLACES
def test_exception_passes_and_the_thread_is_back(place):
    def body():
        before = ids()
        with pytest.raises(ZeroDivisionError), Namespace(UTS | IPC):
            1 / 0  # noqa: B018
        return moved(before)

    assert place(body) == set()


@PLACES
@pytest.mark.incident("B3")
def test_the_same_recipe_nests(place):
    def body():
        box, before = Namespace(UTS), ids()
        with box:
            outer = ids()
            with box:
                inner = ids()
            middle = ids()
        return before["uts"], outer["uts"], inner["uts"], middle["uts"], moved(before)

    before, outer, inner, middle, after = place(body)
    assert len({before, outer, inner}) == 3
    assert middle == outer
    assert after == set()


def test_options_are_set_up_inside():
    host = os.uname().nodename
    with Namespace(UTS | NET, hostname="inside", domainname="example"):
        assert os.uname().nodename == "inside"
        with open("/proc/sys/kernel/domainname") as file:
            assert file.read() == "example\n"
        assert _lo_is_up()
    assert os.uname().nodename == host
    with Namespace(NET, loopback=False):
        assert not _lo_is_up()


def _lo_is_up():
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", b"lo", 0)
        return bool(struct.unpack("16sH22x", fcntl.ioctl(sock, 0x8913, request))[1] & 1)


@pytest.mark.parametrize("place", [on_thread, in_fresh_process])
def test_mnt_keeps_cwd_and_does_not_leak_mounts(place, tmp_path):
    def body():
        os.chdir(tmp_path) if place is in_fresh_process else None
        cwd, before, count = os.getcwd(), ids(), _mounts()
        with Namespace(MNT) as inside:
            assert inside.mnt.inode == ids()["mnt"]
            os.chdir("/")
            assert os.system(f"mount -t tmpfs none {tmp_path}") == 0
            within = _mounts()
        return os.getcwd() == cwd, moved(before), within - count, _mounts() - count

    same_cwd, after, inside, outside = place(body)
    assert same_cwd
    assert after == set()
    assert (inside, outside) == (1, 0)


def _mounts():
    with open("/proc/thread-self/mountinfo") as file:
        return len(file.readlines())


def test_mnt_keeps_the_chroot_of_the_caller(tmp_path):
    def body():
        (tmp_path / "proc").mkdir()
        assert os.system(f"mount -t proc proc {tmp_path}/proc") == 0
        os.chroot(tmp_path)
        os.chdir("/proc")
        with Namespace(MNT):
            pass
        return os.listdir("/"), os.getcwd()

    root, cwd = in_child(lambda: _in_private_mounts(body))
    assert root == ["proc"]
    assert cwd == "/proc"


def _in_private_mounts(func):
    nsutil.unshare(MNT)
    assert os.system("mount --make-rprivate /") == 0
    return func()


@pytest.mark.incident("B16")
def test_mnt_on_the_main_thread_of_a_threaded_process_is_refused():
    def body():
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        before = ids()
        try:
            with pytest.raises(ValueError, match=r"2 threads.*allow_main_mnt"), Namespace(MNT):
                pass
            with Namespace(MNT, allow_main_mnt=True):
                inside = moved(before)
            return inside, moved(before)
        finally:
            stop.set()
            thread.join()

    assert in_child(body) == ({"mnt"}, set())


@pytest.mark.parametrize(("new", "methods"), [(USER, "call"), (TIME, "thread"), (PID, "thread"), (USER | UTS, "run")])
@pytest.mark.incident("B16")
def test_types_that_cannot_be_left_name_the_way_out(new, methods):
    before = ids()
    with pytest.raises(ValueError, match=rf"cannot leave.*\.{methods}\(\)"), Namespace(new):
        pass
    assert moved(before) == set()


@pytest.mark.parametrize(
    "options",
    [{"cwd": "/"}, {"uid": 1}, {"umask": 0o22}, {"no_new_privs": True}, {"root": "/tmp"}, {"timeout": 1.0}],
    ids=str,
)
def test_options_that_a_block_cannot_undo(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))}.*\.run\(\)"), Namespace(UTS, **options):
        pass


@pytest.fixture
def stranger():
    """A process in namespaces of its own."""
    proc = _sleeper("--uts", "--ipc", "--net", "--cgroup", "--mount")
    yield proc
    proc.kill()
    proc.wait()


def _sleeper(*options):
    import subprocess

    proc = subprocess.Popen(
        ["unshare", *options, "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE, text=True
    )
    assert proc.stdout.readline() == "ready\n"
    proc.stdout.close()
    return proc


def _ids_of(pid):
    return {name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in ENTRIES}


@PLACES
def test_joined_and_back(place, stranger):
    def body():
        before = ids()
        with enter(pid=stranger.pid, types="uts ipc net cgroup".split()):
            inside = ids()
        return inside, moved(before)

    inside, after = place(body)
    theirs = _ids_of(stranger.pid)
    assert {name: inside[name] for name in ("uts", "ipc", "net", "cgroup")} == {
        name: theirs[name] for name in ("uts", "ipc", "net", "cgroup")
    }
    assert after == set()


def test_a_recipe_that_joins_travels_by_pickle(stranger):
    import pickle

    box = enter(stranger.pid)
    again = pickle.loads(pickle.dumps(box))
    assert again == box
    assert hash(again) == hash(box)
    assert again.joined == box.joined
    theirs = _ids_of(stranger.pid)
    inside = again.call(ids)
    assert {name: inside[name] for name in ("uts", "net", "mnt")} == {
        name: theirs[name] for name in ("uts", "net", "mnt")
    }
    stranger.kill()
    stranger.wait()
    for join in again.enter:
        join.handle.close()
    data = pickle.dumps(enter(os.getppid(), "uts"))
    assert pickle.loads(data).joined == UTS


def test_default_types_are_those_that_differ(stranger):
    assert enter(stranger.pid).joined == UTS | IPC | NET | CGROUP | MNT


@pytest.mark.parametrize("place", [on_thread, in_fresh_process])
def test_joined_mnt_restores_root_and_cwd(place, stranger):
    def body():
        before, cwd = ids(), os.getcwd()
        with enter(pid=stranger.pid, types="mnt"):
            inside = ids()["mnt"]
        return inside, moved(before), os.getcwd() == cwd

    assert place(body) == (_ids_of(stranger.pid)["mnt"], set(), True)


def test_joined_pid_is_where_children_go():
    init = _sleeper("--pid", "--fork", "--kill-child")
    try:
        with open(f"/proc/{init.pid}/task/{init.pid}/children") as file:
            child = int(file.read())
        before = ids()
        with enter(pid=child, types="pid"):
            assert moved(before) == {"pid_for_children"}
            pid = os.fork()
            if pid == 0:
                os._exit(os.getpid())
            inside = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert 1 < inside < 10
        assert moved(before) == set()
    finally:
        init.kill()
        init.wait()


@needs_kernel("pidfd-setns", "time")  # a thread that is not the first asks with TIME whether setns() takes a pidfd
@pytest.mark.skipif("NSUTIL_NO_NEW_CALLS" in os.environ, reason="older kernels keep the namespaces, not the process")
def test_a_dead_target_is_an_error_and_never_a_stranger():
    proc = _sleeper("--uts")
    box = enter(pid=proc.pid)
    proc.kill()
    proc.wait()
    before = ids()
    with pytest.raises(ProcessLookupError) as info, box:
        pass
    assert f"process {proc.pid}" in str(info.value)
    assert moved(before) == set()
    with pytest.raises(ProcessLookupError):
        enter(pid=proc.pid)


@pytest.mark.incident("B2")
def test_own_user_namespace_is_refused_by_name():
    with pytest.raises(ValueError, match="own user namespace"):
        enter(pid=os.getpid(), types="user")


def test_inside_is_open_after_the_block():
    with Namespace(UTS | NET) as inside:
        uts = inside.uts
        assert uts.inode == ids()["uts"]
    assert uts.inode != ids()["uts"]
    with nsutil.enter(uts):
        assert ids()["uts"] == uts.inode
    uts.close()


def test_inside_is_made_by_blocks_only():
    with Namespace(UTS) as inside:
        for make in (type(inside), lambda: object.__new__(type(inside)), lambda: copy.copy(inside)):
            with pytest.raises(TypeError):
                make()
        assert inside.types == UTS
    with Namespace(UTS) as other:
        assert other is not inside


def test_decorator_and_exit_stack():
    before = ids()

    @Namespace(UTS, hostname="deco")
    def name():
        return os.uname().nodename

    assert name() == "deco"
    with contextlib.ExitStack() as stack:
        stack.enter_context(Namespace(UTS, hostname="stack"))
        assert os.uname().nodename == "stack"
    assert moved(before) == set()
    box = Namespace(UTS)
    box.__enter__()
    assert moved(before) == {"uts"}
    box.__exit__(None, None, None)
    assert moved(before) == set()
    with pytest.raises(RuntimeError, match="entered"):
        box.__exit__(None, None, None)
    with pytest.raises(TypeError, match="suspended"):

        @Namespace(UTS)
        def generator():
            yield


def test_async_with_says_what_to_use():
    async def body():
        async with Namespace(UTS):
            pass

    with pytest.raises(TypeError, match=r"nsutil\.aio"):
        asyncio.run(body())


def test_generators_out_of_order_end_restored_with_an_error():
    before = ids()

    def inside(types):
        with Namespace(types):
            yield

    first, second = inside(UTS), inside(UTS | IPC)
    next(first)
    next(second)
    with pytest.raises(RuntimeError, match="out of order"):
        next(first)
    assert moved(before) == {"uts", "ipc"}
    with pytest.raises(StopIteration):
        next(second)
    assert moved(before) == set()


def test_interleaved_tasks_end_restored_with_an_error():
    before = ids()

    async def task(delay):
        with Namespace(UTS):
            await asyncio.sleep(delay)

    async def both():
        return await asyncio.gather(task(0.02), task(0.05), return_exceptions=True)

    results = asyncio.run(both())
    assert any(isinstance(r, RuntimeError) for r in results)
    assert moved(before) == set()


def test_a_dropped_generator_leaves_its_block():
    before = ids()

    def inside():
        with Namespace(UTS):
            yield

    generator = inside()
    next(generator)
    assert moved(before) == {"uts"}
    del generator
    gc.collect()
    assert moved(before) == set()


def test_exit_on_another_thread_restores_nothing_and_says_so():
    before, box = ids(), Namespace(UTS)
    manager_exit = type(box).__exit__.__get__(box, type(box))

    box.__enter__()
    with pytest.raises(RuntimeError):
        on_thread(box.__exit__, None, None, None)
    assert moved(before) == {"uts"}
    manager_exit(None, None, None)
    assert moved(before) == set()


def test_exit_in_a_forked_child_is_an_error():
    def child():
        try:
            box.__exit__(None, None, None)
        except RuntimeError as e:
            return str(e)
        return "no error"

    box, before = Namespace(UTS), ids()
    with box:
        message = in_child(child)
    assert "fork" in message
    assert moved(before) == set()


@pytest.mark.incident("A16")
def test_what_the_body_moves_through_nsutil_is_restored():
    before = ids()
    with Namespace(UTS):
        nsutil.unshare(IPC | NET)
        assert moved(before) == {"uts", "ipc", "net"}
    assert moved(before) == set()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.incident("A16", "C2")
def test_strict_restores_what_others_moved(strict):
    def body():
        import ctypes

        before = ids()
        with Namespace(UTS, strict=strict):
            assert ctypes.CDLL(None).unshare(int(IPC)) == 0
        return moved(before)

    assert in_child(body) == (set() if strict else {"ipc"})


@pytest.mark.incident("A15")
def test_lost_privilege_is_a_restore_error_and_marks_the_thread():
    def body():
        before = ids()
        with pytest.raises(RestoreError, match="uts") as info, Namespace(UTS):
            _drop_capability_sys_admin()
        assert info.value.types == UTS
        with pytest.raises(RestoreError, match="another thread"), Namespace(IPC):
            pass
        return moved(before)

    assert in_child(body) == {"uts"}


@pytest.mark.incident("A15")
def test_nothing_starts_from_a_marked_thread():
    def body():
        with pytest.raises(RestoreError), Namespace(UTS):
            _drop_capability_sys_admin()
        box, pool = Namespace(NET), Namespace(NET).executor(kind="thread")
        starts = [
            lambda: nsutil.run(["true"]),
            lambda: box.run(["true"]),
            lambda: box.popen(["true"]),
            lambda: box.call(int),
            lambda: box.thread(int),
            lambda: box.create(),
            lambda: box.executor().submit(int),
            lambda: pool.submit(int),
            lambda: nsutil.named.create("nsutil-test-marked"),
        ]
        return [_outcome(start) for start in starts]

    assert in_child(body) == ["still in uts"] * 9


def _outcome(start):
    try:
        return repr(start())
    except RestoreError as error:
        return f"still in {error.types}"
    except OSError as error:
        return str(error)


def _drop_capability_sys_admin():
    import ctypes

    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0
    for i in (0, 1):
        data[i] &= ~(1 << 21)
    assert libc.capset(header, data) == 0


@pytest.mark.incident("A15")
def test_closed_descriptor_is_a_restore_error():
    def body():
        with pytest.raises(RestoreError, match="closed"), Namespace(UTS):
            for fd in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{fd}").startswith("uts:"):
                        os.close(int(fd))
        return True

    assert in_child(body)


@pytest.mark.incident("B3", "A37")
def test_failing_step_is_named_and_nothing_is_moved():
    def body():
        before = ids()
        _drop_capability_sys_admin()
        with pytest.raises(PermissionError) as info, Namespace(UTS | IPC, hostname="x"):
            pass
        return info.value.step, info.value.__notes__, moved(before)

    step, _notes, after = in_child(body)
    assert step == "unshare(IPC|UTS)"
    assert after == set()


def test_no_way_back_is_found_before_moving():
    """Root in a user namespace that does not own the UTS namespace it is in."""

    def body():
        before = ids()
        with pytest.raises(PermissionError) as info, Namespace(UTS):
            pass
        return info.value.__notes__[-1], moved(before)

    with Namespace(UTS):  # what was found out here is not true of the child
        pass
    note, after = Namespace(USER, uid_map="root").call(body)
    assert ".run() or .call()" in note
    assert after == set()


class Boom(Exception):
    pass


@pytest.mark.parametrize("make", [lambda: Namespace(UTS), lambda: Namespace(UTS | IPC | NET, hostname="x")])
def test_signal_storm_never_leaves_the_wrong_namespace(make):
    """A handler that raises at random moments of entering and leaving."""

    def body():
        sys.settrace(None)  # an exception inside the code of a tracer leaves its locks held
        armed = [False]

        def handler(_signum, _frame):
            if armed[0]:
                raise Boom

        signal.signal(signal.SIGALRM, handler)
        box, before, fired, rng = make(), ids(), 0, random.Random(1)
        end = time.monotonic() + 4
        rounds = 0
        while rounds < 4000 and time.monotonic() < end:
            rounds += 1
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-6, 9e-5))
            try:
                armed[0] = True
                with box:
                    pass
                armed[0] = False
            except Boom:
                fired += 1
            armed[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            if moved(before):
                return f"left in {moved(before)} after {rounds} rounds"
        return fired

    fired = in_child(body)
    assert isinstance(fired, int), fired
    assert fired > 20


@pytest.mark.incident("A18", "B1")
def test_sixteen_threads_each_in_their_own():
    before, wrong = ids(), []
    start = threading.Barrier(16)

    def body():
        start.wait()
        for _ in range(40):
            mine = ids()
            with Namespace(UTS) as inside:
                if inside.uts.inode != ids()["uts"]:
                    wrong.append("handle of another thread")
                inside.uts.close()
            if ids() != mine:
                wrong.append("not restored")

    threads = [threading.Thread(target=body) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
    assert moved(before) == set()


@pytest.mark.incident("A20")
def test_ten_thousand_blocks_keep_no_descriptor():
    box = Namespace(UTS)
    with box:
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10_000):
        with box:
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_thread_returns_a_future_with_context():
    import contextvars

    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("carried")
    before = ids()

    def func(x, *, y):
        return x + y, variable.get(), sorted(moved(before)), os.uname().nodename

    box = Namespace(UTS | MNT | NET, hostname="thread")
    assert box.thread(func, 1, y=2).result(10) == (3, "carried", ["mnt", "net", "uts"], "thread")
    with pytest.raises(ZeroDivisionError):
        box.thread(lambda: 1 / 0).result(10)
    with pytest.raises(ValueError, match="USER"):
        Namespace(USER).thread(print)
    assert moved(before) == set()


@needs_kernel("time")
def test_thread_takes_time_with_offsets():
    import subprocess

    def uptime():
        out = subprocess.run(["cat", "/proc/uptime"], capture_output=True, text=True, check=True).stdout
        return float(out.split()[0])

    inside = Namespace(TIME, boottime=500_000.25).thread(uptime).result(10 * SLOWER)
    assert 500_000 < inside - uptime() < 500_010


def test_pickle_repr_equality():
    import pickle

    box = Namespace(UTS | TIME, monotonic=-1.5, hostname="a", rlimits={7: (1, 2)})
    again = pickle.loads(pickle.dumps(box))
    assert again == box
    assert hash(again) == hash(box)
    assert eval(repr(box), vars(nsutil) | {n: getattr(nsutil, n) for n in ("UTS", "TIME", "Namespace")}) == box
    assert box != Namespace(UTS)
    with pytest.raises(AttributeError, match="replace"):
        box.hostname = "b"
    assert box.replace(hostname="b").hostname == "b"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Namespace("nett"), ValueError, "nett.*cgroup"),
        (lambda: Namespace(3), ValueError, "0x3"),
        (lambda: Namespace(-1), ValueError, "-0x1"),
        (lambda: Namespace(1.5), TypeError, "1.5"),
        (lambda: Namespace([UTS, None]), TypeError, "None"),
        (lambda: Namespace(NET, hostname="x"), ValueError, "hostname.*UTS"),
        (lambda: Namespace(UTS, hostname="x" * 65), ValueError, "64"),
        (lambda: Namespace(UTS, hostname=b"a\0b"), ValueError, "NUL"),
        (lambda: Namespace(UTS, monotonic=1), ValueError, "TIME"),
        (lambda: Namespace(TIME, monotonic=float("nan")), ValueError, "nan"),
        (lambda: Namespace(UTS, uid="no-such-user"), ValueError, "no-such-user"),
        (lambda: Namespace(UTS, uid=True), TypeError, "True"),
        (lambda: Namespace(UTS, uid=2**32), ValueError, str(2**32)),
        (lambda: Namespace(UTS, ambient="cap_flying"), ValueError, "flying"),
        (lambda: Namespace(MNT, propagation="sideways"), ValueError, "private.*sideways"),
        (lambda: Namespace(UTS, rlimits={99: (1, 1)}), ValueError, "99"),
        (lambda: Namespace(UTS, rlimits={7: (5, 1)}), ValueError, "5"),
        (lambda: Namespace(UTS, umask=0o1777), ValueError, "umask"),
        (lambda: Namespace(UTS, timeout=-1), ValueError, "-1"),
        (lambda: Namespace(UTS, kill_child="NOPE"), ValueError, "NOPE"),
        (lambda: Namespace(PID, init=False, kill_child="TERM"), ValueError, "init=False"),
        (lambda: Namespace(UTS, enter=[os.getpid(), "x"]), (ValueError, OSError), None),
        (lambda: enter(), ValueError, "exactly one"),
        (lambda: enter(pid=-1), ValueError, "-1"),
        (lambda: enter(pid=2**40), ValueError, str(2**40)),
        (lambda: enter(path="/etc/passwd"), nsutil.NotANamespace, "passwd"),
        (lambda: enter(path="/"), nsutil.NotANamespace, "/"),
        (lambda: enter(object()), TypeError, "object"),
        (lambda: enter(fd=10**6), OSError, None),
    ],
)
def test_bad_input(make, error, match):
    before = ids()
    with pytest.raises(error, match=match):
        make()
    assert moved(before) == set()


@pytest.mark.incident("C1")
def test_threads_that_were_just_joined_do_not_count():
    """The kernel forgets a thread a moment after join() returns."""

    def body():
        for _ in range(40):
            threading.Thread(target=time.sleep, args=(0,)).start()
            for thread in threading.enumerate()[1:]:
                thread.join()
            with Namespace(MNT):
                pass
        thread = threading.Thread(target=time.sleep, args=(0,))
        thread.start()
        thread.join()
        nsutil.unshare(USER)
        return True

    assert in_child(body)
