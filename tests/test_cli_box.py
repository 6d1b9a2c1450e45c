"""nsutil box: what is inside, that nothing outside is in reach, and its terminal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import support
from support import USER_ID, needs_program, needs_root, no_leaks
from support_cli import ENV, Done, Session, child_of, nsutil

import nsutil as library

FACTS = """
echo "id $(id -u):$(id -g)"; echo "pid $$ $PPID"; echo "host $(hostname)"; pwd
echo "map" $(cat /proc/self/uid_map); grep -E 'CapEff|NoNewPrivs' /proc/self/status
echo "net" $(tail -n +3 /proc/net/dev | cut -d: -f1); echo "sys" $(ls /sys/class/net)
for d in / /usr /etc; do touch $d/nsutil-x 2>/dev/null && echo "writable $d"; done
for d in /tmp /run /dev/shm; do touch $d/nsutil-x && echo "writable $d"; done
ls /proc | grep -c '^[0-9]'; echo x > /dev/null; umask; env | sort
"""
DOCKERS_CAPS = "00000000a80425fb"


def box(*argv: str, **options: object) -> Done:
    """A skip where the host's files cannot be had read-only, with what is mounted below them."""
    done = nsutil("box", *argv, **options)  # type: ignore[arg-type]
    if done.status and "bind / on /: Function not implemented" in done.err and support.lacks("mount-setattr"):
        pytest.skip("this kernel has no mount-setattr")
    return done


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root directory with a static busybox."""
    busybox = shutil.which("busybox")
    if busybox is None or subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode == 0:
        pytest.skip("needs a static busybox")
    root = tmp_path / "root"
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in ("sh", "ls", "cat", "touch", "id", "hostname", "mount", "grep", "umount", "pwd"):
        (root / "bin" / applet).symlink_to("busybox")
    os.chmod(tmp_path, 0o755)
    return root


@needs_root
def test_what_root_gets() -> None:
    """The host's root, read-only; root inside is nobody outside."""
    with no_leaks():
        done = box("--", "sh", "-c", FACTS, env={"TERM": "xterm", "SECRET": "1"})
    lines = done.out.splitlines()
    assert done.status == 0, done.err
    assert lines[:2] == ["id 0:0", "pid 2 1"]
    assert lines[2:5] == ["host box", "/", "map 0 100000 65536"]
    assert f"CapEff:\t{DOCKERS_CAPS}" in lines
    assert "NoNewPrivs:\t1" in lines
    assert "net lo" in lines
    assert "sys lo" in lines
    assert [line for line in lines if line.startswith("writable")] == [
        "writable /tmp",
        "writable /run",
        "writable /dev/shm",
    ]
    assert "0022" in lines
    assert "TERM=xterm" in lines
    assert "HOME=/root" in lines
    assert not any(line.startswith("SECRET") for line in lines)
    assert not Path("/tmp/nsutil-x").exists()


def test_what_an_ordinary_user_gets() -> None:
    done = box("--", "sh", "-c", FACTS, uid=USER_ID)
    if "hint" in done.err or done.status == 1:
        pytest.skip(f"no user namespaces here: {done.err}")
    assert done.out.splitlines()[:5] == ["id 0:0", "pid 2 1", "host box", "/", f"map 0 {USER_ID} 1"]


@needs_root
def test_read_only_stays_read_only() -> None:
    """Not by a remount, not by what was mounted below, not from a user namespace inside."""
    marker = f"/var/tmp/nsutil-box-{os.getpid()}"
    script = f"""
    mount -o remount,rw,bind / ; mount -o remount,rw / ; umount -l /
    touch {marker}
    nsenter -m/proc/self/ns/mnt touch {marker}
    unshare -Urm sh -c 'mount -o remount,rw,bind /; touch {marker}; umount -l /; touch {marker}'
    unshare -Urm nsenter -m/proc/self/ns/mnt touch {marker}
    grep -c ' / / rw' /proc/self/mountinfo
    """
    done = box("--", "sh", "-c", script)
    assert not Path(marker).exists()
    assert done.out == "0\n"


