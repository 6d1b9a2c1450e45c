"""nsutil unshare beside the installed unshare(1), and what only the newest one has by its description."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support_cli
from support import children, in_child, needs_kernel, needs_program, needs_root, uncounted, with_time
from support_cli import PACKAGE, PROBE, child_of, normal, nsutil, program, tool

from nsutil import MNT, _ns
from nsutil.cli import _program, unshare

needs_unshare = needs_program("unshare")
ENV = {"PATH": os.environ["PATH"], "HOME": "/", "X": "a b", "SHELL": "/bin/sh"}
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


def mount(source: bytes | None, target: str, kind: bytes | None, flags: int) -> None:
    assert _ns.run_plan(_ns.Plan([("mount", (source, target.encode(), kind, flags, None), -1, 0)])) is None


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory of this test's own where mount namespaces can be bound: a private mount."""
    mount(str(tmp_path).encode(), str(tmp_path), None, MS_BIND)
    mount(None, str(tmp_path), None, MS_PRIVATE)
    yield tmp_path
    subprocess.run(["umount", "-R", "-l", tmp_path], check=True)


SEEN = [
    "-u", "-i", "-n", "-m", "-C", "-T", "-U", "-p", "-uinmCT", "-pf", "-fp --mount-proc", "-f", "-umf",
    "-r", "-c", "-rc", "-cr", "-Ur", "--map-root-user", "--map-user=5", "--map-group=7", "--map-user 5 --map-group 7",
    "--map-user=daemon --map-group=daemon", "-U --setgroups=deny", "-U --setgroups allow",
    "--map-user=5 --setgroups=allow", "-r --keep-caps", "-c --keep-caps", "-rmpf --mount-proc",
    "-rmpf --mount-proc=/proc --kill-child",
    "-rm --propagation=slave", "-m --propagation=shared", "-m --propagation unchanged", "-m --propagation private",
    "--propagation=slave -u", "-w /usr", "-w/usr -m", "--wd=/usr", "-R /", "-R / -w /usr", "-m -R / --mount-proc",
    "-S 1 -G 2", "-S 7", "-G 7", "-r -S 0", "--setuid=3 -u", "-T --monotonic 1000", "-T --boottime=5000 -f",
    "-T --monotonic=10 --boottime 20", "-fu --kill-child", "-f --kill-child=TERM", "--kill-child=SIGTERM -m",
    "--mount-p -f -p", "-- ", "-f -S1 -G1 --kill-child",
]  # fmt: skip


@needs_root
@needs_unshare
@pytest.mark.parametrize("options", [with_time(each) if re.match(r"-\w*T", each) else each for each in SEEN])
def test_program_sees_the_same(options: str) -> None:
    command = [*options.split(), "sh", "-c", PROBE]
    ours, theirs = nsutil("unshare", *command, env=ENV), tool("unshare", *command, env=ENV)
    assert normal(ours.out) == normal(theirs.out)
    assert (ours.status, ours.err) == (theirs.status, theirs.err)
    assert ours.status == (2 if options == "-p" else 0)  # the second process of a PID namespace without a first


FAILURES = [
    "--foo", "-x", "--map-user", "-S", "--ma", "--fork=3 true", "-S x true", "-S -1 true",
    "--propagation x true", "--setgroups x true", "--kill-child=FOO true", "--kill-child=15 true",
    "--map-user=nosuch true", "--map-users=1:2 true", "--map-users=x true", "--monotonic 5 true", "--wd= true",
    "-T --monotonic x true", "-r --setgroups allow true", "-R /nosuch true", "-w /nosuch true", "-p=/tmp true",
    "--pid=/nosuch/file true", "--uts=/nosuch/file true", "-m --mount-proc=/nosuch true", "-r -G 0 true",
    "/etc/passwd", "/nosuch", "nosuch", "-f nosuch", "-f /etc/passwd", "-u /",
]  # fmt: skip


@needs_unshare
@needs_root
@pytest.mark.parametrize("options", FAILURES)
def test_failures_have_the_same_status_and_one_line(options: str) -> None:
    ours, theirs = nsutil("unshare", *options.split(), env=ENV), tool("unshare", *options.split(), env=ENV)
    assert ours.status == theirs.status
    assert ours.out == ""
    assert ours.err.startswith("nsutil unshare: ")
    assert ours.err.count("\n") == 1
    assert "Traceback" not in ours.err


