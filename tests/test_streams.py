"""The pipes of a program's standard streams where not all of them can be made, by subprocess' way and by ours."""

from __future__ import annotations

import errno
import itertools
import os
import resource
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

import pytest
import support

from nsutil import USER, UTS, Namespace, _process

BOX = Namespace(UTS if os.geteuid() == 0 else UTS | USER)
KINDS = {
    f"{names} {'ours' if ours else 'its own'}": (streams, ours)
    for names, streams in {
        "pipes": (PIPE, PIPE, PIPE),
        "into one": (DEVNULL, PIPE, STDOUT),
        "nothing in": (DEVNULL, PIPE, PIPE),
        "nothing out": (PIPE, DEVNULL, PIPE),
        "errors": (None, None, PIPE),
        "a file": (PIPE, 2, PIPE),
    }.items()
    for ours in (True, False)
    if ours or hasattr(_process.subprocess.Popen, "_on_error_fd_closer")
}


@pytest.mark.parametrize(("streams", "ours"), KINDS.values(), ids=KINDS)
def test_none_is_left_where_one_cannot_be_made(
    streams: tuple[Any, Any, Any], ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "_CLOSES_HANDLES", not ours)
    options = dict(zip(("stdin", "stdout", "stderr"), streams, strict=True))

    def body() -> list[str]:
        outcomes = []
        before = support.open_fds()
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        for more in itertools.count():
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            try:
                with BOX.popen(["sh", "-c", "read x; echo $x; echo to stderr >&2"], **options) as process:
                    out, err = process.communicate(b"word\n" if streams[0] == PIPE else None, timeout=20)
                said = streams[0] == PIPE and streams[1] == PIPE and out == b"word\n"
                outcomes.append(f"{process.returncode} {said} {err}")
                return outcomes
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                outcomes.append("EMFILE")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
                assert support.open_fds() == before, more
        raise AssertionError

    *refused, outcome = support.in_child(body)
    assert len(refused) > 1
    says = b"to stderr\n" if streams[2] == PIPE else None
    assert outcome == f"0 {streams[:2] == (PIPE, PIPE)} {says}"


def test_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(_process, "_CLOSES_HANDLES", False)
    with BOX.popen(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE, pipesize=1 << 14) as process:
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            assert fcntl.fcntl(stream, fcntl.F_GETPIPE_SZ) == 1 << 14
