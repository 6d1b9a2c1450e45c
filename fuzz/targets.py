"""The parsers of nsutil, and what each may raise for text that it cannot read."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nsutil
from nsutil import _idmap, _mountinfo, _ns, _probe, _types, jupyter
from nsutil._filter import compile_filter
from nsutil._snapshot import snapshot
from nsutil.cli import _args, box, doctor, lsns, netns, nsenter, tree, unshare
from nsutil.cli._program import parse_environment

warnings.simplefilter("ignore")


class Target:
    """Calls ``read`` with any text; ``allowed`` are the exceptions that it documents."""

    def __init__(self, read: Callable[[str], object], allowed: Any, *seeds: str) -> None:
        self.read = read
        self.allowed = allowed
        self.seeds = seeds

    def __call__(self, data: bytes) -> None:
        try:
            self.read(data.decode("utf-8", "surrogateescape"))
        except self.allowed:
            pass


# ------------------------------------------------------------------ the parsers


def read_idmap(text: str) -> None:
    stored = _idmap.parse_map(text, "uid")
    assert _idmap.parse_map(stored, "uid") == stored
    maps = [entry for entry in (stored if isinstance(stored, tuple) else ()) if not isinstance(entry, str)]
    assert len(_idmap.text_of(maps)) <= _idmap.MOST_BYTES
    _idmap.fill([(1000, 50), (5000, 2**32 - 5002)], maps)


# A file without a name: nothing to clean up.
SUBUID = Path(f"/proc/self/fd/{os.memfd_create('subuid')}")


def read_subuid(text: str) -> None:
    SUBUID.write_bytes(text.encode("utf-8", "surrogateescape"))
    for start, count in _idmap._ranges(str(SUBUID), ("user", "1000")):
        assert 0 <= start < start + count <= 2**32 - 1


MOUNT = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"


def mount_line(text: str) -> str:
    """A line as the kernel writes one, whatever the names of directories: it escapes these bytes."""
    return re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", text)


def read_mountinfo(text: str) -> None:
    root, target, source = (*text.split("\0"), "", "", "")[:3]
    fields = [mount_line(field) for field in (root, target, source)]
    line = "36 35 98:0 /{} /{} rw,noatime master:1 - ext3 {} rw".format(*fields)
    mount = _mountinfo.parse(line + "\n")
    assert (mount.root, mount.target, mount.source) == ("/" + root, "/" + target, source)
    assert _probe.Mount(line).point == "/" + target
    assert len(_probe.lines_of(line + "\n")) == 1


NAMESPACES = snapshot(fds=False, sockets=False).namespaces[:4]


def read_filter(text: str) -> None:
    # What a regular expression costs is up to whoever wrote it.
    matches = compile_filter(text)
    if "~" not in text:
        for info in NAMESPACES:
            assert matches(info) in (True, False)


def read_types(text: str) -> None:
    types = _types.parse_types(text)
    assert _types.parse_types(str(types).split("|")) == types


def read_jupyter(text: str) -> None:
    from IPython.core.error import UsageError

    try:
        jupyter.parse_line(text)
    except UsageError:
        pass


TABLE = """
 -f, --fork                no argument
 -S, --setuid UID          an argument
 -m, --mount[=FILE]        the long form may have an argument
 -n[FILE], --net[=FILE]    the short form too
     --map-users RANGE     no short form