def test_failure_names_step_object_and_reason() -> None:
    assert nsutil("unshare", "-R", "/nosuch", "true").err == (
        "nsutil unshare: change root directory to '/nosuch': No such file or directory\n"
    )
    assert "did you mean '--fork'" in nsutil("unshare", "--frok").err
    assert "the kernel denies" in nsutil("unshare", "-r", "-G", "0", "true").err
    assert "needs --fork" in nsutil("unshare", "--pid=x", "true").err


def test_debug_shows_the_traceback() -> None:
    done = nsutil("unshare", "--debug", "-R", "/nosuch", "true")
    assert done.status == 1
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("nsutil unshare: change root directory")
    assert "Traceback" in nsutil("unshare", "-R", "/nosuch", "true", env={**ENV, "NSUTIL_DEBUG": "1"}).err


@pytest.mark.parametrize("fork", ["", "-f"])
@pytest.mark.parametrize("number", [1, 2, 9, 15, 13, 6])
def test_death_by_the_same_signal(fork: str, number: int) -> None:
    assert nsutil("unshare", *fork.split(), "sh", "-c", f"ulimit -c 0; kill -{number} $$").status == -number


@pytest.mark.parametrize("fork", ["", "-f"])
def test_exit_status_is_the_programs(fork: str) -> None:
    assert nsutil("unshare", *fork.split(), "sh", "-c", "exit 77").status == 77


def test_same_process_without_fork() -> None:
    """The program replaces us: who starts it and waits for its pid meets it."""
    code = (
        "import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'nsutil', 'unshare', 'sh', '-c', 'echo $$'])"
    )
    env = support_cli.ENV
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate()[0] == f"{process.pid}\n"


LIBC_SIGNALS = 0b11 << 31  # 32 and 33, which posix_spawn in libc ignores: make and Python 3.13 start commands so


def ignored_and_environment(text: str) -> tuple[int, set[str]]:
    first, *rest = text.splitlines()
    return int(first.split()[1], 16) & ~LIBC_SIGNALS, set(rest)


def test_what_python_changes_is_put_back() -> None:
    """Signals that the interpreter ignores, and the locale variable it sets in the C locale."""
    script = "grep SigIgn /proc/self/status; env"
    env = {"PATH": ENV["PATH"]}
    plain = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True)
    done = program("unshare", "sh", "-c", script, env=env)
    ours, theirs = ignored_and_environment(done.out), ignored_and_environment(plain.stdout)
    ours[1].discard(f"PYTHONPATH={PACKAGE}")
    assert ours == theirs
    kept = program("unshare", "sh", "-c", script, env={**env, "LC_CTYPE": "C.UTF-8"})
    assert "LC_CTYPE=C.UTF-8" in kept.out


def test_ignored_signals_stay_ignored() -> None:
    env = support_cli.ENV
    script = f"trap '' INT HUP; exec {sys.executable} -m nsutil unshare -f grep SigIgn /proc/self/status"
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[1], 16) & ~LIBC_SIGNALS == 0b11


