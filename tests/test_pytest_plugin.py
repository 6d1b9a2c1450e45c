"""The plugin as its users meet it: whole pytest runs in a fresh directory."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest
from support import PACKAGE, USER_ID, needs_root

pytest_plugins = ["pytester"]

_INSTALLED = any(e.value == "nsutil.pytest_plugin" for e in importlib.metadata.entry_points(group="pytest11"))
_PLUGIN = () if _INSTALLED else ("-p", "nsutil.pytest_plugin")

IDS = """
    import os
    import pytest

    def ids():
        return {n: os.stat(f"/proc/thread-self/ns/{n}").st_ino for n in ("uts", "net", "ipc", "mnt", "pid", "user")}

    OUTSIDE = ids()

    def moved():
        return sorted(n for n, inode in ids().items() if inode != OUTSIDE[n])
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on a module; the result."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))

    def go(source, *args):
        pytester.makepyfile(IDS + source)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *_PLUGIN, *args)

    return go


@needs_root
@pytest.mark.incident("A37")
def test_marked_tests_run_inside_and_the_others_outside(run):
    result = run("""
    @pytest.mark.namespace("net", "uts", hostname="box")
    def test_inside():
        assert moved() == ["net", "uts"]
        assert os.uname().nodename == "box"

    def test_outside():
        assert moved() == []

    @pytest.mark.namespace("ipc")
    class TestClass:
        @pytest.mark.namespace("uts")
        def test_both(self):
            assert moved() == ["ipc", "uts"]

    @pytest.mark.namespace("pid", "mnt")
    def test_pid_is_not_1():
        assert os.getpid() == 2
    """)
    result.assert_outcomes(passed=4)


@needs_root
def test_every_outcome_is_reported_as_usual(run):
    result = run(
        """
    pytestmark = pytest.mark.namespace("uts")

    def test_diff():
        print("said in the child")
        assert {"a": 1} == {"a": 2}

    def test_skip():
        pytest.skip("reason of the skip")

    @pytest.mark.xfail(strict=True)
    def test_xfail():
        assert False

    @pytest.mark.parametrize("x", [1, 2])
    def test_parameters(x):
        assert moved() == ["uts"]

    @pytest.fixture
    def broken():
        raise LookupError("in the fixture")

    def test_error(broken):
        pass

    @pytest.fixture
    def broken_end():
        yield
        raise LookupError("in the teardown")

    def test_teardown(broken_end):
        pass
    """,
        "-rA",
    )
    result.assert_outcomes(failed=1, skipped=1, xfailed=1, passed=3, errors=2)
    result.stdout.fnmatch_lines(["*assert {'a': 1} == {'a': 2}*", "*said in the child*"])
    result.stdout.fnmatch_lines(["*reason of the skip*"])


