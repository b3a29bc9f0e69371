"""FLOPs of a trial: against the matrix products written out, refreshes in their cycle, and where they are shown."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results
from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report import tables
from orchestrator.definition.states import Goal, Stage
from orchestrator.protocol import flops
from orchestrator.trial.job import Job
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

LAYER = 2 * 16 * 4 * 4
"""Of tests.tasks:Fit: 16 rows through a [4, 4] layer."""
GRADIENT = 2 * LAYER
"""Forwards, and the gradient of the weights; that of the input is not needed. The task makes its targets by LAYER."""
WIDTHS = (64, 256, 256, 10)
"""Of the digits MLP, with batches of 64."""


def job(optimizer: str, task: str = "tests.tasks:Fit", **parameters: Any) -> Job:
    return Job(
        trial_id="x", arm="x", stage=Stage.CONFIRM, configuration=0, seed=0, optimizer=optimizer, parameters=parameters,
        task=task, task_parameters={}, budget=200.0, evaluations=4, metric="loss/val", goal=Goal.MINIMIZE,
        select="last", folder="", stop_file="",
    )  # fmt: skip


@pytest.mark.parametrize("optimizer, gradients", [("sgd", 1), ("adamw", 1), ("sam", 2)])
def test_passes_are_counted(optimizer: str, gradients: int) -> None:
    counts, interval = flops.of_steps(job(optimizer, lr=0.01))
    assert interval == 1
    assert set(counts) == {gradients * GRADIENT + LAYER}


@pytest.mark.slow
def test_the_algebra_of_the_optimizer_is_counted() -> None:
    """Muon's five iterations X <- a X + (b A + c A^2) X, A = X X^T, of the matrices [m, n], m <= n, but the head's."""
    first, *further = [a * b for a, b in itertools.pairwise(WIDTHS)]
    passes = 2 * 64 * (2 * first + 3 * sum(further))
    algebra = sum(5 * (4 * m * m * n + 2 * m**3) for m, n in ((64, 256), (256, 256)))
    given = replace(job("sgd", "digits", lr=0.01), task_parameters={"model": "mlp"})
    assert set(flops.of_steps(given)[0]) == {passes}
    assert set(flops.of_steps(replace(given, optimizer="muon"))[0]) == {passes + algebra}


def test_refreshes_return_at_their_interval() -> None:
    counts, interval = flops.of_steps(job("llqr", lr=0.01, refresh_interval=4))
    assert interval == 4
    assert counts[0] > counts[1] == counts[2]
    assert flops.total(counts, 200, interval) == pytest.approx(50 * (counts[0] + 3 * counts[1]))


@pytest.mark.parametrize(
    "counts, steps, interval, expected",
    [
        ([3.0, 3.0], 10, 1, 30.0),
        ([9.0, 1.0, 1.0], 9, 3, 33.0),
        ([9.0, 1.0, 1.0, 9.0], 9, 3, 33.0),
        ([9.0, 1.0, 1.0], 20, 10, 36.0),
        ([], 10, 1, 0.0),
    ],
)
def test_steps_beyond_those_counted(counts: list[float], steps: int, interval: int, expected: float) -> None:
    assert flops.total(counts, steps, interval) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["{tune: 1, confirm: 6}", "{studies: 3, tune: 1, confirm: 2}"])
def test_tables_and_documents_hold_three_currencies(tmp_path: Path, seeds: str) -> None:
    text = sweep_text(trials=2, method="random").replace("{tune: 1, confirm: 3}", seeds)
    evidence = Evidence(swept(text.replace("adamw: {optimizer: adamw", "sam: {optimizer: sam"), tmp_path))
    costs = answer(evidence).arms or {}
    expected = {"sgd": 40 * (GRADIENT + LAYER), "sam": 20 * (2 * GRADIENT + LAYER)}
    assert {arm: row.flops for arm, row in costs.items()} == expected
    assert all(row.grad_evals == 40 and (row.seconds or 0) > 0 for row in costs.values())
    rows = {row["arm"]: row for row in tables.arms(evidence)}
    assert {arm: row["FLOPs / trial"] for arm, row in rows.items()} == {a: f"{n:.3g}" for a, n in expected.items()}
    (evidence.folder.path / flops.FILE).unlink()
    older = Evidence(evidence.folder)
    assert {row.flops for row in (answer(older).arms or {}).values()} == {None}
    assert {row["FLOPs / trial"] for row in tables.arms(older)} == {"-"}


@pytest.mark.slow
def test_what_cannot_be_counted_is_left_out(tmp_path: Path) -> None:
    folder = swept(sweep_text(trials=1, confirm=6, method="random"), tmp_path)
    trial = next(t for t in results.ended_trials(folder) if t.job.stage is Stage.CONFIRM)
    assert flops.of_trial(trial) == 40 * (GRADIENT + LAYER)
    assert flops.of_trial(replace(trial, job=replace(trial.job, processes=2))) is None
    assert flops.of_trial(replace(trial, job=replace(trial.job, task="tests.tasks:Gone"))) is None
    assert flops.of_trial(replace(trial, result=replace(trial.result, seconds=1e4))) is None
    game = replace(trial.job, task="bilinear", optimizer="gda", parameters={"lr": 0.1}, training={})
    assert flops.of_trial(replace(trial, job=game)) is None