"""


def read_options(text: str) -> None:
    for permute in False, True:
        parsed = _args.Arguments(TABLE, text.split("\n"), permute=permute)
        for name, value in parsed:
            assert name in ("fork", "setuid", "mount", "net", "map-users", "debug")
            assert value is None or isinstance(value, str)


PUBLIC = {name: getattr(nsutil, name) for name in nsutil.__all__}


def read_box(text: str) -> None:
    recipe = box.recipe(box.Request(words(text)))
    assert recipe == eval(repr(recipe), PUBLIC)


def read_doctor(text: str) -> None:
    request = doctor.Request(words(text))
    nsutil.Namespace(request.types, **request.options)


def read_netns(text: str) -> None:
    request = netns.Request()
    rest = netns.options(request, words(text))
    request.args = netns.options(request, rest[1:])
    request.arguments("NAME [PID]")


def read_tree(text: str) -> None:
    request = tree.Request(words(text))
    if request.expression is not None:
        read_filter(request.expression)


def read_environment(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    found = parse_environment(data)
    assert all(b"=" not in name and b"\0" not in name + value for name, value in found.items())


# Who holds the other end of the pipe may send anything.
def read_message(text: str) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, text.encode("utf-8", "surrogateescape"))
        os.close(writer)
        _ns.receive(reader)
    finally:
        os.close(reader)


def words(text: str) -> list[str]:
    """A word of a command line holds no NUL."""
    return text.replace("\0", "").split("\n")


COMMAND_LINE = (_args.UsageError, _args.CommandError, _args.Finished)


def command_line(parse: Callable[[list[str]], object]) -> Callable[[str], object]:
    return lambda text: parse(words(text))


# A root or a namespace that is not there is an OSError.
COMMANDS = (*COMMAND_LINE, ValueError, TypeError, OSError)

TARGETS = {
    "box": Target(
        read_box,
        COMMANDS,
        "--bind\n/:/x:ro\n--limit\nnofile=5:unlimited\n--tmpfs=/y:64m\n/\nsh",
        "--map=0:1000:1\n--user\n1:2\n--cap-drop\nall\n--cap-add=kill\n--env\na=b\n--boottime=5.5\n--\nmake",
    ),
    "doctor": Target(
        read_doctor, COMMANDS, "--user\n--map-root-user\n--net", "--map-users\n0:0:1\n-R\n/\n--boottime=5"
    ),
    "environment": Target(read_environment, (), "A=1\0B=2=3\0", "=\0C"),
    "filter": Target(read_filter, ValueError, "type == 'net' and nprocs > 1", "not ('a' in nsfs) || command =~ '^x'"),
    "idmap": Target(read_idmap, ValueError, "0:1000:1", "root", "0,1000,1", "0:0:1 5:5:5,subids"),
    "jupyter": Target(
        read_jupyter, (ValueError, TypeError), "net uts --hostname box --export a,b", "--rlimits '{1: 2}'"
    ),
    "lsns": Target(
        command_line(lsns.parse), COMMAND_LINE, "-J\n-t\nnet", "-o\n+PID,NS\n-Q\ntype == 'net'", "--tree=owner"
    ),
    "mountinfo": Target(read_mountinfo, (), "mnt\0mnt2\0/dev/root", "a b\0c\\d\0"),
    "message": Target(read_message, (OSError, MemoryError), "\1\0\0\0\0\0\0\0x", ""),
    "netns": Target(read_netns, COMMANDS, "-json\n-n\nx\npids\na", "-t\nuts\nattach\n-all\n--\nbox\n1"),
    "nsenter": Target(command_line(nsenter.parse), COMMAND_LINE, "-t\n1\n-a", "-n/proc/1/ns/net\n-S\n0\nsh\n-c\nx"),
    "options": Target(read_options, COMMAND_LINE, "-fS1\n--mount=x\n--\nsh", "--map-u\n0:0:1\n-nfile"),
    "subuid": Target(read_subuid, (), "user:100000:65536\n1000:1:1\n", "user:0:4294967295\nother:1:1"),
    "tree": Target(
        read_tree, (*COMMAND_LINE, ValueError), "--filter\npid > 1\n--json", "--process\n--type=net\n--html\nx"
    ),
    "types": Target(read_types, ValueError, "net", "cgroup"),
    "unshare": Target(
        command_line(unshare.parse), COMMAND_LINE, "-Urm\n--map-users=0:0:1\nsh", "--kill-child=TERM\n-S0"
    ),
}