@needs_root
def test_source_lines_are_shown_where_something_is_mounted(run):
    result = run("""
    from nsutil import Tmpfs

    def helper(x):
        assert x == 5

    @pytest.mark.namespace("mnt", mounts=[Tmpfs("/mnt")])
    def test_lines():
        helper(4)
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*helper(4)", ">*assert x == 5"])


@needs_root
def test_a_child_that_dies_is_a_failure_with_its_signal(run):
    result = run("""
    import signal

    @pytest.mark.namespace("uts")
    def test_crash():
        os.kill(os.getpid(), signal.SIGSEGV)

    @pytest.mark.namespace("uts")
    def test_exit():
        os._exit(3)

    @pytest.mark.namespace("uts")
    def test_next():
        pass
    """)
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*SIGSEGV*", "*status 3*"])


@needs_root
def test_wider_fixtures_are_made_and_ended_once_in_the_parent(run, tmp_path):
    log = tmp_path / "log"
    result = run(f"""
    def note(text):
        with open({str(log)!r}, "a") as file:
            file.write(f"{{text}} {{os.getpid() == MAIN}}\\n")

    MAIN = os.getpid()

    @pytest.fixture(scope="session")
    def session():
        note("session+")
        yield 1
        note("session-")

    @pytest.fixture(scope="module")
    def module(session):
        note("module+")
        yield 2
        note("module-")

    @pytest.fixture
    def function(module):
        note("function+")
        yield 3
        note("function-")

    @pytest.mark.namespace("uts")
    def test_one(function, session):
        assert (function, session) == (3, 1)

    @pytest.mark.namespace("uts")
    def test_two(function):
        pass
    """)
    result.assert_outcomes(passed=2)
    assert log.read_text().splitlines() == [
        "session+ True",
        "module+ True",
        "function+ False",
        "function- False",
        "function+ False",
        "function- False",
        "module- True",
        "session- True",
    ]


@needs_root
def test_a_broken_module_fixture_is_an_error_of_each_test(run):
    result = run("""
    @pytest.fixture(scope="module")
    def broken():
        raise LookupError("module fixture")

    @pytest.fixture(scope="module")
    def broken_end():
        yield
        raise LookupError("module teardown")

    @pytest.mark.namespace("uts")
    def test_one(broken): pass

    @pytest.mark.namespace("uts")
    def test_two(broken): pass

    @pytest.mark.namespace("uts")
    def test_three(broken_end): pass
    """)
    result.assert_outcomes(errors=3, passed=1)
    result.stdout.fnmatch_lines(["*module fixture*", "*module teardown*"])


@needs_root
def test_bad_markers_say_what_is_wrong(run):
    result = run("""
    @pytest.mark.namespace("nett")
    def test_type(): pass

    @pytest.mark.namespace("net", hostname="x")
    def test_option(): pass
    """)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*unknown namespace type 'nett'*", "*hostname='x' needs UTS*"])


@needs_root
def test_timeout_and_maxfail(run):
    result = run(
        """
    import time

    @pytest.mark.namespace("uts", timeout=0.3)
    def test_recipe_timeout():
        time.sleep(30)

    @pytest.mark.namespace("uts")
    def test_not_reached(): pass
    """,
        "-x",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*0.3 seconds*"])


@needs_root
def test_pdb_explains_itself(run):
    result = run(
        """
    @pytest.mark.namespace("uts")
    def test_fails():
        assert False
    """,
        "--pdb",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*run it without the namespace marker to debug it*"])


@needs_root
def test_under_xdist(run):
    pytest.importorskip("xdist")
    result = run(
        """
    @pytest.mark.namespace("uts", "net")
    @pytest.mark.parametrize("n", range(6))
    def test_inside(n):
        assert moved() == ["net", "uts"]
    """,
        "-n2",
    )
    result.assert_outcomes(passed=6)


@needs_root
def test_isolate_puts_the_whole_run_inside(run):
    host = os.stat("/proc/self/ns/net").st_ino
    result = run(
        f"""
    def test_net():
        assert os.stat("/proc/self/ns/net").st_ino != {host}

    def test_fails():
        assert 0
    """,
        "--ns-isolate=net,uts",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*isolated in fresh namespaces: net|uts*"])
    assert result.ret == 1
    result = run("def test_x(): pass", "--ns-isolate=nett")
    result.stderr.fnmatch_lines(["*nett*cgroup*"])


@needs_root
def test_leaks_are_named(run):
    result = run(
        """
    import threading
    import nsutil

    KEEP = []

    def test_clean(): pass

    def test_fd():
        KEEP.append(open("/dev/null"))

    def test_child():
        pid = os.fork()
        if pid == 0:
            import time; time.sleep(20); os._exit(0)
        KEEP.append(pid)

    def test_thread():
        event = threading.Event()
        threading.Thread(target=event.wait, args=(20,), daemon=True, name="left-over").start()
        KEEP.append(event)

    def test_namespace():
        nsutil.unshare(nsutil.UTS)

    def test_end():
        os.kill(KEEP[1], 9); os.waitpid(KEEP[1], 0)

    @pytest.mark.namespace("net")
    def test_in_child():
        KEEP.append(open("/dev/zero"))
    """,
        "--ns-leaks",
    )
    result.assert_outcomes(passed=7, errors=5)
    result.stdout.fnmatch_lines_random(
        [
            "*descriptor *: /dev/null*",
            "*child process *",
            "*thread left-over*",
            "*another uts namespace*",
            "*/dev/zero*",
        ]
    )


@needs_root
def test_what_libffi_keeps_open_is_no_leak(run):
    """Importing ctypes may leave such a descriptor, and no test can help that."""
    result = run(
        """
    KEEP = []

    def test_library(tmp_path):
        KEEP.append(open(tmp_path / "libffi.so.8.5.0", "w"))

    def test_callback():
        import ctypes
        ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0)

    def test_another(tmp_path):
        KEEP.append(open(tmp_path / "mylibffi.so", "w"))
    """,
        "--ns-leaks",
    )
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*descriptor *mylibffi.so"])


@needs_root
def test_fixtures(run):
    result = run("""
    import nsutil
    from nsutil import enter

    def test_box(ns_box):
        with ns_box("uts", hostname="x"):
            assert os.uname().nodename == "x"

    def test_net(ns_net):
        with enter(ns_net):
            assert moved() == ["net"]
            assert ids()["net"] == ns_net.inode
            with open("/proc/thread-self/net/dev") as file:
                assert file.read().count(":") == 1

    def test_lan(ns_lan):
        pytest.importorskip("pyroute2")
        import socket
        lan = ns_lan(hosts=3)
        assert len({h.address for h in lan.hosts}) == 3
        first, second, third = lan.hosts
        with first:
            server = socket.create_server((first.address, 5000))
        with server:
            for host in (second, third):
                with enter(host):
                    client = socket.create_connection((first.address, 5000), timeout=5)
                with client:
                    peer, address = server.accept()
                    with peer:
                        assert address[0] == host.address
                        client.sendall(b"hello")
                        assert peer.recv(10) == b"hello"
        assert moved() == []
    """)
    result.assert_outcomes(passed=3)


@needs_root
def test_an_ordinary_user_gets_user_added(pytester, monkeypatch, tmp_path_factory):
    """As a stranger would: really dropped, in a child."""
    pytester.makepyfile(
        IDS
        + """
    @pytest.mark.namespace("net", "uts", hostname="box")
    def test_inside():
        assert moved() == ["net", "user", "uts"]
        assert os.getuid() == 0
        assert os.uname().nodename == "box"

    def test_box(ns_box):
        assert ns_box("uts").run(["id", "-u"], capture_output=True, text=True).stdout == "0\\n"
    """
    )
    python = _python_for_everybody()
    if not _readable_by_others(PACKAGE):
        pytest.skip("the package lies where an ordinary user cannot read it")
    paths = [p for p in sys.path if p and _readable_by_others(p)]
    os.chmod(pytester.path, 0o777)
    for parent in pytester.path.parents:
        if os.stat(parent).st_uid == os.getuid() and not os.stat(parent).st_mode & 1:
            os.chmod(parent, 0o711)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-m", "pytest", *_PLUGIN, "-p", "no:cacheprovider", "-q"],
        cwd=pytester.path,
        env=env,
        user=USER_ID,
        group=USER_ID,
        extra_groups=[],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def _python_for_everybody():
    """An interpreter of this version that an ordinary user can run."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if os.path.exists(python) and _readable_by_others(python):
            return python
    pytest.skip("no interpreter of this version can be run by an ordinary user")


