"""The programs of examples/ run, for root and for everybody."""

from __future__ import annotations

import getopt  # noqa: F401 - imported by an example where only root could read it
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
import support

# pytest's watchdog is a thread, and forking with threads makes Python 3.12 and later warn.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
EXAMPLES = support.ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(support.PACKAGE)}


def run(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


def run_as_user(name: str, *args: str) -> str:
    """What it printed; in a child, since interpreter and checkout may lie where only root can read."""
    reader, writer = os.pipe()
    code = compile((EXAMPLES / name).read_text(), name, "exec")

    def example() -> None:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        # pytest has its own sys.stdout.
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        sys.argv = [name, *args]
        exec(code, {"__name__": "__main__"})

    def child() -> None:
        pid = os.fork()  # the example may become another program
        if pid == 0:
            try:
                example()
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(pid, 0)

    support.as_user(child)
    os.close(writer)
    with open(reader) as file:
        return file.read()


# simple_unshare.py


@support.needs_root
@pytest.mark.parametrize(
    ("option", "entry"),
    [
        ("-C", "cgroup"),
        ("-i", "ipc"),
        ("-m", "mnt"),
        ("-n", "net"),
        ("-p", "pid_for_children"),
        ("-u", "uts"),
        ("-U", "user"),
    ],
)
def test_simple_unshare(option: str, entry: str) -> None:
    # sh is the program, its child readlink the first one in a new PID namespace.
    result = run("simple_unshare.py", option, "sh", "-c", f"readlink /proc/self/ns/pid /proc/$$/ns/{entry}; exit 0")
    inner_pid, inside = result.stdout.split()
    assert result.returncode == 0, result.stderr
    name = entry.removesuffix("_for_children")
    assert inside.startswith(f"{name}:[")
    assert inside != os.readlink(f"/proc/self/ns/{name}")
    assert (inner_pid == os.readlink("/proc/self/ns/pid")) == (option != "-p")


@support.needs_root
def test_simple_unshare_combines_and_passes_on() -> None:
    result = run("simple_unshare.py", "-un", "-i", "sh", "-c", 'hostname box; hostname; echo "$@"', "sh", "-m", "x y")
    assert result.stdout == "box\n-m x y\n"
    assert socket.gethostname() != "box"
    assert run("simple_unshare.py", "sh", "-c", "exit 7").returncode == 7
    assert run("simple_unshare.py", "sh", "-c", "kill -PIPE $$; echo no").returncode == -signal.SIGPIPE


def test_simple_unshare_errors() -> None:
    for args in (["-x", "true"], [], ["-u"]):
        result = run("simple_unshare.py", *args)
        assert (result.returncode, result.stdout) == (2, "")
        assert "usage: simple_unshare.py [-CimnptuU] program" in result.stderr
    result = run("simple_unshare.py", "/nowhere/program")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "No such file or directory" in result.stderr


def test_simple_unshare_as_user() -> None:
    assert "Operation not permitted" in run_as_user("simple_unshare.py", "-n", "true")
    assert run_as_user("simple_unshare.py", "-Un", "true") == ""


# step_by_step.py


def steps_of(output: str) -> dict[str, dict[str, str]]:
    """What each step said before, after, ..."""
    found: dict[str, dict[str, str]] = {}
    name = ""
    for line in output.splitlines():
        if title := re.match(r"\d\. (\w+)  \w.*", line):
            name = title[1]
            found[name] = {}
        else:
            when, _, what = line.strip().partition(" ")
            found[name][when] = what.strip()
    return found


def check_steps(steps: dict[str, dict[str, str]], uid: int) -> None:
    assert steps["MNT"]["before"].endswith("is a mount: False")
    assert steps["MNT"]["after"].endswith("is a mount: True")
    assert "lo" in steps["NET"]["before"]
    assert steps["NET"]["after"] == "interfaces: lo"
    assert steps["IPC"]["after"] == "1 message queues, made in here"
    assert steps["UTS"]["before"] == f"hostname {socket.gethostname()}"
    assert steps["UTS"]["after"] == "hostname step-by-step"
    assert steps["USER"]["before"] == f"uid {uid}, gid {uid}"
    assert steps["USER"]["inside"] == "uid 65534, gid 65534: not mapped yet"
    assert steps["USER"]["after"] == "uid 0, gid 0"
    assert steps["PID"]["before"] != "pid 1"
    assert steps["PID"]["after"] == "pid 1 in the child"


@support.needs_root
def test_step_by_step(leak_check: None) -> None:
    result = run("step_by_step.py")
    assert result.returncode == 0, result.stderr
    steps = steps_of(result.stdout)
    assert list(steps) == ["MNT", "NET", "IPC", "UTS", "USER", "PID"]
    check_steps(steps, 0)
    assert socket.gethostname() != "step-by-step"


def test_step_by_step_as_user(leak_check: None) -> None:
    steps = steps_of(run_as_user("step_by_step.py"))
    assert list(steps) == ["USER", "MNT", "NET", "IPC", "UTS", "PID"]
    check_steps(steps, support.USER_ID)
