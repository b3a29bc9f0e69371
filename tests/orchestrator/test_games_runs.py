"""Games from the sweep file to the tables, in this process: players paired, rates measured beside theory."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from optim_core.diagnostics import Subject, measure
from orchestrator import results
from orchestrator.definition import sweep_file
from orchestrator.display import arms_table
from tests.swept import ran

pytestmark = pytest.mark.slow

TEXT = """
schema_version: 1
name: games
task: {name: bilinear, rows: 5, columns: 5}
metric: {name: residual/log10, goal: minimize}
arms:
  climbing: {optimizer: gda, parameters: {lr: 3.0}}
  alternating_gda: {parameters: {lr: 1.0}}
  bilinear_optimal: {parameters: {lr: 3.3057851, momentum: 0.66942149}}
  tuned_game: {}
method: {name: grid}
budget: {unit: grad_evals, per_trial: 160}
seeds: {tune: 1, confirm: 2}
evaluations: 4
diagnostics: {names: [game_rate], every: 2}
"""


@pytest.mark.filterwarnings("ignore::optim_core.games.DivergenceWarning")
def test_a_sweep_over_games_measures_rates_beside_theory(tmp_path: Path) -> None:
    folder, outcome = ran(TEXT, tmp_path)
    assert outcome.state == "done"
    trials = results.ended_trials(folder)
    assert {t.result.state for t in trials if t.job.arm != "climbing"} == {"COMPLETE"}
    climbing = [t for t in trials if t.job.arm == "climbing"]
    assert {(t.result.state, t.result.value) for t in climbing} == {("DIVERGED", 10.0)}
    for seed in {t.job.seed for t in trials}:
        found = {(t.result.init_digest, t.result.data_digest) for t in trials if t.job.seed == seed}
        assert len(found) == 1
    theory = results.arm_values(folder, "geometry/rate_theory")
    gap = results.arm_values(folder, "geometry/rate_gap")
    best = (9 / 11) ** 0.5
    for arm in ("bilinear_optimal", "tuned_game"):
        assert theory[arm] == pytest.approx([best] * 2, abs=1e-6)
        assert all(abs(g) < 0.03 for g in gap[arm])
    assert theory["alternating_gda"] == pytest.approx([1.0] * 2, abs=1e-9)
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(arms_table(sweep_file.loads(TEXT), folder))
    shown = console.export_text()
    assert "geometry/rate_theory" in shown
    assert "tuned_game: no hyperparameter" in shown
    assert "climbing: lr 3" in shown or "climbing: no configuration" in shown


def test_game_rate_refuses_what_it_cannot_measure() -> None:
    model = nn.Linear(2, 2)
    subject = Subject(model=model, loss=nn.functional.mse_loss, batches=[(torch.zeros(1, 2), torch.zeros(1, 2))])
    with pytest.raises(ValueError, match="a task with players and an optimizer for games"):
        measure(["game_rate"], subject)
