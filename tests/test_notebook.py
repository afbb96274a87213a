"""The notebook runs from top to bottom, in the package's own calls, and is kept without outputs."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from runs import ROOT

NOTEBOOK = ROOT / "notebooks" / "transfer_learning.ipynb"


@pytest.fixture
def book() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(book: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_it_has_no_outputs(book: NotebookNode) -> None:
    assert [cell for cell in code(book) if cell.outputs or cell.execution_count] == []
    assert set(book.metadata) == {"kernelspec", "language_info"}


def test_it_explains_each_step_and_defines_nothing_of_its_own(book: NotebookNode) -> None:
    kinds = [cell.cell_type for cell in book.cells]
    assert kinds[0] == kinds[-1] == "markdown"
    assert all("code" not in pair or "markdown" in pair for pair in pairwise(kinds))
    own = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    for cell in code(book):
        source = re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE)
        assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, own)]


def printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the machinery that runs notebooks, not ours
def test_it_runs(book: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAW_ROOT", str(tmp_path))
    monkeypatch.delenv("THAW_CACHE", raising=False)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    metadata = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=600, kernel_name="python3", resources=metadata).execute()
    nbformat.write(book, tmp_path / "executed.ipynb")
    figures = [
        output for cell in code(book) for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]  # fmt: skip
    assert len(figures) == 5
    assert (tmp_path / "logs" / "notebook" / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "logs" / "notebook" / "model" / "model.json").is_file()
    # what the text promises
    text = "".join(printed(cell) for cell in code(book))
    best = {name: float(value) for name, value in
            re.findall(r"(\w+) +best validation accuracy (\S+)", text)}  # fmt: skip
    assert best["unfrozen"] > best["frozen"] > 0.5
    assert float(re.findall(r"test +accuracy (\S+)", text)[0]) > 0.5
