"""Snapshot.filter(): the expressions, and what is wrong with bad ones."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import Any

import pytest
from support import needs_program, paused

from nsutil import NET, USER, UTS, snapshot
from nsutil._filter import compile_filter

INNER = SimpleNamespace(inode=100)
INFO: Any = SimpleNamespace(
    type=NET,
    inode=4026531840,
    device=4,
    id=None,
    owner=INNER,
    parent=None,
    owner_uid=1000,
    user="alice",
    nprocs=3,
    pid=42,
    ppid=1,
    command="sshd: alice [priv] 10",
    path="/proc/42/ns/net",
    netnsid="unassigned",
    nsfs=["/run/netns/blue", "/run/netns/red"],
    holders=[SimpleNamespace(kind="process"), SimpleNamespace(kind="fd")],
)

TRUE = [
    "type == 'net'",
    'TYPE == "net" and NPROCS > 1',
    "type eq 'net' AND nprocs GT 1",
    "type != 'uts' && nprocs >= 3 && nprocs <= 3",
    "nprocs lt 4 && nprocs le 3 && nprocs ge 3 && type ne 'uts'",
    "type == 'uts' || nprocs == 3",
    "type == 'uts' or nprocs == 3 or pid == 0",
    "not type == 'uts'",
    "!(type == 'uts')",
    "not (type == 'uts' or nprocs < 3)",
    "not not nprocs",
    "nprocs",
    "NS == 4026531840",
    'NS == "4026531840"',
    "ns > 1K and ns > 3G and ns < 1TiB",
    "nprocs < 3.5 and nprocs > 2.5",
    "3 == nprocs",
    "UID == 1000 and ONS == 100 and owner == 100",
    "PNS == none and parent == null and id != 5",
    "not parent",
    "parent != 3",
    "not id > 3 and not id < 3",
    "command =~ '^sshd'",
    "command =~ 'alice \\[priv\\]'",
    "command !~ '^bash'",
    "id !~ 'x' and not id =~ '.*'",
    "'priv' in command",
    "'bash' not in command",
    "type in ('net', 'uts')",
    "type in ('net',)",
    "nprocs in (1, 2, 3)",
    "type not in ('uts', 'ipc')",
    "nsfs == '/run/netns/red'",
    "'/run/netns/red' in nsfs",
    "nsfs =~ 'blue$'",
    "nsfs !~ 'green'",
    "nsfs != '/run/netns/green'",
    "'fd' in holders and 'socket' not in holders",
    "holders == 'fd'",
    "netnsid == 'unassigned'",
    "true and not false",
    "user == 'alice' and not user == 'Alice'",
    "  type=='net'and(nprocs)>1  ",
    "pid == 42 and not pid == '7'",
    "type == 'net' or nprocs and false",  # and binds closer
]
FALSE = [
    "type == 'uts'",
    "nprocs > 3",
    "parent",
    "id == 0",
    "command == 'sshd'",
    "nsfs == '/run/netns/green'",
    "type == 'net' and not nprocs",
    "false or none",
    "netnsid > 0",
    "netnsid == 3",
    "id in (1, 2)",
    "'None' in path",
]
BAD = [
    ("", 0, "found the end"),
    ("   ", 3, "found the end"),
    ("type ==", 7, "found the end"),
    ("type = 'net'", 5, "cannot read"),
    ("type == net", 8, "unknown name 'net'"),
    ("colour == 'net'", 0, "unknown name 'colour'"),
    ("type == 'net", 8, "a string that does not end"),
    ("type == 'net' and", 17, "found the end"),
    ("type == 'net' nprocs", 14, "expected an operator"),
    ("(type == 'net'", 14, "expected ')'"),
    ("type == 'net')", 13, "expected an operator"),
    ("1 < nprocs < 5", 11, "cannot be chained"),
    ("nprocs > 'many'", 7, "is a number"),
    ("'many' == pid", 7, "is a number"),
    ("command =~ '('", 11, "bad regular expression"),
    ("command =~ pid", 11, "expected a string"),
    ("command not 'x'", 12, "expected 'in'"),
    ("and", 0, "expected a name"),
    ("type == == 'net'", 8, "expected a name"),
    ("nprocs > 12abc", 9, "cannot read"),
    ("type in ('net' 'uts')", 15, "expected ')'"),
    ("__import__('os')", 0, "unknown name '__import__'"),
    ("type.name == 'net'", 4, "cannot read"),
    ("type == 'net' & nprocs", 14, "cannot read"),
    ("\N{SNOWMAN} == 3", 0, "cannot read"),
    ("(" * 5000, 61, "levels of nesting"),
    ("!" * 5000, 61, "levels of nesting"),
]


@pytest.mark.parametrize("expression", TRUE)
def test_true(expression: str) -> None:
    assert compile_filter(expression)(INFO) is True


@pytest.mark.parametrize("expression", FALSE)
def test_false(expression: str) -> None:
    assert compile_filter(expression)(INFO) is False


@pytest.mark.parametrize(("expression", "position", "problem"), BAD, ids=range(len(BAD)))
def test_bad(expression: str, position: int, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        compile_filter(expression)
    assert str(caught.value).endswith(f" at position {position}")
    assert str(caught.value).startswith("bad filter ")


@pytest.mark.parametrize(
    "name", ["type", "inode", "device", "id", "owner", "parent", "owner_uid", "user", "nprocs", "pid"]
)
def test_every_field_can_be_named(name: str) -> None:
    for spelling in (name, name.upper()):
        compile_filter(spelling)(INFO)


@pytest.mark.parametrize("name", "NS TYPE PATH NPROCS PID PPID COMMAND UID USER NETNSID NSFS PNS ONS".split())
def test_every_column_of_lsns_can_be_named(name: str) -> None:
    compile_filter(f"{name} == none or {name} != none")(INFO)


def test_a_long_expression() -> None:
    assert compile_filter(" or ".join(f"pid == {n}" for n in range(5000)) + " or true")(INFO)


def test_a_snapshot_is_filtered() -> None:
    with paused(USER | UTS) as pid:
        snap = snapshot()
        part = snap.filter(f"pid == {pid} and type in ('user', 'uts')")
        assert [str(info.type) for info in part.namespaces] == ["user", "uts"]
        assert set(part.of(pid)) == {USER, UTS}
        assert set(part.of(os.getpid())) == set()
        assert part.holders(part.namespaces[0]) == snap.holders(part.namespaces[0])
        assert part.unseen == snap.unseen
        assert part.filter("type == 'uts'").namespaces == part.namespaces[1:]
        assert snap.filter("false").namespaces == []
        assert str(snap.filter("false").tree()) == ""
        assert '"namespaces":[]' in snap.filter("false").to_json()


def test_what_is_not_asked_for_is_not_read() -> None:
    snap = snapshot(tasks=False, fds=False, sockets=False, mounts=False)
    assert snap.filter("type == 'net' and nprocs > 0 and ns > 5").namespaces
    assert "details" not in vars(snap._facts)
    assert snap.filter("command =~ '.'").namespaces
    assert "details" in vars(snap._facts)


@needs_program("lsns")
def test_the_same_words_as_the_columns() -> None:
    assert {str(info.type) for info in snapshot().filter("TYPE == 'net' || NS == 1")} == {"net"}