def _readable_by_others(path):
    """Whether an ordinary user can get to that file."""
    parts = []
    for way in {os.path.abspath(path), os.path.realpath(path)}:
        parts.append(way)
        while way != "/":
            way = os.path.dirname(way)
            parts.append(way)
    return all(os.stat(p).st_mode & 0o001 for p in parts if os.path.exists(p))


@needs_root
def test_types_by_keyword_as_of_a_recipe(run):
    result = run("""
    @pytest.mark.namespace("net", new="uts", hostname="box")
    def test_inside():
        assert moved() == ["net", "uts"]

    def test_box(ns_box):
        assert ns_box(new=["ipc", "net"]).new == ns_box("ipc", "net").new
        assert ns_box("ipc", new="net").new == ns_box("ipc", "net").new
    """)
    result.assert_outcomes(passed=2)


@needs_root
def test_warnings_of_the_child_are_shown(run):
    result = run("""
    import warnings

    class Odd(UserWarning):
        def __reduce__(self):
            raise TypeError

    @pytest.mark.namespace("uts")
    def test_warns(tmp_path):
        warnings.warn("a plain one")
        warnings.warn(Odd("an odd one"))

    @pytest.mark.namespace("uts")
    def test_catches():
        with pytest.warns(UserWarning):
            warnings.warn("caught")

    @pytest.mark.namespace("uts")
    @pytest.mark.filterwarnings("ignore:quiet", "error:loud")
    def test_filters():
        warnings.warn("quiet")
        with pytest.raises(UserWarning):
            warnings.warn("loud")
    """)
    result.assert_outcomes(passed=3, warnings=2)
    result.stdout.fnmatch_lines(["*UserWarning: a plain one", "*UserWarning: Odd: an odd one"])
