"""A trial that diverged beats none that trained, whatever its task declares in the place of its value."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

import geosweep
from orchestrator import display, results, runner
from orchestrator.cli import watch
from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report import numbers, tables
from orchestrator.definition import sweep_file
from orchestrator.definition.model import Spec
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.statistics.sentences import sentence
from orchestrator.storage.folder import SweepFolder
from tests.swept import swept
from tests.tasks import Fit
from trainables import Metric

TEXT = """
schema_version: 1
name: flattered
task: {name: "tests.orchestrator.test_diverged:Flattered"}
metric: {name: loss/val, goal: minimize}
arms:
  steady: {optimizer: sgd, parameters: {lr: {values: [0.01, 30, 100]}}}
  wild: {optimizer: sgd, parameters: {lr: {values: [1.0e6, 1.0e7]}}}
method: {name: grid}
budget: {unit: grad_evals, per_trial: 40}
seeds: {tune: 1, confirm: 6}
evaluations: 4
"""


class Flattered(Fit):
    """Declares for a diverged trial what no trial reaches."""

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=-1.0)}


@pytest.mark.parametrize(("goal", "expected"), [(Goal.MINIMIZE, [1.0, 9.0, 9.0]), (Goal.MAXIMIZE, [1.0, 9.0, 1.0])])
def test_a_stand_in_is_no_better_than_the_worst(goal: Goal, expected: list[float]) -> None:
    assert goal.demoted([1.0, 9.0, 5.0], [False, False, True]) == expected
    assert goal.demoted([1.0, 9.0], [False, False]) == [1.0, 9.0]


@pytest.mark.slow
def test_search_confirm_best_and_verdict(tmp_path: Path) -> None:
    folder = swept(TEXT, tmp_path)
    states = {(t.job.arm, t.job.stage, t.job.parameters["lr"]): t.result.state for t in results.ended_trials(folder)}
    assert states["steady", Stage.TUNE, 100] is State.DIVERGED, "the sweep does not test what it should"
    assert states["steady", Stage.TUNE, 0.01] is State.COMPLETE
    confirmed = {lr for arm, stage, lr in states if arm == "steady" and stage is Stage.CONFIRM}
    assert confirmed == {0.01}
    assert results.best(folder).arms["steady"].parameters["lr"] == 0.01
    assert results.best(folder).arms["wild"].value is None
    assert results.best(folder).arms["wild"].diverged == 6
    assert "diverged" not in results.best(folder).arms["steady"].document()
    evidence = Evidence(folder)
    document = answer(evidence)
    (pair,) = document.pairs
    assert pair.verdict != ("better" if pair.a == "wild" else "worse")
    assert any("diverged" in note and "-1" in note for note in document.notes)
    _no_number_is_made_up(sweep_file.loads(TEXT), folder, evidence, pair)


def _no_number_is_made_up(definition: Spec, folder: SweepFolder, evidence: Evidence, pair: dict[str, Any]) -> None:
    """An arm whose trials all diverged has no estimate: not in tables, not in sentences, not in MLflow."""
    assert watch.line(watch.snapshot(folder)).count("best diverged") == 1
    assert list(geosweep.load(folder.sweep_id, root=folder.root).best().index) == ["steady", "wild"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(display.arms_table(definition, folder))
    wild = [line for line in console.export_text().splitlines() if "wild" in line]
    assert [("all diverged" in line, "all its trials diverged" in line) for line in wild] == [
        (True, False),
        (False, True),
    ]
    assert runner.summaries(definition, folder)["wild"] == {}
    assert "every confirm trial of wild diverged" in sentence(pair, "loss/val")
    assert {row["arm"]: row["estimate"] is None for row in numbers.arms(evidence)} == {"steady": False, "wild": True}
    assert [row["estimate"] for row in numbers.pairs(answer(evidence))] == [None]
    assert {row["arm"]: row["loss/val"] for row in tables.arms(evidence)}["wild"] == "all diverged"
    (row,) = tables.pairs(answer(evidence))
    assert row["A − B [95 %]"] == f"{'A' if row['A'] == 'wild' else 'B'} diverged"
