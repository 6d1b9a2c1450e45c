"""The command itself: dispatch, help, errors, option syntax, completion, and what a start costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import USER_ID, lacks, needs_program, needs_root
from support_cli import ENV, nsutil, program, terminal

import nsutil as library
from nsutil.__main__ import COMMANDS, HELP
from nsutil.cli._args import Arguments, Options, UsageError

# Options


TEXT = """
  -f, --fork               x
  -S, --setuid UID         x
  -m, --mount[=FILE]       x
  -u[FILE], --uts[=FILE]   x
      --map-user UID       x
      --map-users MAP      x
      --kill-child[=SIG]   x
"""


def parsed(line: str, permute: bool = False) -> tuple[list[tuple[str, str | None]], list[str]]:
    arguments = Arguments(TEXT, line.split(), permute)
    return list(arguments), arguments.rest


@pytest.mark.parametrize(
    ("line", "options", "rest"),
    [
        ("-f x", [("fork", None)], "x"),
        ("-fm x -f", [("fork", None), ("mount", None)], "x -f"),
        ("-S5 x", [("setuid", "5")], "x"),
        ("-S 5 x", [("setuid", "5")], "x"),
        ("-fS5", [("fork", None), ("setuid", "5")], ""),
        ("--setuid=5 --setuid 6", [("setuid", "5"), ("setuid", "6")], ""),
        ("--mount=a --mount b", [("mount", "a"), ("mount", None)], "b"),
        ("-m=a", None, ""),
        ("-ua -u b", [("uts", "a"), ("uts", None)], "b"),
        ("--fo --mo --kill", [("fork", None), ("mount", None), ("kill-child", None)], ""),
        ("--map-user 1", [("map-user", "1")], ""),
        ("--map-us 1", None, ""),
        ("--map=1", None, ""),
        ("--fork=1", None, ""),
        ("-x", None, ""),
        ("--x", None, ""),
        ("-S", None, ""),
        ("--setuid", None, ""),
        ("-f -- -f", [("fork", None)], "-f"),
        ("- -f", [], "- -f"),
        ("--mount=", [("mount", "")], ""),
    ],
)
def test_options_are_read_as_getopt_long_does(
    line: str, options: list[tuple[str, str | None]] | None, rest: str
) -> None:
    if options is None:
        with pytest.raises(UsageError):
            parsed(line)
    else:
        assert parsed(line) == (options, rest.split())


def test_options_after_arguments() -> None:
    assert parsed("x -f y", permute=True) == ([("fork", None)], ["x", "y"])
    assert parsed("x -- -f", permute=True) == ([], ["x", "-f"])


def test_every_help_text_is_a_table() -> None:
    """Each option line has a description, and nothing is declared twice."""
    import importlib

    for command in COMMANDS:
        text = importlib.import_module(f"nsutil.cli.{command}").HELP
        assert text.startswith(f"Usage: nsutil {command}")
        assert "\nExamples:\n" in text
        assert max(map(len, text.splitlines())) <= 80
        spellings = Options(text).spellings
        assert {"--help", "--version", "--debug"} <= spellings.keys(), command
        declared = re.findall(r"^ +(-\S.*?)(?:  |$)", text, re.M)
        names = [re.split(r"[\[ =]", word)[0] for line in declared for word in line.split(", ")]
        assert len(names) == len(set(names)), command


# The command


def test_help_and_version() -> None:
    assert nsutil("--help").out == nsutil("help").out == nsutil("-h").out == HELP
    assert nsutil("--version").out == f"nsutil {library.__version__}\n"
    for command in COMMANDS:
        done = nsutil("help", command)
        assert done.status == 0
        assert done.out == nsutil(command, "--help").out
        assert nsutil(command, "--version").out == f"nsutil {library.__version__}\n"


@pytest.mark.parametrize(
    "line", ["", "foo", "--foo", "help foo", "-x", "completion", "completion fish", "tree x", "tree --color=x"]
)
def test_misuse_is_one_line(line: str) -> None:
    done = nsutil(*line.split())
    assert done.status == 1
    assert done.out == ""
    assert re.fullmatch(r"nsutil.*: .+\n", done.err)


def test_as_a_program() -> None:
    assert program("--version").out == f"nsutil {library.__version__}\n"
    assert program("foo").status == 1


def test_start_imports_only_what_a_command_needs() -> None:
    """Nothing that is slow to load comes with a command that does not use it."""
    code = "import sys; from nsutil.__main__ import main; main({argv!r}); print(*sys.modules, file=sys.stderr)"
    heavy = {"argparse", "subprocess", "asyncio", "dataclasses", "json", "rich", "pyroute2", "inspect", "typing"}
    for argv in (["--version"], ["unshare", "--help"], ["nsenter", "--help"]):
        start = f"import sys; sys.path[:0] = [{ENV['PYTHONPATH']!r}]; "
        command = [sys.executable, "-I", "-S", "-c", start + code.format(argv=argv)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded = set(done.stderr.split())
        assert not loaded & heavy, argv
        assert "nsutil.cli.lsns" not in loaded


def test_an_error_of_ours_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from nsutil.cli import lsns

    def broken(*_: object) -> None:
        raise TypeError("oops")

    monkeypatch.setattr(lsns, "parse", broken)
    done = nsutil("lsns")
    assert done.status == 1
    assert done.err == "nsutil lsns: internal error: TypeError: oops (--debug shows where)\n"
    monkeypatch.setenv("NSUTIL_DEBUG", "1")
    assert "Traceback" in nsutil("lsns").err


# tree


def test_tree() -> None:
    own = f"uts:[{os.stat('/proc/self/ns/uts').st_ino}]"
    for option in ("--owner", "--parent", "--process"):
        done = nsutil("tree", option, "-t", "uts", "-t", "user")
        assert done.status == 0
        assert done.out.count(own) == 1
        assert "net:[" not in done.out
    filtered = nsutil("tree", "--filter", f"ns == {os.stat('/proc/self/ns/uts').st_ino}")
    assert filtered.out.startswith(own)
    assert len(filtered.out.splitlines()) == 1
    assert json.loads(nsutil("tree", "--json", "-t", "uts").out)["namespaces"][0]["type"] == "uts"
    assert nsutil("tree", "-Q", "nosuch == 1").status == 1


def test_tree_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert nsutil("tree", "--html", str(page)).status == 0
    assert page.read_text().lower().startswith("<!doctype html>")
    assert nsutil("tree", "--html=-").out.lower().startswith("<!doctype html>")
    assert nsutil("tree", "--html", str(tmp_path / "no/such/file")).status == 1


def test_tree_on_a_terminal() -> None:
    """With rich in colours, and no line is longer than the terminal is wide."""
    pytest.importorskip("rich")
    env = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm", "COLUMNS": "60"}
    env.pop("NO_COLOR", None)
    shown = terminal("tree", env=env)
    assert "\x1b[" in shown
    assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 60 for line in shown.splitlines())
    assert "\x1b" not in terminal("tree", env={**env, "NO_COLOR": "1"})
    assert "\x1b" in nsutil("tree", "--color=always", env=env).out
    ascii_only = nsutil("tree", env={**os.environ, "LC_ALL": "C"}).out
    assert ascii_only.isascii()
    assert "|-" in ascii_only


def test_tree_says_what_it_could_not_see() -> None:
    done = nsutil("tree", "-t", "uts", uid=USER_ID)
    assert done.status == 0
    if os.geteuid() == 0:
        assert re.fullmatch(r"nsutil tree: \d+ places could not be looked into; root sees more\n", done.err)


# doctor

CHECKED = [*"cgroup ipc mnt net pid time user uts all".split()]


@needs_root
def test_doctor() -> None:
    done = nsutil("doctor")
    lacking = lacks("time")
    assert done.status == lacking, done.out
    works = [name for name in CHECKED if not (lacking and name in ("time", "all"))]
    assert re.findall(r"^(\w+) +works$", done.out, re.M) == works
    assert nsutil("doctor", "--net", "--user").out == "Namespace(NET|USER): works\n"
    missing = nsutil("doctor", "--user", "--map-users=auto", env={**os.environ, "HOME": "/"}, uid=4242)
    assert missing.status == 1
    assert "subuid" in missing.out
    report = json.loads(nsutil("doctor", "-J", "--map-auto", uid=4242).out)
    assert report["works"] is False
    assert report["findings"][0]["cause"] == "subuid"
    refused = nsutil("doctor", "--net", uid=4242)
    assert refused.status == 1
    assert "capability" in refused.out


def test_doctor_knows_the_ways_of_an_ordinary_user() -> None:
    done = nsutil("doctor", uid=USER_ID)
    if done.status == 0:
        assert "all     works" in done.out
    elif not lacks("time"):  # for which a filter leaves no cause in sight
        assert "what helps: " in done.out
    data = json.loads(nsutil("doctor", "--json", uid=USER_ID).out)
    assert [check["name"] for check in data["checks"]] == CHECKED


@pytest.mark.parametrize(
    "line",
    [
        "doctor --hostname",
        "doctor x",
        "doctor --boottime x",
        "doctor --map-users=1:2",
        "doctor -t x",
        "doctor -t 99999999",
    ],
)
def test_doctor_misuse(line: str) -> None:
    done = nsutil(*line.split())
    assert done.status == 1
    assert re.fullmatch(r"nsutil doctor: .+\n", done.err)


@needs_root
def test_doctor_enters() -> None:
    assert nsutil("doctor", "-t", str(os.getpid())).out == "Namespace(): works\n"  # nothing differs
    with subprocess.Popen(["unshare", "-nu", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert nsutil("doctor", "-t", str(process.pid)).out.endswith("works\n")
        process.kill()


# Completion


@needs_program("bash")
def test_completion() -> None:
    lines = {
        "nsutil ''": "unshare",
        "nsutil unsh": "unshare",
        "nsutil unshare --map-r": "--map-root-user",
        "nsutil unshare --propagation ''": "private",
        "nsutil unshare --propagation = sl": "",
        "nsutil nsenter -t ''": str(os.getpid()),
        "nsutil lsns -t cg": "cgroup",
        "nsutil netns ex": "exec",
        "nsutil netns --j": "--json",
        "nsutil help ls": "lsns",
        "nsutil box --net ho": "host",
        "nsutil box bas": "bash",
        "nsutil completion ''": "bash",
    }
    script = 'source <("$1" -m nsutil completion bash)\n'
    script += 't() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _nsutil; echo "${COMPREPLY[@]}"; }\n'
    script += "\n".join(f"t {line}" for line in lines)
    done = subprocess.run(
        ["bash", "-c", script, "bash", sys.executable], env=ENV, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for line, found in zip(lines, done.stdout.splitlines(), strict=True):
        assert lines[line] in found.split() or not lines[line], line
