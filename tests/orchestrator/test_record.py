"""The files of a trial: bytes as ever, older and newer ones read, anything else named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition.planned import Plan
from orchestrator.definition.resolved import Imported, Resolved
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.job import Job, Result, Stopped
from orchestrator.trial.record import TrialRecord, read_job, read_result

JOB = Job(
    trial_id="sgd-0001-s0", arm="sgd", stage=Stage.TUNE, configuration=1, seed=0, optimizer="sgd",
    parameters={"lr": 0.1}, task="digits", task_parameters={}, budget=40.0, evaluations=4, metric="loss/val",
    goal=Goal.MINIMIZE, select="last", folder="f", stop_file="s", rungs=(1, 2), lineage=((2, {"lr": 0.2}),),
)  # fmt: skip
RESULT = Result(
    state=State.PRUNED, value=None, metrics={"loss/val": 0.5}, grad_evals=10.0, seconds=1.5,
    stopped=Stopped(rung=1, value=0.5, reason="worse"),
)  # fmt: skip


@pytest.mark.parametrize("result", [RESULT, replace(RESULT, state=State.COMPLETE, value=0.5, stopped=None)])
def test_a_record_comes_back_as_it_was(tmp_path: Path, result: Result) -> None:
    record = TrialRecord(job=replace(JOB, study=2), result=result)
    record.write(tmp_path)
    assert TrialRecord.read(tmp_path) == record


def test_the_files_hold_what_they_held_before_there_were_types(tmp_path: Path) -> None:
    TrialRecord(job=JOB, result=replace(RESULT, stopped=None)).write(tmp_path)
    job, result = (json.loads((tmp_path / name).read_text()) for name in ("trial.json", "result.json"))
    assert "study" not in job
    assert (job["stage"], job["goal"]) == ("tune", "minimize")
    assert list(result) == [
        "state", "value", "metrics", "grad_evals", "seconds", "init_digest", "data_digest", "error", "stopped",
        "cached_from", "facts", "code",
    ]  # fmt: skip
    assert (result["state"], result["stopped"]) == ("PRUNED", {})


def test_earlier_files_lack_fields_and_later_ones_have_more(tmp_path: Path) -> None:
    required = {k: v for k, v in asdict(JOB).items() if k not in ("study", "rungs", "lineage", "training", "cache")}
    (tmp_path / "trial.json").write_text(json.dumps({**required, "not_yet_thought_of": 1}))
    assert read_job(tmp_path) == replace(JOB, rungs=(), lineage=())
    (tmp_path / "result.json").write_text(
        json.dumps({"state": "COMPLETE", "value": 1.0, "metrics": {}, "grad_evals": 4.0, "seconds": 2.0, "more": []})
    )
    found = read_result(tmp_path)
    assert found == Result(state=State.COMPLETE, value=1.0, metrics={}, grad_evals=4.0, seconds=2.0)


IMPORTED = Imported(
    source="r.csv", kind="csv", pairing="none", metrics={"accuracy": "maximize"}, budget="", notes=["a note"],
    not_compared="", columns={"arm": ["optimizer"]}, imported_at="2026-01-01T00:00:00Z",
)  # fmt: skip
RESOLVED = Resolved(sweep_id="fit-1", definition={"name": "fit", "arms": {}}, plan=Plan(), report_metric="loss/val")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tracking": "http://example.org", "overrides": ["seeds.tune=2"], "program": {"folder": "/there"}},
        {"imported": IMPORTED, "declares": {"metrics": {}}, "optimizers": {}},
        {"first_trials_per_arm": 4},
        {"first_trials_per_arm": None},
    ],
    ids=str,
)
def test_what_a_sweep_is_comes_back_as_it_was(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder, what = SweepFolder(tmp_path, "fit-1"), replace(RESOLVED, **changes)
    assert folder.resolved() == Resolved()
    folder.create("", what)
    assert folder.resolved() == what
    kept = json.loads((folder.path / "resolved.json").read_text())
    assert kept.keys() == {
        "schema", "sweep_id", "definition", "plan", "report_metric", "tracking", "provenance", *changes
    }  # fmt: skip
    assert Resolved.of({**kept, "not_yet_thought_of": 1}) == what


def test_a_trial_that_has_not_ended_has_no_record(tmp_path: Path) -> None:
    assert TrialRecord.read(tmp_path) is None
    TrialRecord(job=JOB, result=RESULT).write(tmp_path)
    (tmp_path / "result.json").unlink()
    assert TrialRecord.read(tmp_path) is None


@pytest.mark.parametrize(
    "text, named",
    [
        ("[]", r"holds \[\]"),
        ("{}", "Result lacks grad_evals, metrics, seconds, state, value"),
        ('{"state": "LOST", "value": 1, "metrics": {}, "grad_evals": 1, "seconds": 1}', "LOST"),
    ],
)
def test_other_content_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=named):
        read_result(tmp_path)


def test_directions_agree() -> None:
    assert (Goal.MINIMIZE.sign, Goal.MAXIMIZE.sign) == (-1.0, 1.0)
    assert Goal.MINIMIZE.better(1.0, 2.0)
    assert Goal.MAXIMIZE.better(2.0, 1.0)
    assert not Goal.MAXIMIZE.better(1.0, 1.0)
    assert [goal.best((2.0, 3.0, 1.0)) for goal in (Goal.MINIMIZE, Goal.MAXIMIZE)] == [1.0, 3.0]
