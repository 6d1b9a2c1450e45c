"""Fixtures of all tests, the lock behind the serial mark, and the rule for skips."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import older_kernel
import pytest
import support

# What only make sanitize can run, and what it cannot: a sanitizer's own calls may not fail.
collect_ignore = ["test_faults.py"] * support.SANITIZED + ["test_sanitized.py"] * (not support.SANITIZED)

ALLOWED_SKIPS = Path(__file__).parent / "allowed_skips.txt"


def pytest_report_header() -> str:
    uname = os.uname()
    return f"kernel {uname.release} {uname.machine}, uid {os.getuid()}, {sys.executable}"


# Folders that ordinary users can reach: pytest's own are root's alone, and each new run sees to that again.

BASE = "nsutil-tests-"


def use_default_signals() -> None:
    """Whoever started the run in the background had some signals ignored, and children inherit that."""
    for number in {signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGTSTP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--older-kernel", metavar="LIST", help="without interfaces newer than a version, or these: see older_kernel.py"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    use_default_signals()
    if config.option.older_kernel and not hasattr(config, "workerinput"):  # workers inherit the filter
        older_kernel.install(older_kernel.chosen(config.option.older_kernel))
    if config.option.timeout is None:
        config.option.timeout = float(config.getini("timeout")) * support.SLOWER
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix=BASE)
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


@pytest.fixture(scope="session", autouse=True)
def open_basetemp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if BASE in str(folder):
            folder.chmod(0o755)
    yield
    # What lies in a mount is not ours to remove. One comes out of the namespace of a careless test where / is shared.
    left = [path for path in (row.split()[1] for row in support.mounts()) if path.startswith(f"{base}/")]
    for path in reversed(left):
        support.must("umount2", os.fsencode(path), 2)  # MNT_DETACH
    assert left == [], "tests left mounts"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """pytest's, open to ordinary users for reading."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def upper_path(tmp_path: Path) -> Iterator[Path]:
    """As tmp_path, where an overlay can write: not on another overlay, such as the root of a container."""
    if support.fstype(tmp_path) != "overlay":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix=BASE, dir="/dev/shm", ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def leak_check() -> Iterator[None]:
    """The test leaves no fd, child, thread, mount or namespace, and cwd, root, umask, signals as they were."""
    with support.no_leaks():
        yield


# Tests on several workers: a serial test waits until the others are done and keeps them waiting.
# Two files that exist anyway carry the locks. Whoever waits for the room holds the gate, so nobody is overtaken.


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    alone = item.get_closest_marker("serial") is not None
    with open(__file__) as gate, open(ALLOWED_SKIPS) as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)


# In CI a skip that allowed_skips.txt does not name is a failure: a missing tool must not turn tests off unseen.


def _strict_skips() -> bool:
    return os.environ.get("CI") == "true" or os.environ.get("NSUTIL_STRICT_SKIPS") == "1"


def _skip_allowed(nodeid: str, reason: str) -> bool:
    for line in ALLOWED_SKIPS.read_text().splitlines():
        if line and not line.startswith("#"):
            test, _, why = (part.strip().replace("[", "[[]") for part in line.partition("|"))
            if fnmatchcase(nodeid, test) and fnmatchcase(reason, why):
                return True
    return False


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail") or not _strict_skips():
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = text.removeprefix("Skipped: ")
    if not _skip_allowed(report.nodeid, reason):
        report.outcome = "failed"
        report.longrepr = f"skipped, and tests/allowed_skips.txt does not allow it: {report.nodeid} | {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report)
    return report