@needs_unshare
@needs_root
def test_sigchld_may_be_ignored() -> None:
    """By whoever starts it; the child's status is not lost, and the program has the default as with unshare(1)."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "for name in ('SIGPIPE', 'SIGXFSZ'): signal.signal(getattr(signal, name), signal.SIG_DFL)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    ours, theirs = [sys.executable, "-m", "nsutil", "unshare"], ["unshare"]
    for options in (["-f"], ["-f", "-m", "--map-user=0"], []):
        found = []
        for command in (ours, theirs):
            argv = [sys.executable, "-c", code, *command, *options, "grep", "SigIgn", "/proc/self/status"]
            found.append(tool(*argv, env=support_cli.ENV))
        assert found[0] == found[1]
    lost = tool(sys.executable, "-c", code, *ours, "-f", "--map-users=all", "sh", "-c", "exit 3", env=support_cli.ENV)
    assert lost.status == 3


def test_no_descriptor_is_inherited() -> None:
    mapped = "--map-users=all" if os.geteuid() == 0 else "--map-root-user"
    for options in ([], ["-f", "--kill-child"], ["-mU", mapped]):
        done = program("unshare", *options, "ls", "/proc/self/fd")
        assert done.out.split() == ["0", "1", "2", "3"], done  # 3: the listing's own


@pytest.mark.parametrize("env", [{"SHELL": "/bin/sh"}, {"SHELL": "/nosuch"}, {}])
@needs_unshare
def test_default_program_is_the_shell(env: dict[str, str]) -> None:
    env = {"PATH": ENV["PATH"], **env}
    ours, theirs = nsutil("unshare", env=env), tool("unshare", env=env)
    assert (ours.status, ours.out) == (theirs.status, theirs.out)


def test_an_empty_shell_is_none() -> None:
    """As util-linux 2.42: the one of the password file."""
    ours = nsutil("unshare", env={"PATH": ENV["PATH"], "SHELL": ""})
    assert (ours.status, ours.err) == (0, "")  # with nothing to read


@needs_root
@pytest.mark.parametrize("options", ["--map-users=0:0:0", "--map-users=5,5,0", "--map-users=0:0:0 --map-groups=0:0:0"])
def test_a_range_of_no_ids_is_nothing(options: str) -> None:
    """As util-linux 2.42; others that are given with it stay."""
    assert nsutil("unshare", *options.split(), "cat", "/proc/self/uid_map", env=ENV).out == ""
    beside = nsutil("unshare", *options.split(), "--map-users=0:100000:5", "cat", "/proc/self/uid_map", env=ENV)
    assert beside.out.split() == ["0", "100000", "5"]


def test_shell_is_a_login_shell(tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.symlink_to("/bin/cat")
    ours = nsutil("unshare", env={"SHELL": str(shell)})
    assert ours.status == 0  # cat, with nothing to read
    shell.unlink()
    shell.write_text("#!/bin/sh\ntr '\\0' ' ' < /proc/$$/cmdline\n")
    shell.chmod(0o755)
    assert str(shell) in nsutil("unshare", env={"SHELL": str(shell), "PATH": ENV["PATH"]}).out


@needs_unshare
@pytest.mark.parametrize("path", ["{0}:/bin", "{0}", "/nosuch:/etc/passwd:/bin", ":/bin", ""])
def test_program_is_searched_as_execvp_does(path: str, tmp_path: Path) -> None:
    (tmp_path / "true").write_text("not executable")
    (tmp_path / "nsu-plain").write_text("echo no interpreter line $1\n")
    (tmp_path / "nsu-plain").chmod(0o755)
    env = {"PATH": path.format(tmp_path)}
    where = os.environ["PATH"].split(":")
    unshare = next(f"{directory}/unshare" for directory in where if os.path.exists(f"{directory}/unshare"))
    for name in ("true", "nsu-plain", "./nsu-plain", str(tmp_path / "nsu-plain")):
        ours, theirs = nsutil("unshare", name, "x", env=env), tool(unshare, name, "x", env=env)
        assert (ours.status, ours.out) == (theirs.status, theirs.out), name


# Id maps


@pytest.mark.parametrize(
    ("options", "uids", "gids", "setgroups"),
    [
        ("--map-users 0:100000:10 -r", "0 0 1;1 100000 9", "0 0 1", "allow"),
        ("--map-users 100000,0,10 -r", "0 0 1;1 100000 9", "0 0 1", "allow"),
        ("--map-users 5:100000:10", "5 100000 10", "", "allow"),
        ("--map-users 5:100000:10 --map-users 20:200000:3", "5 100000 10;20 200000 3", "", "allow"),
        ("--map-users 0:100000:10 --map-user 4", "4 0 1;0 100000 4;5 100004 5", "", "allow"),
        ("--map-users 1:0:10 --map-user 4", "4 0 1;1 1 3;5 4 6", "", "allow"),
        ("--map-users all --map-groups=all", "0 0 4294967295", "0 0 4294967295", "allow"),
        ("--map-users 0:0:5 --map-groups 0:0:6 --setgroups deny", "0 0 5", "0 0 6", "deny"),
        ("--map-users 0:0:5 --map-groups 0:0:6 --setgroups allow", "0 0 5", "0 0 6", "allow"),
        ("-r --setgroups deny", "0 0 1", "0 0 1", "deny"),
        ("--owner 1000:1001 -r", "0 0 1", "0 0 1", "allow"),
        ("--owner 1000:1001 --map-users 0:1000:1", "0 1000 1", "", "allow"),
        ("-f --owner 1000:1001 --map-users 0:1000:1 --map-groups 0:1001:1", "0 1000 1", "0 1001 1", "allow"),
    ],
)
@needs_root
def test_maps(options: str, uids: str, gids: str, setgroups: str) -> None:
    files = ["/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups"]
    done = nsutil("unshare", *options.split(), "sh", "-c", f"for f in {' '.join(files)}; do cat $f; echo =; done")
    assert done.status == 0, done.err
    found = [";".join(" ".join(line.split()) for line in part.splitlines() if line) for part in done.out.split("=")[:3]]
    assert found == [uids, gids, setgroups]


@needs_root
def test_subordinate_ids(tmp_path: Path) -> None:
    """The first block of the user, by name or by uid; the groups' too go by the user."""

    def body() -> list[str]:
        mount_private()
        for which, line in ("uid", "root:100000:65536\nroot:300000:5\n"), ("gid", "x:1:2\n0:200000:1000\n"):
            (tmp_path / which).write_text(line)
            target = Path(f"/etc/sub{which}")
            target.touch()
            mount(str(tmp_path / which).encode(), str(target), None, MS_BIND)
        results = []
        for options in ("--map-auto", "--map-auto -r", "--map-subids", "--map-users=auto", "--map-groups subids -c"):
            show = ["cat", "/proc/self/uid_map", "/proc/self/gid_map"]
            done = nsutil("unshare", *options.split(), *show)
            results.append(done.err or ";".join(" ".join(line.split()) for line in done.out.splitlines()))
        return results

    assert in_child(body) == [
        "0 100000 65536;0 200000 1000",
        "0 0 1;1 100000 65535;0 0 1;1 200000 999",
        "100000 100000 65536;200000 200000 1000",
        "0 100000 65536",
        "0 0 1;0 0 1;200000 200000 1000",
    ]


