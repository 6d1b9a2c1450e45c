"""What contradicts itself or means nothing: refused by name, before any system call."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import Any

import pytest
from support import lacks, needs_root, paused

import nsutil
from nsutil import MNT, NET, PID, USER, UTS, Namespace, aio, enter

IDS = 65537


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"new": b"net"}, TypeError, "a namespace type must be a flag or a name, not b'net'"),
        ({"new": [b"net"]}, TypeError, "a namespace type must be a flag or a name, not b'net'"),
        ({"monotonic": 1.5}, ValueError, r"monotonic=1\.5 needs TIME among the new types"),
        ({"rlimits": {7: (1, 2)}, "boottime": 2}, ValueError, "boottime=2 needs TIME"),
        ({"groups": range(IDS)}, ValueError, "groups may hold 65536 ids, not 65537"),
        ({"groups": "wheel"}, TypeError, "groups must be a sequence, not 'wheel'"),
        ({"groups": ["nosuch"]}, ValueError, "unknown group 'nosuch'"),
        ({"root": ""}, ValueError, "root must not be empty"),
        ({"rlimits": {7: (1, 2, 3)}}, ValueError, r"rlimits\[7\] must be \(soft, hard\), not \(1, 2, 3\)"),
        ({"ambient": ["kill"], "bounding": ["chown"]}, ValueError, "ambient has kill, which bounding leaves out"),
        ({"mount_proc": True}, ValueError, "mount_proc=True needs MNT among the new types"),
        ({"env": "target", "root": "/"}, ValueError, "env='target' contradicts root="),
        ({"cwd": True}, ValueError, "cwd=True needs a process as target"),
        ({"env": "target"}, ValueError, "env='target' needs a process as target"),
        ({"uid": "target"}, ValueError, "uid='target' needs a process as target"),
        ({"enter": Namespace(NET)}, ValueError, "enter= takes what exists, and .* makes new namespaces"),
        ({"enter": 1.5}, TypeError, "a target must be a pid, a path, .*, not 1.5"),
        ({"enter": "/proc/self/ns/user"}, ValueError, "own user namespace, which cannot be joined again"),
        ({"enter": ["/proc/self/ns/uts", "/proc/self/ns/uts"]}, ValueError, "uts is joined twice: join .*, join "),
        ({"enter": "/proc/self/ns/uts"}, ValueError, "uts is both new and in enter="),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:40],
)
def test_options(options: dict[str, Any], error: type[Exception], text: str, leak_check: None) -> None:
    with pytest.raises(error, match=text):
        Namespace(**{"new": UTS | USER if "groups" in options else UTS, **options})


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [
        (lambda box: box(7), TypeError, r"decorates functions, not 7; to run one now use \.call\(\)"),
        (lambda box: box.thread(7), TypeError, r"thread\(\) runs a function, not 7"),
        (lambda box: box.call(7), TypeError, r"call\(\) takes a function, not 7"),
        (lambda box: delattr(box, "new"), AttributeError, "cannot be changed"),
        (lambda box: setattr(box, "new", 0), AttributeError, r"use \.replace\(new=\.\.\.\)"),
        (lambda box: enter(), ValueError, "exactly one of target, pid, .* is needed, got none"),
        (lambda box: enter(1, fd=0), ValueError, "is needed, got target, fd"),
        (lambda box: enter(True), TypeError, "a pid must be an int, not True"),
        (lambda box: enter(pid="1"), TypeError, "a pid must be an int, not '1'"),
        (lambda box: enter(fd=-1), ValueError, "fd must be between 0 and 2147483647, not -1"),
        (lambda box: enter(fd="1"), TypeError, r"fd must be an int or have fileno\(\), not '1'"),
        (lambda box: enter(pidfd=1 << 40), ValueError, "fd must be between 0 and 2147483647, not 1099511627776"),
        (lambda box: enter(pidfd=IDS), OSError, rf"Bad file descriptor.*: {IDS}"),
        (lambda box: enter(fd=IDS), OSError, rf"Bad file descriptor.*: {IDS}"),
        (lambda box: Namespace(UTS, cwd="/").create(), ValueError, "cwd means nothing without a program"),
        (lambda box: Namespace().create(), ValueError, "makes nor joins anything"),
    ],
    ids=range(16),
)
def test_uses(use: Callable[[Namespace], object], error: type[Exception], text: str, leak_check: None) -> None:
    with pytest.raises(error, match=text):
        use(Namespace(UTS))


@needs_root
def test_processes_and_files_as_targets(leak_check: None) -> None:
    """Each way to name the same joins the same; what was named is shown."""

    class Started:
        def __init__(self, pid: int) -> None:
            self.pid = pid

    class Opened:
        def fileno(self) -> int:
            return pidfd

    with paused(int(UTS | NET)) as pid:
        pidfd = os.pidfd_open(pid)
        recipes = [enter(target, UTS | NET) for target in (pid, Started(pid), Opened())]
        recipes += [enter(pid=pid, types=UTS | NET), enter(pidfd=pidfd, types="uts net".split())]
        assert len({*recipes}) == len({recipe.joined for recipe in recipes}) == 1
        each = f"[{pid}, {pid}]" if lacks("pidfd-setns") else pid  # joined one by one
        assert repr(recipes[0]) == f"Namespace(enter={each})"
        both = Namespace(PID, enter=[enter(pid, UTS), f"/proc/{pid}/ns/net"])
        assert repr(both).startswith(f"Namespace(PID, enter=[{pid}, ")
        assert enter(recipes[0]) == recipes[0]
        join, again = recipes[0].enter[0], recipes[1].enter[0]
        assert join == again
        assert hash(join) == hash(again)
        assert join != pid
        with nsutil.open(pid, UTS) as file:
            assert enter(file.reference()).joined == UTS
        assert pickle.loads(pickle.dumps(enter(pid, UTS))).joined == UTS
        with pytest.raises(ValueError, match="own user namespace"):
            enter(pid, USER)
        with pytest.raises(nsutil.WrongNamespaceType):
            enter(path=f"/proc/{pid}/ns/uts", types=MNT)
        os.close(pidfd)
    with pytest.raises(ProcessLookupError):
        enter(pid, UTS)


@needs_root
def test_connection_without_a_network_to_go_to(leak_check: None) -> None:
    import asyncio

    with paused(int(UTS)) as pid, pytest.raises(ValueError, match="leads to no NET namespace other than this one"):
        asyncio.run(aio.open_connection("127.0.0.1", 1, enter=pid))


def raised(error: type[Exception], call: Callable[..., object], *args: object) -> str:
    with pytest.raises(error) as info:
        call(*args)
    return "\n".join([str(info.value), *getattr(info.value, "__notes__", ())])


class Unreadable(Exception):
    def __str__(self) -> str:
        raise KeyError

    def __reduce__(self) -> str:
        raise KeyError


def fail() -> None:
    raise Unreadable


@needs_root
def test_what_a_function_cannot_send_back(leak_check: None) -> None:
    box = Namespace(UTS)
    text = raised(Exception, box.call, lambda: nothing.__code__)
    assert "returned, of type code, cannot be pickled" in text
    assert "its text cannot be shown" in raised(Exception, box.call, fail)


@needs_root
def test_exits_of_a_function(leak_check: None, capfd: pytest.CaptureFixture[str]) -> None:
    """As the interpreter ends by SystemExit: its code, 1 and its text, or 0."""
    for code, status in (None, 0), (3, 3), (256 + 4, 4), ("said", 1):
        with pytest.raises(nsutil.ChildDied) as info:
            Namespace(UTS).call(exit_with, code)
        assert info.value.status == status
    assert capfd.readouterr().err == "said\n"
    with pytest.raises(nsutil.ChildDied) as info:
        Namespace(UTS).call(kill_self)
    assert info.value.signal == signal.SIGRTMIN + 3
    assert f"signal {signal.SIGRTMIN + 3} before" in str(info.value)


def exit_with(code: object) -> None:
    raise SystemExit(code)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGRTMIN + 3)
