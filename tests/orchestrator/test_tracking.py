"""Trackers that are away and come back, and what `reconcile` mends; with real MLflow stores and a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient

from orchestrator import results, runner
from orchestrator.compare import told
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import sweep_file
from orchestrator.definition.states import SweepState
from orchestrator.executors.debug import DebugExecutor
from orchestrator.reconcile import reconcile
from orchestrator.search.optuna_storage import storage
from orchestrator.statistics.intervals import summarize
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.mlflow import ARM, POINTS, STUDY, TRIAL, UNIT, MlflowTracker, embedded_uri
from orchestrator.tracking.mlflow_report import MlflowReport
from orchestrator.tracking.mlflow_view import VIEW, Shown, page_of
from orchestrator.tracking.sender import Sender
from tests.orchestrator.sweep_files import sweep_text
from tests.services import MlflowServer

pytestmark = pytest.mark.slow


def sweep(
    root: Path, uri: str | None = None, studies: int = 1, **changes: Any
) -> tuple[SweepFolder, Callable[[], MlflowTracker]]:
    text = sweep_text(**{"method": "random", "trials": 3, "confirm": 2, "per_trial": 8, **changes})
    text = text.replace("seeds: {", f"seeds: {{studies: {studies}, ")
    definition = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, root, {})

    def tracker() -> MlflowTracker:
        return MlflowTracker(
            uri=uri, root=root, sweep_id=folder.sweep_id, name="fit", description="", facts={}, studies=studies
        )

    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), tracker())
    return folder, tracker


def test_nothing_of_the_environment_changes_while_a_trial_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial in this process would be said to have changed it, and take it along: MLflow's telemetry came back on."""
    for name in ("MAX_RETRIES", "TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
    tracker = MlflowTracker(uri=None, root=tmp_path, sweep_id="fit-1", name="fit", description="", facts={})
    before = dict(os.environ)
    tracker.finish(SweepState.DONE, {})
    assert dict(os.environ) == before
    read = "import os, orchestrator.tracking; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    plain = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    assert subprocess.run([sys.executable, "-c", read], env=plain, capture_output=True, text=True).stdout == "true\n"


def test_a_store_that_can_only_be_read_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "mlflow.db"
    store.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the superuser may write wherever it wants
    runs = MlflowReport(uri=None, root=tmp_path, sweep_id="fit-1", name="fit")
    with pytest.raises(PermissionError, match=rf"^{store} can only be read$"):
        runs.send(None, {}, "", "")


def runs_of(uri: str, query: str = "", name: str = "fit") -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], query, max_results=500))


def children(uri: str) -> list[Any]:
    return [r for r in runs_of(uri) if TRIAL in r.data.tags]


def check_complete(folder: SweepFolder, uri: str) -> None:
    """One run for each trial, none running, every point of every log, none doubled."""
    client, runs = MlflowClient(uri), children(uri)
    trials = {t.trial_id: t for t in results.ended_trials(folder)}
    assert sorted(r.data.tags[TRIAL] for r in runs) == sorted(trials)
    assert {r.info.status for r in runs} == {"FINISHED"}
    for run in runs:
        points = MetricLog(folder.trial(run.data.tags[TRIAL]) / "metrics.jsonl").points()
        history = client.get_metric_history(run.info.run_id, "loss/val")
        assert [(m.step, m.value) for m in history] == [(p.step, p.metrics["loss/val"]) for p in points]


def test_a_sender_keeps_order_over_an_absence_and_gives_up_what_never_works() -> None:
    here, done = False, []

    def ping() -> None:
        if not here:
            raise ConnectionError("away")

    def say(word: str) -> Callable[[], None]:
        def task() -> None:
            ping()
            done.append(word)

        return task

    def broken() -> None:
        raise ValueError("never works")

    sender = Sender(lambda: None, ping, "test")
    for task in (say("a"), broken, say("b")):
        sender.put(task)
    deadline = time.monotonic() + 60
    while not sender.away and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sender.trouble == "ConnectionError: away"
    assert done == []
    here = True
    sender.put(say("c"))
    sender.close()
    assert done == ["a", "b", "c"]
    assert sender.trouble == "ValueError: never works"


