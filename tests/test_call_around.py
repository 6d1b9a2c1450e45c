"""call() in the surroundings it is used in: coverage, xdist, notebooks, subinterpreters, busy processes."""

from __future__ import annotations

import importlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import PACKAGE, SLOWER, in_child, uncounted

from nsutil import PID, USER, UTS, Namespace

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"}


def run(*args: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100 * SLOWER,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def write(path: Path, text: str) -> str:
    path.write_text(textwrap.dedent(text))
    return path.name


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "new='user uts'.split()", "new='user pid'.split()"])
def test_coverage_of_the_function_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    pytest.importorskip("coverage", reason="coverage is not installed")
    for name in filter(re.compile("COVERAGE").match, os.environ):  # whoever counts these tests has data of his own
        monkeypatch.delitem(ENVIRONMENT, name)
    script = write(
        tmp_path / "script.py",
        f"""
        import nsutil

        def func(n):
            if n > 1:
                return "inside"
            return "never"

        assert nsutil.call(func, 2, {options}) == "inside"
        """,
    )
    (tmp_path / "rc").write_text("[run]\nparallel = true\npatch = _exit\n")
    run("-m", "coverage", "run", "--rcfile=rc", script, cwd=tmp_path, COVERAGE_FILE=str(tmp_path / ".coverage"))
    run("-m", "coverage", "combine", "-q", "--rcfile=rc", cwd=tmp_path)
    report = run("-m", "coverage", "report", "--rcfile=rc", "-m", "--include=script.py", cwd=tmp_path)
    assert report.splitlines()[2].split()[-2:] == ["83%", "7"]


@pytest.mark.slow
def test_under_xdist(tmp_path: Path) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    write(
        tmp_path / "test_it.py",
        """
        import os, pytest, nsutil

        @pytest.mark.parametrize("n", range(6))
        def test_inside(n, capfd):
            assert nsutil.call(lambda: (print("inside"), os.getpid())[1], new=["user", "pid"]) == 2
            assert capfd.readouterr().out == "inside\\n"

        def test_failure_is_reported_once():
            with pytest.raises(AssertionError):
                nsutil.call(lambda: pytest.fail if False else _fail())

        def _fail():
            assert 1 == 2
        """,
    )
    out = run("-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "7 passed" in out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the kernel's client has its own
def test_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    cell = """
        import os, nsutil, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def func():
            print("printed inside")
            return os.getpid(), os.uname().nodename
        nsutil.call(func, new="user pid uts".split(), hostname="inside")
    """
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell))])
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0].outputs
    assert "printed inside" in "".join(out.get("text", "") for out in outputs)
    assert outputs[-1]["data"]["text/plain"] == "(2, 'inside')"


def interpreters() -> Callable[[str], object] | None:
    """How to run code in a fresh subinterpreter of this version."""
    for name in ("_xxsubinterpreters", "_interpreters"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        run_code = module.run_string if hasattr(module, "run_string") else module.exec
        return lambda code: run_code(module.create(), code)
    return None


def test_subinterpreters_refuse() -> None:
    run_code = interpreters()
    if run_code is None:
        pytest.skip("no subinterpreters")

    def body() -> str:
        reader, writer = os.pipe()
        run_code(
            f"import os, sys\nsys.path[:] = {sys.path!r}\n"
            "try:\n    import nsutil\n    nsutil.call(int)\n"
            f"except BaseException as error:\n    os.write({writer}, repr(error).encode())\n"
        )
        return os.read(reader, 1000).decode()

    answer = in_child(body)
    assert answer.startswith("RuntimeError(")
    assert "subinterpreters" in answer


def churn(stop: threading.Event) -> None:
    """Keep libc's malloc and a stream's lock busy."""
    with open(os.devnull, "w") as stream:
        while not stop.is_set():
            blocks = [bytearray(random.randrange(1200, 9000)) for _ in range(100)]
            print(len(blocks), file=stream, flush=True)


def job(n: int) -> int:
    blocks = [bytearray(1200 + 40 * n % 7000) for n in range(100)]
    print(len(blocks), file=io.StringIO(), flush=True)
    return n * n


def test_another_thread_writing_to_a_replaced_stream_at_the_fork(tmp_path: Path) -> None:
    """It has the lock of the stream, and has it for ever in the child, which writes to it too."""
    script = write(
        tmp_path / "script.py",
        """
        import array, fcntl, io, os, sys, termios, threading, time
        import nsutil

        reader, writer = os.pipe()
        sys.stdout = io.TextIOWrapper(open(writer, "wb"))
        start = threading.Event()

        def write():
            start.wait()
            sys.stdout.write("x" * 200_000)
            sys.stdout.flush()

        def wait_for_it():
            start.set()
            waiting = array.array("i", [0])
            while waiting[0] < 65536:
                fcntl.ioctl(reader, termios.FIONREAD, waiting)
                time.sleep(0.001)

        def drain():
            while data := os.read(reader, 65536):
                arrived.append(data)

        arrived = []
        threads = [threading.Thread(target=write), threading.Thread(target=drain)]
        threads[0].start()
        os.register_at_fork(before=wait_for_it, after_in_parent=threads[1].start)
        nsutil.call(print, "inside", new=0, timeout=30)
        threads[0].join()
        sys.stdout.close()
        threads[1].join()
        text = b"".join(arrived)
        print(text.count(b"inside"), text.count(b"x"), file=sys.stderr)
        """,
    )
    assert run("-W", "ignore::DeprecationWarning", script, cwd=tmp_path).split() == ["1", "200000"]


@uncounted
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_calls_of_a_busy_process() -> None:
    """1000 calls from 8 threads, beside threads in malloc, under signals: nothing fails, hangs or is left."""

    def body() -> tuple[int, list[str]]:
        stop, errors, done = threading.Event(), [], []
        boxes = [Namespace(), Namespace(UTS), Namespace(PID), Namespace(PID, init=False), Namespace([USER, UTS])]
        if os.geteuid() != 0:
            boxes = [Namespace(USER | box.new, init=box.init) for box in boxes]

        def calls(first: int) -> None:
            for n in range(first, first + each):
                try:
                    done.append(boxes[n % len(boxes)].call(job, n) == n * n)
                except BaseException as error:
                    errors.append(repr(error))

        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        busy = [threading.Thread(target=churn, args=(stop,)) for _ in range(3)]
        callers = [threading.Thread(target=calls, args=(each * n,)) for n in range(8)]
        for thread in busy + callers:
            thread.start()
        for thread in callers:
            thread.join()
        stop.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return sum(done), errors

    each = 125 // SLOWER
    assert in_child(body, timeout=250) == (8 * each, [])
