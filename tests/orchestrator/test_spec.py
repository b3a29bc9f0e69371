"""Sweep files: what is refused and how, what is understood, and that the id depends on what changes results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.definition import model, sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.kinds import meant
from orchestrator.definition.plan import plan
from tests.orchestrator.sweep_files import sweep_text

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
SWEEPS = Path(__file__).parents[2] / "sweeps"
DIGITS = """
schema_version: 1
name: d
task: {name: digits, model: mlp}
metric: {name: accuracy/val, goal: maximize}
arms:
  sam:
    parameters:
      lr: {distribution: log_uniform_values, min: 1e-3, max: 1}
      base: {values: [sgd, adamw]}
      beta2: {values: [0.9, 0.99], when: {base: [adamw]}}
      momentum: 0.9
budget: {unit: grad_evals, per_trial: 320, trials_per_arm: 4, wall_clock: 1.5h}
method: {name: tpe, random_share: 25%}
"""


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_refused_with_place_and_way_out(path: Path) -> None:
    text = path.read_text()
    with pytest.raises(SpecError) as caught:
        sweep_file.loads(text, "FILE")
    assert str(caught.value).splitlines() == ["FILE:" + text.splitlines()[0].removeprefix("# expect: ")]


def test_there_are_enough_bad_files() -> None:
    assert len(BAD) >= 40


def test_words_are_understood() -> None:
    s = sweep_file.loads(DIGITS)
    arm = s.arms["sam"]
    assert arm.optimizer == "sam"
    assert [p.name for p in arm.parameters] == ["lr", "base", "momentum", "beta2"]
    assert s.arms["sam"].parameters[0].low == 1e-3
    assert s.budget.wall_clock == 5400
    assert s.method.random_share == 0.25
    assert s.seeds.confirm == (1000, 1001, 1002, 1003, 1004, 1005)
    assert s.task.parameters == {"model": "mlp", "noise": 0.0, "batch_size": 64}
    assert s.report_metric == "accuracy/val"


def test_sam_takes_half_the_steps_of_sgd() -> None:
    rows = plan(sweep_file.loads(DIGITS)).arms
    assert rows["sam"].steps == 160
    text = DIGITS.replace("  sam:\n", "  sgd: {}\n  sam:\n")
    rows = plan(sweep_file.loads(text)).arms
    assert (rows["sgd"].steps, rows["sam"].steps) == (320, 160)
    assert rows["sgd"].grad_evals == rows["sam"].grad_evals == 320 * (4 + 6)


def test_gradients_sampled_before_the_first_step_are_planned() -> None:
    arms = """  egop: {optimizer: rotated_adamw, parameters: {rotation: egop, rotation_samples: {values: [8, 16]}}}
  control: {optimizer: rotated(sgd), parameters: {rotation: egop, rotation_samples: 300}}
  svd: {optimizer: rotated_adamw, parameters: {rotation: svd, rotation_refresh: 2}}
"""
    text = DIGITS.replace("  sam:\n", arms + "  sam:\n")
    rows = plan(sweep_file.loads(text)).arms
    assert (rows["egop"].steps, rows["egop"].grad_evals_before_first_step) == ([304, 312], [8.0, 16.0])
    assert (rows["control"].steps, rows["control"].grad_evals_before_first_step) == (20, 300.0)
    assert rows["svd"].steps == 320
    assert rows["svd"].grad_evals_before_first_step is None
    with pytest.raises(SpecError, match="less than one step of arm control"):
        sweep_file.loads(text.replace("rotation_samples: 300", "rotation_samples: 320"))


@pytest.mark.parametrize(
    "changes, same",
    [
        ({"description": "other words"}, True),
        ({"resources": {"cpu": 2}}, True),
        ({"tracking": {"mlflow": "http://somewhere"}}, True),
        ({"max_failed": 3}, True),
        ({"seeds": {"tune": 1, "confirm": 7}}, False),
        ({"evaluations": 9}, False),
    ],
)
def test_the_id_depends_on_what_changes_results(changes: dict[str, object], same: bool) -> None:
    text = sweep_text()
    other = yaml.safe_dump({**yaml.safe_load(text), **changes})
    assert (model.sweep_id(sweep_file.loads(text)) == model.sweep_id(sweep_file.loads(other))) is same


@pytest.mark.parametrize(("time", "seconds"), [("90s", "90"), ("1m30s", "90"), ("0.5 s", "0.5"), ("1h", "3600")])
def test_seconds_may_be_written_as_a_time(time: str, seconds: str) -> None:
    """It is the same sweep, with the same id."""
    text = sweep_text().replace("unit: grad_evals, per_trial: 40", "unit: seconds, per_trial: GIVEN")
    a, b = (sweep_file.loads(text.replace("GIVEN", given)) for given in (time, seconds))
    assert a.budget.per_trial == float(seconds)
    assert model.sweep_id(a) == model.sweep_id(b)


@pytest.mark.parametrize(("text", "number"), [
    ("10k", 10_000), ("1.5M", 1_500_000), ("2G", 2 * 10**9), ("1,000", 1000), ("1_000_000", 10**6), ("1 000", 1000),
    (" 40 ", 40), (".5k", 500), ("1.5", None), ("1,00", None), ("k", None), ("", None), ("-4", None), ("10m", None),
    ("many", None),
])  # fmt: skip
def test_what_stands_for_a_whole_number(text: str, number: int | None) -> None:
    assert meant(text) == number


def test_wall_clock_may_be_raised_to_go_on() -> None:
    a, b = (sweep_file.loads(sweep_text(wall_clock=f", wall_clock: {t}")) for t in ("10s", "2h"))
    assert model.sweep_id(a) == model.sweep_id(b)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_sweep_of_ours_is_valid(path: Path) -> None:
    assert model.sweep_id(sweep_file.load(path)).startswith(path.stem.replace("_", "-"))


def test_schema_is_current() -> None:
    assert json.loads((SWEEPS / "schema.json").read_text()) == sweep_file.json_schema()