@needs_root
def test_a_root_directory(rootfs: Path) -> None:
    seen = box(str(rootfs), "sh", "-c", "ls /; hostname; id -u; ls /proc/1/cmdline; ls /dev | grep null; touch /data/x")
    assert set(seen.out.split()) >= {"bin", "data", "etc", "proc", "sys", "box", "0", "null"}
    assert not (rootfs / "data/x").exists()  # root's, not of whoever is root inside
    os.chown(rootfs / "data", 100_000, 100_000)
    assert box(str(rootfs), "touch", "/data/y").status == 0
    assert (rootfs / "data/y").stat().st_uid == 100_000
    refused = box("--read-only", str(rootfs), "sh", "-c", "touch /data/z; mount -o remount,rw,bind /; touch /data/z")
    assert refused.status != 0
    assert not (rootfs / "data/z").exists()
    assert box(str(rootfs), "cat", "/etc/passwd").status == 1  # the host's is out of reach


@needs_root
def test_identity() -> None:
    def ids(*options: str) -> str:
        return box(
            *options,
            "--",
            "sh",
            "-c",
            "echo $(id -u):$(id -g) $(cat /proc/self/uid_map) $(grep CapEff /proc/self/status)",
        ).out

    assert ids("--user", "1000").startswith("1000:1000 0 100000 65536 CapEff: 0000000000000000")
    assert ids("--user=1000:5").startswith("1000:5 ")
    assert ids("--map", "current").startswith("0:0 0 0 1 ")
    assert ids("--map", "5:0:1").startswith("5:5 5 0 1 ")
    assert ids("--map=all").startswith("0:0 0 0 4294967295 ")
    assert ids("--privileged").strip().endswith(DOCKERS_CAPS)
    assert ids("--cap-add", "net_admin", "--cap-drop=CAP_CHOWN").strip().endswith("00000000a80435fa")
    assert ids("--cap-drop", "all").strip().endswith("0" * 16)
    assert ids("--cap-drop", "all", "--cap-add", "net_admin").strip().endswith("1000")


def test_bounding_of_the_library() -> None:
    """The option behind --cap-add and --cap-drop."""
    recipe = library.Namespace("user", uid_map="root", bounding=["CAP_CHOWN", "kill"])
    assert recipe.bounding == (0, 5)
    assert eval(repr(recipe), vars(library)) == recipe
    done = recipe.run(["grep", "-E", "Cap(Eff|Bnd)", "/proc/self/status"], capture_output=True, text=True)
    assert done.stdout == "CapEff:\t0000000000000021\nCapBnd:\t0000000000000021\n"
    none = library.Namespace("user", uid_map="root", bounding=())
    assert (
        none.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout.split()[1] == "0" * 16
    )
    kept = library.Namespace("user", uid_map="current", bounding="kill", keep_caps=True)
    assert (
        kept.run(["grep", "CapAmb", "/proc/self/status"], capture_output=True, text=True)
        .stdout.split()[1]
        .endswith("020")
    )
    with pytest.raises(ValueError, match="bounding leaves out"):
        library.Namespace("user", ambient="chown", bounding="kill")
    with pytest.raises(ValueError, match="unknown capability"):
        library.Namespace("user", bounding="nosuch")


@needs_root
def test_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hello")
    os.chmod(tmp_path, 0o755)
    mounted = f"{tmp_path}:/mnt"
    assert box("--bind", mounted, "--cwd", "/mnt", "--", "sh", "-c", "pwd; cat f").out == "/mnt\nhello"
    assert box("-b", f"{mounted}:ro", "--map", "all", "--", "touch", "/mnt/x").status == 1
    assert box("-b", mounted, "--map", "all", "--", "touch", "/mnt/x").status == 0
    assert (tmp_path / "x").exists()
    assert (
        box("--tmpfs", "/opt:1m", "--", "sh", "-c", "touch /opt/x; df -k /opt | tail -n 1 | awk '{print $2}'").out
        == "1024\n"
    )
    missing = box("-b", "/nosuch", "--", "true")
    assert missing.status == 1
    assert missing.err.startswith("nsutil box: ")
    assert "/nosuch: No such file or directory" in missing.err