def mount_private() -> None:
    assert _ns.run_plan(_ns.Plan([("unshare", (int(MNT),), -1, 0)])) is None
    mount(None, "/", None, MS_REC | MS_PRIVATE)


@needs_root
def test_unprivileged_with_newuidmap() -> None:
    """An ordinary user maps its own id; ranges need newuidmap(1), whose refusal is reported."""
    own = nsutil("unshare", "-r", "-m", "sh", "-c", "id -u; cat /proc/self/uid_map", uid=4242)
    assert own.out.split() == ["0", "0", "4242", "1"]
    refused = nsutil("unshare", "--map-users", "0:100000:10", "true", uid=4242)
    assert refused.status == 1
    assert "newuidmap" in refused.err
    nobody = nsutil("unshare", "--map-auto", "true", uid=4242)
    assert nobody.status == 1
    assert "/etc/subuid" in nobody.err
    assert nsutil("unshare", "-n", "true", uid=4242).err.startswith(
        "nsutil unshare: unshare(NET): Operation not permitted"
    )


@needs_root
def test_owner_owns() -> None:
    code = "import nsutil; f = nsutil.current('user'); print(f.owner_uid)"
    env = support_cli.ENV
    python = [sys.executable, "-c", code]
    done = nsutil(
        "unshare",
        "--owner",
        "1000:1000",
        "--map-users=0:0:2000",
        "--map-groups=0:0:2000",
        "-S0",
        "-G0",
        *python,
        env=env,
    )
    assert done.out == "1000\n", done.err


@needs_root
def test_keep_caps_survive_setuid() -> None:
    """With --map-users alone there is a way for the program to have both another uid and its capabilities."""
    maps = ["--map-users", "0:0:10", "--map-groups", "0:0:10"]
    show = ["grep", "CapEff", "/proc/self/status"]
    assert nsutil("unshare", *maps, "-S", "5", "-G", "5", *show).out.split()[1] == "0" * 16
    kept = nsutil("unshare", *maps, "-S", "5", "-G", "5", "--keep-caps", *show).out.split()[1]
    assert int(kept, 16) & (1 << 21)  # CAP_SYS_ADMIN


