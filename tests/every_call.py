"""What each public call is in test_leaks.py: often good, and failing where it can after it has opened something."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import support

import nsutil
from nsutil import ALL, MNT, NET, PID, USER, UTS, Namespace, aio, doctor, ioctl, jupyter, named

Call = Callable[[], object]

# The function that each public name is called by; see test_none_is_missing.
CALLS: dict[str, Call] = {}
# The same of what is run as a program.
PROGRAMS: dict[str, Call] = {}
# What a function can do nothing without: names of older_kernel.FEATURES.
NEEDS: dict[Call, tuple[str, ...]] = {}


def does(*names: str, table: dict[str, Call] = CALLS, needs: tuple[str, ...] = ()) -> Callable[[Call], Call]:
    """The function below calls these public names."""

    def note(call: Call) -> Call:
        assert not table.keys() & set(names)
        table.update(dict.fromkeys(names, call))
        NEEDS[call] = needs
        return call

    return note


def refused(error: type[BaseException], call: Callable[..., object], *args: object, **options: object) -> None:
    """Failing is part of the test: what was opened until then must be closed."""
    with pytest.raises(error):
        call(*args, **options)


# ------------------------------------------------------------ the thin calls


@does("unshare")
def _unshare() -> None:
    for flags in UTS, NET | nsutil.IPC, MNT | 0x200:  # CLONE_FS
        thread = threading.Thread(target=nsutil.unshare, args=(int(flags),))
        thread.start()
        thread.join()
    refused(OSError, nsutil.unshare, 1)
    refused(TypeError, nsutil.unshare, "uts")


@does("setns")
def _setns() -> None:
    with nsutil.current(NET) as here:
        nsutil.setns(here, NET)
        refused(OSError, nsutil.setns, here, UTS)
    refused(OSError, nsutil.setns, -1)


@does("clone")
def _clone() -> None:
    pid = nsutil.clone(UTS)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    refused(OSError, nsutil.clone, nsutil.USER | 0x200)  # CLONE_FS


@does("ioctl.get_userns", "ioctl.get_nstype", "ioctl.get_id", "ioctl.get_mntns_id", "ioctl.MountNamespaceInfo")
def _ioctls_of_a_namespace() -> None:
    with nsutil.current(MNT) as mnt:
        os.close(ioctl.get_userns(mnt))
        ioctl.get_nstype(mnt)
        for ask in ioctl.get_mntns_id, ioctl.get_id:  # Linux 6.11 and 6.18
            with contextlib.suppress(OSError):
                ask(mnt)
    for ask in ioctl.get_userns, ioctl.get_nstype, ioctl.get_id, ioctl.get_mntns_id:
        refused(OSError, ask, -1)


@does("ioctl.get_parent", "ioctl.get_owner_uid")
def _ioctls_of_a_user_namespace() -> None:
    with nsutil.current(USER) as user:
        ioctl.get_owner_uid(user)
        with contextlib.suppress(PermissionError):  # the initial one
            os.close(ioctl.get_parent(user))
    with nsutil.current(NET) as net:
        refused(OSError, ioctl.get_parent, net)


@does("ioctl.get_pid_from_pidns", "ioctl.get_tgid_from_pidns", "ioctl.get_pid_in_pidns", "ioctl.get_tgid_in_pidns")
def _ioctls_of_a_pid_namespace() -> None:
    with nsutil.current(PID) as pid:
        for ask in (
            ioctl.get_pid_from_pidns,
            ioctl.get_tgid_from_pidns,
            ioctl.get_pid_in_pidns,
            ioctl.get_tgid_in_pidns,
        ):
            with contextlib.suppress(OSError):
                ask(pid, os.getpid())
            refused(OSError, ask, pid, 2**22 + 1)


@does("ioctl.mnt_get_info", "ioctl.mnt_get_next", "ioctl.mnt_get_prev", needs=("mnt-next",))
def _ioctls_of_mount_namespaces() -> None:
    with nsutil.current(MNT) as mnt:
        ioctl.mnt_get_info(mnt)
        for ask in ioctl.mnt_get_next, ioctl.mnt_get_prev:
            with contextlib.suppress(OSError):
                os.close(ask(mnt)[0])
            refused(OSError, ask, -1)


@does("ioctl.pidfd_get_namespace")
def _pidfd_get_namespace() -> None:
    pidfd = os.pidfd_open(os.getpid())
    with contextlib.suppress(OSError):  # Linux 6.11
        os.close(ioctl.pidfd_get_namespace(pidfd, "net"))
    refused(ValueError, ioctl.pidfd_get_namespace, pidfd, "nothing")
    os.close(pidfd)


# ---------------------------------------------------------------- the recipe


@does("IdMap", "IdMap.line")
def _id_map() -> None:
    assert nsutil.IdMap(0, 1000, 1).line == "0 1000 1"
    refused(ValueError, nsutil.IdMap, 0, 0, 0)


@does("Bind", "Tmpfs", "Proc", "Sysfs", "Dev", "Mqueue", "Overlay", "File", "Symlink", "Remount")
def _mounts() -> None:
    mounts = (
        nsutil.Tmpfs("/", size="1m"),
        nsutil.Bind("/usr", "/usr", readonly=True),
        nsutil.Overlay(["/etc", "/usr"], None, None, "/etc"),
        nsutil.Proc(),
        nsutil.Sysfs(),
        nsutil.Dev(),
        nsutil.Mqueue(),
        nsutil.File("/file", b"data"),
        nsutil.Symlink("usr/bin", "/bin"),
        nsutil.Symlink("usr/lib", "/lib"),
        nsutil.Symlink("usr/lib64", "/lib64"),
        nsutil.Remount("/usr"),
    )
    nsutil.run(["/bin/true"], new=[MNT, PID, nsutil.IPC, NET], mounts=mounts, check=True)
    refused(OSError, nsutil.run, ["/bin/true"], new=MNT, mounts=(*mounts, nsutil.Bind("/no/such", "/usr")))


@does("Namespace", "Namespace.new", "Namespace.enter", "Namespace.joined", "Namespace.types", "Namespace.replace")
def _recipe() -> None:
    box = Namespace([UTS, NET], hostname="box")
    other = box.replace(hostname="other", new=UTS)
    assert (box.new, box.joined, other.types, other.enter) == (UTS | NET, 0, UTS, ())
    refused(ValueError, Namespace, 0, hostname="box")
    refused(TypeError, Namespace, UTS, enter=1.5)


def _failing_block() -> None:
    with nsutil.current(UTS) as here, nsutil.named.create("other", UTS) as other:
        joining = nsutil.enter(other)
        with joining:
            nsutil.setns(here)
        named.remove("other", UTS)


@does("enter")
def _enter() -> None:
    with support.paused(int(UTS | NET)) as pid:
        with nsutil.enter(pid, [UTS, NET]):
            pass
        assert nsutil.enter(pid=pid).run(["true"]).returncode == 0
        with nsutil.open(pid, NET) as file:
            assert nsutil.enter(file).call(os.getpid)
        refused(nsutil.WrongNamespaceType, nsutil.enter, path=f"/proc/{pid}/ns/net", types=UTS)
    refused(ProcessLookupError, nsutil.enter, pid)
    refused(FileNotFoundError, nsutil.enter, path="/no/such")


@does("Namespace.thread")
def _thread() -> None:
    assert Namespace([MNT, PID, UTS]).thread(os.getpid).result() > 0
    refused(ZeroDivisionError, Namespace(UTS).thread(lambda: 1 // 0).result)
    refused(ValueError, Namespace(USER).thread, os.getpid)


@does("Namespace.run", "run", needs=("time",))
def _run() -> None:
    assert nsutil.run(["true"], new=ALL).returncode == 0
    assert Namespace([PID, USER], uid_map="root").run(["cat"], input=b"x", capture_output=True).stdout == b"x"
    refused(FileNotFoundError, nsutil.run, ["/no/such/program"], new=UTS)
    refused(OSError, nsutil.run, ["true"], new=UTS, cwd="/no/such")
    refused(OSError, nsutil.run, ["true"], new=[MNT, PID], mounts=[nsutil.Bind("/no/such", "/mnt")])


@does("Popen", "Popen.namespaces", "Popen.pidfd", "Popen.program_pid", "Popen.send_signal", "Namespace.popen")
def _popen() -> None:
    for process in nsutil.Popen(["cat"], new=[PID, UTS], stdin=-1, stdout=-1), Namespace(UTS).popen(["cat"], stdin=-1):
        with process, process.namespaces as inside:
            assert process.pidfd >= 0 < process.program_pid
            inside.uts.fileno()
            process.send_signal(signal.SIGTERM)
    with nsutil.Popen(["cat"], new=[PID, UTS], stdin=-1) as process:
        process.kill()


@does("Namespace.call", "call", needs=("time",))
def _call() -> None:
    assert nsutil.call(os.getpid, new=ALL) == 2
    assert Namespace([PID, UTS], init=False).call(os.getpid) == 1
    refused(ZeroDivisionError, nsutil.call, lambda: 1 // 0, new=UTS)
    refused(nsutil.ChildDied, Namespace(PID).call, os._exit, 3)
    refused(OSError, nsutil.call, os.getpid, new=UTS, root="/no/such")


@does("Namespace.executor")
def _executor() -> None:
    with Namespace([PID, UTS]).executor(2) as pool:
        assert pool.submit(int, "7").result() == 7
    with Namespace(UTS).executor(1, "thread") as pool:
        assert pool.submit(int, "7").result() == 7
    with Namespace(UTS).executor() as pool:
        refused(Exception, pool.submit(os._exit, 1).result)
    refused(ValueError, Namespace(UTS).executor, 0)


@does(
    "Namespace.create",
    "NamespaceSet",
    "NamespaceSet.close",
    "NamespaceSet.closed",
    "NamespaceSet.types",
    needs=("time",),
)
def _create() -> None:
    with Namespace(ALL).create() as inside:
        assert inside.types == ALL
        assert len(list(inside)) == 8
    assert inside.closed
    dropped = Namespace([PID, NET]).create()
    dropped.net.fileno()
    del dropped
    refused(ValueError, Namespace(UTS, cwd="/").create)


# ------------------------------------------------------- handles and references


@does("open", "current", "NamespaceFile", "NamespaceFile.close", "NamespaceFile.closed", "NamespaceFile.fileno")
def _open() -> None:
    for target in os.getpid(), "/proc/self/ns/net":
        file = nsutil.open(target, NET)
        assert file.fileno() >= 0
        file.close()
        assert file.closed
    with nsutil.current(NET) as file, nsutil.open(file, NET) as again:
        assert file == again
    nsutil.current(UTS)  # dropped
    fd = os.open("/dev/null", os.O_RDONLY)
    refused(nsutil.NotANamespace, nsutil.open, fd=fd, type=NET)
    refused(nsutil.NotANamespace, nsutil.NamespaceFile, fd)
    os.close(fd)
    refused(nsutil.WrongNamespaceType, nsutil.open, "/proc/self/ns/net", UTS)
    refused(ProcessLookupError, nsutil.open, 2**22 + 1, UTS)


@does("NamespaceFile.owner", "NamespaceFile.parent", "NamespaceFile.owner_uid")
def _relations() -> None:
    with nsutil.current(NET) as net, nsutil.current(PID) as pid:
        assert net.owner_uid is not None
        for relative in net.owner(), pid.owner(), pid.parent():
            if relative is not None:
                relative.close()
        refused(ValueError, net.parent)


@does("NamespaceFile.bind")
def _bind() -> None:
    path = Path("/run/bound")
    path.touch()
    with nsutil.current(NET) as net:
        net.bind(path)
        refused(FileNotFoundError, net.bind, "/no/such")
    support.must("umount2", b"/run/bound", 2)
    path.unlink()


@does("NamespaceFile.pid_in", "NamespaceFile.pid_from")
def _pids() -> None:
    with nsutil.current(PID) as pid:
        assert pid.pid_in(os.getpid()) == pid.pid_from(os.getpid()) == os.getpid()
        refused(ProcessLookupError, pid.pid_in, 2**22 + 1)


@does("NamespaceFile.mounts", "NamespaceFile.next", "NamespaceFile.previous", "NamespaceFile.open", needs=("mnt-next",))
def _mount_namespaces() -> None:
    with Namespace(MNT).create() as box:
        for mnt in box.mnt, nsutil.current(MNT):
            with mnt:
                assert mnt.mounts()
                with mnt.open("/etc/passwd") as file:
                    file.read(1)
                refused(FileNotFoundError, mnt.open, "/no/such")
                for look in mnt.next, mnt.previous:
                    if not support.sees_all_namespaces():
                        refused(PermissionError, look)
                    elif (neighbour := look()) is not None:
                        neighbour.close()


@does("NamespaceFile.socket")
def _socket() -> None:
    with Namespace(NET).create() as box:
        for net in box.net, nsutil.current(NET):
            with net:
                net.socket().close()
                refused(OSError, net.socket, 4000)


@does("NamespaceFile.reference", "NamespaceReference", "NamespaceReference.open", needs=("ns-handles",))
def _reference() -> None:
    with Namespace(UTS).create() as box:
        reference = box.uts.reference()
        reference.open().close()
    refused(nsutil.StaleReference, reference.open)
    refused(TypeError, nsutil.NamespaceReference)


# ---------------------------------------------------------------------- names


@does("named.create", "named.remove", "named.open", "named.list", "named.pids", "named.identify")
def _named() -> None:
    for nstype in NET, PID, UTS, USER, MNT:
        named.create("leak", nstype).close()
        named.open("leak", nstype).close()
        assert named.list(nstype) == ["leak"]
        assert len(named.pids("leak", nstype)) == (nstype == PID)
        assert named.identify(os.getpid(), nstype) == []
        refused(FileExistsError, named.create, "leak", nstype)
        named.remove("leak", nstype)
        refused(FileNotFoundError, named.open, "leak", nstype)
        refused(FileNotFoundError, named.remove, "leak", nstype)
    refused(OSError, named.create, "leak", MNT, mounts=[nsutil.Bind("/no/such", "/mnt")])
    assert named.list(MNT) == []


@does("named.attach")
def _attach() -> None:
    named.attach("leak", os.getpid(), UTS)
    refused(FileExistsError, named.attach, "leak", os.getpid(), UTS)
    named.remove("leak", UTS)
    refused(ProcessLookupError, named.attach, "leak", 2**22 + 1, UTS)


@does("named.watch", "named.Watch", "named.Watch.close", "named.Watch.fileno", "named.Event")
def _watch() -> None:
    with named.watch(UTS) as watch:
        assert watch.fileno() >= 0
        named.create("leak", UTS).close()
        named.remove("leak", UTS)
        assert next(watch) == named.Event("add", "leak")
    named.watch(UTS)  # dropped


@does("named.etc_netns_mounts")
def _etc_netns_mounts() -> None:
    assert named.etc_netns_mounts("leak") == []
    with nsutil.current(NET) as net:
        named.etc_netns_mounts(net)


# ----------------------------------------------------------- snapshot, doctor

INFO = "command device holders id inode netnsid nprocs nsfs owner owner_uid parent path pid ppid type user".split()


@does("snapshot", "Snapshot", "NamespaceInfo", "Holder", *(f"NamespaceInfo.{name}" for name in INFO))
def _snapshot() -> None:
    for info in nsutil.snapshot().namespaces:
        for name in INFO:
            getattr(info, name)
    nsutil.snapshot(NET, tasks=False, fds=False, sockets=False, mounts=False)
    refused(ValueError, nsutil.snapshot, "nothing")


@does(*(f"Snapshot.{name}" for name in "filter holders namespaces of to_html to_json tree unseen".split()))
def _snapshot_views() -> None:
    found = nsutil.snapshot(UTS | NET)
    mine = found.of(os.getpid())[UTS]
    assert found.holders(mine)
    assert found.filter("type == 'uts'").namespaces
    assert found.to_html()
    assert found.to_json()
    assert str(found.tree("process"))
    assert isinstance(found.unseen, list)
    refused(ValueError, found.filter, "type ==")


@does("doctor.check", "doctor.Report", "doctor.Report.to_json", "doctor.Finding", "doctor.hint", needs=("time",))
def _doctor() -> None:
    report = doctor.check(ALL)
    assert report
    assert report.to_json()
    assert not doctor.check(UTS, cwd="/no/such")
    doctor.hint(1, "unshare", ("net",))


# -------------------------------------------------------------------- asyncio


@does("aio.run", "aio.call")
def _aio_run() -> None:
    async def body() -> None:
        done = await aio.run(["cat"], new=[PID, UTS], input=b"x", capture_output=True)
        assert done.stdout == b"x"
        assert await aio.call(os.getpid, new=PID) == 2
        with pytest.raises(FileNotFoundError):
            await aio.run(["/no/such"], new=UTS)
        with pytest.raises(ZeroDivisionError):
            await aio.call(divmod, 1, 0, new=UTS)
        for slow in aio.run(["sleep", "9"], new=PID), aio.call(time.sleep, 9, new=PID):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow, 0.02)

    asyncio.run(body())


PROCESS = "close communicate kill pid returncode send_signal terminate wait".split()


@does("aio.create_subprocess_exec", "aio.Process", *(f"aio.Process.{name}" for name in PROCESS))
def _aio_process() -> None:
    async def body() -> None:
        process = await aio.create_subprocess_exec("cat", stdin=aio.PIPE, stdout=aio.PIPE, new=PID)
        assert await process.communicate(b"x") == (b"x", None)
        process.close()
        for method in "kill", "terminate":
            process = await aio.create_subprocess_exec("sleep", "9", new=UTS)
            assert process.pid > 0
            getattr(process, method)()
            assert await process.wait() == process.returncode < 0
            process.send_signal(signal.SIGTERM)
            process.close()

    asyncio.run(body())


@does("aio.open_connection", "aio.start_server")
def _aio_connection() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def body() -> None:
        with Namespace(NET).create() as box:
            server = await aio.start_server(answer, "127.0.0.1", 7000, enter=box)
            async with server:
                reader, writer = await aio.open_connection("127.0.0.1", 7000, enter=box)
                writer.write(b"line\n")
                assert await reader.readline() == b"line\n"
                writer.close()
                await writer.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await aio.open_connection("127.0.0.1", 7001, enter=box)

    asyncio.run(body())


# -------------------------------------------------------------------- Jupyter


@does("jupyter.load_ipython_extension", "jupyter.nstree", "jupyter.parse_line", "jupyter.run_cell")
def _jupyter() -> None:
    core = pytest.importorskip("IPython.core.interactiveshell")
    shell = core.InteractiveShell.instance()
    jupyter.load_ipython_extension(shell)
    jupyter.parse_line("net uts --hostname box")
    jupyter.run_cell(shell, "uts --hostname box --export a", "a = 1")
    assert shell.user_ns["a"] == 1
    assert str(jupyter.nstree("parent pid"))


# ------------------------------------------------------ values, and what syntax calls


@does(*(f"{name}.__reduce__" for name in "IdMap Bind Tmpfs Proc Sysfs Dev Mqueue Overlay File Symlink Remount".split()))
def _values() -> None:
    values = (
        nsutil.IdMap(0, 1000, 1),
        nsutil.Bind("/a", "/b"),
        nsutil.Tmpfs("/a"),
        nsutil.Proc(),
        nsutil.Sysfs(),
        nsutil.Dev(),
        nsutil.Mqueue(),
        nsutil.Overlay(["/a", "/c"], None, None, "/b"),
        nsutil.File("/a", b"data"),
        nsutil.Symlink("a", "/b"),
        nsutil.Remount("/a"),
    )
    for value in values:
        assert pickle.loads(pickle.dumps(value)) == value


@does(
    "Namespace.__enter__", "Namespace.__exit__", "Namespace.__call__", "Namespace.__reduce__", "Namespace.__getattr__"
)
def _with_block() -> None:
    box = Namespace([UTS, NET, nsutil.IPC], hostname="box", strict=True)
    with box as inside:
        inside.net.fileno()
        assert list(inside)
    inside.close()
    with contextlib.suppress(ZeroDivisionError), box:
        raise ZeroDivisionError
    box(lambda: None)()
    assert pickle.loads(pickle.dumps(box)) == box
    refused(ValueError, Namespace(USER).__enter__)
    refused(AttributeError, getattr, box, "nothing")


@does("Namespace.__aenter__", "Namespace.__aexit__")
def _no_async_block() -> None:
    for method in "__aenter__", "__aexit__":
        refused(TypeError, getattr(Namespace(UTS), method))


SET = "__contains__ __enter__ __exit__ __getattr__ __getitem__ __iter__ __len__".split()


@does(*(f"NamespaceSet.{name}" for name in SET))
def _set() -> None:
    with Namespace([UTS, NET]).create() as inside:
        assert "net" in inside
        assert inside["net"] is inside[NET] is inside.net
        assert len(list(inside)) == len(inside) == 2
        refused(KeyError, inside.__getitem__, "pid")
        refused(AttributeError, getattr, inside, "pid")


@does("NamespaceFile.__del__", "NamespaceFile.__enter__", "NamespaceFile.__exit__", "NamespaceFile.__reduce_ex__")
def _file() -> None:
    with warnings.catch_warnings(record=True), nsutil.current(UTS) as file:
        refused(TypeError, pickle.dumps, file)
        nsutil.current(UTS)


@does("NamespaceReference.__reduce__")
def _pickled_reference() -> None:
    with nsutil.current(UTS) as file:
        assert pickle.loads(pickle.dumps(file.reference())) == file.reference()


@does("Snapshot.__bool__", "Snapshot.__iter__", "Snapshot.__len__", "Snapshot.__reduce__", "NamespaceInfo.__reduce__")
def _pickled_snapshot() -> None:
    found = nsutil.snapshot(UTS)
    assert found
    assert len(pickle.loads(pickle.dumps(found))) == len(list(found)) > 0
    assert pickle.loads(pickle.dumps(next(iter(found)))) == next(iter(found))


@does("Popen.__exit__")
def _popen_block() -> None:
    with nsutil.Popen(["true"], new=UTS):
        pass
    with contextlib.suppress(ZeroDivisionError), nsutil.Popen(["cat"], new=UTS, stdin=-1):
        raise ZeroDivisionError


@does(*(f"named.Watch.{name}" for name in "__del__ __enter__ __exit__ __iter__ __next__".split()))
def _watch_block() -> None:
    with named.watch(UTS) as watch:
        named.create("leak", UTS).close()
        named.remove("leak", UTS)
        assert iter(watch) is watch
        assert [next(watch).event for _ in range(2)] == ["add", "delete"]


@does("doctor.Report.__bool__")
def _verdict() -> None:
    assert doctor.check(UTS)


# --------------------------------------------------- the commands, the plugin of pytest

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def command(*argv: str, status: int = 0, module: str = "nsutil", cwd: Path | None = None) -> None:
    """Run it as a program. What it leaves running becomes a child of this process."""
    support.prctl(SUBREAPER, 1)
    done = subprocess.run(
        [sys.executable, "-m", module, *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(support.PACKAGE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout
    deadline = time.monotonic() + 5
    with contextlib.suppress(ChildProcessError):  # what ends by itself is nothing left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)


@does("nsutil unshare", table=PROGRAMS)
def _unshare_command() -> None:
    command("unshare", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "true")
    Path("/run/uts").touch()
    command("unshare", "--uts=/run/uts", "true")
    support.must("umount2", b"/run/uts", 2)
    command("unshare", "--mount", "--root=/no/such", "true", status=1)


@does("nsutil nsenter", table=PROGRAMS)
def _nsenter_command() -> None:
    with support.paused(int(UTS | NET | PID)) as pid:
        command("nsenter", "--all", "--target", str(pid), "true")
    command("nsenter", "--all", "--target", str(pid), "true", status=1)


@does("nsutil netns", table=PROGRAMS)
def _netns_command() -> None:
    command("netns", "add", "leak")
    command("netns", "add", "leak", status=1)
    command("netns", "exec", "leak", "true")
    command("netns", "delete", "leak")


@does("nsutil box", table=PROGRAMS, needs=("mount-setattr",))
def _box_command() -> None:
    command("box", "--", "sh", "-c", "sleep 99 & exit 3", status=3)
    command("box", "--", "/no/such", status=127)


@does("nsutil lsns", "nsutil tree", "nsutil doctor", "nsutil completion", table=PROGRAMS, needs=("time",))
def _looking_commands() -> None:
    for argv in ["lsns"], ["lsns", "--json"], ["tree"], ["doctor"], ["completion", "bash"]:
        command(*argv)


@does("nsutil demo", table=PROGRAMS, needs=("time",))
def _demo_command() -> None:
    command("demo")


PLUGGED = """
import pytest

@pytest.mark.namespace("uts", "pid")
def test_box(ns_box):
    with ns_box("net"):
        pass

def test_net(ns_net):
    assert ns_net.fileno() >= 0

def test_lan(ns_lan):
    ns_lan(hosts=2)
"""


@does("pytest_plugin.ns_box", "pytest_plugin.ns_net", "pytest_plugin.ns_lan", table=PROGRAMS)
def _plugin() -> None:
    folder = Path("/run/plugged")
    folder.mkdir(exist_ok=True)
    (folder / "test_it.py").write_text(PLUGGED)
    installed = any(e.value == "nsutil.pytest_plugin" for e in importlib.metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "nsutil.pytest_plugin"]
    command(*plugin, *"-p no:cacheprovider --ns-leaks --ns-isolate=uts,mnt".split(), module="pytest", cwd=folder)


def distinct(table: dict[str, Call]) -> dict[str, Call]:
    """Each function once, by the first name that it stands for."""
    first: dict[Call, str] = {}
    for name, call in table.items():
        first.setdefault(call, name)
    return {name: call for call, name in first.items()}


def grouped() -> dict[str, Call]:
    """Those that run in this process."""
    return distinct(CALLS) | {"with, moved in between": _failing_block}
