"""`geosweep table` and slowdown: definitions checked on curves and trials whose answer is known by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compare.by_value import Question, table
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.slowdown import slowdown
from orchestrator.trial.job import Job, Result
from orchestrator.trial.record import TrialRecord


def test_slowdown_of_a_stretched_curve() -> None:
    fast = [(10.0 * i, 2.0 ** (-i)) for i in range(1, 11)]
    slow = [(20.0 * i, 2.0 ** (-i)) for i in range(1, 6)]  # at 100 where the fast one was at 50
    assert slowdown(slow, fast) == pytest.approx(1.0)
    assert slowdown(fast, slow) == pytest.approx(-1.0)
    assert slowdown(fast, fast) == 0.0
    between = [(50.0, 0.75), (100.0, 0.375)]  # halfway between the points at 10 and 20, in loss
    assert slowdown(between, fast) == pytest.approx(100 / 15 - 1)
    assert slowdown([], fast) is None
    assert slowdown([(1.0, float("nan"))], fast) is None


def trial(arm: str, stage: Stage, configuration: int, seed: int, value: float, **parameters: Any) -> TrialRecord:
    job = Job(
        trial_id=f"{arm}-{stage}-{configuration}-{seed}", arm=arm, stage=stage, configuration=configuration, seed=seed,
        optimizer=parameters.pop("optimizer", "o"), parameters=parameters, task="t", task_parameters={}, budget=20.0,
        evaluations=2, metric="m", goal=Goal.MINIMIZE, select="last", folder="", stop_file="",
    )  # fmt: skip
    result = Result(
        state=State.COMPLETE, value=value, metrics={"m": value, "geometry/cv": 10 * value}, grad_evals=20.0,
        seconds=1.0, init_digest=f"i{seed}", data_digest=f"d{seed}",
    )  # fmt: skip
    return TrialRecord(job=job, result=result)


def one_arm_each() -> list[TrialRecord]:
    rows = []
    for kind, tune, confirm in (("a", (5.0, 4.0), (1.0, 2.0, 3.0)), ("b", (3.0, 6.0), (4.0, 6.0, 8.0))):
        for i, value in enumerate(tune):
            rows.append(trial(kind, Stage.TUNE, i, 0, value, kind=kind, lr=0.1 * (i + 1)))
        best = min(range(2), key=lambda i: tune[i])
        rows += [
            trial(kind, Stage.CONFIRM, 7, 1000 + s, v, kind=kind, lr=0.1 * (best + 1)) for s, v in enumerate(confirm)
        ]
    return rows


def ask(**changes: Any) -> Question:
    return Question(**{"by": "kind", "metric": "m", "tuned": "m", "goal": Goal.MINIMIZE, **changes})


def curve(trial_id: str) -> list[tuple[float, float]]:
    return [(10.0, 2.0), (20.0, 1.0)] if trial_id.startswith("a") else [(10.0, 4.0), (20.0, 2.0)]


def test_an_arm_for_each_value_gives_confirm_rows() -> None:
    found = table(one_arm_each(), ask(baseline="a"), curve)
    json.dumps(found.document())
    a, b = found.rows
    assert (a.value, a.stage, a.n, a.mean, a.parameters) == ("a", Stage.CONFIRM, 3, 2.0, {"lr": 0.2})
    assert a.against_baseline is None
    assert b.mean == 6.0
    assert b.configurations == 2
    assert b.columns == {"geometry/cv": 60.0}
    against = b.against_baseline
    assert (against.n, against.difference, against.ratio, against.slowdown) == (3, 4.0, 3.0, 1.0)
    assert found.varied == ["lr"]


def test_within_an_arm_only_the_winner_is_confirmed_and_stages_are_not_mixed() -> None:
    rows = [
        trial("x", Stage.TUNE, i, 0, v, kind=k, lr=0.1) for i, (k, v) in enumerate((("a", 2.0), ("b", 3.0), ("b", 2.5)))
    ]
    rows += [trial("x", Stage.CONFIRM, 0, 1000 + s, 2.2, kind="a", lr=0.1) for s in range(2)]
    a, b = table(rows, ask(baseline="a"), curve).rows
    assert (a.stage, a.n) == ("confirm", 2)
    assert (b.stage, b.n, b.mean, b.configurations, b.interval) == ("tune", 1, 2.5, 2, None)
    assert b.against_baseline is None


def test_maximizing_picks_the_largest_and_optimizers_are_kept_apart() -> None:
    rows = [trial("x", Stage.TUNE, i, 0, v, kind="a", lr=v) for i, v in enumerate((0.2, 0.9, 0.5))]
    rows += [trial("y", Stage.TUNE, 0, 0, 0.7, kind="a", lr=0.1, optimizer="p")]
    found = table(rows, ask(goal=Goal.MAXIMIZE), curve).rows
    assert [(r.optimizer, r.mean) for r in found] == [("o", 0.9), ("p", 0.7)]


def test_unpaired_seeds_have_no_difference() -> None:
    rows = [
        replace(row, result=replace(row.result, data_digest="x")) if row.job.arm == "b" else row
        for row in one_arm_each()
    ]
    assert table(rows, ask(baseline="a"), curve).rows[1].against_baseline is None


def test_numbers_can_be_baselines_and_what_is_not_there_is_said() -> None:
    rows = [trial("x", Stage.TUNE, i, 0, v, alpha=a) for i, (a, v) in enumerate(((0.5, 2.0), (1.0, 3.0)))]
    assert table(rows, ask(by="alpha", baseline="0.50"), curve).rows[1].against_baseline.difference == 1.0
    with pytest.raises(Refused, match=r"'2' is not a value of alpha; available: 0.5, 1.0"):
        table(rows, ask(by="alpha", baseline="2"), curve)
    with pytest.raises(Refused, match="no trial has the parameter 'beta'; available: alpha"):
        table(rows, ask(by="beta"), curve)


def of_study(study: int, row: TrialRecord) -> TrialRecord:
    return replace(row, job=replace(row.job, study=study, trial_id=f"{row.job.trial_id}@{study}"))


def three_studies() -> list[TrialRecord]:
    """An arm for each value; study r is worse by r, and its b by r more."""
    rows = []
    for study in (1, 2, 3):
        for kind, more in (("a", 0), ("b", study)):
            tune = [trial(kind, Stage.TUNE, i, study, study + i, kind=kind, lr=0.1 * (study + i)) for i in range(2)]
            seeds = (1000 + 10 * study, 1001 + 10 * study)
            confirm = [trial(kind, Stage.CONFIRM, 0, s, study + more + s % 2, kind=kind, lr=0.1 * study) for s in seeds]
            rows += [of_study(study, row) for row in (*tune, *confirm)]
    return rows


def test_studies_choose_for_themselves_and_count_once() -> None:
    a, b = table(three_studies(), ask(baseline="a"), curve).rows
    assert (a.stage, a.n, a.mean, a.configurations) == ("confirm", 3, 2.5, 6)
    assert a.parameters == {"lr": [0.1, pytest.approx(0.3)]}
    assert (b.against_baseline.n, b.against_baseline.difference) == (3, 2.0)
    low, high = b.against_baseline.interval
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-5)  # t of 2, over 1 2 3


def test_a_value_that_won_in_some_studies_only_is_shown_as_tuned() -> None:
    rows = [row for row in three_studies() if (row.job.arm, row.job.study, row.job.stage) != ("b", 2, Stage.CONFIRM)]
    found = {row.value: row for row in table(rows, ask(baseline="a"), curve).rows}
    assert (found["a"].stage, found["b"].stage, found["b"].n, found["b"].mean) == (
        "confirm",
        "tune",
        3,
        2.0,
    )
    assert found["b"].against_baseline is None


SWEEP = """
schema_version: 1
name: turned
task: {name: "tests.tasks:Fit"}
metric: {name: loss/val, goal: minimize}
arms:
  identity: {optimizer: rotated_adamw, parameters: {rotation: identity}}
  svd: {optimizer: rotated_adamw, parameters: {rotation: svd, rotation_refresh: 5}}
