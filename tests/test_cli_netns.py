"""nsutil netns beside the installed ip-netns(8): the same commands in two worlds, each with a /run of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import in_child, must, needs_program, needs_root, private_run
from support_cli import ENV, Done, nsutil

from nsutil import NET

needs_ip = needs_program("ip")
NETNS = f'{shlex.quote(sys.executable)} -m nsutil netns "$@"'
MS_BIND = 0x1000
MISUSE = 255  # of ip; ours is 1, as everywhere

pytestmark = needs_root

# /run and /etc/netns of its own; $NSUTIL is "ip" or ours.
WORLD = r"""
mount -t tmpfs none /run
mkdir -p "$1/etc" "$1/work" && cp -a /etc/. "$1/etc" 2>/dev/null; mount --bind "$1/etc" /etc
mkdir -p /etc/netns/blue /etc/netns/green
echo "nameserver 192.0.2.1" > /etc/netns/blue/resolv.conf; echo "127.0.0.1 box" > /etc/netns/blue/hosts
echo x > /etc/netns/green/no-such-file-in-etc
cd "$1/work"
"""


def world(command: str, folder: Path, lines: list[str], env: dict[str, str] = ENV) -> list[tuple[str, int]]:
    """Standard output and exit status of each line, with NETNS as the command."""
    body = "\n".join(f"{{ {line}\n}} </dev/null; printf '\\x1f%s\\x1e' $?" for line in lines)
    script = f"NETNS() {{ {command}; }}\n{WORLD}{body}\n"
    argv = ["unshare", "-mf", "--propagation", "private", "bash", "-c", script, "world", str(folder)]
    out = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=100, check=False)
    parts = out.stdout.split("\x1e")[:-1]
    assert len(parts) == len(lines), out
    return [(text, int(status)) for text, _, status in (part.partition("\x1f") for part in parts)]


def unordered(text: str) -> str:
    """Names come as the directory has them, or by name."""
    if text.startswith("[{"):
        return json.dumps(sorted(json.loads(text), key=str))
    return "\n".join(sorted(re.sub(r"\bmnt:\[\d+\]", "mnt", text).split("\n")))


LINES = [
    "NETNS", "NETNS list", "NETNS add blue", "NETNS add blue", "NETNS add green", "NETNS add", "NETNS add a/b",
    "NETNS add ..", "NETNS list", "NETNS ls", "NETNS l", "NETNS show", "NETNS identify", "NETNS identify $$",
    "NETNS identify 99999999", "NETNS identify foo", "NETNS pids blue", "NETNS pids nosuch", "NETNS pids",
    "NETNS exec blue cat /etc/resolv.conf /etc/hosts", "NETNS exec blue sh -c 'ls /sys/class/net; ip -br link'",
    "cat /etc/hosts | grep box", "NETNS exec green cat /etc/hostname", "NETNS exec blue pwd", "NETNS exec blue false",
    "NETNS exec blue sh -c 'exit 42'", "NETNS exec blue sh -c 'kill -9 $$' 2>/dev/null", "NETNS exec blue",
    "NETNS exec", "NETNS exec nosuch true", "NETNS e blue echo hi",
    "NETNS exec blue sh -c 'grep \" /sys \" /proc/mounts | cut -d\" \" -f2-3; grep -c shared: /proc/self/mountinfo'",
    "NETNS exec green sleep 20 & sleep 0.4; NETNS pids green | wc -l; NETNS identify $(NETNS pids green)",
    "NETNS attach red $(NETNS pids green); kill $(NETNS pids green)", "NETNS list",
    "NETNS attach red $$", "NETNS attach pink 99999999",
    "NETNS attach pink x", "NETNS attach pink", "NETNS delete nosuch", "NETNS delete", "NETNS del red", "NETNS list",
    "NETNS set blue 12", "NETNS list", "NETNS list-id", "NETNS set blue 13", "NETNS set green auto",
    "NETNS list-id nsid 12",
    "NETNS set green x", "NETNS set nosuch 3", "NETNS set blue", "NETNS list-id nsid 99",
    "NETNS list-id target-nsid 12",
    "NETNS list-id target-nsid 12 nsid 12", "NETNS list-id foo", "NETNS list-id nsid", "NETNS list-id target-nsid 99",
    "NETNS foo", "NETNS a yellow", "NETNS d yellow", "NETNS i $$", "NETNS p nosuch",
    "touch /run/netns/stale; NETNS list", "NETNS exec stale true", "NETNS delete stale", "NETNS list",
]  # fmt: skip


@needs_ip
def test_the_same_in_two_worlds(tmp_path: Path) -> None:
    found = {}
    for name, command in ("ours", NETNS), ("ip", 'ip netns "$@"'):
        (tmp_path / name).mkdir()
        found[name] = world(command, tmp_path / name, LINES)
    for line, mine, theirs in zip(LINES, found["ours"], found["ip"], strict=True):
        if line != "NETNS foo":
            assert unordered(mine[0]).replace("/ours/", "/ip/") == unordered(theirs[0]), line
        assert mine[1] == (1 if theirs[1] == MISUSE else theirs[1]), line


@needs_ip
def test_options_of_ip(tmp_path: Path) -> None:
    """Before the command, as ip has them, or after it."""
    lines = [
        "NETNS add b1; NETNS add b2; NETNS set b1 5; NETNS list",
        "NETNS -j list", "NETNS -j list-id", "NETNS -n b1 set b2 7", "NETNS -n b1 list-id",
        "NETNS list-id target-nsid 5", "NETNS set b2 20", "NETNS list-id target-nsid 5",
        "NETNS -j list-id target-nsid 5", "NETNS -j list-id target-nsid 5 nsid 5",
        "NETNS list-id nsid 20 target-nsid 5", "NETNS -n nosuch list-id", "NETNS -all exec pwd",
        "NETNS -all exec false",
        "NETNS -all exec nosuch 2>/dev/null", "NETNS -all delete", "NETNS list", "NETNS -all delete",
    ]  # fmt: skip
    theirs = 'case $1 in -n) ip -n "$2" netns "${@:3}";; -*) ip "$1" netns "${@:2}";; *) ip netns "$@";; esac'
    found = {}
    for name, command in ("ours", NETNS), ("ip", theirs):
        (tmp_path / name).mkdir()
        found[name] = world(command, tmp_path / name, lines)
    for line, mine, other in zip(lines, found["ours"], found["ip"], strict=True):
        mine_text = mine[0].replace(str(tmp_path / "ours"), "X")
        assert unordered(mine_text) == unordered(other[0].replace(str(tmp_path / "ip"), "X")), line
        assert mine[1] == (1 if other[1] == MISUSE else other[1]), line


def test_what_ip_has_not(tmp_path: Path) -> None:
    lines = [
        "NETNS add a; NETNS add b; NETNS add c; NETNS delete a b; NETNS list",
        "NETNS exec c nosuch 2>&1", "NETNS exec c /etc/passwd 2>&1", "NETNS delete --all; NETNS --json list",
        "NETNS -t uts add box; NETNS --type uts list; ls /run/nsutil/uts",
        "NETNS -t uts exec box sh -c 'hostname inside; hostname'; NETNS -t uts exec box hostname; hostname",
        "NETNS -t pid add box; NETNS -t pid exec box readlink /proc/self | wc -l; NETNS -t pid pids box | wc -l",
        "NETNS -t pid delete box; NETNS -t pid list",
        "NETNS -t uts delete -all; NETNS -t uts list", "NETNS -t foo list 2>&1",
        "NETNS delete x --all 2>&1", "NETNS add x y 2>&1", "NETNS -j identify $$", "NETNS add z; NETNS -j pids z",
    ]  # fmt: skip
    found = world(NETNS, tmp_path, lines)
    host = os.uname().nodename
    assert [text for text, _ in found[:1]] == ["c\n"]
    assert found[1] == ("nsutil netns: failed to execute nosuch: No such file or directory\n", 127)
    assert found[2] == ("nsutil netns: failed to execute /etc/passwd: Permission denied\n", 126)
    assert found[3] == ("[]\n", 0)
    assert found[4] == ("box\nbox\n", 0)
    assert found[5] == (f"inside\ninside\n{host}\n", 0)
    assert found[6] == ("1\n1\n", 0)
    assert found[7] == found[8] == ("", 0)
    for text, status in found[9:12]:
        assert status == 1
        assert re.fullmatch(r"nsutil netns: .*\n", text)
    assert found[12:] == [("[]\n", 0), ("[]\n", 0)]


def test_errors_are_one_line() -> None:
    wrong = "foo;add;add a/b;add ..;exec nosuch true;pids nosuch;-z;attach x;attach x y;identify 99999999;set x y"
    for line in wrong.split(";"):
        done = nsutil("netns", *line.split())
        assert done.status == 1, line
        assert re.fullmatch(r"nsutil netns: .+\n", done.err), line


@needs_ip
def test_monitor(tmp_path: Path) -> None:
    """Each line comes at once, also in a pipe; SIGINT ends it."""
    read = "read -t 30 -u 7 a; echo $a"
    watching = "for n in {1..600}; do grep -qs ^inotify /proc/$!/fdinfo/* && break; sleep 0.05; done"
    start = f"mkfifo fifo; set -m; NETNS monitor > fifo & exec 7< fifo; {watching}"
    lines = [f"{start}; ip netns add one; {read}; ip netns delete one; {read}; kill -INT $!; wait $!"]
    assert world(f"exec {NETNS}", tmp_path, lines) == [("add one\ndelete one\n", 130)]


@pytest.mark.parametrize("line", ["list", "list-id", "identify", "--all delete"])
def test_many_names_and_few_descriptors(line: str) -> None:
    """Names are opened one after the other."""

    def body() -> tuple[Done, int]:
        private_run()
        must("unshare", int(NET))
        Path("/run/netns").mkdir()
        for number in range(400):
            path = f"/run/netns/n{number}"
            Path(path).touch()
            must("mount", b"/proc/self/ns/net", path.encode(), None, MS_BIND, None)
        assert nsutil("netns", "set", "n7", "12").status == 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return nsutil("netns", *line.split()), len(os.listdir("/run/netns"))

    done, left = in_child(body)
    assert (done.status, done.err) == (0, "")
    assert done.out.count("(id: 12)\n") == (400 if line == "list" else 0)
    assert done.out.count("\n") == {"list": 400, "identify": 400, "list-id": 1}.get(line, 0)
    assert left == (0 if "delete" in line else 400)


def test_needs_rights() -> None:
    done = nsutil("netns", "add", "nsutil-test-refused", uid=4242)
    assert done.status == 1
    assert re.fullmatch(r"nsutil netns: .*(Permission denied|Operation not permitted).*\n", done.err)
    # Where the directory is there already, its permissions speak for themselves.
    assert "run as root" in done.err or "Permission denied" in done.err
    assert "add USER" not in done.err
    assert nsutil("netns", "list", uid=4242).status == 0


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip")
def test_names_of_each_other(tmp_path: Path) -> None:
    """What one makes the other finds."""
    lines = [
        "NETNS add mine; ip netns add theirs; NETNS list",
        "ip netns list | sort",
        "ip netns delete mine; NETNS delete theirs; ls /run/netns",
    ]
    found = world(NETNS, tmp_path, lines)
    assert found == [("mine\ntheirs\n", 0), ("mine\ntheirs\n", 0), ("", 0)]
