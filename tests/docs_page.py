"""The examples of a page: found, and run as its reader would, one after the other.

    python docs_page.py PAGE.md

Words behind the language of a fence say how a block is meant:

* ```` ```python ````: run, all of a page in one interpreter
* ```` ```python user ````: run alone in a child that is an ordinary user
* ```` ```python pytest ````: a test file, run by pytest with the plugin
* ```` ```python notest ````: shown only
* ```` ```ipython ````: the cells of one notebook, run in a kernel after everything else
* ```` ```bash run ````: run by bash, which stops at the first command that fails; other shell blocks are shown only
* ``needs=PROGRAM``, ``import=MODULE`` behind any of them: left out where that is not installed
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>\w[^\n`]*)\n(?P<code>.*?)^(?P=fence)\s*$", re.M | re.S)


class Block(NamedTuple):
    """A fenced block: where its code starts, its language, the words behind it."""

    line: int
    language: str
    words: tuple[str, ...]
    code: str

    @property
    def runs(self) -> bool:
        """Whether it is an example that has to work."""
        if self.language == "python":
            return "notest" not in self.words
        return self.language == "ipython" or (self.language == "bash" and "run" in self.words)

    @property
    def missing(self) -> list[str]:
        """The programs and modules it needs that are not there."""
        needed = [word.partition("=")[::2] for word in self.words if "=" in word]
        found = {"needs": shutil.which, "import": find_spec}
        return [name for kind, name in needed if found[kind](name) is None]


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks of a page that name a language."""
    found = []
    for match in _FENCE.finditer(text):
        language, *words = match["info"].split()
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(line, language, tuple(words), match["code"]))
    return found


def run_page(path: str) -> None:
    """Run the examples of a page; the first that fails ends it with its traceback."""
    names = {"__name__": "__main__"}
    cells = []
    for block in blocks_of(Path(path).read_text()):
        if not block.runs:
            continue
        if block.missing:
            print(f"left out: {path}:{block.line} needs {', '.join(block.missing)}", flush=True)
            continue
        print(f"running {path}:{block.line}", flush=True)
        if block.language == "ipython":
            cells.append(block.code)
        elif block.language == "bash":
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True, timeout=60)
        elif "pytest" in block.words:
            run_pytest(block.code)
        else:
            run_python(path, block, names)
    if cells:
        run_cells(cells)


def run_python(path: str, block: Block, names: dict[str, str]) -> None:
    """Run a block, here or as an ordinary user."""
    # Empty lines before it, so that a traceback names the line of the page.
    code = compile("\n" * (block.line - 1) + block.code, path, "exec")
    if "user" in block.words:
        import support

        support.as_user(exec, code, dict(names), timeout=60)
    else:
        exec(code, names)


def run_pytest(code: str) -> None:
    """Run a test file in a directory of its own."""
    installed = any(entry.value == "nsutil.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "nsutil.pytest_plugin"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_example.py").write_text(code)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin]
        subprocess.run(command, cwd=folder, check=True, timeout=60)


def run_cells(cells: list[str]) -> None:
    """Run the cells of a notebook in a fresh kernel."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    # What others do: jupyter_client on its way, files that an example leaves to the collector.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="(jupyter|zmq|nb|traitlets)")
    warnings.filterwarnings("ignore", category=ResourceWarning)
    os.umask(0o022)
    run_page(sys.argv[1])