parameters: {lr: {values: [0.01, 0.1]}, weight_decay: 0.0}
method: {name: grid}
budget: {unit: grad_evals, per_trial: 20}
seeds: {tune: 1, confirm: 3}
evaluations: 4
diagnostics: {names: [update_orthogonality, second_moment, gradient_linf]}
"""


@pytest.mark.slow
def test_from_sweep_file_to_table(call: Any, tmp_path: Path) -> None:
    (tmp_path / "turned.yaml").write_text(SWEEP)
    done = call("run", str(tmp_path / "turned.yaml"), "--executor", "debug", "--no-tracking")
    assert done.code == 0, done.err
    document = call("table", "@last", "--by", "rotation", "--baseline", "identity", "--json").document
    assert [set(row) >= {"value", "mean", "interval", "against_baseline"} for row in document["rows"]] == [True, True]
    rows = {row["value"]: row for row in document["rows"]}
    assert rows["svd"]["n"] == rows["svd"]["against_baseline"]["slowdown_n"] == 3
    assert set(document["columns"]) >= {"geometry/update_cv", "geometry/gradient_linf", "geometry/second_moment_spread"}
    shown = call("table", "--by", "rotation", "--baseline", "identity", "--columns", "geometry/update_cv").out
    assert "update_cv" in shown
    assert "slowdown" in shown
    missing = call("table", "--by", "rotations")
    assert missing.code == 4
    assert "available: lr, rotation" in missing.err


def test_bad_values_are_refused_with_their_place(call: Any, tmp_path: Path) -> None:
    for old, new, message in (
        ("rotation: svd", "rotation: svdd", "svdd"),
        ("rotation_refresh: 5", "rotation_transport: m", "reordered and change sign"),
    ):
        (tmp_path / "bad.yaml").write_text(SWEEP.replace(old, new))
        found = call("validate", str(tmp_path / "bad.yaml"))
        assert found.code == 3
        assert "bad.yaml:8" in found.err
        assert message in found.err


def test_what_breaks_an_outcome_constraint_is_a_row_only_where_nothing_obeys() -> None:
    trials = [t for t in one_arm_each() if t.job.stage is Stage.TUNE or t.job.arm == "a"]  # b has nothing to confirm
    broken = {(arm, 1, i): (arm, i) in {("a", 1), ("b", 0), ("b", 1)} for arm in "ab" for i in range(2)}
    rows = {row.value: row for row in table(trials, ask(breaking=broken), lambda _: []).rows}
    assert (rows["a"].mean, rows["a"].feasible, rows["a"].stage) == (5.0, True, Stage.TUNE)
    assert (rows["b"].feasible, rows["b"].configurations) == (False, 2)
    assert all("feasible" not in row for row in table(trials, ask(), lambda _: []).document()["rows"])
