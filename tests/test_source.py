"""What no compiler checks: which calls the child's code makes, comments, sizes, and what an import costs."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import support

C_FILES = sorted(support.SRC.glob("*.[ch]"))
PACKAGE = sorted((support.ROOT / "nsutil").rglob("*.py"))
FILE_LINES = 600

by_name = pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
by_module = pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(support.ROOT)))


# Code that runs between clone and exec shares memory, locks and errno with its parent, so it may call nothing that
# allocates, locks or prints. What is harmless, and what a file may call beyond that, is named here.

HARMLESS = set("memchr memcmp memcpy memmove memset stpcpy strcat strchr strcmp strcpy strcspn strlen".split())
HARMLESS |= {"strncmp", "strnlen", "strrchr", "strspn", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
ALLOWED: dict[str, set[str]] = {
    "submounts.c": set(),
    "targets.c": set(),
    # A child clones the next one; the errno of that is the suspended parent's, which nobody reads meanwhile.
    "child.c": {"clone", "__errno_location"},
    "clone3.c": set(),
    "closefds.c": set(),
    "procfs.c": set(),
}
CHILD_FILES = sorted({*ALLOWED, *(path.name for path in C_FILES if path.name.endswith("steps.c"))})
# The scan is not between clone and exec, but runs without the GIL.
SCAN_FILES = ["scan.c", "scanfd.c", "scanmnt.c", "scanrel.c", "scantab.c"]
FREE_OF_PYTHON = [*CHILD_FILES, *SCAN_FILES, "init.c", "initfile.c", "shared.c", "spawn.c"]


def compile_object(name: str, folder: Path) -> Path:
    target = folder / (name + ".o")
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fno-stack-protector", f"-I{support.SRC}"]
    subprocess.run(["cc", *flags, "-c", "-o", target, support.SRC / name], check=True, timeout=60)
    return target


def symbols(option: str, path: Path) -> set[str]:
    listing = subprocess.run(["nm", option, path], check=True, capture_output=True, text=True, timeout=60).stdout
    return {line.split()[-1] for line in listing.splitlines()}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("objects")
    return {name: compile_object(name, folder) for name in CHILD_FILES}


@pytest.mark.parametrize("name", CHILD_FILES)
def test_child_code_calls_only_what_is_allowed(name: str, objects: dict[str, Path]) -> None:
    ours = {symbol for path in objects.values() for symbol in symbols("--defined-only", path)}
    assert symbols("-u", objects[name]) - ours - HARMLESS - ALLOWED.get(name, set()) == set()


@pytest.mark.parametrize("name", FREE_OF_PYTHON)
def test_no_python_below(name: str) -> None:
    path = support.SRC / name
    if not path.exists():
        pytest.skip(f"no {name}")
    headers = subprocess.run(
        ["cc", "-MM", "-D_GNU_SOURCE", f"-I{support.SRC}", path], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert "module.h" not in headers
    assert "Python.h" not in path.read_text()


def test_allow_list_would_notice(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("#include <stdlib.h>\nvoid *f(void);\nvoid *f(void) { return malloc(9); }\n")
    subprocess.run(["cc", "-O2", "-c", "-o", tmp_path / "bad.o", tmp_path / "bad.c"], check=True, timeout=60)
    assert symbols("-u", tmp_path / "bad.o") - HARMLESS == {"malloc"}


# Form


# CPython's manual says what these return and set.
CPYTHON_SLOT = re.compile(r"PyInit_|\w+_(traverse|clear|dealloc|exec)$").match


class Function(NamedTuple):
    """A C function: the line of its name, how many lines its braces span, whether a comment stands above it."""

    name: str
    line: int
    length: int
    commented: bool


def c_functions(text: str) -> Iterator[Function]:
    """PEP 7 makes them easy to find: the braces are alone in the first column, the name starts a line."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if line != "{":
            continue
        head = start - 1
        while not re.match(r"\w+\(", lines[head]):
            head -= 1
        first = head - 1  # the return type
        while re.match(r"(static|__attribute__|Py_)", lines[first - 1]):
            first -= 1
        end = lines.index("}", start)
        yield Function(lines[head].split("(")[0], head + 1, end - start + 1, _comment_above(lines, first))


def documented_in_headers() -> set[str]:
    """Functions whose contract stands in a header, where their users read it."""
    texts = [path.read_text() for path in C_FILES if path.suffix == ".h"]
    return {name for text in texts for name in re.findall(r"^\w[\w* ]*\b(\w+)\(", text, re.M)}


def _comment_above(lines: list[str], first: int) -> bool:
    """A comment, or the docstring that Python shows; #if lines may stand between."""
    above = first - 1
    while above >= 0 and (not lines[above] or lines[above].startswith("#")):
        above -= 1
    return above >= 0 and lines[above].rstrip().endswith(("*/", '");'))


@by_name
def test_c_functions(path: Path) -> None:
    found = list(c_functions(path.read_text()))
    bare = [f for f in found if not f.commented and f.name not in documented_in_headers() and not CPYTHON_SLOT(f.name)]
    assert "\n".join(f"{f.name}, line {f.line}: no comment" for f in bare) == ""
    assert "\n".join(f"{f.name}, line {f.line}: {f.length} lines" for f in found if f.length > 90) == ""


def test_c_functions_are_short() -> None:
    lengths = [f.length for path in C_FILES for f in c_functions(path.read_text())]
    assert statistics.median(lengths) <= 15
    assert statistics.quantiles(lengths, n=10)[-1] <= 50


@by_name
def test_c_lines(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= FILE_LINES
    assert [number for number, line in enumerate(lines, 1) if len(line) > 79] == []
    assert [number for number, line in enumerate(lines, 1) if "\t" in line or line != line.rstrip()] == []


@by_module
def test_python_functions(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    assert "\n".join(f"{name}: {length} lines" for name, length in python_functions(text) if length > 60) == ""


def test_python_functions_are_short() -> None:
    lengths = [length for path in PACKAGE for _, length in python_functions(path.read_text())]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] <= 30


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Each function and the lines of its body; docstrings are documentation, not length."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@by_module
def test_annotations_are_not_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    code = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if code:
        assert ast.unparse(code[0]) == "from __future__ import annotations"


# What an import costs

LAZY = {
    "asyncio",
    "contextlib",
    "ctypes",
    "dataclasses",
    "inspect",
    "json",
    "socket",
    "subprocess",
    "threading",
    "typing",
}


def run_python(code: str) -> str:
    """The output of an interpreter that has nothing but the standard library and the nsutil of these tests."""
    import nsutil

    start = f"import sys; sys.path.insert(0, {str(Path(nsutil.__file__).parent.parent)!r})\n"
    command = [sys.executable, "-I", "-S", "-c", start + code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_import_is_lazy() -> None:
    loaded = set(run_python("import nsutil; print(*sys.modules)").split())
    assert loaded & LAZY == set()
    assert {name for name in loaded if name.startswith("nsutil")} <= {"nsutil", "nsutil._types", "nsutil._ns"}


def test_import_changes_nothing() -> None:
    code = f"""
sys.path.insert(0, {str(support.ROOT / "tests")!r})
def state():
    import gc, os, signal
    tasks = sorted(os.listdir("/proc/self/task"))
    names = ("mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time")
    spaces = [os.readlink(f"/proc/thread-self/ns/{{name}}") for name in names]
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    fds = len(os.listdir("/proc/self/fd"))
    return tasks, spaces, handlers, fds, signal.pthread_sigmask(signal.SIG_BLOCK, []), os.umask(0o22), os.getcwd()
import os
os.umask(0o22)
before = state()
import nsutil, nsutil._ns
print(before == state())
"""
    assert run_python(code) == "True\n"


def test_every_public_name_is_documented_or_constant() -> None:
    """dir() and __all__ agree; a misspelt name is an AttributeError that names it."""
    import nsutil

    assert set(nsutil.__all__) <= set(dir(nsutil))
    with pytest.raises(AttributeError, match="unshaer"):
        nsutil.unshaer  # noqa: B018
