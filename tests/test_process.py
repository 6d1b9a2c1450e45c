"""run and Popen: everything subprocess does, in namespaces."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import support
from support import as_user, in_child, needs_root

import nsutil
from nsutil import ALL, MNT, NET, PID, TIME, USER, UTS, Namespace, Popen, Tmpfs, enter, run
from nsutil._target import Process

ROOT = os.geteuid() == 0
OWN = 0 if ROOT else USER
SH = "/bin/sh"

# A program that is our child, and one that is the child of nsutil's init.
SHAPES: dict[str, dict[str, Any]] = {"plain": {"new": UTS | OWN}, "init": {"new": PID | UTS | OWN}}


@pytest.fixture(params=SHAPES)
def box(request: pytest.FixtureRequest) -> Namespace:
    return Namespace(**SHAPES[request.param])


def said(box: Namespace, args: Any, **options: Any) -> str:
    return box.run(args, **options, check=True, stdout=subprocess.PIPE, text=True).stdout


def is_gone(pid: int) -> bool:
    """No such process, or its entry in the table at most, within a second."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


# What it is


def test_it_is_a_subprocess_popen(box: Namespace, leak_check: None) -> None:
    process = box.popen(["true"])
    assert isinstance(process, subprocess.Popen)
    assert process.wait() == process.poll() == process.returncode == 0
    assert process.args == ["true"]
    assert repr(process) == "<Popen: returncode: 0 args: ['true']>"
    assert isinstance(box.run(["true"]), subprocess.CompletedProcess)
    with warnings.catch_warnings(record=True):
        del process


def test_shortcuts_and_methods_are_the_same() -> None:
    new: Any = UTS | OWN
    for result in (
        run(["hostname"], new=new, hostname="same", capture_output=True),
        Namespace(new, hostname="same").run(["hostname"], capture_output=True),
    ):
        assert result.stdout == b"same\n"
    for process in (
        Popen(["hostname"], new=new, hostname="same", stdout=subprocess.PIPE),
        Namespace(new, hostname="same").popen(["hostname"], stdout=subprocess.PIPE),
    ):
        with process:
            assert process.communicate() == (b"same\n", None)


def test_without_namespaces() -> None:
    """An empty recipe runs a program where we are."""
    assert run(["readlink", "/proc/self/ns/uts"], capture_output=True, text=True).stdout.strip() == os.readlink(
        "/proc/self/ns/uts"
    )


# The programs


def test_program_and_arguments(box: Namespace, tmp_path: Path) -> None:
    assert said(box, "hostname") == said(box, ["hostname"])
    assert said(box, ("echo", b"bytes", Path("path"))) == "bytes path\n"
    assert said(box, Path("/bin/pwd"), cwd=tmp_path) == f"{tmp_path}\n"
    assert said(box, "echo $0 $1; exit", shell=True) == "/bin/sh\n"
    assert said(box, ["echo $0 $1", "zero", "one"], shell=True) == "zero one\n"
    assert said(box, ["name", "-c", "echo $0"], executable=SH) == "name\n"
    assert box.run(["echo", "ü", os.fsdecode(b"\xff")], capture_output=True).stdout == "ü ".encode() + b"\xff\n"


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        ([], ValueError, "program"),
        ([1], TypeError, "int"),
        (["a\0b"], ValueError, "null byte"),
        (None, TypeError, "NoneType"),
    ],
)
def test_bad_arguments(args: Any, error: type[Exception], text: str, leak_check: None) -> None:
    with pytest.raises(error, match=text):
        run(args, new=UTS | OWN, capture_output=True)


@pytest.mark.incident("B13")
def test_bad_options(leak_check: None) -> None:
    new: Any = UTS | OWN
    for options, error in (
        ({"preexec_fn": int}, TypeError),
        ({"startupinfo": 1}, ValueError),
        ({"creationflags": 1}, ValueError),
        ({"bufsize": "1"}, TypeError),
        ({"nonsense": 1}, TypeError),
        ({"text": True, "universal_newlines": False}, subprocess.SubprocessError),
        ({"input": b"", "stdin": subprocess.PIPE}, ValueError),
        ({"capture_output": True, "stdout": subprocess.PIPE}, ValueError),
        ({"env": {"A=B": "1"}}, ValueError),
        ({"hostname": "x" * 65}, ValueError),
    ):
        with pytest.raises(error):
            run(["true"], new=new, **options)
    with pytest.raises(TypeError, match="preexec_fn"):
        Popen(["true"], -1, None, None, None, None, int, new=new)
    with pytest.raises(TypeError, match=r"hostname.*replace"):
        Namespace(new).run(["true"], hostname="x")


