"""The magics, in a real kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import needs_kernel, needs_root

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

pytestmark = [needs_root, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture
def execute(monkeypatch):
    """Run cells in a fresh kernel; each one's outputs as (kind, text)."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))

    def go(*cells):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in ("%load_ext nsutil", *cells)])
        client = nbclient.NotebookClient(notebook, timeout=60, allow_errors=True, kernel_name="python3")
        client.execute()
        return [[_shown(output) for output in cell.outputs] for cell in notebook.cells[1:]]

    return go


def _shown(output):
    if output.output_type == "stream":
        return output.name, output.text
    if output.output_type == "error":
        return output.ename, "\n".join(output.traceback)
    return output.output_type, output.data.get("text/plain", "")


@needs_kernel("time")
def test_cells(execute):
    outputs = execute(
        "x = 5\nimport os\nhost = os.uname().nodename",
        "%%ns uts net --hostname box --export y,name\n"
        "import os, sys\n"
        "y, name = x * 2, os.uname().nodename\n"
        "print('printed')\n"
        "os.system('hostname')\n"
        "print('complained', file=sys.stderr)\n"
        "y",
        "assert os.uname().nodename == host\n(y, name)",
        "%ns uts --hostname line -- __import__('os').uname().nodename",
        "%%ns pid mnt\nimport os\nos.getpid(), os.listdir('/proc').count('1');",
        "%%ns user --uid-map root\nprint(open('/proc/self/uid_map').read().split())",
        "%%ns time --boottime=1000000.5\nimport time\ntime.clock_gettime(time.CLOCK_BOOTTIME) > 1e6",
    )
    assert outputs[1] == [("stdout", "printed\nbox\n"), ("stderr", "complained\n"), ("display_data", "10")]
    assert outputs[2] == [("execute_result", "(10, 'box')")]
    assert outputs[3] == [("display_data", "'line'")]
    assert outputs[4] == []
    assert outputs[5] == [("stdout", f"['0', '{os.getuid()}', '1']\n")]
    assert outputs[6] == [("display_data", "True")]


def test_the_tree_is_drawn(execute):
    (((kind, drawing),),) = execute("%nstree owner user uts")
    assert kind == "execute_result"
    assert drawing.startswith("user:[")
    assert any(line.startswith(("├─uts:[", "└─uts:[")) for line in drawing.splitlines())


def test_errors(execute):
    outputs = execute(
        "%%ns uts\ndef f():\n    return 1 / 0\nf()",
        "%%ns nett\npass",
        "%%ns uts --colour red\npass",
        "%%ns uts --export missing\npass",
        "%%ns uts\nimport os\nos.kill(os.getpid(), 9)",
        "%%ns uts --hostname\npass",
        "1 + 1",
    )
    kind, text = outputs[0][0]
    assert kind == "CellError"
    assert "return" in text
    assert "division by zero" in text
    assert outputs[1][0][0] == "ValueError"
    assert "unknown option --colour" in outputs[2][0][1]
    assert "missing" in outputs[3][0][1]
    assert outputs[4][0][0] == "ChildDied"
    assert "--hostname needs a value" in outputs[5][0][1]
    assert outputs[6] == [("execute_result", "2")]


def test_the_magics_need_no_pytest():
    """Only a test run has it; a notebook's environment need not."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from nsutil.jupyter import parse_line\n"
        "print(parse_line('uts --hostname box --export a')[1])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['a']\n", done.stderr
