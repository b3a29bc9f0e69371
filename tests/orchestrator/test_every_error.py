"""All that is wrong in a file is said at once, by line, and nothing that only follows from it."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError, errors_of

MANY = """schema_version: 1
name: my sweep
task: {name: digits, modle: mlp}
metric: {name: acc, goal: maximise}
arms:
  sgd:
    parameters:
      lr: {min: 0.1, max: 0.01}
      momentumm: 0.9
  sam:
    parameters:
      sam_radius: {distribution: log_uniform, min: -3, max: -1}
  adamm: {}
parameters:
  weight_decay: {min: 1e-5}
constraints: ["weight_decay * steps >= 1", "foo"]
method: bayes
budget: {unit: grad_evals, per_trial: 480, trials_per_arm: 6, wall_clock: 30}
seeds: {studies: 8, tune: 0}
early_terminate: {type: hyperband, min_iter: 3}
"""
GOOD = """schema_version: 1
name: good
task: {name: digits, model: mlp}
metric: {name: accuracy/val, goal: maximize}
arms:
  sgd: {parameters: {lr: {min: 0.01, max: 0.1}}}
  sam: {parameters: {sam_radius: 0.1}}
parameters:
  weight_decay: {min: 1e-5, max: 1e-2}
constraints: ["weight_decay * steps <= 10"]
method: {name: tpe}
budget: {unit: grad_evals, per_trial: 480, trials_per_arm: 6}
seeds: {studies: 8, tune: 1, confirm: 2}
early_terminate: {type: asha}
"""
SLIPS: dict[str, tuple[str, str]] = {
    "name": ("name: good", "name: not good"),
    "task": ("model: mlp", "modle: mlp"),
    "metric": ("accuracy/val", "accuracy/vla"),
    "arm": ("sam: {parameters", "samm: {parameters"),
    "range": ("min: 0.01", "min: 1.0"),
    "hyperparameter": ("sam_radius: 0.1", "sam_radiuss: 0.1"),
    "shared": ("weight_decay: {min", "weight_dekay: {min"),
    "constraint": ('"weight_decay * steps <= 10"', '"weight_decay * stepps <= 10"'),
    "method": ("name: tpe", "name: bayes"),
    "budget": ("per_trial: 480", "per_trial: -480"),
    "seeds": ("confirm: 2", "confirm: -2"),
    "stopping": ("type: asha", "type: ahsa"),
}
"""Part of the good file -> what a slip makes of it."""


def wrong(text: str) -> list[tuple[int, str]]:
    """(line, key) of every error."""
    with pytest.raises(SpecError) as caught:
        sweep_file.loads(text, "FILE")
    found = errors_of(caught.value)
    assert str(caught.value).splitlines() == [str(one) for one in found]
    return [(one.line, one.key) for one in found]


@functools.cache
def wrong_alone(slip: str) -> frozenset[tuple[int, str]]:
    """The errors of a file with this slip and no other."""
    return frozenset(wrong(GOOD.replace(*SLIPS[slip])))


def test_fourteen_at_once() -> None:
    lines = [line for line, _ in wrong(MANY)]
    assert lines == sorted(lines)
    assert [key for _, key in wrong(MANY)] == [
        "name",
        "task.modle",
        "metric.name",
        "metric.goal",
        "arms.sgd.parameters.lr.min",
        "arms.sgd.parameters.momentumm",
        "arms.sam.parameters.sam_radius.distribution",
        "arms.adamm",
        "parameters.weight_decay",
        "constraints.1",
        "method",
        "budget.wall_clock",
        "seeds.tune",
        "early_terminate.min_iter",
    ]


@pytest.mark.parametrize("slip", SLIPS)
def test_one_slip_is_one_error(slip: str) -> None:
    assert len(wrong(GOOD.replace(*SLIPS[slip]))) == len(wrong_alone(slip)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), itertools.combinations(SLIPS, 2))
def test_two_slips_are_at_most_two_errors(one: str, other: str) -> None:
    """Each is one of those that the slips give alone: nothing is said that only follows."""
    alone = wrong_alone(one) | wrong_alone(other)
    together = wrong(GOOD.replace(*SLIPS[one]).replace(*SLIPS[other]))
    assert set(together) <= alone
    assert together


def test_types_and_spelling_are_all_there_at_once() -> None:
    """What depends on nothing else in the file is never left for the next run."""
    text = GOOD
    for slip in ("name", "method", "budget", "seeds", "stopping", "task", "range", "hyperparameter"):
        text = text.replace(*SLIPS[slip])
    assert len(wrong(text)) == 8


@pytest.mark.parametrize("key", ["schema_version", "name", "metric", "budget", "task", "arms"])
def test_what_is_missing_hides_no_other_slip(key: str) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{key}:"))
    text = text.replace("\n  sgd: {par", "\n#").replace("\n  sam: {par", "\n#") if key == "arms" else text
    assert key != "task" or [k for _, k in wrong(text)] == ["task"] or [k for _, k in wrong(text)] == [""]
    found = [k for _, k in wrong(text.replace(*SLIPS["method"]).replace(*SLIPS["seeds"]))]
    assert {"method.name", "seeds.confirm"} <= set(found)


def test_validate_lists_them_as_json(call: Any, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(MANY)
    done = call("validate", str(tmp_path / "many.yaml"), "--json")
    assert done.code == 3
    assert done.document["valid"] is False
    assert [set(one) for one in done.document["errors"]] == [{"line", "column", "key", "message"}] * 14
    plain = call("run", str(tmp_path / "many.yaml"))
    assert (plain.code, len(plain.err.splitlines())) == (3, 14)
    assert not (tmp_path / "runs").exists()


def test_a_budget_that_is_wrong_is_told_beside_an_optimizer_that_refreshes() -> None:
    """Its stand-in is counted step by step, refresh by refresh: it must not take minutes."""
    text = (Path(__file__).parents[2] / "sweeps" / "quickstart.yaml").read_text()
    slip = re.sub(r"per_trial: \d+", "per_trial: x", text)
    assert [key for _, key in wrong(slip)] == ["budget.per_trial"]


def test_validate_names_the_override_as_json(call: Any, tmp_path: Path) -> None:
    """Line and column are those of no file."""
    (tmp_path / "good.yaml").write_text(GOOD)
    done = call("validate", str(tmp_path / "good.yaml"), "budget.per_trial=x", "--json")
    (error,) = done.document["errors"]
    assert (done.code, error["override"], error["key"]) == (3, "budget.per_trial=x", "budget.per_trial")


UNRUNNABLE = (Path(__file__).parent / "unrunnable" / "no_step_of_one_kind.yaml").read_text()


def test_the_arms_that_are_right_are_left_to_be_tried() -> None:
    text = UNRUNNABLE.replace("method:", "  wrong: {optimizer: sgd, parameters: {momentumm: 0.9}}\nmethod:")
    with pytest.raises(SpecError) as caught:
        sweep_file.loads(text, "F")
    assert caught.value.rest is not None
    assert list(caught.value.rest.arms) == ["sgd", "mine"]


@pytest.mark.parametrize(
    ("right", "wrong"), [("method: random", "method: random\nparameters: {zeug: 1}"), ("tests.fragile:F", "no:F")]
)
def test_of_a_section_that_all_arms_share_none_is_left(right: str, wrong: str) -> None:
    with pytest.raises(SpecError) as caught:
        sweep_file.loads(UNRUNNABLE.replace(right, wrong), "F")
    assert caught.value.rest is None


SECTIONS = """schema_version: 1
name: sections
task: {name: digits, model: mlp, noise: 0.2}
metric: {name: accuracy/val, goal: maximize, report_metric: accuracy/test}
arms:
  sgd:
    parameters: {lr: {min: 0.01, max: 0.1}, momentum: {values: [0.0, 0.9]}}
    groups:
      no_decay: {match: ["*.bias"], weight_decay: 0}
      first: {match: ["1.*"], lr: {min: 0.01, max: 0.3}}
  adamw:
    parameters: {lr: {distribution: log_uniform_values, min: 1e-4, max: 0.1}}
    groups: {slow: {match: ["5.*"], lr: 0.001}}
