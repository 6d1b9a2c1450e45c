"""IPython and Jupyter: ``%load_ext nsutil`` gives ``%%ns``, ``%ns`` and ``%nstree``.

A kernel has threads from its start, so a cell that is to be in other
namespaces runs in a forked child of the kernel.  Its output, its displays, its
last value and its exception come back; variables do with ``--export``.
"""

from __future__ import annotations

import ast
import os
import pickle
import shlex
import sys
import warnings

from ._types import NAMES, NSType, parse_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from ._recipe import Namespace

    class _Display(NamedTuple):
        data: dict[str, Any]
        metadata: dict[str, Any]


_CELL_HELP = """\
%%ns TYPE... [--OPTION VALUE]... [--export NAMES]
%ns  TYPE... [--OPTION VALUE]... -- CODE

Run a cell (or CODE) in a child of the kernel, in fresh namespaces.  TYPE: {types}.
OPTION: any of nsutil.Namespace, with dashes: --hostname box, --uid-map root,
--boottime 86400; a flag such as --no-new-privs takes no value.
--export a,b: variables to bring back."""


class CellError(Exception):
    """An exception of a cell that ran in a child, shown with the cell's own lines."""

    def __init__(self, name: str, value: str, lines: list[str]) -> None:
        super().__init__(f"{name}: {value}" if value else name)
        self._lines = lines

    def _render_traceback_(self) -> list[str]:
        return self._lines


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics; called by ``%load_ext nsutil``."""

    def ns_cell(line: str, cell: str) -> Any:
        return run_cell(ipython, line, cell)

    def ns_line(line: str) -> Any:
        options, separator, code = line.partition(" -- ")
        if not separator:
            raise _usage("no ' -- ' before the code")
        return run_cell(ipython, options, code)

    ns_cell.__doc__ = ns_line.__doc__ = _CELL_HELP.format(types=" ".join(NAMES))
    ipython.register_magic_function(ns_cell, "cell", "ns")
    ipython.register_magic_function(ns_line, "line", "ns")
    ipython.register_magic_function(nstree, "line", "nstree")


def nstree(line: str) -> object:
    """``%nstree [owner|parent|process] [TYPE...]``: the namespaces of this machine as a tree."""
    from ._snapshot import snapshot

    words = line.split()
    relation = words.pop(0) if words and words[0] in ("owner", "parent", "process") else "owner"
    return snapshot(parse_types(words) or NSType.ALL).tree(relation)


def run_cell(ipython: Any, line: str, cell: str) -> Any:
    """The body of both magics: the cell's last value is displayed, its exception raised."""
    recipe, exports = parse_line(line)
    with warnings.catch_warnings():
        # The kernel has threads; the child only runs this cell.
        warnings.simplefilter("ignore", DeprecationWarning)
        out, err, displays, error, values = recipe.call(_in_child, ipython, cell, exports)
    sys.stdout.write(out)
    sys.stderr.write(err)
    for data, metadata in displays:
        ipython.display_pub.publish(data=data, metadata=metadata)
    ipython.user_ns.update({name: pickle.loads(value) for name, value in values.items()})
    if error is not None:
        raise CellError(*error)


def _usage(problem: str) -> Exception:
    from IPython.core.error import UsageError

    return UsageError(f"{problem}\n\n{_CELL_HELP.format(types=' '.join(NAMES))}")


# ------------------------------------------------------------- the options


def parse_line(line: str) -> tuple[Namespace, list[str]]:
    """The recipe and the names to export that a magic's line asks for.

    Raises UsageError for what is not understood, as a recipe does otherwise.
    """
    from ._recipe import DEFAULTS

    types, options, exports = NSType(0), dict[str, object](), list[str]()
    words = shlex.split(line)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            types |= parse_types(word)
            continue
        name, has_value, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name == "export":
            exports = _value(word, value if has_value else None, words).split(",")
        elif isinstance(DEFAULTS.get(name), bool) and not has_value:
            options[name] = True
        elif name in DEFAULTS:
            options[name] = _literal(_value(word, value if has_value else None, words))
        else:
            raise _usage(f"unknown option {word}")
    return _recipe(types, options), [name.strip() for name in exports if name.strip()]


def _value(option: str, given: str | None, words: list[str]) -> str:
    if given is not None:
        return given
    if not words:
        raise _usage(f"{option} needs a value")
    return words.pop(0)


def _literal(text: str) -> object:
    """A Python literal where it is one (numbers, True, lists), else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _recipe(types: NSType, options: dict[str, Any]) -> Namespace:
    from ._privilege import privileged
    from ._recipe import Namespace

    return Namespace(**privileged(options, types))


# --------------------------------------------------------------- the child


def _in_child(ipython: Any, cell: str, exports: list[str]) -> tuple[str, str, list[_Display], Any, dict[str, bytes]]:
    """Run the cell; everything that the kernel is to show for it."""
    from IPython.utils.capture import capture_output

    out, err = _redirect(1), _redirect(2)
    error = None
    with capture_output(stdout=False, stderr=False, display=True) as captured:
        try:
            value = _execute(ipython, cell)
            if value is not None:
                sys.displayhook(value)
        except Exception:
            error = _described(ipython)
    values = {} if error else {name: _exported(ipython, name) for name in exports}
    sys.stdout.flush()
    sys.stderr.flush()
    displays = [(output.data, output.metadata) for output in captured.outputs]
    return _content(out), _content(err), displays, error, values  # type: ignore[return-value]


def _redirect(fd: int) -> int:
    """Have a standard stream, Python's and those of programs, go to memory."""
    memory = os.memfd_create("output")
    os.dup2(memory, fd)
    stream = os.fdopen(os.dup(fd), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    setattr(sys, "stdout" if fd == 1 else "stderr", stream)
    return memory


def _content(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb") as file:
        return file.read().decode("utf-8", "replace")


def _execute(ipython: Any, cell: str) -> object:
    """The value of the last expression, None when the cell ends in something else or a semicolon."""
    source = ipython.transform_cell(cell)
    name = ipython.compile.cache(source, raw_code=cell)
    tree = ast.parse(source, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    namespace = ipython.user_ns
    exec(compile(tree, name, "exec"), namespace)
    if last is None:
        return None
    value: object = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    return None if cell.rstrip().endswith(";") else value


def _described(ipython: Any) -> tuple[str, str, list[str]]:
    """Name, value and traceback of the current exception, as the kernel would show it."""
    kind, value, trace = sys.exc_info()
    assert kind is not None
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return kind.__name__, str(value), ipython.InteractiveTB.structured_traceback(kind, value, trace)


def _exported(ipython: Any, name: str) -> bytes:
    if name not in ipython.user_ns:
        raise NameError(f"--export: the cell left no variable {name!r}")
    return pickle.dumps(ipython.user_ns[name], 5)
