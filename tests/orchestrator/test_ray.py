"""The command itself on real Ray, Optuna and MLflow: equal to this process, killed, interrupted, doubled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import optuna
import pytest

from orchestrator import results
from orchestrator.search.optuna_storage import storage
from orchestrator.storage.folder import find
from tests.orchestrator.command import (
    Forked,
    check_mlflow,
    ended,
    finish,
    hiding,
    in_this_process,
    ray_processes,
    start,
    values,
    wait_for,
    workers,
)
from tests.orchestrator.sweep_files import sweep_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # Ray starts up to four times, which a busy machine stretches


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(sweep_text(method="random", trials=6, confirm=3, per_trial=40, pause_s=0.005))
    return path


@pytest.mark.long  # the population below is interrupted, killed once and continued
def test_killed_at_four_moments_and_continued(file: Path) -> None:
    """kill -9 of the driver, of its process group, SIGTERM, a closed terminal; the end equals the undisturbed sweep."""
    plain = in_this_process(file)
    file.write_text(file.read_text().replace("pause_s: 0.005", "pause_s: 0.03"))  # what is left outlasts a late signal
    seen = []
    for trials, end, number in (
        (1, os.kill, signal.SIGKILL),
        (4, os.killpg, signal.SIGKILL),
        (7, os.kill, signal.SIGTERM),
        (10, os.killpg, signal.SIGHUP),
    ):
        process = start(file)
        wait_for(file, trials, process)
        end(process.pid, number)
        process.wait(60)
        seen.append(ended(file))
    assert process.returncode == 130, "a terminal that closes drains the sweep"
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


@pytest.mark.long
def test_a_population_killed_drained_and_continued(file: Path) -> None:
    """Of two studies. Killed, then interrupted, then ended in one process: its trials end as if nothing had been.

    The current folder holds what workers must not import.
    """
    population = "early_terminate: {type: pbt, eta: 3, min_budget: 25%}\n"
    text = sweep_text(method="random", trials=6, confirm=1, per_trial=40, pause_s=0.03) + population
    text = text.replace("seeds: {", "seeds: {studies: 2, ")
    file.write_text("\n".join(line for line in text.splitlines() if "adamw" not in line))
    process = start(file, cwd=hiding(file.parent))
    wait_for_points(file, 8, process)
    second = start(file)
    refused = finish(second)
    assert second.returncode == 75, refused
    assert f"is being run by process {process.pid}" in refused
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    process = start(file)
    seen, before = set(workers(process.pid)), points(file)
    while process.poll() is None and points(file) < before + 12:
        seen |= set(workers(process.pid))
        time.sleep(0.1)
    every = workers(process.pid) + workers(process.pid, "ray::IDLE")
    assert len(every) <= (os.cpu_count() or 1)  # none started twice
    assert 0 < len(seen) <= (os.cpu_count() or 1), "a worker that waits for the population is kept"
    drain(process, signal.SIGINT)
    assert results.status(find(file.parent / "runs", "@last")).state == "stopped"
    process = start(file, "--executor", "debug")
    out = finish(process)
    assert process.returncode == 0, out
    assert "confirm stage" in out
    folder = find(file.parent / "runs", "@last")
    trials = results.ended_trials(folder)
    assert any(t.job.lineage for t in trials)
    check_mlflow(folder, states={t.trial_id: t.result.state for t in trials}, arms={"sgd": 2})
    file.write_text(file.read_text().replace("pause_s: 0.03", "pause_s: 0.0"))
    assert values(folder) == values(in_this_process(file))


def points(file: Path) -> int:
    """How many evaluations the trials have written down."""
    return sum(path.read_bytes().count(b"\n") for path in file.parent.glob("runs/*/trials/*/metrics.jsonl"))


def wait_for_points(file: Path, count: int, process: Forked) -> None:
    deadline = time.time() + 200
    while points(file) < count and process.poll() is None and time.time() < deadline:
        time.sleep(0.1)
    assert process.poll() is None, finish(process)


def drain(process: Forked, sent: signal.Signals) -> None:
    os.kill(process.pid, sent)
    out = finish(process)
    assert process.returncode == 130, out
    assert "Continue with:\n  geosweep run" in out
    assert not ray_processes(process.pid)


@pytest.mark.long
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
