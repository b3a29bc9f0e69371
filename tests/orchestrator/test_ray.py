"""The command itself on real Ray, Optuna and MLflow: equal to this process, killed, interrupted, doubled."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import pytest

from orchestrator import results
from orchestrator.search.optuna_storage import storage
from orchestrator.storage.folder import find
from tests.orchestrator.command import (
    check_mlflow,
    ended,
    finish,
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


@pytest.mark.long  # the population below is killed once and continued
def test_killed_at_three_moments_and_continued(file: Path) -> None:
    """kill -9 of the driver, of its process group, a closed terminal; the end equals the undisturbed sweep."""
    plain = in_this_process(file)
    seen = []
    for trials, end, number in (
        (1, os.kill, signal.SIGKILL),
        (6, os.killpg, signal.SIGKILL),
        (11, os.killpg, signal.SIGHUP),
    ):
        process = start(file)
        wait_for(file, trials, process)
        end(process.pid, number)
        process.communicate()
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


def test_interrupt_drains_and_a_second_driver_is_refused(file: Path) -> None:
    """Of two studies for each arm, which end as in this process."""
    text = sweep_text(method="random", trials=2, confirm=1, per_trial=40, pause_s=0.06)
    text = text.replace("seeds: {", "seeds: {studies: 2, ")
    file.write_text(text)
    process = start(file)
    wait_for(file, 1, process)
    drain(process, signal.SIGTERM)
    process = start(file)
    wait_for(file, ended(file) + 1, process)
    assert len(workers(process.pid) + workers(process.pid, "ray::IDLE")) <= (os.cpu_count() or 1)  # none started twice
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
    check_mlflow(folder, arms={"sgd": 2, "adamw": 2})


def test_a_population_is_the_same_on_ray(file: Path) -> None:
    """Killed in the middle and continued, its trials pause, trade places and end as in this process."""
    population = "early_terminate: {type: pbt, eta: 3, min_budget: 25%}\n"
    text = sweep_text(method="random", trials=6, confirm=3, per_trial=40, pause_s=0.005) + population
    file.write_text("\n".join(line for line in text.splitlines() if "adamw" not in line))
    plain = in_this_process(file)
    process = start(file)
    wait_for(file, 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = start(file)
    seen = set[int]()
    while process.poll() is None:
        seen |= set(workers(process.pid))
        time.sleep(0.05)
    out = finish(process)
    assert process.returncode == 0, out
    assert len(seen) <= (os.cpu_count() or 1), "a worker that waits for the population is kept"
    folder = find(file.parent / "runs", "@last")
    assert values(folder) == values(plain)
    trials = results.ended_trials(folder)
    assert any(t.job.lineage for t in trials)
    assert " (evaluation " in out, "the table shows what changed while the winner trained"
    check_mlflow(folder, states={t.trial_id: t.result.state for t in trials}, arms={"sgd": 3})


def drain(process: subprocess.Popen[str], sent: signal.Signals) -> None:
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
