"""nsutil lsns beside the installed lsns(8), and what only the newest one or nsutil has."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import support_cli
from support import needs_program, needs_root
from support_cli import nsutil, tool

import nsutil as library

needs_lsns = needs_program("lsns")


def lsns_version() -> tuple[int, ...]:
    text = tool("lsns", "--version").out if shutil.which("lsns") else "0.0"
    return tuple(map(int, re.findall(r"[0-9]+", text)[:2]))


# In 2.41 widths of columns and the tree of one type are others.
needs_this_layout = pytest.mark.skipif(lsns_version() >= (2, 41), reason="lsns of util-linux 2.41 looks different")
ENV = {**support_cli.ENV, "LC_ALL": "C.UTF-8"}

# A PID namespace with its own /proc: nothing there but this.
SCENE = r"""
cd "$1" && mkdir -p m && mount -t tmpfs x m && cd m && mkdir d && touch n1 "n 2" d/n3 spare
unshare -n sleep 100 & net=$!
unshare -n unshare -u sleep 100 &
unshare -Urnpf unshare -Urn sleep 100 &
wait_for() { while [ -z "$(pgrep -x sleep | sed -n "$1p")" ]; do sleep 0.01; done; }
wait_for 3
for file in n1 "n 2" d/n3; do mount --bind /proc/$net/ns/net "$file"; done
echo 500 > /proc/sys/kernel/ns_last_pid
unshare -i bash -c 'exec -a "$(printf "tab\tand \303\274 \\\\ \001")" sleep 100' &
wait_for 4
ns() { stat -L -c %i /proc/$net/ns/net; }
export NET=$(ns)
"""

CASES = [
    "", "-t net", "-t uts", "-t user", "-t time", "-t cgroup", "-t net -t uts", "-t pid -t user -t mnt", "-l", "-n",
    "-r", "-r -t net", "-nr -t net", "-W -t net", "-t net -l", "-u", "-J", "-J -t net", "-J -l", "-Jn -t uts", "-T",
    "-Towner",
    "--tree", "--tree=owner", "--tree=parent", "--tree=process", "-T=parent -t user -t pid", "-T -t net", "-T -t user",
    "-rT -t user", "-JT -t user", "-JT", "-p 1", "-p 1 -T", "-p 1 -J", "-p 99999", "-J -p 99999",
    "-p 1 -o NS,TYPE", "-o ns,pid", "-o PID,NS", "-o +PATH", "-o +PNS,ONS,PPID,UID,NETNSID,NSFS", "-o COMMAND,NS",
    "-o NS,TYPE,COMMAND,PID", "-o TYPE,USER,NS -t net", "-o PNS,ONS,NETNSID,NS,PPID,PID", "-o NSFS,NS -t net",
    "-o USER,PATH,COMMAND,NS", "--output-all", "--output-all -r", "--output-all -J", "--output-all -T",
    "-o NSFS -t net -T",
    "$NET", "$NET -J", "$NET -o +NS,TYPE", "-r $NET", "-l $NET", "-n $NET", "-T -o COMMAND,NS", "-T -o COMMAND",
    "-T=parent -t net", "-T=parent -t uts -t pid",
    "-T -t net -o TYPE,USER", "-J -T -o TYPE -t user", "-J -o NS,COMMAND -t net",
]  # fmt: skip
FAILURES = [
    "-t foo", "-t net,uts", "-J -r", "-o FOO", "-o PID,", "1", "x", "-p x", "-T=foo", "--tree=foo", "-p 1 4026531838",
    "--nosuch", "-z", "-o", "-t",
]  # fmt: skip

pytestmark = needs_root


def scene(folder: Path, lines: list[str], env: dict[str, str] = ENV) -> list[str]:
    """What each of these shell lines prints in the scene."""
    body = "\n".join(f"{line} </dev/null 2>&1; printf '%s' \"-> $?\x1f\"" for line in lines)
    script = folder / "script"
    script.write_text(f"{SCENE}{body}\nexec kill -9 -1")
    command = ["unshare", "-pmf", "--kill-child", "--mount-proc", "bash", str(script), str(folder)]
    out = subprocess.run(
        command, env=env, capture_output=True, text=True, errors="surrogateescape", timeout=100, check=False
    )
    parts = out.stdout.split("\x1f")
    assert len(parts) == len(lines) + 1, out
    return parts[:-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scene")


def ours(arguments: str) -> str:
    return f"{shlex.quote(sys.executable)} -m nsutil lsns {arguments}"


@needs_lsns
@needs_this_layout
def test_output_is_the_same(folder: Path) -> None:
    lines = [line for arguments in CASES for line in (ours(arguments), f"lsns {arguments}")]
    found = scene(folder, lines)
    for arguments, mine, theirs in zip(CASES, found[::2], found[1::2], strict=True):
        assert mine == theirs, f"lsns {arguments}"


@needs_lsns
@needs_this_layout
@pytest.mark.serial
def test_output_in_the_c_locale(folder: Path) -> None:
    env = {**ENV, "LC_ALL": "C"}
    found = scene(folder, [ours(""), "lsns", ours("-T"), "lsns -T", ours("-rT"), "lsns -rT"], env)
    for mine, theirs in zip(found[::2], found[1::2], strict=True):
        assert mine == theirs


@needs_lsns
def test_failures_have_the_same_status_and_one_line(folder: Path) -> None:
    for arguments in FAILURES:
        mine, theirs = nsutil("lsns", *arguments.split()), tool("lsns", *arguments.split())
        assert mine.status == theirs.status == 1, arguments
        assert mine.out == ""
        assert re.fullmatch(r"nsutil lsns: .*\n", mine.err), arguments


@needs_lsns
@needs_this_layout
@needs_program("script")
def test_width_of_the_terminal(folder: Path) -> None:
    """What is too wide is cut, but not with --notruncate."""
    commands = [
        f"stty cols {columns}; {command}"
        for columns in (40, 55, 62, 70, 80)
        for options in ("-t net", "-t net -u", "-T -t net")
        for command in (ours(options), f"lsns {options}")
    ]
    lines = [f"script -qec {shlex.quote(command)} /dev/null" for command in commands]
    found = scene(folder, lines)
    for line, mine, theirs in zip(lines[1::2], found[::2], found[1::2], strict=True):
        assert mine == theirs, line


# What newer versions have


def test_list_and_tree_exclude_each_other() -> None:
    """Since 2.41."""
    assert nsutil("lsns", "-l", "-T").err.startswith("nsutil lsns: mutually exclusive arguments: --list --tree")
    assert nsutil("lsns", "-T", "process").status == 1


def test_filters(folder: Path) -> None:
    arguments = [
        "-n -Q 'TYPE == \"net\" and NPROCS > 1' -o TYPE,PID",
        "-n -Q 'PID != 1 && TYPE != \"net\"' -o TYPE,USER",
        "-n -Q 'NSFS' -o TYPE",
        "-n -Q 'PID == 1 or PPID == 99' -t uts -o TYPE,PID",
        "-n -Q 'PID > 1' $NET -o PPID",
        "-J -Q 'false'",
        "-Q 'foo ==='",
        "-Q 'NOSUCH == 1'",
    ]
    found = scene(folder, [ours(line) for line in arguments])
    assert [sorted(part.split()) for part in found[:6]] == [
        sorted(words)
        for words in [
            ["net", "1", "->", "0"],
            ["user", "root", "user", "root", "uts", "root", "pid", "root", "ipc", "root", "->", "0"],
            ["net", "->", "0"],
            ["uts", "1", "->", "0"],
            ["1", "->", "0"],
            ["{", '"namespaces":', "[", "]", "}", "->", "0"],
        ]
    ]
    for part in found[6:]:
        assert re.fullmatch(r"nsutil lsns: .*\n-> 1", part)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A UTS namespace that only a mount keeps, and its inode number."""
    path = tmp_path / "uts"
    path.touch()
    subprocess.run(["unshare", f"--uts={path}", "true"], check=True)
    yield path, path.stat().st_ino
    subprocess.run(["umount", path], check=True)