@needs_root
@needs_program("ip")
def test_network() -> None:
    host = sorted(name for _, name in __import__("socket").if_nameindex())
    assert sorted(box("--net", "host", "--", "ls", "/sys/class/net").out.split()) == host
    assert box("--", "ping", "-c1", "-W1", "127.0.0.1").status in (0, 127)
    name = f"nsutil-box-{os.getpid()}"
    with library.named.create(name) as file:
        try:
            done = box("--net", name, "--", "readlink", "/proc/self/ns/net")
            assert done.out == f"net:[{file.inode}]\n", done.err
        finally:
            library.named.remove(name)
    assert box("--net", "nosuch", "--", "true").status == 1


def in_box(*argv: str) -> str:
    done = box(*argv)
    assert done.status == 0, done.err
    return done.out


@needs_root
@support.needs_kernel("time")
def test_time_and_limits() -> None:
    up = float(in_box("--boottime", "86400000", "--", "cat", "/proc/uptime").split()[0])
    assert up > 86_400_000
    assert in_box(
        "--limit", "nofile=64", "--limit", "cpu=10:20", "--", "sh", "-c", "ulimit -n; ulimit -t; ulimit -Ht"
    ).split() == ["64", "10", "20"]
    started = time.monotonic()
    done = box("--timeout", "0.3", "--", "sh", "-c", "sleep 60 & sleep 60")
    assert (done.status, done.err) == (124, "nsutil box: ended after 0.3 seconds\n")
    assert time.monotonic() - started < 10


@needs_root
def test_limits_by_cgroup() -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    controllers = (top / "cgroup.controllers").read_text().split() if top else []
    done = box("--pids", "7", "--", "sh", "-c", "cat /proc/self/cgroup")
    if "pids" in controllers:
        assert done.status == 0, done.err
    else:
        assert done.status == 1
        assert "cgroup v2" in done.err
    assert not top or not list(top.glob("nsutil-box-*"))


@needs_root
def test_environment_and_processes() -> None:
    env = {"A": "1", "B": "2", "PATH": "/nowhere"}
    assert set(box("-e", "A", "-e", "C=3", "-e", "NOSUCH", "--", "env", env=env).out.split()) >= {
        "A=1",
        "C=3",
        "HOME=/root",
    }
    assert "B=2" in box("--keep-env", "-e", "PATH=/bin:/usr/bin", "--", "env", env=env).out
    assert box("--no-init", "--", "sh", "-c", "echo $$").out == "1\n"
    assert box("--new-privs", "--", "grep", "NoNew", "/proc/self/status").out == "NoNewPrivs:\t0\n"
    assert box("--hostname", "foo", "--", "hostname").out == "foo\n"
    assert box("--print").out.startswith("Namespace(CGROUP|IPC|MNT|NET|PID|USER|UTS, ")


@needs_root
@pytest.mark.parametrize(
    ("argv", "status"),
    [("exit 7", 7), ("kill -9 $$", -9), ("kill -15 $$", -15), ("kill -2 $$", -2), ("ulimit -c 0; kill -6 $$", -6)],
)
def test_ends_as_the_program_ends(argv: str, status: int) -> None:
    assert box("--", "sh", "-c", argv).status == status


@needs_root
@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["nosuch", "sh"], 1, "no directory"),
        (["--", "nosuch"], 127, "failed to execute nosuch: No such file"),
        (["--", "/etc/passwd"], 126, "failed to execute /etc/passwd: Permission denied"),
        (["--map", "foo"], 1, "--map needs"),
        (["--map", "1:2"], 1, "--map needs"),
        (["--map", "root", "--privileged"], 1, "exclude each other"),
        (["--limit", "foo=1"], 1, "nofile"),
        (["--limit", "nofile"], 1, "NAME=SOFT"),
        (["--limit", "nofile=x"], 1, "limit"),
        (["--bind", ":"], 1, "SOURCE"),
        (["--bind", "/a:/b:xx"], 1, "SOURCE"),
        (["--timeout", "x"], 1, "seconds"),
        (["--user", "x"], 1, "user"),
        (["--cap-add", "foo"], 1, "unknown capability"),
        (["--read-only"], 1, "needs ROOT"),
        (["--nosuch"], 1, "unrecognized"),
        (["--hostname", "x" * 70, "--", "true"], 1, "64 bytes"),
        (["--memory"], 1, "requires an argument"),
    ],
)
def test_failures_are_one_line(argv: list[str], status: int, said: str) -> None:
    done = box(*argv)
    assert done.status == status
    assert said in done.err
    assert re.fullmatch(r"nsutil box: .+\n", done.err)


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
@support.needs_kernel("mount-setattr")
def test_signals_reach_the_program(number: int) -> None:
    trap = f"trap 'echo got; exit 5' {number}; echo ready; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "nsutil", "box", "--", "sh", "-c", trap]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "got\n"
        assert process.wait(10) == 5


