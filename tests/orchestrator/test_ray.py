"""The command itself on real Ray, Optuna and MLflow: equal to this process, killed, interrupted, doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient

from orchestrator import results, runner, spec
from orchestrator.executors.debug import DebugExecutor
from orchestrator.folder import SweepFolder, find
from orchestrator.metric_log import MetricLog
from orchestrator.search.optuna import storage
from orchestrator.tracking.base import NoTracker
from orchestrator.tracking.mlflow import STATE, TRIAL, embedded_uri
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
REPOSITORY = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "150"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(sweep_text(method="random", trials=6, confirm=3, per_trial=40, pause_s=0.005))
    return path


def start(file: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, "run", str(file), "--root", str(file.parent / "runs")]
    return subprocess.Popen(
        command,
        text=True,
        env=environment(),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 150) -> str:
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return out


def ended(file: Path) -> int:
    return len(list(file.parent.glob("runs/*/trials/*/result.json")))


def wait_for(file: Path, trials: int, process: subprocess.Popen[str]) -> None:
    deadline = time.time() + 90
    while ended(file) < trials and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, finish(process)


def values(folder: SweepFolder) -> dict[str, list[Any]]:
    return {
        t["trial_id"]: [
            (p["step"], {k: v for k, v in p["metrics"].items() if not k.startswith("time/")})
            for p in MetricLog(folder.trial(t["trial_id"]) / "metrics.jsonl").points()
        ]
        for t in results.ended_trials(folder)
    }


def in_this_process(file: Path) -> SweepFolder:
    text = file.read_text()
    definition = spec.loads(text, str(file))
    folder = runner.open_folder(definition, text, file.parent / "plain", {})
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), NoTracker())
    return folder


def ray_processes(of: int) -> Iterator[str]:
    """Ray daemons whose scratch folder carries the driver's process number."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"/tmp/gs-{of}-" in words:
            yield words


def check_mlflow(folder: SweepFolder) -> None:
    client = MlflowClient(embedded_uri(folder.root))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {r.info.status for r in runs} == {"FINISHED"}
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    assert all(r.data.tags["mlflow.parentRunId"] == parents[0].info.run_id for r in runs if r not in parents)
    children = {r.data.tags[TRIAL]: r for r in runs if TRIAL in r.data.tags}
    assert Counter(r.data.tags[TRIAL] for r in runs if TRIAL in r.data.tags) == Counter(list(children))
    logged = values(folder)
    assert set(children) == set(logged)
    for trial, run in children.items():
        assert run.data.tags[STATE] == "COMPLETE"
        history = client.get_metric_history(run.info.run_id, "loss/val")
        assert [(m.step, m.value) for m in history] == [(p[0], p[1]["loss/val"]) for p in logged[trial]]
    summaries = [r for r in runs if r.data.tags.get("geosweep.stage") == "summary"]
    assert {r.data.tags["geosweep.arm"] for r in summaries} == {"sgd", "adamw"}
    assert all(r.data.metrics["loss/val/n"] == 3 for r in summaries)


def test_killed_at_three_moments_and_continued(file: Path) -> None:
    """kill -9 of the driver, then of its whole process group; the end equals the undisturbed sweep in this process."""
    plain = in_this_process(file)
    seen = []
    for trials, group in ((1, False), (6, True), (11, False)):
        process = start(file)
        wait_for(file, trials, process)
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.communicate()
        seen.append(ended(file))
    before = {p: p.stat().st_mtime_ns for p in file.parent.glob("runs/*/trials/*/result.json")}
    process = start(file)
    out = finish(process)
    assert process.returncode == 0, out
    folder = find(file.parent / "runs", "@last")
    assert all(p.stat().st_mtime_ns == when for p, when in before.items())
    assert values(folder) == values(plain)
    kept = storage(folder.journal)
    for summary in optuna.get_all_study_summaries(kept):
        trials = optuna.load_study(study_name=summary.study_name, storage=kept).trials
        assert [t.state.name for t in trials] == ["COMPLETE"] * 6, (seen, summary.study_name)
    check_mlflow(folder)
    assert len(list((file.parent / "runs").glob("*/resolved.json"))) == 1


def test_interrupt_drains_and_a_second_driver_is_refused(file: Path) -> None:
    text = sweep_text(method="random", trials=3, confirm=3, per_trial=40, pause_s=0.06)
    file.write_text(text)
    process = start(file)
    wait_for(file, 1, process)
    drain(process, signal.SIGTERM)
    process = start(file)
    wait_for(file, ended(file) + 1, process)
    second = start(file)
    refused = finish(second)
    assert second.returncode == 75, refused
    assert f"is being run by process {process.pid}" in refused
    drain(process, signal.SIGINT)
    folder = find(file.parent / "runs", "@last")
    assert results.status(folder)["state"] == "stopped"
    again = start(file)
    out = finish(again)
    assert again.returncode == 0, out
    assert "confirm stage" in out
    file.write_text(text.replace("0.06", "0.0"))
    assert values(folder) == values(in_this_process(file))
    check_mlflow(folder)


def drain(process: subprocess.Popen[str], sent: signal.Signals) -> None:
    os.kill(process.pid, sent)
    out = finish(process)
    assert process.returncode == 130, out
    assert "Continue with: geosweep run" in out
    assert not list(ray_processes(process.pid))


def workers(of: int) -> list[int]:
    """Processes of the driver's Ray workers that hold trials."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().decode()
            parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
            above = (Path("/proc") / parent / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if "Trainable" in title and f"/tmp/gs-{of}-" in above:
            found.append(int(path.parent.name))
    return found


def test_a_killed_worker_costs_nothing_but_time(file: Path) -> None:
    """kill -9 of a worker in the middle of a trial: the trial is trained again and ends as if nothing had happened."""
    process = start(file)
    wait_for(file, 3, process)
    victims = workers(process.pid)
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    out = finish(process)
    assert process.returncode == 0, out
    folder = find(file.parent / "runs", "@last")
    assert values(folder) == values(in_this_process(file))
    check_mlflow(folder)
