"""run() with everything made ready by an earlier one: one call into C, and nothing is different."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import pytest
import support
from support import in_child, needs_root

from nsutil import MNT, PID, USER, UTS, Namespace

OWN = 0 if os.geteuid() == 0 else USER
SH = "/bin/sh"

RECIPES: dict[str, Namespace] = {
    "plain": Namespace(UTS | OWN),
    "init": Namespace(PID | MNT | OWN),
    "waiter": Namespace(UTS | OWN, kill_child="TERM"),
    "session": Namespace(UTS | OWN, new_session=True),
    "directory": Namespace(UTS | OWN, cwd="/usr"),
}


@pytest.fixture(params=RECIPES)
def box(request: pytest.FixtureRequest) -> Namespace:
    recipe = RECIPES[request.param]
    recipe.run(["true"])
    return recipe


def outcome(box: Namespace, args: Any, **options: Any) -> tuple[Any, ...]:
    """What run() returned or raised."""
    try:
        done = box.run(args, **options)
    except OSError as error:
        return type(error), error.errno, error.filename, str(error)
    return done.returncode, done.args, done.stdout, done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["true"],
        ["/bin/false"],
        [b"/bin/sh", "-c", "exit 7"],
        [SH, "-c", "kill -TERM $$"],
        [SH, "-c", 'test "$PWD" = /usr'],
        [SH, "-c", "test $(cut -d ' ' -f 6 /proc/$$/stat) = $$"],
        ["no such program"],
        ["/no/such/program"],
        ["/etc/passwd"],
        ["/"],
        ("true",),
        "true",
    ],
    ids=repr,
)
def test_it_is_what_popen_makes(box: Namespace, args: Any, leak_check: None) -> None:
    """A time limit has to be watched by a Popen."""
    assert outcome(box, args) == outcome(box, args, timeout=60)


@pytest.mark.parametrize("args", [[], [""], ["a\0b"], [1], None])
def test_bad_arguments_are_the_same_errors(box: Namespace, args: Any, leak_check: None) -> None:
    def error(**options: Any) -> tuple[type, str]:
        with pytest.raises((TypeError, ValueError, OSError)) as info:
            box.run(args, **options)
        return info.type, str(info.value)

    assert error() == error(timeout=60)


def test_streams_and_environment_are_ours(box: Namespace) -> None:
    def said() -> bytes:
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.environ["NSUTIL_SAID"] = "this"
        box.run([SH, "-c", 'echo "$NSUTIL_SAID"; ls /proc/self/fd'])
        return os.read(reader, 100)

    # And no other descriptor than that of the directory which is being read.
    assert in_child(said).split()[:5] == [b"this", b"0", b"1", b"2", b"3"]


def test_check(box: Namespace) -> None:
    with pytest.raises(subprocess.CalledProcessError) as info:
        box.run(["false"], check=True)
    assert (info.value.returncode, info.value.cmd) == (1, ["false"])


def test_an_interrupt_takes_the_tree_along(box: Namespace, leak_check: None) -> None:
    sleep = f"sleep 5{os.getpid()}"

    def interrupted() -> tuple[bool, set[int]]:
        def handler(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            box.run([SH, "-c", f"{sleep} & {sleep}"])
        return time.monotonic() - started < 5, support.children()

    assert in_child(interrupted) == (True, set())
    # What was killed may still be ending.
    for _ in range(100):
        if subprocess.run(["pgrep", "-f", sleep], stdout=subprocess.DEVNULL, check=False).returncode:
            break
        time.sleep(0.02)
    else:
        pytest.fail("a process of the tree is still there")


@needs_root
def test_a_status_that_was_taken_is_told(box: Namespace) -> None:
    """Somebody waits for every child: the kernel or, before Linux 6.15, nobody knows what came of ours."""

    def stolen() -> tuple[int, int]:
        import threading

        def steal() -> None:
            while True:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    time.sleep(0.0005)

        threading.Thread(target=steal, daemon=True).start()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            codes = {box.run([SH, "-c", "exit 3"]).returncode for _ in range(20)}
        return len(codes - {3, 255}), sum("taken by somebody else" not in str(w.message) for w in caught)

    assert in_child(stolen) == (0, 0)


def test_an_audit_hook_sees_it_and_can_forbid(box: Namespace) -> None:
    def seen() -> list[Any]:
        events: list[Any] = []

        def hook(event: str, args: Any) -> None:
            if event == "subprocess.Popen":
                events.append(args)
                if args[0] == "false":
                    raise RuntimeError("forbidden")

        sys.addaudithook(hook)
        box.run(["true"])
        with pytest.raises(RuntimeError, match="forbidden"):
            box.run(["false"])
        return events

    where = box.cwd
    assert in_child(seen) == [("true", ["true"], where, None), ("false", ["false"], where, None)]