@needs_root
@support.needs_kernel("mount-setattr")
def test_everything_ends_with_it() -> None:
    command = [sys.executable, "-m", "nsutil", "box", "--", "sh", "-c", "sleep 60 & echo ready; sleep 60"]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        init = os.pidfd_open(child_of(process.pid))
        process.kill()
        process.wait()
        import select

        assert select.select([init], [], [], 10)[0]
        os.close(init)


# On a terminal


@needs_root
@support.needs_kernel("mount-setattr")
def test_its_terminal() -> None:
    """A terminal of its own with a name, job control, Ctrl-C, sizes that follow; ours as it was in the end."""
    with Session("box", "--", "sh", env={**ENV, "PS1": "$ "}, size=(33, 99)) as session:
        session.type("echo ready\n", "ready\r\n")
        session.type("stty size; tty\n", "33 99\r\n/dev/console\r\n")
        session.resize(20, 50)
        session.type("stty size\n", "20 50\r\n")
        session.type("sleep 60; echo status $?\n", "")
        time.sleep(0.3)
        session.type("\x03", "^C")
        session.type("echo and $?\n", "and 130\r\n")
        session.type("sleep 60\n", "")
        time.sleep(0.3)
        session.type("\x1a", "Stopped")
        session.type("kill -9 %1; exit 3\n", "")
        session.type("exit 3\n", "")
        assert session.wait() == 3
        assert session.echoes()


@needs_root
@pytest.mark.parametrize("share", ["", "--share-terminal"])
@support.needs_kernel("mount-setattr")
def test_nothing_can_be_typed_outside(share: str) -> None:
    """TIOCSTI inside goes to the terminal inside, where the kernel allows it at all."""
    inject = "import fcntl, termios; [fcntl.ioctl(0, termios.TIOCSTI, c.encode()) for c in 'echo injected\\n']"
    own = Path(sys.executable).resolve().name  # a system may have it by this name alone
    python = shutil.which("python3", path="/usr/bin:/bin") or shutil.which(own, path="/usr/bin:/bin")
    if python is None:
        pytest.skip("needs a python3 for everybody")
    command = f'{sys.executable} -m nsutil box {share} -- {python} -c "{inject}"'
    with Session(
        "unshare", "bash", "-c", f'{command}; read -t 0.3 line; echo "got:$line:"; exit 4', env=ENV
    ) as session:
        assert session.wait() == 4
        allowed = Path("/proc/sys/dev/tty/legacy_tiocsti")
        reached = bool(share) and (not allowed.exists() or allowed.read_text() == "1\n")
        assert ("got:echo injected:" if reached else "got::") in session.seen


@needs_root
@support.needs_kernel("mount-setattr")
def test_terminal_in_a_pipeline() -> None:
    """Standard input a terminal, output a pipe: what is printed goes down the pipe."""
    look = "test -t 0 && echo stdin; test -t 1 || echo piped"
    command = f"{sys.executable} -m nsutil box -- sh -c '{look}' | tr a-z A-Z; exit 4"
    with Session("unshare", "sh", "-c", command, env=ENV) as session:
        assert session.wait() == 4
        assert "STDIN\r\nPIPED\r\n" in session.seen


@needs_root
@support.needs_kernel("mount-setattr")
def test_sharing_the_terminal() -> None:
    with Session("box", "--share-terminal", "--", "bash", "--norc", env=ENV) as session:
        session.type("tty; echo ready\n", "\nready\r\n")
        session.type("sleep 60\n", "")
        time.sleep(0.3)
        session.type("\x03", "^C")
        session.type("exit 3\n", "")
        assert session.wait() == 3
