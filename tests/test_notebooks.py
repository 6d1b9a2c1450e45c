"""The notebooks of the documentation run from a clean kernel, and are kept without what they printed."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
import support

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of jupyter_client, at import
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((support.ROOT / "docs/notebooks").glob("*.ipynb"))
TYPES = {"uts", "ipc", "mnt", "net", "pid", "user", "cgroup", "time"}
WITH_TIME = {"container", "time"}
NEEDS = {"network": ("pyroute2", "matplotlib")}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_there_is_one_for_each_type() -> None:
    assert {path.stem for path in NOTEBOOKS} == TYPES | {"container", "network"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_clean(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}
    assert notebook.cells[0].source.startswith("# ")
    assert path.read_text() == nbformat.writes(notebook, indent=1) + "\n"


@support.needs_root
@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [support.with_time(path) if path.stem in WITH_TIME else path for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in NEEDS.get(path.stem, ()):
        pytest.importorskip(module)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))
    notebook = nbformat.read(path, 4)
    mounts, children = support.mounts(), support.children()
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute(cwd=str(tmp_path))
    assert (support.mounts(), support.children()) == (mounts, children)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    told = [output.text for output in outputs if output.get("name") == "stderr"]
    # From 3.12 on a fork in a kernel, which has threads, warns.
    assert [text for text in told if "is multi-threaded" not in text] == []
    if path.stem == "network":
        assert any("image/png" in output.get("data", {}) for output in outputs)
    if path.stem == "container":
        assert any("text/html" in output.get("data", {}) for output in outputs)