def test_reconcile_mends_and_then_has_nothing_to_say(tmp_path: Path) -> None:
    folder, tracker = sweep(tmp_path)
    uri = embedded_uri(tmp_path)
    with folder.hold():
        assert reconcile(folder, tracker()) == []
    client, runs = MlflowClient(uri), children(uri)
    client.delete_run(runs[0].info.run_id)
    client.update_run(runs[1].info.run_id, status="RUNNING")
    client.set_tag(runs[2].info.run_id, POINTS, "1")
    twin = client.create_run(runs[3].info.experiment_id, tags=dict(runs[3].data.tags))
    (folder.results / "trials.parquet").unlink()
    with next(folder.path.glob("trials/sgd-0001*/metrics.jsonl")).open("a") as out:
        out.write('{"step": 99')
    arms = runner.open_arms(sweep_file.load(folder.path / "sweep.yaml"), folder)
    asked = arms["sgd"].study.ask()
    assert asked.state == "RUNNING"
    with folder.hold():
        said = reconcile(folder, tracker())
    assert sum("mlflow" in line for line in said) == 4, said
    assert any("had a second run" in line for line in said)
    assert any("trials.parquet" in line for line in said)
    assert any("damaged lines" in line for line in said)
    assert twin.info.run_id
    with folder.hold():
        assert reconcile(folder, tracker()) == []
    check_complete(folder, uri)


def test_an_untold_result_is_told(tmp_path: Path) -> None:
    folder, tracker = sweep(tmp_path, confirm=1)
    kept = storage(folder.journal)
    name = f"{folder.sweep_id}/sgd"
    values = [t.value for t in optuna.load_study(study_name=name, storage=kept).trials]
    optuna.delete_study(study_name=name, storage=kept)
    study = optuna.create_study(study_name=name, storage=kept, direction="minimize")
    for t in (t for t in results.ended_trials(folder) if t.job.arm == "sgd" and t.job.stage == "tune"):
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, user_attrs={"configuration": t.job.parameters}
            )
        )
    with folder.hold():
        said = reconcile(folder, tracker())
    assert sum("study: sgd" in line for line in said) == 3
    assert [t.value for t in optuna.load_study(study_name=name, storage=kept).trials] == values


def test_runs_tell_their_study_and_summaries_are_over_studies(tmp_path: Path) -> None:
    folder, tracker = sweep(tmp_path, studies=3, trials=2, confirm=1)
    uri = embedded_uri(tmp_path)
    check_complete(folder, uri)
    trials = {t.trial_id: t for t in results.ended_trials(folder)}
    assert {r.data.tags[TRIAL]: r.data.tags[STUDY] for r in children(uri)} == {
        name: str(t.study) for name, t in trials.items()
    }
    second = runs_of(uri, f"tags.`{STUDY}` = '2' AND params.arm = 'sgd' AND params.stage = 'tune'")
    assert sorted(r.data.tags[TRIAL] for r in second) == [f"sgd@2-000{n}-s1" for n in range(2)]
    summaries = {r.data.tags[ARM]: r for r in runs_of(uri, "tags.`geosweep.stage` = 'summary'")}
    parent = runs_of(uri, "tags.`geosweep.stage` = 'sweep'")
    assert {r.data.tags[UNIT] for r in [*summaries.values(), *parent]} == {"study"}
    values = results.arm_values(folder, "loss/val")
    for arm, run in summaries.items():
        found, expected = run.data.metrics, summarize(values[arm])
        assert (found["loss/val/n"], found["loss/val/mean"]) == (3, expected.mean)
        assert (found["loss/val/mean/low"], found["loss/val/mean/high"]) == (expected.lo, expected.hi)
        assert run.info.run_name == f"{arm}: mean over studies"
        assert (run.data.params["arm"], run.data.params["stage"]) == (arm, "summary")
        assert "median" in run.data.params["lr"]
    client = MlflowClient(uri)
    client.set_tag(second[0].info.run_id, STUDY, "3")
    with folder.hold():
        said = reconcile(folder, tracker())
    assert said == [f"mlflow: {second[0].data.tags[TRIAL]} had study 3; should be study 2; sent again"]
    with folder.hold():
        assert reconcile(folder, tracker()) == []
    check_complete(folder, uri)


def test_runs_of_a_single_study_have_no_study_tag(tmp_path: Path) -> None:
    """As those that earlier versions sent, so that there is nothing to mend in them."""
    sweep(tmp_path, trials=1, confirm=1)
    runs = runs_of(embedded_uri(tmp_path))
    assert not any(STUDY in r.data.tags for r in runs)
    assert {r.data.tags[UNIT] for r in runs if TRIAL not in r.data.tags} == {"seed"}


