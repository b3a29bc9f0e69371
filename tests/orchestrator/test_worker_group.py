"""A trial in several processes: equal to one process, paused, its worker killed, on Ray's placement groups, hanging."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import results
from orchestrator.definition.states import Goal, Stage
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.job import Job
from orchestrator.trial.session import TrialSession
from orchestrator.trial.worker_group import LocalWorkerGroup, WorkerLost
from tests.orchestrator.command import REPOSITORY, fresh
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

pytestmark = pytest.mark.slow


def job(folder: Path, processes: int) -> Job:
    return Job(
        trial_id="t", arm="a", stage=Stage.TUNE, configuration=0, seed=4, optimizer="sam", parameters={"lr": 0.2},
        task="tests.tasks:Masked", task_parameters={"pause_s": 0.01}, budget=160, evaluations=4,
        metric="loss/val", goal=Goal.MINIMIZE, select="last", folder=str(folder),
        stop_file=str(folder / "stop"), processes=processes, slice_s=0.0, checkpoint_s=0.1,
    )  # fmt: skip


def finish(session: TrialSession) -> None:
    try:
        while not session.advance().done:
            pass
    finally:
        session.close()


def metrics(folder: Path) -> list[dict[str, float]]:
    """Every point but the clock's metrics."""
    found = MetricLog(folder / "metrics.jsonl").points()
    return [{k: v for k, v in p.metrics.items() if not k.startswith("time/")} for p in found]


def agree(a: list[dict[str, float]], b: list[dict[str, float]]) -> None:
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, rel=1e-9)


QUITS = """
import os
import torch.distributed
from tests.tasks import Masked

class Quits(Masked):
    def loss(self, outputs, targets):
        if torch.distributed.get_rank():
            os._exit(0)
        return super().loss(outputs, targets)
"""


def test_a_member_that_would_end_its_process_fails_the_trial_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quitting_task.py").write_text(QUITS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    asked = replace(job(tmp_path / "two", 2), task="quitting_task:Quits")
    finish(TrialSession(asked, group=LocalWorkerGroup()))
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["state"] == "FAILED"
    assert "called os._exit(0) before its budget was spent" in result["error"]
    assert "quitting_task.py" in result["error"]


def test_two_processes_pause_lose_a_worker_and_end_like_one(tmp_path: Path) -> None:
    finish(TrialSession(job(tmp_path / "one", 1)))
    two, group = job(tmp_path / "two", 2), LocalWorkerGroup()
    session = TrialSession(two, group=group)
    assert session.advance().metrics
    assert list((tmp_path / "two").glob("checkpoint-*.pt"))  # from before the first evaluation
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)  # as Ctrl-C in a terminal, which also asks the driver to drain the sweep
    Path(two.stop_file).touch()
    while not (report := session.advance()).done:
        pass
    session.close()
    assert report.state == "INTERRUPTED"
    Path(two.stop_file).unlink()
    session = TrialSession(two, group=group)
    session.advance()
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(WorkerLost, match="ended with code -9"):
        for _ in range(8):
            session.advance()
    session.close()
    assert not (tmp_path / "two" / "result.json").exists()
    finish(TrialSession(two, group=group))
    agree(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    assert not multiprocessing.active_children()


@pytest.mark.long  # three interpreters; one of two dies above
def test_a_death_among_three_is_not_what_the_survivor_raises_of_it(tmp_path: Path) -> None:
    session = TrialSession(job(tmp_path, 3))
    try:
        session.advance()
        max(multiprocessing.active_children(), key=lambda worker: worker.pid or 0).kill()
        with pytest.raises(WorkerLost, match="ended with code -9"):
            for _ in range(8):
                session.advance()
    finally:
        session.close()
    assert not (tmp_path / "result.json").exists()


@pytest.mark.long  # an exit that another worker may not take is raised, and fails the trial, above
def test_what_another_worker_raises_fails_the_trial(tmp_path: Path) -> None:
    """Only worker 1 lacks the task: its traceback is the trial's error."""

    class Misled(LocalWorkerGroup):
        def start(self, job: Job, address: str) -> None:
            super().start(replace(job, task_parameters={"stop_in": 1}), address)

    session = TrialSession(job(tmp_path, 2), group=Misled())
    report = session.advance()
    session.close()
    assert report.state == "FAILED"
    error = json.loads((tmp_path / "result.json").read_text())["error"]
    assert "InterruptedError: stopped within a step" in error


@pytest.mark.long
def test_on_ray_with_a_hang_in_c(tmp_path: Path) -> None:
    """Two processes a trial in a placement group. One seed hangs where no Python code can run; the others go on."""
    sweep: dict[str, Any] = yaml.safe_load(sweep_text(method="random", trials=1, confirm=2, max_failed=1))
    del sweep["arms"]["adamw"]
    sweep["task"] |= {"dropout": 0.0, "hang_at": 5, "hang": "c", "fail_seed": 1001}
    sweep |= {"resources": {"processes": 2, "cpu": 1}, "training": {"step_timeout": "2s"}}
    file = tmp_path / "fit.yaml"
    file.write_text(yaml.safe_dump(sweep))
    done = fresh("run", str(file), "--root", str(tmp_path / "runs"), "--no-tracking", cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = find(tmp_path / "runs", "@last")
    states = {t.job.seed: t.result.state for t in results.ended_trials(folder)}
    assert states == {0: "COMPLETE", 1000: "COMPLETE", 1001: "FAILED"}
    (error,) = results.status(folder).errors.values()
    assert "training.step_timeout" in error
    assert "in batch" in error
    one = in_one_process({**sweep, "resources": {}, "task": {**sweep["task"], "hang_at": -1}}, tmp_path)
    for seed in (0, 1000):
        trial = f"sgd-0000-s{seed}"
        for x, y in zip(metrics(folder.trial(trial)), metrics(one.trial(trial)), strict=True):
            assert x == pytest.approx(y, rel=1e-4)


def in_one_process(sweep: dict[str, Any], root: Path) -> SweepFolder:
    return swept(yaml.safe_dump(sweep), root / "plain")