def rows(*arguments: str) -> list[dict[str, object]]:
    done = nsutil("lsns", "-J", *arguments)
    assert done.status == 0, done.err
    return flat(json.loads(done.out)["namespaces"])


def flat(nodes: list[dict[str, object]]) -> list[dict[str, object]]:
    return [row for node in nodes for row in (node, *flat(node.get("children", [])))]  # type: ignore[arg-type]


def test_persistent(bound: tuple[Path, int]) -> None:
    """Bound to a file and without a process (since 2.39)."""
    path, inode = bound
    row = next(row for row in rows("-t", "uts", "-o", "NS,NPROCS,PID,USER,UID,COMMAND,NSFS,PATH") if row["ns"] == inode)
    assert row == {
        "ns": inode, "nprocs": 0, "pid": None, "user": "root", "uid": 0, "command": None,
        "nsfs": str(path), "path": str(path),
    }  # fmt: skip
    listed = [row["ns"] for row in rows("-P", "-t", "uts", "-o", "NS")]
    assert inode in listed
    assert os.stat("/proc/self/ns/uts").st_ino not in listed
    assert nsutil("lsns", "-P", "-p", "1").status == 1


def test_held_by_a_descriptor_or_a_socket() -> None:
    """Since 2.41."""
    script = (
        "import os, socket, time, nsutil\n"
        "with nsutil.Namespace('net'):\n"
        "    s = socket.socket(); n = os.stat('/proc/thread-self/ns/net').st_ino\n"
        "with nsutil.Namespace('uts'):\n"
        "    f = os.open('/proc/thread-self/ns/uts', os.O_RDONLY); u = os.fstat(f).st_ino\n"
        "print(n, u, s.fileno(), f, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=ENV, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        net, uts, socket, file = map(int, process.stdout.readline().split())
        found = {row["ns"]: row for row in rows("--holders", "-o", "NS,NPROCS,PATH,HOLDERS")}
        plain = {row["ns"] for row in rows("-o", "NS")}
        assert {net, uts} <= plain
        assert found[net] == {"ns": net, "nprocs": 0, "path": None, "holders": [f"socket {process.pid}:{socket}"]}
        path = f"/proc/{process.pid}/fd/{file}"
        assert found[uts] == {"ns": uts, "nprocs": 0, "path": path, "holders": [f"fd {process.pid}:{file}"]}
        process.kill()


def test_holders_are_more_rows() -> None:
    """What only a thread is in is no row of lsns, which reads processes."""
    script = (
        "import os, threading, time, nsutil\n"
        "def body():\n"
        "    nsutil.unshare(nsutil.UTS)\n"
        "    status = os.stat('/proc/thread-self/ns/uts')\n"
        "    print(status.st_ino, threading.get_native_id(), flush=True); time.sleep(60)\n"
        "threading.Thread(target=body).start()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=ENV, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        inode, tid = map(int, process.stdout.readline().split())
        found = {row["ns"]: row for row in rows("-t", "uts", "--holders", "-o", "NS,HOLDERS")}
        assert found[inode]["holders"] == [f"thread {process.pid}:{tid}"]
        assert inode not in {row["ns"] for row in rows("-t", "uts", "-o", "NS")}
        process.kill()


def test_id() -> None:
    own = library.current("uts")
    row = next(row for row in rows("-t", "uts", "-o", "NS,ID") if row["ns"] == own.inode)
    assert row["id"] == own.id
    header = nsutil("lsns", "--output-all").out.splitlines()[0].split()
    assert "ID" not in header
    assert "HOLDERS" not in header


def test_list_columns() -> None:
    done = nsutil("lsns", "-H")
    assert re.search(r"^NETNSID +<string> +namespace ID as used by network subsystem$", done.out, re.M)
    assert json.loads(nsutil("lsns", "-H", "-J").out)["lsns-columns"][0] == {
        "holder": "NS",
        "type": "<integer>",
        "description": "namespace identifier (inode number)",
    }
    assert nsutil("lsns", "-Hr").out.splitlines()[0] == "HOLDER TYPE DESCRIPTION"


def test_as_an_ordinary_user() -> None:
    """Incomplete, but no failure."""
    done = nsutil("lsns", "-J", uid=4242)
    assert done.status == 0
    assert len(flat(json.loads(done.out)["namespaces"])) >= 8


def test_a_reader_that_stops(tmp_path: Path) -> None:
    """Death by SIGPIPE, as for any other program."""
    command = [sys.executable, "-m", "nsutil", "lsns"]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == -signal.SIGPIPE
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"nsutil.*: No space left on device\n", done.stderr)