def test_a_summary_that_changed_shows_the_new_values(tmp_path: Path) -> None:
    """The first mean is larger, and MLflow shows the larger of two values with one time."""

    def tracker() -> MlflowTracker:
        return MlflowTracker(uri=None, root=tmp_path, sweep_id="fit-1", name="fit", description="", facts={}, studies=3)

    first, last = ({"loss/val/mean": mean, "loss/val/n": n} for mean, n in ((0.9, 1.0), (0.4, 3.0)))
    tracker().finish(SweepState.STOPPED, {"sgd": first}, {})
    for _ in range(2):
        tracker().finish(SweepState.DONE, {"sgd": last}, {"sgd": {"lr": "0.1 to 0.3 (median 0.2)"}})
    (summary,) = runs_of(embedded_uri(tmp_path), "tags.`geosweep.stage` = 'summary'")
    assert summary.data.metrics == last
    assert summary.data.params == {"arm": "sgd", "stage": "summary", "lr": "0.1 to 0.3 (median 0.2)"}
    history = MlflowClient(embedded_uri(tmp_path)).get_metric_history(summary.info.run_id, "loss/val/mean")
    assert [m.value for m in history] == [0.4]  # made anew


def check_shown(folder: SweepFolder, uri: str) -> None:
    """Views and verdict of a sweep are kept on a server as in a store of its own."""
    asked = sweep_file.load(folder.path / "sweep.yaml")
    page = Shown.of(asked, folder.sweep_id)
    again = MlflowTracker(
        uri=uri, root=folder.root, sweep_id=folder.sweep_id, name="fit", description="", facts={}, shown=page
    )
    again.finish(SweepState.DONE, runner.summaries(asked, folder), runner.chosen(asked, folder))
    assert not again.trouble
    experiment = MlflowClient(uri).get_experiment_by_name("fit")
    assert experiment is not None
    assert {f"{VIEW}{page.answer}", f"{VIEW}{page.trials}"} <= experiment.tags.keys()
    assert told.tell(folder, uri) == ""
    sent = told.runs_of(Evidence(folder), uri)
    assert sent.says(told.verdict(Evidence(folder)))
    assert sent.outdated() == []
    assert sent.page() == f"{uri}/{page_of(experiment.experiment_id, page.answer)}"


def test_a_server_away_for_the_whole_sweep_gets_everything_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = MlflowServer(tmp_path)
    folder, tracker = sweep(tmp_path, server.uri, trials=1)
    assert len(results.ended_trials(folder)) == 6
    with folder.hold(), pytest.raises(ConnectionError):
        reconcile(folder, tracker())
    with server.running() as uri:
        with folder.hold():
            assert sum("had no run" in line for line in reconcile(folder, tracker())) == 6
        with folder.hold():
            assert reconcile(folder, tracker()) == []
        check_complete(folder, uri)
        check_shown(folder, uri)


def test_metrics_and_hyperparameters_of_any_name_arrive(tmp_path: Path) -> None:
    text = sweep_text(method="random", trials=1, confirm=1, per_trial=8).replace("tests.tasks:Fit", "tests.tasks:Odd")
    text = text.replace(
        "optimizer: adamw, parameters: {", "optimizer: tests.tasks.Seeded, parameters: {seed: {value: 7}, "
    )
    definition = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, tmp_path, {})
    tracker = MlflowTracker(uri=None, root=tmp_path, sweep_id=folder.sweep_id, name="fit", description="", facts={})
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), tracker)
    assert not tracker.trouble
    (run, *_) = [r for r in children(embedded_uri(tmp_path)) if r.data.tags[ARM] == "adamw"]
    assert run.data.params["seed"] == run.data.tags["geosweep.seed"] != "7"
    assert run.data.params["parameters.seed"] == "7"
    assert {0.25, 0.5, 0.75, 1.0} <= set(run.data.metrics.values())
    again = MlflowTracker(uri=None, root=tmp_path, sweep_id=folder.sweep_id, name="fit", description="", facts={})
    trial = run.data.tags[TRIAL]
    kept = MetricLog(folder.trial(trial) / "metrics.jsonl").points()
    assert [p.metrics["recall@5"] for p in again.recall(trial)] == [0.5] * len(kept)
    assert again.audit(results.ended_trials(folder), SweepState.DONE) == [], "what was sent counts as sent"


def test_a_copied_root_keeps_its_artifacts_to_itself(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    folder, _tracker = sweep(first, trials=1, confirm=1)
    shutil.copytree(first, second)
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.html").write_text("a page")
    sent = MlflowReport(uri=None, root=second, sweep_id=folder.sweep_id, name="fit")
    sent.send(report, {}, "note", "")
    assert not list(first.rglob("report.html"))
    assert [p.read_text() for p in second.rglob("report.html")] == ["a page"]
    assert {
        r.info.artifact_uri.startswith((second / "mlartifacts").as_uri()) for r in runs_of(embedded_uri(second))
    } == {True}
    assert {r.info.artifact_uri.startswith((first / "mlartifacts").as_uri()) for r in runs_of(embedded_uri(first))} == {
        True
    }