# Persistent namespaces


@needs_root
@pytest.mark.serial  # a mount in everybody's sight
def test_files_keep_namespaces(folder: Path) -> None:
    names = ["uts", "ipc", "net", "cgroup"]
    for name in names:
        (folder / name).touch()
    options = [f"--{name}={folder / name}" for name in names]
    done = nsutil("unshare", *options, "sh", "-c", "hostname FOO; readlink /proc/self/ns/net")
    assert done.status == 0, done.err
    entered = nsutil(
        "nsenter",
        f"--uts={folder / 'uts'}",
        f"--net={folder / 'net'}",
        "sh",
        "-c",
        "hostname; readlink /proc/self/ns/net",
    )
    assert entered.out == f"FOO\n{done.out}"


@needs_root
@needs_kernel("time")
@pytest.mark.serial  # a mount in everybody's sight
def test_files_keep_the_types_that_are_bound_from_outside(folder: Path) -> None:
    names = ["mount", "user", "pid", "time", "uts"]
    for name in names:
        (folder / name).touch()
    options = [f"--{name}={folder / name}" for name in names]
    script = "readlink /proc/self/ns/mnt /proc/self/ns/user /proc/self/ns/pid /proc/self/ns/time /proc/self/ns/uts"
    done = nsutil("unshare", "-f", "-r", "--boottime", "77", *options, "sh", "-c", script)
    assert done.status == 0, done.err
    bound = {os.stat(folder / name).st_ino for name in names}
    assert bound == {int(line.split("[")[1].rstrip("]")) for line in done.out.split()}
    entered = nsutil(
        "nsenter",
        f"--user={folder / 'user'}",
        f"--time={folder / 'time'}",
        "cat",
        "/proc/self/timens_offsets",
        "/proc/self/uid_map",
    )
    assert entered.out.split() == ["monotonic", "0", "0", "boottime", "77", "0", "0", "0", "1"]


@needs_root
def test_a_failed_binding_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for options in (["-f"], ["-m", "-f"], ["-m"], []):
        done = nsutil("unshare", *options, "--uts=/nosuch", "touch", str(marker))
        assert done.status == 1
        assert "/nosuch" in done.err
        assert done.err.count("\n") == 1
        assert not marker.exists()


# Signals