groups:
  shared: {match: ["3.*"], weight_decay: 0.0}
parameters:
  clip_norm: {values: [1.0, 2.0]}
method: {name: tpe, seed: 0}
budget: {unit: grad_evals, per_trial: 480, trials_per_arm: 6}
seeds: {studies: 8, tune: 1, confirm: 2}
analysis: {baseline: sgd}
resources: {cpu: 1, wait: 10m}
notify: {done: "https://example.org/y"}
diagnostics: {names: [sharpness], every: 5}
objectives: [{name: loss/val, goal: minimize}]
outcome_constraints: ["loss/val <= 3"]
"""
ONE_EACH = (
    ("noise: 0.2", "noise: high"),
    ("report_metric: accuracy/test", "report_metric: acc"),
    ("momentum: {values: [0.0, 0.9]}", "momentum: {values: [0.0, 7]}"),
    ("weight_decay: 0}", "weight_dekay: 0}"),
    ("lr: {min: 0.01, max: 0.3}", "lr: {min: 3, max: 1}"),
    ("lr: 0.001", "lr: -1"),
    ("weight_decay: 0.0", "weight_decay: -1"),
    ("[1.0, 2.0]", "[1.0, -2.0]"),
    ("seed: 0", "seeed: 0"),
    ("trials_per_arm: 6", "trials_per_arm: many"),
    ("confirm: 2", "confirm: [1, 2, 3]"),
    ("baseline: sgd", "baseline: nope"),
    ("wait: 10m", "wait: ten"),
    ("https://", "nowhere:"),
    ("[sharpness]", "[sharpnes]"),
    ("every: 5", "every: 0"),
    ("goal: minimize}", "goal: maximize}"),
    ('"loss/val <= 3"', '"loss/vla <= 3"'),
)


def test_no_section_waits_for_another_round() -> None:
    """What is wrong in one arm, group or section hides nothing in the others."""
    alone, together = list[tuple[int, str]](), SECTIONS
    for slip in ONE_EACH:
        (found,) = wrong(SECTIONS.replace(*slip))
        alone.append(found)
        together = together.replace(*slip)
    assert sorted(wrong(together)) == sorted(alone)
