"""A sample of what `make faults` tries, and every kind of point that did not hold once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from faults import calls, errors, notify
from faults.harness import Point, Session, Tally, judge, sample
from faults.operations import OPERATIONS

reason = notify.supported()
pytestmark = [
    pytest.mark.skipif(reason is not None, reason=str(reason)),
    pytest.mark.xdist_group("faults"),
    pytest.mark.timeout(240),
]

SAMPLE = 60

# (operation, role, call, error): what was wrong there.
FORMER = {
    ("block_several", "main", "ioctl", "EPERM"): "a handle of the inside that could not be made left its descriptor",
    ("run_mapped", "main", "pipe2", "EMFILE"): "the first pipe of the mapper stayed open",
    ("run_mapped", "main", "clone3", "ENOMEM"): "no thread, and four descriptors stayed open",
    ("run_mapped", "main", "write", "EIO"): "the started program was lost",
    ("run_entered", "child", "setns", "kill"): "a joiner that was killed left the caller waiting for ever",
    ("run_watched", "init", "signalfd4", "EMFILE"): "without a signalfd init waited for ever",
    ("run_watched", "child", "dup3", "EMFILE"): "init watched whatever lay on its descriptor",
    ("named_pid", "child", "dup3", "EMFILE"): "the same, for a name's sake",
    ("run_entered_and_new", "child", "fcntl", "kill"): "the status of a program was taken for its first message",
    ("call_too_long", "main", "close", "EINTR"): "a pidfd stayed open where another one was not closed well",
    ("run_refused", "child", "close", "kill"): "the failure of a killed child was told of no part of the plan",
    ("aio_run", "main", "close", "EINTR"): "a program that Popen() had started and not come back with",
    ("aio_call", "main", "pidfd_open", "ESRCH"): "a ValueError for the descriptor of a child that is gone",
    ("executor", "main", "socketpair", "EMFILE"): "an exception in a finalizer",
    ("executor", "thread", "close", "EIO"): "the pidfd of a worker stayed open",
    ("call_mapped", "child", "write", "EIO"): "a child that could not ask for its maps waited for ever",
    ("create", "child", "sethostname", "kill"): "a killed holder stayed a zombie",
    ("named_mnt", "main", "newfstatat", "ENOMEM"): "a name stayed though its making raised",
    ("named_user", "main", "ioctl", "ENOTTY"): "a name stayed though its making raised",
    ("named_user", "main", "close", "EIO"): "a file stayed that was not closed well",
    ("named_attach", "main", "close", "EIO"): "a name stayed though attach() raised",
    ("named_net", "main", "ioctl", "EPERM"): "a name stayed though its making raised",
    ("remove_net", "main", "unlink", "EACCES"): "a name that could not be deleted was no namespace any more",
    ("remove_pid", "main", "unlink", "EACCES"): "its processes were killed though the name stayed",
    ("remove_all", "main", "openat", "ENOENT"): "descriptors stayed open where one name was gone",
    ("remove_several", "main", "flock", "ENOLCK"): "the lock stayed, and the next remove() waited for ever",
    ("remove_net", "main", "newfstatat", "EACCES"): "nothing was removed, without a word",
    ("run_too_long", "main", "pidfd_open", "EMFILE"): "what there was no descriptor for lived on",
    ("run_too_long", "main", "openat", "EMFILE"): "those whose parent could not be looked at lived on",
    ("run_init_too_long", "main", "ppoll", "ENOMEM"): "a killed child stayed a zombie",
    ("handles_of_mounts", "main", "close", "EIO"): "the file of the mounts stayed open",
    ("named_ipc", "main", "openat", "EINTR"): "an interruption was told as an error",
}


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def run(session: Session, points: list[Point]) -> Tally:
    tally = Tally()
    for point in points:
        tally.add(session.try_point(point))
    return tally


def failures(tally: Tally) -> str:
    return "\n".join(f"{verdict.point} ({verdict.detail}): {verdict.problems}" for verdict in tally.violations)


def test_a_sample(session: Session) -> None:
    """Points of all operations, the same ones each time as far as the calls are the same."""
    points = [point for name in OPERATIONS for point in session.points(name)]
    assert len(points) > 25000
    tally = run(session, sample(points, len(points) // SAMPLE))
    assert not tally.violations, failures(tally)
    assert tally.held > SAMPLE // 2


def test_what_did_not_hold_once(session: Session) -> None:
    """All in one test: workers that share parametrized ones would each need a zygote."""
    tally = Tally()
    for operation, role, call, action in FORMER:
        names = ("newfstatat", "fstat") if call == "newfstatat" else (call,)  # newer C libraries take both
        points = [p for p in session.points(operation) if p.call in names and (p.role, p.action) == (role, action)]
        before = tally.tried
        tally += run(session, points)
        assert tally.tried > before, f"{operation}: {role} makes no {call} any more: find where it went"
    assert not tally.violations, failures(tally)


def test_errors_of_every_call() -> None:
    """A call or an error that is misspelt would be tried nowhere."""
    for call in (*errors.ERRORS, *errors.SPARED, *calls.UNSEEN):
        assert call in calls.numbers(), call
    assert all(calls.error_number(name) for listed in errors.ERRORS.values() for name in listed.split())
    assert not set(errors.ERRORS) & {*errors.SPARED, *calls.UNSEEN}


def seen(call: str, *arguments: int, **other: object) -> errors.Seen:
    return errors.Seen("main", call, 1, "/path", arguments, deaf=False, file="")._replace(**other)


def test_errors_by_arguments() -> None:
    """Only what a call can get from what it is asked."""
    assert "EEXIST" in errors.of(seen("openat", 0, 0, os.O_CREAT | os.O_WRONLY))
    assert not {"EEXIST", "EROFS"} & {*errors.of(seen("openat", 0, 0, os.O_RDONLY))}
    assert errors.of(seen("close", 3, file="disk")) == ("EDQUOT", "EINTR", "EIO", "ENOSPC")
    assert errors.of(seen("close", 3, deaf=True)) == ("EIO",)
    assert errors.of(seen("waitid", 0, 0, 0, os.WNOHANG | os.WEXITED, role="init")) == ()
    assert errors.of(seen("ioctl", 3, 0xB701)) != errors.of(seen("ioctl", 3, 0xFF01))
    assert errors.of(seen("prctl", 4, 1)) == ()  # PR_SET_DUMPABLE
    assert errors.of(seen("no_such_call")) == ("EPERM",)


@pytest.mark.parametrize(
    "report",
    [
        {"outcome": ("returned", [], "", 0), "changed": {"fds": "fds: {} -> {7: 'pipe'}"}},
        {"outcome": ("raised", ["KeyError", "Exception"], "", 0), "changed": {}},
        {"outcome": ("raised", ["InterruptedError", "OSError"], "", 0), "changed": {}},
        {"outcome": ("raised", ["WrongResult", "Exception"], "", 0), "changed": {}},
        {"outcome": ("raised", ["OSError"], "", 0), "changed": {"cwd": "cwd"}},
        {"outcome": ("raised", ["RestoreError", "RuntimeError"], "", 0x4000000), "changed": {"cwd": "cwd"}},
        {"outcome": ("returned", [], "", 0), "changed": {}, "again": ("raised", [], "", 0)},
        {"outcome": ("returned", [], "", 0), "changed": {}, "changed again": {"fds": "fds: {} -> {7: 'pipe'}"}},
        {"hung": ["1 python"]},
        {"left": ["1 sleep"]},
        {"broken": "no report"},
    ],
)
def test_the_judge_objects(report: dict[str, object]) -> None:
    assert list(judge(Point("block", "main", "read", 1, "EINTR"), report))


def test_the_judge_lets_pass_what_restore_error_says() -> None:
    changed = {"namespaces": "uts", "host name": "x"}
    report = {"outcome": ("raised", ["RestoreError", "RuntimeError"], "", 0x4000000), "changed": changed}
    assert list(judge(Point("block", "main", "setns", 2, "EPERM"), report)) == []


def test_the_harness_notices_what_is_left(session: Session) -> None:
    """An operation that loses its descriptor where a call fails."""
    points = [p for p in session.points("careless") if (p.call, p.action) == ("getcwd", "ENOENT")]
    assert len(points) == 1
    verdict = session.try_point(points[0])
    assert verdict.fired
    assert len(verdict.problems) == 1
    assert "fds" in verdict.problems[0]
