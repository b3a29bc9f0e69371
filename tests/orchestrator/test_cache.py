"""A trial that was trained anywhere under the root is taken over; what its result depends on trains it anew."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from orchestrator import results
from orchestrator.cli import watch
from orchestrator.compare import sweep_table
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report.report import build
from orchestrator.definition import sweep_file
from orchestrator.definition.states import Goal, Stage
from orchestrator.storage.folder import find
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial import cache, noticed
from orchestrator.trial.job import Job
from orchestrator.trial.record import TrialRecord
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import ran


def run(root: Path, keep: bool = True, **changes: Any) -> dict[str, TrialRecord]:
    text = sweep_text(**{"method": "random", "trials": 3, "confirm": 1, **changes})
    folder, _ = ran(text, root, spec=replace(sweep_file.loads(text, "test.yaml"), cache=keep))
    return {t.trial_id: t for t in results.ended_trials(folder)}


def outcome(trials: dict[str, TrialRecord]) -> dict[str, Any]:
    clock = ("time/step_s",)
    return {
        k: (
            t.result.state,
            t.result.value,
            t.result.grad_evals,
            {n: v for n, v in t.result.metrics.items() if n not in clock},
        )
        for k, t in trials.items()
    }


@pytest.mark.slow
def test_a_trained_trial_is_taken_over_and_marked(tmp_path: Path) -> None:
    first = run(tmp_path, name="first")
    second = run(tmp_path, name="second")
    assert outcome(first) == outcome(second)
    assert not any(t.result.cached_from for t in first.values())
    assert all(t.result.cached_from.startswith("first-") for t in second.values())
    for name, t in second.items():
        mine = MetricLog(Path(t.job.folder) / "metrics.jsonl").points()
        assert mine == MetricLog(Path(first[name].job.folder) / "metrics.jsonl").points()
    folder = find(tmp_path, "second")
    wanted = {arm: sum(t.job.arm == arm for t in second.values()) for arm in ("adamw", "sgd")}
    assert results.status(folder).reused == sweep_table.table(folder, "lr").reused == wanted
    assert "reused" not in results.status(find(tmp_path, "first")).document()
    assert f"{wanted['sgd']} reused" in watch.line(watch.snapshot(folder))
    assert "reused" not in watch.line(watch.snapshot(find(tmp_path, "first")))
    (said,) = noticed.reused_words(wanted)
    assert said in build(Evidence(folder), tmp_path / "report").read_text(encoding="utf-8")
    third = run(tmp_path, keep=False, name="third")
    assert not any(t.result.cached_from for t in third.values())
    assert outcome(third) == outcome(first)


@pytest.mark.slow
def test_failed_and_other_trials_are_trained_anew(tmp_path: Path) -> None:
    failed = run(tmp_path, name="first", fail_at=3)
    assert {t.result.state for t in failed.values()} == {"FAILED"}
    assert not any(t.result.cached_from for t in run(tmp_path, name="second", fail_at=3).values())
    assert not any(t.result.cached_from for t in run(tmp_path, name="third", per_trial=80).values())


JOB = Job(
    trial_id="a", arm="sgd", stage=Stage.TUNE, configuration=0, seed=0, optimizer="sgd", parameters={"lr": 0.1},
    task="digits", task_parameters={}, budget=40.0, evaluations=4, metric="accuracy/val", goal=Goal.MAXIMIZE,
    select="last", folder="/a", stop_file="/a/stop",
)  # fmt: skip


@pytest.mark.parametrize("change", [{"seed": 1}, {"parameters": {"lr": 0.2}}, {"budget": 80.0}, {"threads": 2}])
def test_the_address_depends_on_what_the_result_depends_on(change: dict[str, Any]) -> None:
    job = JOB
    key = cache.address(job, "w", "d")
    assert cache.address(replace(job, **change), "w", "d") != key
    assert cache.address(job, "v", "d") != key
    assert cache.address(job, "w", "e") != key
    other = replace(job, trial_id="b", arm="other", study=2, stage=Stage.CONFIRM, folder="/b")
    assert cache.address(other, "w", "d") == key


@pytest.mark.parametrize(
    ("module", "fact", "value"),
    [
        (torch, "__version__", "9.9.9"),
        (numpy, "__version__", "9.9.9"),
        (platform, "python_version", lambda: "9.9.9"),
        (platform, "machine", lambda: "another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_address_depends_on_the_numeric_environment(
    module: Any, fact: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fact == "machine" and torch.cuda.is_available():
        pytest.skip("here the device is a GPU")
    here = cache.address(JOB, "w", "d")
    monkeypatch.setattr(module, fact, value)
    cache._environment.cache_clear()  # as in a process that begins elsewhere
    elsewhere = cache.address(JOB, "w", "d")
    monkeypatch.undo()
    cache._environment.cache_clear()
    assert elsewhere != here
    assert cache.address(JOB, "w", "d") == here


def test_a_damaged_log_line_counts_as_not_written(tmp_path: Path) -> None:
    log = MetricLog(tmp_path / "metrics.jsonl")
    for step in range(4):
        log.append(float(step), {"loss": step / 7})
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace('"loss": 0.28', '"loss": 0.29'), lines[3]]))
    assert [p.step for p in log.points()] == [0.0, 1.0]
    assert log.damage() == 2
