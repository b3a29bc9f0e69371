"""The task that CONTRIBUTING shows is one file of under 60 lines, and a sweep over it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator import results
from tests.swept import ran

ROOT = Path(__file__).parents[1]
SWEEP = """
schema_version: 1
name: line
task: {name: "my_tasks:Line", slope: 2.0}
metric: {name: loss/val, goal: minimize}
arms:
  sgd: {parameters: {lr: {values: [0.01, 0.1]}}}
  sam: {parameters: {lr: {values: [0.01, 0.1]}}}
method: {name: grid}
budget: {unit: grad_evals, per_trial: 300}
seeds: {tune: 1, confirm: 2}
training: {accumulate: 2, clip_norm: 10}
"""


def snippet() -> str:
    """The example under the heading `A task`."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## A task", 1)[1]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_the_task_in_contributing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(snippet().splitlines()) < 60
    (tmp_path / "my_tasks.py").write_text(snippet())
    monkeypatch.syspath_prepend(tmp_path)
    folder, outcome = ran(SWEEP, tmp_path / "runs")
    assert outcome.state == "done"
    trials = results.ended_trials(folder)
    assert [t.result.state for t in trials] == ["COMPLETE"] * 8
    values = results.arm_values(folder, "loss/val")
    assert max(map(max, values.values())) < 0.01
