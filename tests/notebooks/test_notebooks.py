"""Notebooks run, and their committed outputs are those of a run.

To write the outputs anew: OMP_NUM_THREADS=1 .venv/bin/jupyter-execute --inplace notebooks/*.ipynb
"""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes
MACHINE = re.compile(r"/(work|root|home|tmp|Users)/")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outline(cell: NotebookNode) -> list[list[str]]:
    """What a cell shows, without numbers, which differ between processors: of a table the first cell of each line."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        lines = data.get("text/markdown", "").splitlines()
        parts.append([output.output_type, *sorted(data), *(line.split("|")[1].strip() for line in lines)])
    return parts


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_committed_outputs_are_of_one_run_and_small(path: Path):
    assert path.stat().st_size < LARGEST
    assert not MACHINE.search(path.read_text(encoding="utf-8"))
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@every_notebook
def test_a_notebook_runs_and_shows_what_is_committed(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # transformers, where it is installed, warns of its progress bars
    (tmp_path / "shards").symlink_to(ROOT / "shards")
    (tmp_path / "notebooks").mkdir()
    copy = read(Path(shutil.copy(path, tmp_path / "notebooks")))
    NotebookClient(copy, timeout=240, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    assert [outline(cell) for cell in code_cells(copy)] == [outline(cell) for cell in code_cells(read(path))]
