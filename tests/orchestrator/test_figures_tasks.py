"""Figures of a task's kind are drawn for every task that declares them, a user's own included."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import tasks
from tests.swept import swept
from trainables.tasks.affine_games import QuadraticGame, ShapeGame
from trainables.tasks.quadratic import QuadraticTask

pytestmark = pytest.mark.slow

TEXT = """
schema_version: 1
name: own
task: {{name: "tests.orchestrator.test_figures_tasks:{task}", {parameters}}}
metric: {{name: {metric}, goal: minimize}}
arms: {{{arms}}}
method: {{name: grid}}
budget: {{per_trial: {steps}}}
seeds: {{tune: 1, confirm: {confirm}}}
evaluations: 4
diagnostics: {{names: [{rate}], every: 2}}
"""
GAMES = "gda: {}, consensus: {}, alternating_gda: {}"
TUNED = ", tuned: {optimizer: tuned_game}"


class OwnGame(ShapeGame):
    """A normal game."""


class OwnQuadratic(QuadraticTask):
    """A quadratic whose seeds draw its spectrum."""


class OtherGame(QuadraticGame):
    """A game whose J is not normal."""


def evidence(root: Path, **values: str) -> Evidence:
    text = TEXT.format(**values)
    folder = swept(text, root)
    return Evidence(folder)


@pytest.mark.filterwarnings("ignore::optim_core.games.DivergenceWarning")
@pytest.mark.parametrize("task, drawn", [("OwnGame", ["spectral-shape"]), ("OtherGame", [])])
def test_games(tmp_path: Path, task: str, drawn: list[str]) -> None:
    found = evidence(
        tmp_path,
        task=task,
        parameters="dimension: 4",
        metric="residual/log10",
        arms=GAMES + TUNED * bool(drawn),
        rate="game_rate",
        steps="8",
        confirm="1",
    )
    assert [figure.name for figure in tasks.shapes(found)] == drawn
    if drawn:
        titles = [axis.get_title() for figure in tasks.shapes(found) for axis in figure.figure.axes]
        assert {title.split("\n")[0] for title in titles if "r =" in title} == {"gda", "consensus"}  # polynomials of J


def test_quadratics(tmp_path: Path) -> None:
    found = evidence(
        tmp_path,
        task="OwnQuadratic",
        parameters="spectrum: beta, size: 60, left_exponent: [-0.5, 1.0], right_exponent: 0.5",
        metric="objective/log10",
        arms="gd: {}, nesterov: {}",
        rate="average_case_rate",
        steps="24",
        confirm="2",
    )
    names = [figure.name for draw in (tasks.spectra, tasks.courses, tasks.slopes) for figure in draw(found)]
    assert names == ["spectrum", "suboptimality", "exponents"]
