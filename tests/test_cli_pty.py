"""unshare and nsenter on a terminal: job control, Ctrl-C, Ctrl-Z, its size, and nobody loses it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from support import needs_program, needs_root
from support_cli import ENV, Session, child_of, running

pytestmark = [needs_root, needs_program("bash")]
SHELL = ["bash", "--norc", "--noprofile", "-i"]
ENVIRONMENT = {**ENV, "PS1": "$ ", "TERM": "dumb"}


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    with running("unshare", "-pum", "-f", "--mount-proc", "sh", "-c", "echo; exec sleep 300") as pid:
        child = child_of(pid)
        yield child
        os.kill(child, signal.SIGKILL)


COMMANDS = {
    "in place": ["unshare", "-u"],
    "fork": ["unshare", "-u", "-f"],
    "user": ["unshare", "-r", "-u"],
    "pid": ["unshare", "-p", "-f", "--mount-proc"],
    "kill-child": ["unshare", "-f", "--kill-child"],
    "nsenter": ["nsenter", "-t", "TARGET", "-u"],
    "nsenter pid": ["nsenter", "-t", "TARGET", "-a"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_shell(name: str, target: int) -> None:
    command = [str(target) if word == "TARGET" else word for word in COMMANDS[name]]
    with Session(*command, *SHELL, env=ENVIRONMENT, size=(31, 97)) as session:
        session.type("echo rea''dy; stty size\n", "ready\r\n31 97\r\n")
        assert "job control" not in session.seen
        session.resize(20, 40)
        session.type("stty size\n", "20 40\r\n")
        session.type("sleep 60\n", "sleep 60")
        time.sleep(0.2)
        session.type("\x03", "^C")
        session.type("echo code $?\n", "code 130\r\n")
        session.type("sleep 60\n", "sleep 60")
        time.sleep(0.2)
        session.type("\x1a", "Stopped")
        session.type("fg\n", "sleep 60")
        time.sleep(0.2)
        session.type("\x03", "^C")
        session.type("tty < /dev/tty > /dev/null && echo contr''olled\n", "controlled\r\n")
        session.type("exit 7\n", "exit")
        assert session.wait() == 7


@pytest.mark.parametrize("fork", [[], ["-f"], ["--forward-signals"]])
def test_ctrl_c_ends_the_program(fork: list[str]) -> None:
    """The terminal's signal is for the whole foreground; we end as the program does."""
    with Session("unshare", "-u", *fork, "sh", "-c", "echo ready; exec sleep 60", env=ENVIRONMENT) as session:
        session.type("", "ready")
        time.sleep(0.1)
        os.write(session.fd, b"\x03")
        assert session.wait() == -signal.SIGINT


def test_program_may_handle_ctrl_c() -> None:
    trap = "trap 'echo got; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with Session("unshare", "-u", "-f", "sh", "-c", trap, env=ENVIRONMENT) as session:
        session.type("", "ready")
        session.type("\x03", "got")
        assert session.wait() == 5


def test_below_a_shell_with_job_control(target: int) -> None:
    """Ctrl-Z stops all of it, fg goes on, and the shell around it stays in charge."""
    import sys

    ours = f"{sys.executable} -m nsutil"
    for command in (f"{ours} unshare -f sleep 2", f"{ours} nsenter -t {target} -p sleep 2"):
        with Session("unshare", *SHELL, env=ENVIRONMENT) as session:
            session.type("echo rea''dy\n", "ready")
            session.type(f"{command}\n", "sleep 2")
            time.sleep(0.5)
            session.type("\x1a", "Stopped")
            session.type("jobs | wc -l\n", "1\r\n")
            session.type("fg\n", "sleep 2")
            session.type("echo and $?\n", "and 0\r\n")
            session.type("exit\n", "exit")
            assert session.wait() == 0
