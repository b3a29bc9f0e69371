"""The notebook of the documentation runs, and shows what it should: bars, tables, the verdict, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.orchestrator.command import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"


def pages(cell: Any) -> str:
    """All HTML that a cell shows."""
    return "".join(one["data"].get("text/html", "") for one in cell["outputs"] if "data" in one)


def test_it_is_stored_without_outputs() -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    assert not [cell for cell in stored.cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PYTHONPATH", str(REPOSITORY)), ("GEOSWEEP_ROOT", "runs"), ("JUPYTER_PLATFORM_DIRS", "1")):
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = {cell.source: cell for cell in notebook.cells if cell.cell_type == "code"}
    run = next(cell for source, cell in cells.items() if "geosweep.run(definition, executor" in source)
    assert pages(run).count("<progress max=12 value=12>") == 3
    assert "sweep line-" in pages(run)
    assert "<th>chosen</th>" in pages(run)
    assert not [one for one in run["outputs"] if one["output_type"] == "stream"]
    best = pages(cells["sweep.best()"])
    assert all(arm in best for arm in ("sgd", "adamw", "sign_descent"))
    assert "paired over the confirm seeds" in pages(cells['sweep.compare("sgd")'])
    assert "<iframe" in pages(cells["sweep.report()"])
    said = "".join(one.get("text", "") for one in notebook.cells[-2]["outputs"])
    assert said == "override arms.sgd.parameters.momentun: unknown to optimizer sgd; did you mean momentum?\n"
    assert list(tmp_path.glob("runs/line-*/report/report.html"))