@pytest.mark.parametrize("name", ["user", "group"])
@pytest.mark.parametrize("ours", ["uid", "gid"])
def test_two_identities_contradict(name: str, ours: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*{ours}="):
        run(["true"], new=UTS, **{name: 1, ours: 1})


def test_two_identities_contradict_elsewhere() -> None:
    with pytest.raises(ValueError, match=r"extra_groups=.*groups="):
        run(["true"], new=UTS, extra_groups=[1], groups=[1])
    with pytest.raises(ValueError, match="ambient"):
        run(["true"], new=UTS, user=1, ambient=["net_admin"])


@pytest.mark.parametrize("number", [2**32 - 1, 2**32, 2**64, 2**64 + 1000])
@pytest.mark.incident("A12")
def test_ids_that_do_not_fit(number: int) -> None:
    """A number cut to 32 bits could be root (CVE-2026-30892)."""
    for name, value in (("user", number), ("group", number), ("extra_groups", [number])):
        with pytest.raises(ValueError, match=f"{name}.*{number}"):
            run(["true"], new=UTS | OWN, **{name: value})


def test_positional_options() -> None:
    process = Popen(["cat"], -1, None, subprocess.PIPE, subprocess.PIPE, new=UTS | OWN)
    assert process.communicate(b"text") == (b"text", None)
    with pytest.raises(TypeError, match="positional"):
        Popen(["true"], *[None] * 20, new=UTS)


def test_path_is_searched_inside(tmp_path: Path) -> None:
    """In the directories of the program's own PATH, under the root that it will have."""
    box = Namespace(MNT | OWN, uid_map="root" if OWN else None, mounts=[Tmpfs("/mnt")])
    tool = tmp_path / "only-outside"
    tool.write_text("#!/bin/sh\necho outside\n")
    tool.chmod(0o755)
    assert said(box, ["only-outside"], env={"PATH": f"/nonexistent:{tmp_path}"}) == "outside\n"
    hidden = box.replace(mounts=[Tmpfs(str(tmp_path))])
    with pytest.raises(FileNotFoundError) as caught:
        hidden.run(["only-outside"], env={"PATH": str(tmp_path)})
    assert caught.value.filename == "only-outside"
    with pytest.raises(FileNotFoundError):
        box.run(["only-outside"])


def test_relative_programs_are_found_from_the_new_directory(box: Namespace, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho relative\n")
    (tmp_path / "tool").chmod(0o755)
    assert said(box, ["./tool"], cwd=tmp_path) == "relative\n"
    with pytest.raises(FileNotFoundError):
        box.run(["./tool"], cwd="/")


def test_relative_directories(box: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert said(box, ["pwd"], cwd="sub") == f"{tmp_path}/sub\n"
    assert said(box, ["pwd"]) == f"{tmp_path}\n"


def test_a_forbidden_program_is_named_before_a_missing_one(tmp_path: Path) -> None:
    """As execvp(3): that there is one which must not run says more than that another is not there."""
    (tmp_path / "tool").write_text("not executable")
    with pytest.raises(PermissionError):
        run(["tool"], new=UTS | OWN, env={"PATH": f"{tmp_path}:/nonexistent"})


def test_environment(box: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSUTIL_TEST_MARK", "ours")
    assert said(box, "echo $NSUTIL_TEST_MARK", shell=True) == "ours\n"
    assert said(box, "echo $NSUTIL_TEST_MARK-$B", shell=True, env={"B": "b", "PATH": "/bin:/usr/bin"}) == "-b\n"
    assert said(box, ["/usr/bin/env"], env={}) == ""
    assert box.run(["/usr/bin/env"], env={b"A": b"\xff"}, capture_output=True).stdout == b"A=\xff\n"


def test_the_environment_of_the_target() -> None:
    with Popen(["sleep", "60"], new=UTS | OWN, uid_map="root" if OWN else None, env={"FROM": "target"}) as process:
        assert enter(process, env="target").run(["/usr/bin/env"], capture_output=True).stdout == b"FROM=target\n"
        assert run(["/usr/bin/env"], enter=process, env="target", capture_output=True).stdout == b"FROM=target\n"
        given = run(["/usr/bin/env"], enter=enter(process, env="target"), env={"A": "1"}, capture_output=True)
        assert given.stdout == b"A=1\n"
        process.kill()


def test_the_environment_of_a_program_that_has_just_started() -> None:
    """The kernel lets go of who started it before /proc/PID/environ has anything."""
    found = []
    for _ in range(50):
        with Popen(["sleep", "60"], new=UTS | OWN, env={"FROM": "target"}) as process:
            found.append(Process.of_pid(process.program_pid).environment())
            process.kill()
    assert set(found) == {b"FROM=target\0"}


# Streams


def test_streams(box: Namespace, tmp_path: Path, leak_check: None) -> None:
    script = "cat; echo err >&2"
    done = box.run([SH, "-c", script], input=b"in", capture_output=True)
    assert (done.stdout, done.stderr) == (b"in", b"err\n")
    done = box.run([SH, "-c", script], input="tëxt", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    assert done.stdout == "tëxterr\n"
    assert done.stderr is None
    assert box.run([SH, "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=2).returncode == 0
    with open(tmp_path / "out", "wb") as file:
        box.run(["echo", "to a file"], stdout=file)
        box.run(["echo", "twice"], stdout=file.fileno(), stderr=file)
    assert (tmp_path / "out").read_text() == "to a file\ntwice\n"


def test_much_data(box: Namespace) -> None:
    data = os.urandom(3 << 20)
    assert box.run(["cat"], input=data, capture_output=True).stdout == data


def test_lines(box: Namespace) -> None:
    with box.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in ("one\n", "two\n"):
            process.stdin.write(line)
            assert process.stdout.readline() == line
        process.stdin.close()
    assert process.returncode == 0


def test_pipesize() -> None:
    import fcntl

    with Popen(["true"], new=UTS | OWN, stdout=subprocess.PIPE, pipesize=1 << 14) as process:
        assert process.stdout is not None
        assert fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ) == 1 << 14


# The end


def test_check(box: Namespace) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        box.run([SH, "-c", "echo out; exit 3"], check=True, capture_output=True)
    assert (caught.value.returncode, caught.value.output, caught.value.stderr) == (3, b"out\n", b"")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        box.run([SH, "-c", "kill -TERM $$"], check=True)
    assert caught.value.returncode == -signal.SIGTERM


def test_timeout_kills(box: Namespace, leak_check: None) -> None:
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        box.run([SH, "-c", "echo early; exec sleep 30"], capture_output=True, timeout=0.2)
    assert time.monotonic() - started < 5
    assert (caught.value.timeout, caught.value.output) == (0.2, b"early\n")


@pytest.mark.parametrize("shape", [{"new": PID | OWN}, {"new": UTS | OWN}, {"new": UTS | OWN, "kill_child": True}])
@pytest.mark.incident("A25")
def test_timeout_ends_the_whole_tree(shape: dict[str, Any], tmp_path: Path) -> None:
    """Even what holds our pipe; the recipe's timeout is the default."""
    script = f"sleep 30 & echo $! >{tmp_path}/pid; (setsid sleep 30) & wait"
    box = Namespace(**shape, timeout=0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        box.run([SH, "-c", script], capture_output=True)
    if not shape["new"] & PID:
        assert is_gone(int((tmp_path / "pid").read_text()))
    assert box.run(["sleep", "0.3"], timeout=None).returncode == 0
    assert box.run(["true"], timeout=20).returncode == 0


def test_wait_with_timeout(box: Namespace) -> None:
    with box.popen(["sleep", "30"]) as process:
        assert process.poll() is None
        for seconds in (0, 0.05, -1):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(seconds)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.05)
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM


def test_many_threads_wait_for_one(box: Namespace) -> None:
    codes: list[int] = []
    with box.popen([SH, "-c", "sleep 0.2; exit 6"]) as process:
        threads = [threading.Thread(target=lambda: codes.append(process.wait())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [6] * 6


def test_an_interrupt_while_waiting(box: Namespace, leak_check: None) -> None:
    """A handler that raises ends the wait at once; run() takes the tree along."""

    def interrupted() -> bool:
        def handler(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            box.run(["sleep", "30"])
        return time.monotonic() - started < 5 and not support.children()

    assert in_child(interrupted)


@pytest.mark.slow
def test_interrupts_at_any_moment_lose_nothing(box: Namespace) -> None:
    """A child that was started when a handler raises is never left to nobody."""

    class Interrupt(BaseException):
        pass

    def storm() -> tuple[int, set[int], set[str]]:
        def handler(*_: object) -> None:
            raise Interrupt

        sys.settrace(None)  # an exception inside the code of a tracer leaves its locks held
        signal.signal(signal.SIGALRM, handler)
        chance = random.Random(5)
        box.run(["true"])
        before, interrupted = support.open_fds(), 0
        for _ in range(300):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.0025))
                    box.run(["sleep", "0.001"])
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
        gc.collect()
        deadline = time.monotonic() + 2
        while support.children() and time.monotonic() < deadline:
            time.sleep(0.01)
            box.run(["true"])  # reaps what subprocess itself had put aside
        return interrupted, support.children(), {what for fd, what in support.open_fds().items() if fd not in before}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        interrupted, children, opened = in_child(storm)
    assert (children, opened) == (set(), set())
    assert interrupted > 50


def test_a_handler_that_returns_does_not_end_the_wait(box: Namespace) -> None:
    def counted() -> int:
        seen: list[int] = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        assert box.run(["sleep", "0.3"]).returncode == 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        return len(seen)

    assert in_child(counted) >= 3


def test_a_dropped_popen_warns_and_is_reaped_later(box: Namespace) -> None:
    def drop() -> tuple[list[str], set[int]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            box.popen(["sleep", "0.1"])
            gc.collect()
        time.sleep(0.4)
        box.run(["true"])  # which looks after those left behind
        return [str(w.message) for w in caught], support.children()

    messages, left = in_child(drop)
    assert len(messages) == 1
    assert "is still running" in messages[0]
    assert left == set()


def test_nothing_is_left_open(box: Namespace) -> None:
    """Not by programs that ended, nor by a Popen that is kept while its program runs on."""
    box.run(["true"])
    before = set(support.open_fds())
    for _ in range(20):
        box.run(["true"], capture_output=True)
        with pytest.raises(FileNotFoundError):
            box.run(["/nonexistent"], capture_output=True)
    assert set(support.open_fds()) == before
    process = box.popen(["sleep", "30"])
    assert set(support.open_fds()) > before
    process.kill()
    process.wait()
    del process
    gc.collect()
    assert set(support.open_fds()) == before


# What it adds


def test_pidfd(box: Namespace) -> None:
    with box.popen(["sleep", "30"]) as process:
        assert isinstance(process.pidfd, int)
        assert not os.get_inheritable(process.pidfd)
        info = Path(f"/proc/self/fdinfo/{process.pidfd}").read_text()
        assert f"Pid:\t{process.pid}\n" in info
        signal.pidfd_send_signal(process.pidfd, signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM
        assert process.pidfd >= 0
    assert process.pidfd == -1


def test_program_pid() -> None:
    for shape, pid_inside in (("plain", None), ("init", "2")):
        with Popen([SH, "-c", "echo $$; exec sleep 30"], **SHAPES[shape], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line == (pid_inside or str(process.pid))
            assert process.program_pid is not None
            assert Path(f"/proc/{process.program_pid}/comm").read_text() in ("sh\n", "sleep\n")
            assert (process.program_pid == process.pid) == (shape == "plain")
            process.kill()


def test_the_pid_of_a_program_that_has_ended() -> None:
    """It is known however soon the program ends."""
    for _ in range(20):
        with Popen(["true"], new=PID | OWN) as process:
            assert process.program_pid
            assert process.program_pid != process.pid


def test_namespaces(box: Namespace) -> None:
    with box.popen(["sleep", "30"]) as process:
        for name in ("uts", "net", "pid"):
            file = process.namespaces[name]
            assert file.inode == os.stat(f"/proc/{process.program_pid}/ns/{name}").st_ino
            assert nsutil.open(process, name) == file
        assert process.namespaces.types == ALL
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError):
            process.namespaces["uts"].fileno()


def test_a_handle_can_be_entered_by_its_program() -> None:
    box: Any = {"new": PID | UTS | MNT | OWN, "uid_map": "root" if OWN else None, "hostname": "entered"}
    with Popen(["sleep", "30"], **box) as process:
        assert (
            enter(process, ["uts", "user"] if OWN else "uts").run(["hostname"], capture_output=True).stdout
            == b"entered\n"
        )
        process.kill()


def test_signals_do_not_reach_strangers(box: Namespace) -> None:
    process = box.popen(["true"])
    process.wait()
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, 0):
        process.send_signal(sig)
    process.kill()
    process.terminate()


# subprocess's options


def test_session_and_group(box: Namespace) -> None:
    code = "import os; print(os.getsid(0), os.getpgid(0), os.getpid())"
    command = [sys.executable, "-I", "-S", "-c", code]
    if box.new & PID:
        assert said(box, command) == "0 0 2\n"
    else:
        session, group, _ = said(box, command).split()
        assert (int(session), int(group)) == (os.getsid(0), os.getpgid(0))
    session, group, pid = said(box, command, start_new_session=True).split()
    assert session == group == pid
    session, group, pid = said(box, command, process_group=0).split()
    assert group == pid
    assert session != pid
    session, group, pid = said(box.replace(new_session=True), command, start_new_session=True).split()
    assert session == group == pid


@pytest.mark.parametrize("options", [{"start_new_session": True}, {"process_group": 0}])
def test_the_group_of_the_handle_is_not_ours(box: Namespace, options: dict[str, Any]) -> None:
    """Who signals os.getpgid(process.pid) must never hit the caller."""
    with box.popen(["sleep", "30"], **options) as process:
        group = os.getpgid(process.pid)
        assert group == process.pid != os.getpgid(0)
        os.killpg(group, signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM


def test_umask_and_directory_of_the_call_win(box: Namespace) -> None:
    recipe = box.replace(cwd="/usr", umask=0o77)
    assert said(recipe, "pwd; umask", shell=True) == "/usr\n0077\n"
    assert said(recipe, "pwd; umask", shell=True, cwd="/", umask=0o22) == "/\n0022\n"
    assert said(recipe, "pwd; umask", shell=True, umask=-1) == "/usr\n0077\n"


def test_audit(box: Namespace) -> None:
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from nsutil import UTS, run
def hook(event, args):
    if event == "subprocess.Popen":
        print(args, flush=True)
sys.addaudithook(hook)
run(["true"], new={int(UTS | OWN)}, cwd="/")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "('true', ['true'], '/', None)\n"


def test_an_audit_hook_can_forbid(box: Namespace) -> None:
    def forbidden() -> bool:
        def hook(event: str, args: object) -> None:
            if event == "subprocess.Popen":
                raise RuntimeError("forbidden")

        sys.addaudithook(hook)
        with pytest.raises(RuntimeError, match="forbidden"):
            box.run(["true"], capture_output=True)
        return support.children() == set()

    assert in_child(forbidden)


# As an ordinary user


def ordinary() -> list[Any]:
    found: list[Any] = []
    found.append(
        run([SH, "-c", "id -u; hostname"], new=USER | UTS, uid_map="root", hostname="mine", capture_output=True)
    )
    found.append(run([SH, "-c", "id -u; echo $$"], new=USER | PID | MNT | NET, capture_output=True))
    with pytest.raises(PermissionError):
        run(["true"], new=UTS)
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sleep", "30"], new=USER | PID, timeout=0.1)
    every = ALL & ~TIME if support.lacks("time") else ALL
    with Popen(["sleep", "30"], new=every, uid_map="root") as process:
        found.append(run(["id", "-u"], enter=process, capture_output=True))
        process.terminate()
        found.append(process.wait(5))
    return [item if isinstance(item, int) else item.stdout.split() for item in found]


def test_as_an_ordinary_user() -> None:
    me = str(support.USER_ID if ROOT else os.geteuid()).encode()
    assert as_user(ordinary) == [[b"0", b"mine"], [me, b"2"], [b"0"], -signal.SIGTERM]


@needs_root
def test_a_program_that_only_root_may_see() -> None:
    """The program is looked for with the rights that it will have."""

    def look() -> str:
        with pytest.raises(PermissionError) as caught:
            run(["/root/anything"], new=USER, uid_map="root")
        return str(caught.value.filename)

    if os.stat("/root").st_mode & 0o005:
        pytest.skip("everybody may look into /root")
    assert as_user(look) == "/root/anything"


# Speed


def test_a_repeated_call_is_compiled_once() -> None:
    from nsutil import _spawn

    made: list[Namespace] = []
    original = _spawn.compile_child
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_spawn, "compile_child", lambda recipe: made.append(recipe) or original(recipe))
        for _ in range(3):
            run(["true"], new=UTS | OWN, hostname="compiled-once")
    assert len(made) == 1


def test_options_with_another_type_are_another_recipe() -> None:
    with pytest.raises(TypeError):
        run(["true"], new=UTS | OWN, uid=True)