def start(*argv: str) -> subprocess.Popen[str]:
    env = support_cli.ENV
    return subprocess.Popen(
        [sys.executable, "-m", "nsutil", "unshare", *argv], env=env, stdout=subprocess.PIPE, text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


TRAP = "trap 'echo TERM; exit 5' TERM; trap 'echo INT; exit 6' INT; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 5), (signal.SIGINT, 6)])
def test_signals_are_forwarded_on_request(number: int, status: int) -> None:
    with start("--forward-signals", "sh", "-c", TRAP) as process:
        assert first_line(process) == "ready\n"
        process.send_signal(number)
        assert process.wait(10) == status


def test_signals_are_not_forwarded_by_default() -> None:
    with start("-f", "sh", "-c", "echo ready; sleep 0.3; exit 3") as process:
        assert first_line(process) == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 3


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


@needs_root
@pytest.mark.parametrize(
    "options", ["", "-p", "-S 1001 -G 1001", "-pu -S 1001 -G 1001", "--map-users 0:0:9 -S 5 --keep-caps"]
)
def test_kill_child(options: str) -> None:
    with start("--kill-child", *options.split(), "sh", "-c", "echo ready; exec sleep 60") as process:
        assert first_line(process) == "ready\n"
        child = child_of(process.pid)
        process.kill()
        process.wait()
        assert gone(child)


def test_kill_child_by_another_signal() -> None:
    with start("--kill-child=TERM", "sh", "-c", TRAP) as process:
        assert first_line(process) == "ready\n"
        child = child_of(process.pid)
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == "TERM\n"
        assert gone(child)


def test_without_kill_child_it_lives_on() -> None:
    with start("-f", "sh", "-c", "echo ready; exec sleep 30") as process:
        assert first_line(process) == "ready\n"
        child = child_of(process.pid)
        process.kill()
        process.wait()
        time.sleep(0.1)
        assert alive(child)
        os.kill(child, signal.SIGKILL)


# Environment and binary formats


@uncounted
def test_environment() -> None:
    env = {"PATH": ENV["PATH"], "A": "1", "B": "2", "C": ""}
    assert nsutil("unshare", "--clear-env", "env", env=env).out == ""
    assert nsutil("unshare", "--whitelist-env", "A,C,NOSUCH", "env", env=env).out.split() == ["A=1", "C="]
    assert nsutil(
        "unshare", "--whitelist-env=A", "--clear-env", "--whitelist-env", "B", "env", env=env
    ).out.split() == ["A=1", "B=2"]
    assert nsutil("unshare", "env", env=env).out.split() == [f"{k}={v}" for k, v in env.items()]


@needs_root
def test_binary_formats() -> None:
    """Linux 6.7 has binfmt_misc per user namespace."""
    show = [
        "sh",
        "-c",
        "cat /proc/sys/fs/binfmt_misc/status; ls /proc/sys/fs/binfmt_misc; cat /proc/sys/fs/binfmt_misc/t*",
    ]
    plain = nsutil("unshare", "--mount-binfmt", "-rpf", *show)
    if "No such device" in plain.err or "Operation not permitted" in plain.err:
        pytest.skip("binfmt_misc needs Linux 6.7 in a user namespace")
    assert plain.out.split() == ["enabled", "register", "status"]
    loaded = nsutil("unshare", "-rpf", "-l", ":test:E::tst::/bin/echo:", *show)
    assert loaded.out.split()[:6] == ["enabled", "register", "status", "test", "enabled", "interpreter"], loaded.err
    kept = nsutil("unshare", "-rpf", "-R", "/", "-l", ":test:E::tst::/bin/echo:F", *show)
    assert "flags: F" in kept.out, kept.err
    for done in (plain, loaded, kept):
        assert done.status == (1 if done is plain else 0)


def test_help_and_version() -> None:
    done = nsutil("unshare", "--help")
    assert done.status == 0
    assert done.out.startswith("Usage: nsutil unshare")
    assert "Examples:" in done.out
    assert nsutil("unshare", "-V").out.startswith("nsutil ")
    assert nsutil("unshare", "-h", "--nosuch").status == 0  # as getopt: what comes first counts


@uncounted
@needs_root
def test_nothing_is_imported_from_the_new_root(tmp_path: Path) -> None:
    """A module that lies below --root, where ours would be looked for, never runs."""
    below = tmp_path / str(PACKAGE / "nsutil").lstrip("/")
    below.mkdir(parents=True)
    for name in ("__init__", "doctor", "_causes", "_causes_mount", "_probe", "resource", "traceback"):
        (below / f"{name}.py").write_text("open('/ran', 'w')")
    for options in (
        ["true"],
        ["-S", "4294967295", "true"],
        ["-w", "/nosuch", "true"],
        ["-f", "--mount-proc=/nosuch", "true"],
    ):
        for debug in ([], ["--debug"]):
            done = program("unshare", *debug, "-R", str(tmp_path), *options)
            assert done.status in (1, 127)
            assert done.err.splitlines()[-1].startswith("nsutil unshare: ")
    assert not (tmp_path / "ran").exists()


# A child that ends too early: each runs in a process with signals as a command has them.


def ended(run: Callable[[], object]) -> int:
    def body() -> None:
        _program.default_signals()
        run()

    return os.waitstatus_to_exitcode(os.waitpid(_program.child("nsutil unshare", body), 0)[1])


def kill(pid: int) -> None:
    """Kill a child, and leave it to be waited for."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_forked_child_killed_before_it_may_start() -> None:
    """The command ends as its child did, not by SIGPIPE."""
    request, rest = unshare.parse(["--fork", "true"])
    true = _program.Program(rest)
    assert ended(lambda: unshare.run_child(request, true, None, lambda: kill(*children()))) == -signal.SIGKILL


def test_helper_killed(capfd: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        helper = _program.Helper("nsutil unshare", lambda: None)
        kill(helper.pid)
        helper.go()

    assert ended(run) == 1
    assert capfd.readouterr().err == "nsutil unshare: a helper process was ended by signal 9\n"
