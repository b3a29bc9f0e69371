"""The false-kill rate in the report: against every stopped trial trained to its end, and scipy's Wilson interval."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from orchestrator import results
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report.report import build
from tests.swept import swept
from trainables import Batch, Metric, Task

TEXT = """
schema_version: 1
name: audit
task: {name: "tests.orchestrator.test_audit:Hill"}
metric: {name: loss/val, goal: minimize}
arms:
  sgd: {parameters: {lr: {distribution: log_uniform_values, min: 0.005, max: HIGHEST}}}
method: {name: random, seed: 2}
budget: {per_trial: 16, trials_per_arm: 24}
seeds: {tune: 1, confirm: 0}
evaluations: 8
cache: false
"""


class Hill(Task):
    """The weight walks down a slope at a pace of lr, over a hill and into a valley: who is worst early is best late."""

    METRICS: ClassVar = {"loss/val": Metric(goal="minimize", worst=1e4)}
    SCHEDULE = "constant"

    def __init__(self) -> None:
        """Nothing to set."""

    def model(self, seed: int) -> nn.Linear:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        return model

    def batch(self, seed: int, index: int) -> Batch:
        return torch.ones(1, 1), torch.zeros(1, 1)

    def batch_identity(self, seed: int, index: int) -> bytes:
        return str(index).encode()

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        return -outputs.mean() if float(outputs.mean()) < 10 else outputs.mean() * math.nan

    def evaluate(self, model: Any) -> dict[str, float]:
        way = float(model.weight)
        return {"loss/val": 1 + way if way < 1 else abs(4 - 2 * way)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the step is not taken:RuntimeWarning")  # what diverges is said once in its log
@pytest.mark.parametrize("most", [0.2, 3.0], ids=["none-diverges", "some-diverge"])
def test_the_report_counts_false_kills_as_brute_force_does(tmp_path: Path, most: float) -> None:
    text = TEXT.replace("HIGHEST", str(most))
    whole = {t.trial_id: t for t in results.ended_trials(swept(text, tmp_path / "whole"))}
    stopping = "early_terminate: {type: asha, eta: 2, min_budget: 12.5%, audit_share: 60%}\n"
    folder = swept(text + stopping, tmp_path / "stopped")
    trials = results.ended_trials(folder)
    stopped = [t for t in trials if t.result.state == "PRUNED"]
    audited = [t for t in stopped if t.result.grad_evals == whole[t.trial_id].result.grad_evals]
    best = min(t.result.value for t in trials if t.result.state == "COMPLETE")
    false = sum(whole[t.trial_id].result.value < best for t in audited)
    assert 0 < len(audited) < len(stopped)
    assert all(t.result.stopped.audit_value == whole[t.trial_id].result.value for t in audited)
    low, high = stats.binomtest(false, len(audited)).proportion_ci(method="wilson")
    page = html.unescape(build(Evidence(folder), tmp_path / "report").read_text(encoding="utf-8"))
    after = page[page.index("false-kill rate [95 %]") :]
    cells = [re.sub("<[^>]*>", "", c) for c in re.findall(r"<td.*?</td>", after)[:5]]
    rate = f"{false / len(audited):.2f} [{low:.2f}, {high:.2f}]"
    assert cells == ["sgd", str(len(stopped)), str(len(audited)), str(false), rate]
    if most < 1:
        assert false > 0
    else:
        assert any(whole[t.trial_id].result.state == "DIVERGED" for t in audited)
