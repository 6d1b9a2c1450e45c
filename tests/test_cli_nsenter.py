"""nsutil nsenter beside the installed nsenter(1), and what only the newest one has by its description."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
import support_cli
from support import in_child, lacks, needs_program, needs_root, uncounted, with_time
from support_cli import PROBE, child_of, normal, nsutil, program, running, tool

import nsutil as library
from nsutil._target import Process
from nsutil.cli.nsenter import differing

needs_nsenter = needs_program("nsenter")
ENV = {"PATH": os.environ["PATH"], "HOME": "/", "SHELL": "/bin/sh"}
USER = 4242

pytestmark = needs_root


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    """A process in new namespaces of all types but USER, somewhere else, with an environment of its own."""
    if lacks("time"):
        pytest.skip("this kernel has no time")
    options = ["-inupCTm", "--boottime=500", "-f", "--mount-proc", "-w", "/usr"]
    command = ["env", "-i", "MARK=1", "PATH=/usr/bin:/bin", "sh", "-c", "echo; exec sleep 300"]
    with running("unshare", *options, *command) as pid:
        child = child_of(pid)
        yield child
        os.kill(child, signal.SIGKILL)


@pytest.fixture(scope="module")
def users() -> Iterator[int]:
    """A process of an ordinary user in its own USER, MNT, NET, UTS and PID namespaces."""
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    with running(*become, "unshare", "-Umnupf", "-r", "sh", "-c", "echo; exec sleep 300") as pid:
        child = child_of(pid)
        yield child
        os.kill(child, signal.SIGKILL)


def both(target: int, options: str, *command: str, env: dict[str, str] = ENV) -> None:
    """The same command line does the same with both."""
    argv = [*options.replace("{T}", str(target)).split(), *(command or ("sh", "-c", PROBE))]
    ours, theirs = nsutil("nsenter", *argv, env=env), tool("nsenter", *argv, env=env)
    assert normal(ours.out) == normal(theirs.out)
    assert ours.status == theirs.status, ours.err


SEEN = [
    "-t {T} -a", "-at {T}", "-t {T} -u", "-t {T} -i", "-t {T} -n", "-t {T} -C", "-t {T} -T", "-t {T} -m", "-t {T} -p",
    "-t {T} -m -p", "-t {T} -uin", "--target={T} --uts --net", "-u/proc/{T}/ns/uts", "--net=/proc/{T}/ns/net -t {T} -u",
    "--mount=/proc/{T}/ns/mnt", "-t {T} -a --net=/proc/self/ns/net", "-t {T} -m -r", "-t {T} -m -w", "-t {T} -m -r -w",
    "-t {T} -m -w/proc", "-t {T} -m -W/etc", "-t {T} -m --wdns=/etc", "-t {T} -a -r/ -w/usr", "-t {T} -u -w/usr",
    "-t {T} -u -r/", "-t {T} -u -S 3", "-t {T} -u -G 3", "-t {T} -u -S 3 -G 4", "-t {T} -a --preserve-credentials",
    "-t {T} -p -F -n", "-t {T} --no-fork -u", "-t {T} -m -S 5 -w", "-t {T} --user --uts --user",
]  # fmt: skip


@needs_nsenter
@pytest.mark.parametrize("options", SEEN)
def test_program_sees_the_same(options: str, target: int) -> None:
    both(target, options)


@needs_nsenter
@pytest.mark.parametrize(
    "options",
    [with_time("-a"), "-U", "-Un", "-Um -r -w", "-U --preserve-credentials", "-Upmn", "-U -S 0 -G 0", "-n", "-U -S 7"],
)
def test_program_sees_the_same_in_a_users(options: str, users: int) -> None:
    both(users, f"-t {{T}} {options}")


FAILURES = [
    "-m true", "-t 0 -m true", "-t 99999999 -m true", "-t x -m true", "-t -1 -u true", "-W/x -w/x -t {T} -u true",
    "--uts=/etc/passwd true", "--uts=/proc/self/ns/net true", "-t {T} -U true", "-a true",
    "-u/proc/self/ns/uts -w true",    "-u/proc/self/ns/uts -r true", "--uts= true",
    "-t {T} -u -S x true", "-t {T} -u --foo",
    "-t {T} -u nosuch", "-t {T} -a nosuch", "-t {T} -m /etc/passwd", "-t {T} -m -W/nosuch true",
    "-t {T} -m -w/nosuch true", "-t {T} -u -r/nosuch true", "-t", "-x", "--u",
]  # fmt: skip


@needs_nsenter
@pytest.mark.parametrize("options", FAILURES)
def test_failures_have_the_same_status_and_one_line(options: str, target: int) -> None:
    argv = options.replace("{T}", str(target)).split()
    ours, theirs = nsutil("nsenter", *argv, env=ENV), tool("nsenter", *argv, env=ENV)
    assert ours.status == theirs.status, ours.err
    assert ours.err.startswith("nsutil nsenter: ")
    assert ours.err.count("\n") == 1


@needs_nsenter
def test_pid_1_is_entered_or_refused_as_by_the_tool() -> None:
    """Root may enter it, unless something keeps even root out."""
    argv = "-t 1 -a true".split()
    ours, theirs = nsutil("nsenter", *argv, env=ENV), tool("nsenter", *argv, env=ENV)
    assert ours.status == theirs.status, ours.err
    assert (ours.err.count("\n"), ours.err.startswith("nsutil nsenter: ")) == ((1, True) if ours.status else (0, False))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("true", "no namespace specified"),  # since util-linux 2.41
        ("-t {T} -S 5 -G 5 id", "no namespace specified"),
        ("-t {T} -t {T} -u true", "given twice"),
        ("-t {T}:1 -u true", "is another one"),
        ("-t {T}:x -u true", "pidfd inode"),
        ("-t {T} -U true", "our own user namespace"),
        ("--net=:1 true", "no process here"),
        ("--net=:x true", "namespace id"),
        ("--net=/etc/passwd true", "/etc/passwd"),
        ("--net=/proc/self/ns/uts true", "is a uts namespace, not a net namespace"),
        ("-N 3 true", "no target PID specified for --net-socket"),
        ("-t {T} -N 99 true", "descriptor 99"),
        ("-t {T} -u --user-parent true", "is our own"),
        ("-u/proc/self/ns/uts -e true", "no target PID specified for --env"),
        ("-u/proc/self/ns/uts -S follow true", "no target PID specified for --setuid"),
        ("-u/proc/self/ns/uts -c true", "no target PID specified for --join-cgroup"),
    ],
)
def test_failures_of_newer_options(options: str, said: str, target: int) -> None:
    done = nsutil("nsenter", *options.replace("{T}", str(target)).split())
    assert done.status == 1
    assert said in done.err
    assert done.err.count("\n") == 1


@needs_nsenter
@pytest.mark.parametrize("fork", ["-u", "-p"])
@pytest.mark.parametrize("script", ["exit 77", "kill -9 $$", "kill -15 $$", "kill -2 $$"])
def test_ends_as_the_program_ends(fork: str, script: str, target: int) -> None:
    both(target, f"-t {{T}} {fork}", "sh", "-c", script)


def test_pid_and_inode(target: int) -> None:
    pidfd = os.pidfd_open(target)
    inode = os.fstat(pidfd).st_ino
    os.close(pidfd)
    assert nsutil("nsenter", "-t", f"{target}:{inode}", "-u", "true").status == 0


def test_by_id(target: int) -> None:
    """By handle where the kernel finds one by id alone, else among the processes."""
    with library.open(target, "net") as file:
        if file.id is None:
            pytest.skip("namespace ids need Linux 6.18")
        done = nsutil("nsenter", f"--net=:{file.id}", "readlink", "/proc/self/ns/net")
        assert done.out == f"net:[{file.inode}]\n"
        assert nsutil("nsenter", f"-u:{file.id}", "true").status == 1  # another type's


@pytest.mark.parametrize("options", ["-u=/proc/{T}/ns/uts", "-t {T} -u -w=/usr", "-t {T} -u -W=/usr"])
def test_equals_after_a_short_option(options: str, target: int) -> None:
    done = nsutil("nsenter", *options.format(T=target).split(), "sh", "-c", "readlink /proc/self/ns/uts; pwd")
    assert done.out.split() == [os.readlink(f"/proc/{target}/ns/uts"), "/usr" if "/usr" in options else os.getcwd()]


@pytest.mark.skipif(os.path.isdir("/sys/fs/selinux"), reason="has SELinux")
@pytest.mark.parametrize("options", ["-t {T} -Z -u", "-u/proc/{T}/ns/uts --follow-context"])
def test_follow_context_means_nothing_without_selinux(options: str, target: int) -> None:
    assert nsutil("nsenter", *options.format(T=target).split(), "true").status == 0


@uncounted
def test_environment_of_the_target(target: int) -> None:
    assert nsutil("nsenter", "-t", str(target), "-u", "-e", "env").out.split() == [
        "MARK=1",
        "PATH=/usr/bin:/bin",
        "PWD=/usr",
    ]


def test_cgroup_of_the_target(target: int) -> None:
    own = [line for line in Path(f"/proc/{target}/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not own or "cgroup2" not in Path("/proc/mounts").read_text():
        pytest.skip("needs cgroup v2")
    done = nsutil("nsenter", "-t", str(target), "-u", "-c", "cat", "/proc/self/cgroup")
    assert own[0] in done.out.splitlines(), done.err


def test_network_of_a_socket(tmp_path: Path) -> None:
    """A socket keeps its network namespace, wherever its process went."""
    script = (
        "import os, socket, sys, time, nsutil\n"
        "with nsutil.Namespace('net'):\n"
        "    s = socket.socket(); inode = os.stat('/proc/thread-self/ns/net').st_ino\n"
        "os.dup2(s.fileno(), 55); print(inode, flush=True); time.sleep(60)\n"
    )
    env = support_cli.ENV
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        inode = process.stdout.readline().strip()
        done = nsutil("nsenter", "-t", str(process.pid), "-N", "55", "readlink", "/proc/self/ns/net")
        assert done.out == f"net:[{inode}]\n", done.err
        refused = nsutil("nsenter", "-t", str(process.pid), "-N", "1", "true")
        assert refused.status == 1
        assert f"descriptor 1 of process {process.pid}" in refused.err
        process.kill()


def test_user_parent(users: int) -> None:
    """The user namespace above: of what is entered, or of the user namespace itself."""
    nested = ["unshare", "-Ur", "-n", "sh", "-c", "echo; exec sleep 60"]
    with running("nsenter", "-t", str(users), "-U", *nested) as pid:
        ours = f"user:[{os.stat(f'/proc/{users}/ns/user').st_ino}]\n"
        show = ["readlink", "/proc/self/ns/user"]
        assert nsutil("nsenter", "-t", str(pid), "-U", "--user-parent", *show).out == ours
        # NET is owned by the nested one, whose own it is.
        done = nsutil("nsenter", "-t", str(pid), "-n", "--user-parent", *show)
        assert done.out == f"user:[{os.stat(f'/proc/{pid}/ns/user').st_ino}]\n", done.err


def test_ids_follow_the_target() -> None:
    with running(
        "setpriv", "--reuid=31", "--regid=32", "--clear-groups", "unshare", "-U", "sh", "-c", "echo; exec sleep 60"
    ) as pid:
        done = nsutil(
            "nsenter", f"--uts=/proc/{pid}/ns/uts", "-t", str(pid), "-S", "follow", "-G", "follow", "id", "-u"
        )
        assert done.out == "31\n"


def test_keep_caps() -> None:
    with running("unshare", "-U", "--map-user=0", "sh", "-c", "echo; exec sleep 60") as pid:
        caps = ["grep", "CapEff", "/proc/self/status"]
        options = ["-t", str(pid), "-U", "--preserve-credentials"]
        done = nsutil("nsenter", *options, "--keep-caps", *caps)
        assert int(done.out.split()[1], 16) & (1 << 21)  # CAP_SYS_ADMIN


def test_ordinary_user(users: int) -> None:
    """The owner gets in; leaving groups alone is what the kernel asks for there."""
    options = ["-t", str(users), "-a"]
    refused = nsutil("nsenter", *options, "true", uid=USER)
    assert refused.status == 1
    assert "--preserve-credentials" in refused.err
    done = nsutil(
        "nsenter", *options, "--preserve-credentials", "sh", "-c", "id -u; readlink /proc/self/ns/net", uid=USER
    )
    assert done.out == f"0\nnet:[{os.stat(f'/proc/{users}/ns/net').st_ino}]\n", done.err
    stranger = nsutil("nsenter", *options, "true", uid=USER + 1)
    assert stranger.status == 1
    assert "Permission denied" in stranger.err
    alone = nsutil("nsenter", "-t", str(users), "-n", "true", uid=USER)
    assert alone.status == 1
    assert "join net" in alone.err


def test_all_skips_what_is_the_same(users: int) -> None:
    """As its owner, with the host's IPC and CGROUP, which only the host's root could join."""
    show = ["readlink", "/proc/self/ns/ipc"]
    done = nsutil("nsenter", "-t", str(users), "-a", "--preserve-credentials", *show, uid=USER)
    assert done.out == os.readlink("/proc/self/ns/ipc") + "\n", done.err


def test_all_leaves_a_chroot(tmp_path: Path) -> None:
    """The same mount namespace, but another root: what a target stands for includes its root."""
    for name in ("proc", "usr", "lib", "lib64", "bin", "work", "root"):
        (tmp_path / name).mkdir()
    with running("sh", "-c", "echo; exec sleep 60") as pid:

        def chrooted() -> int:
            os.chroot("/proc/self/root")
            return int(differing(Process.of_pid(pid)))

        assert in_child(chrooted) == 0

        def elsewhere() -> int:
            support.private_mounts()
            subprocess.run(["mount", "--bind", "/proc", tmp_path / "proc"], check=True)
            process = Process.of_pid(pid)
            os.chroot(tmp_path)
            return int(differing(process))

        assert in_child(elsewhere) == library.MNT


def test_nothing_is_imported_from_the_other_root(target: int, tmp_path: Path) -> None:
    """A module that lies in the entered root, where ours would be looked for, never runs."""
    evil = tmp_path / "nsutil"
    evil.mkdir()
    for name in ("__init__", "doctor", "_causes", "traceback", "resource"):
        (evil / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    package = Path(library.__file__).parent
    script = f"mount -t tmpfs t {package} && cp {evil}/* {package}; echo; exec sleep 60"
    with running("unshare", "-m", "sh", "-c", script) as pid:
        for command in ("true", "nosuch", "-W/nosuch true", "-S 4294967295 true"):
            program("nsenter", "-t", str(pid), "-m", *command.split(), cwd="/")
            program("nsenter", "--debug", "-t", str(pid), "-m", *command.split(), cwd="/")
        assert os.path.exists(f"/proc/{pid}/root{package}/doctor.py")
        assert not os.path.exists(f"/proc/{pid}/root{tmp_path}/ran")


def test_stop_and_continue(target: int) -> None:
    """With a child in between, both stop and both continue."""
    env = support_cli.ENV
    command = [
        sys.executable,
        "-m",
        "nsutil",
        "nsenter",
        "-t",
        str(target),
        "-p",
        "sh",
        "-c",
        "echo; kill -STOP $$; exit 9",
    ]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.wait(10) == 9


def test_fallback_without_pidfds(target: int) -> None:
    """Before Linux 5.8 each namespace is joined by its file."""
    env = {**support_cli.ENV, "NSUTIL_NO_NEW_CALLS": "1"}
    command = [
        sys.executable,
        "-m",
        "nsutil",
        "nsenter",
        "-t",
        str(target),
        "-a",
        "readlink",
        "/proc/self/ns/uts",
        "/proc/self/ns/net",
    ]
    done = tool(*command, env=env)
    assert done.out == "".join(os.readlink(f"/proc/{target}/ns/{name}") + "\n" for name in ("uts", "net")), done.err


def test_no_descriptor_is_inherited(target: int) -> None:
    with socket.socket() as s:
        s.set_inheritable(False)
        done = program("nsenter", "-t", str(target), "-a", "-r", "-w", "ls", "/proc/self/fd")
    assert done.out.split() == ["0", "1", "2", "3"], done.err
