"""Hyperparameters and metrics named like the columns that `compare` adds to its frames keep their own values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from orchestrator import results
from orchestrator.compare import answer, currencies
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures.search import shares_of
from orchestrator.compare.report.report import build
from orchestrator.definition.columns import SELECTED, TOKENS
from tests.swept import swept
from tests.tasks import Fit
from trainables import Metric

NAMES = ("value", "spread", "study", "configuration", "state", "random", "score", "arm", "seed", "grad_evals")
SWEEP = f"""
schema_version: 1
name: apart
task: {{name: "tests.orchestrator.test_names_apart:Rising"}}
metric: {{name: value, goal: minimize, select: best}}
arms:
  odd:
    optimizer: tests.orchestrator.test_names_apart.Odd
    parameters: {{{", ".join(f"{name}: {{min: 0.25, max: 0.75}}" for name in NAMES)}}}
  sgd: {{parameters: {{lr: {{min: 0.01, max: 0.1}}}}}}
method: {{name: random}}
budget: {{unit: tokens, per_trial: 128, trials_per_arm: 6}}
evaluations: 4
seeds: {{tune: 1, confirm: 6}}
"""


class Rising(Fit):
    """Its metric `value` ends worse than it was, and `tokens` counts something else."""

    METRICS: ClassVar = {"value": Metric(goal="minimize", worst=1e4)}
    COUNTS: ClassVar = "examples"

    def tokens_per_batch(self) -> int:
        return 16

    def evaluate(self, model: Any) -> dict[str, float]:
        self.seen = getattr(self, "seen", 0) + 1
        return {"value": super().evaluate(model)["loss/val"] + 100 * self.seen, "tokens": 7.0}


class Odd(torch.optim.SGD):
    """SGD whose step is the product of everything."""

    def __init__(
        self,
        params: Any,
        *,
        value: float = 0.5,
        spread: float = 0.5,
        study: float = 0.5,
        configuration: float = 0.5,
        state: float = 0.5,
        random: float = 0.5,
        score: float = 0.5,
        arm: float = 0.5,
        seed: float = 0.5,
        grad_evals: float = 0.5,
    ) -> None:
        given = (value, spread, study, configuration, state, random, score, arm, seed, grad_evals)
        super().__init__(params, lr=float(np.prod(given)))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return Evidence(swept(SWEEP, tmp_path_factory.mktemp("apart") / "runs"))


@pytest.mark.slow
def test_a_hyperparameter_keeps_its_values(evidence: Evidence, tmp_path: Path) -> None:
    frame = evidence.configurations["odd"]
    tried = {t.job.configuration: t.job.values for t in results.ended_trials(evidence.folder) if t.job.arm == "odd"}
    for _, row in frame.iterrows():
        assert {name: row[f"param.{name}"] for name in NAMES} == tried[row["configuration"]]
    assert set(frame["state"]) == {"COMPLETE"}
    assert set(shares_of(evidence, "odd")) <= set(NAMES)
    assert "sensitivity-odd" in build(evidence, tmp_path / "report").read_text(encoding="utf-8")


def test_a_metric_keeps_its_values(evidence: Evidence) -> None:
    trials = evidence.trials
    last = [t.result.metrics["value"] for t in evidence.records]
    assert list(trials["value"]) == last
    assert list(trials[SELECTED]) == [t.result.value for t in evidence.records]
    assert (trials["value"] > trials[SELECTED]).all()
    assert set(trials["tokens"]) == {7.0}
    assert set(trials[TOKENS]) == {128.0}
    assert currencies.parity(evidence).column == TOKENS
    assert answer.answer(evidence).pairs
