"""`geosweep ui`: the port it takes, the address it opens, and what MLflow says of a sweep before and after."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from mlflow.tracking import MlflowClient

from orchestrator import runner
from orchestrator.cli import ui
from orchestrator.compare import told
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import sweep_file, task_record
from orchestrator.executors.debug import DebugExecutor
from orchestrator.results import reported
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.mlflow import embedded_uri
from orchestrator.tracking.mlflow_delete import MlflowRuns
from orchestrator.tracking.mlflow_summary import GOES_ON, VERDICT, go_on
from orchestrator.tracking.mlflow_sweep import tracker_of
from orchestrator.tracking.mlflow_view import VIEW
from tests.orchestrator.sweep_files import sweep_text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep, tracked in the store of its root."""
    root, text = tmp_path_factory.mktemp("runs"), sweep_text(method="random", trials=2, confirm=3)
    asked = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(asked, text, root, {})
    tracker = tracker_of(asked, folder)
    with folder.hold():
        runner.run(asked, folder, DebugExecutor(), tracker)
    assert not tracker.trouble
    return folder


def parent(folder: SweepFolder) -> dict[str, str]:
    """The tags of the sweep's run."""
    client = MlflowClient(embedded_uri(folder.root))
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`geosweep.stage` = 'sweep'")
    return {**run.data.tags, "id": run.info.run_id}


def test_a_taken_port_is_passed_over_and_one_that_was_asked_for_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(ui, "FIRST_PORT", port)
        found = ui._port(0)
        assert port < found < port + ui.PORTS
        with pytest.raises(typer.Exit):
            ui._port(port)
    assert ui._port(found) == found


@pytest.mark.slow
def test_a_server_is_not_started_and_its_address_is_whole(
    made: SweepFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    resolved = made.resolved()
    page = ui._page(embedded_uri(made.root), resolved, "")
    assert f"viewStateShareKey=geosweep-{made.sweep_id}&" in page
    ui._open(f"http://example.org/{page}", browser=True)
    assert f"http://example.org/{page}" in "".join(capsys.readouterr())
    matching = ui._page(embedded_uri(made.root), resolved, "params.rotation = 'output'")
    assert "searchFilter=params.rotation%20%3D%20%27output%27" in matching


@pytest.mark.slow
def test_the_parent_says_the_verdict_of_today(made: SweepFolder) -> None:
    """It is told once, taken back when training goes on, and told again."""
    assert told.tell(made) == ""
    words = told.verdict(Evidence(made))
    first = parent(made)
    assert first["mlflow.note.content"].startswith(words)
    assert f"`{made.command('report', made.sweep_id)}`" in first["mlflow.note.content"]
    assert f"--root {made.root}" in first["mlflow.note.content"], "as it must be typed"
    client = MlflowClient(embedded_uri(made.root))
    go_on(client, first["id"], "why")
    assert parent(made)["mlflow.note.content"] == f"why\n\n{GOES_ON}"
    assert VERDICT not in parent(made)
    assert told.tell(made) == ""
    assert parent(made)["mlflow.note.content"].startswith(words)


def test_a_report_of_an_earlier_verdict_is_called_so(made: SweepFolder, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("a page")
    runs = told.runs_of(Evidence(made))
    runs.send(tmp_path, {}, "an earlier verdict", "")
    assert "Full report: artifact `report/report.html`." in parent(made)["mlflow.note.content"]
    assert told.tell(made) == ""
    assert "is from an earlier verdict" in parent(made)["mlflow.note.content"]


def test_what_the_task_declares_is_read_without_it(made: SweepFolder) -> None:
    resolved = made.resolved()
    kept = task_record.of_sweep(resolved)
    assert kept == task_record.of_sweep(replace(resolved, declares=None)), (
        "a folder of an earlier version asks the class"
    )


def test_a_task_that_is_gone_and_left_no_record_is_named(made: SweepFolder, tmp_path: Path) -> None:
    shutil.copytree(made.path, tmp_path / "copy")
    file = tmp_path / "copy" / "resolved.json"
    document = {k: v for k, v in json.loads(file.read_text()).items() if k != "declares"}
    document["definition"]["task"]["name"] = "left_long_ago:Task"
    file.write_text(json.dumps(document))
    with pytest.raises(NotFound, match=r"left_long_ago:Task.*run this in the folder that has it"):
        reported(SweepFolder(tmp_path, "copy"))


def test_deleting_takes_the_views_away(made: SweepFolder, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made.root, root)
    name = made.sweep_id.rpartition("-")[0]
    client = MlflowClient(embedded_uri(root))

    def views() -> list[str]:
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        return [key for key in experiment.tags if key.startswith(VIEW)]

    assert len(views()) == 2
    MlflowRuns(uri=None, root=root, sweep_id=made.sweep_id, name=name).delete()
    assert views() == []
