"""nsutil demo: for root and for an ordinary user, in a pipe and on a terminal, and where something is not possible."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import in_child, must, needs_kernel, needs_root, no_leaks, private_mounts
from support_cli import nsutil, program, terminal

from nsutil import USER, _ns
from nsutil._types import NAMES
from nsutil.cli import demo

MAKES_ALL = "Nothing has changed outside.\n"


def namespaces(text: str) -> dict[str, tuple[str, str]]:
    """For each type the namespace outside and the one inside."""
    found = re.findall(r"^   namespace +(\w+):\[(\d+)\] +\w+:\[(\d+)\]", text, re.M)
    return {name: (outside, inside) for name, outside, inside in found}


@needs_root
@needs_kernel("time")
def test_as_root() -> None:
    with no_leaks():
        done = nsutil("demo")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith(MAKES_ALL)
    seen = namespaces(done.out)
    assert seen.keys() == NAMES.keys()
    for name, (outside, inside) in seen.items():
        assert os.readlink(f"/proc/self/ns/{name}") == f"{name}:[{outside}]"
        assert inside != outside
    assert re.search(r"host name .* box\n", done.out)
    assert re.search(r"own pid +\d+ +2\n", done.out)
    assert re.search(r"interfaces .* lo\n", done.out)
    assert re.search(r"up .* 36\d\d days", done.out)
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_as_an_ordinary_user() -> None:
    user = os.geteuid() or 4242
    done = nsutil("demo", uid=user)
    if "not possible here" in done.out:
        pytest.skip("user namespaces are not allowed here")
    assert done.status == 0
    assert namespaces(done.out).keys() == NAMES.keys()
    assert re.search(rf"uid +{user} +0\n", done.out)
    assert done.out.endswith(MAKES_ALL)


def test_chosen_types() -> None:
    done = nsutil("demo", "net", "uts")
    assert list(namespaces(done.out)) == ["net", "uts"]
    wrong = nsutil("demo", "foo")
    assert wrong.status == 1
    assert "'foo'" in wrong.err
    assert nsutil("demo", "--color=pink").status == 1


@needs_root
def test_a_mount_whose_name_is_no_text(tmp_path: Path) -> None:
    def body() -> tuple[int, str]:
        private_mounts()
        target = os.fsencode(tmp_path) + b"/\xff"
        os.mkdir(target)
        with open("/proc/self/mountinfo", "rb") as file:
            before = len(file.readlines())
        subprocess.run([b"mount", b"-t", b"tmpfs", b"none", target], check=True)
        done = nsutil("demo", "mnt")
        return done.status, f"{before} {done.out}{done.err}"

    status, text = in_child(body)
    assert status == 0, text
    before = int(text.split()[0])
    assert re.search(rf"mounts +{before + 1} +{before + 2}\n", text), text


@needs_root
def test_what_is_not_possible_is_explained() -> None:
    """In a user namespace that allows no UTS namespaces."""

    def body() -> tuple[int, str]:
        assert _ns.run_plan(_ns.Plan([("unshare", (int(USER),), -1, 0)])) is None
        for name, text in ("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1"):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        with open("/proc/sys/user/max_uts_namespaces", "w") as file:
            file.write("0")
        done = nsutil("demo", "uts", "ipc")
        return done.status, done.out

    status, out = in_child(body)
    assert status == 1
    assert re.search(r"not possible here: .*UTS.*No space left on device.*max_uts_namespaces", out)
    assert "message queues 0                         1" in out
    assert "1 of 2 could not be shown" in out


@needs_root
def test_kernel_that_lists_no_children() -> None:
    """One without CONFIG_PROC_CHILDREN: here the directory above is covered."""

    def body() -> str:
        private_mounts()
        must("mount", b"none", f"/proc/{os.getpid()}/task".encode(), b"tmpfs", 0, None)
        return demo._children()

    assert in_child(body) == ""


def test_color_on_a_terminal() -> None:
    assert "\x1b[1;32mbox" in terminal("demo", "uts")
    assert "\x1b" not in terminal("demo", "uts", env={**os.environ, "NO_COLOR": "1"})
    assert "\x1b[1" in nsutil("demo", "uts", "--color=always").out


def test_as_a_program() -> None:
    done = program("demo", "ipc")
    assert done.status == 0
    assert done.out.endswith(MAKES_ALL)
