"""The `training:` and `resources:` sections: from the file to the trial, and what they do to a sweep's id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from orchestrator import results
from orchestrator.definition import model, sweep_file
from orchestrator.definition.training_model import TrainingModel
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept
from trainables.recipe import INF, KEYS, Recipe

STDLIB = {"task": {"name": "stdlib_lm"}, "metric": {"name": "loss/val", "goal": "minimize"}}


def resolved(**changes: Any) -> model.Spec:
    return sweep_file.loads(yaml.safe_dump({**yaml.safe_load(sweep_text()), **changes}))


def test_what_is_left_out_is_the_tasks_recipe() -> None:
    assert resolved().training == model.TrainingSpec(recipe=Recipe(schedule="cosine"))
    found = resolved(**STDLIB, training={"clip_norm": 0, "precision": "bf16"}).training.recipe
    assert (found.warmup, found.final_lr, found.clip_norm, found.precision) == (0.03, 0.1, 0.0, "bf16")


@pytest.mark.parametrize("name", KEYS)
def test_the_section_takes_what_a_recipe_takes(name: str) -> None:
    """Its keys are made from the recipe's; what is left out stays the task's."""
    key = KEYS[name]
    good: list[Any] = list(key.words)
    bad: list[Any] = ["neither"]
    if key.bounds is not None:
        inside = int(key.bounds[0] + 1) if key.counts else key.bounds[0] + 0.5
        good += [inside, *([] if key.open or key.bounds[1] == INF else [key.bounds[1]])]
        bad += [key.bounds[0] - 1]
    for value in good:
        read = getattr(TrainingModel.model_validate({name: value}), name)
        assert read == key.same.get(value, value)
        assert getattr(Recipe(**{name: read}), name) == read
    for value in bad:
        with pytest.raises(ValidationError):
            TrainingModel.model_validate({name: value})
        with pytest.raises(ValueError, match=f"^{name} is"):
            Recipe(**{name: value})
    assert getattr(TrainingModel.model_validate({}), name) is None


def test_warm_up_is_a_share_or_gradient_evaluations() -> None:
    for given in (0.25, "25%", 10):
        assert resolved(training={"warmup": given}).training.recipe.warmup == 0.25


def test_the_id_knows_how_trials_are_trained_but_not_how_long_a_step_may_hang() -> None:
    plain = model.sweep_id(resolved())
    for unchanged in ({}, {"step_timeout": "5m"}, {"step_timeout": None}, {"schedule": "cosine", "accumulate": 1}):
        assert model.sweep_id(resolved(training=unchanged)) == plain
    assert "training" not in model.definition(resolved())
    for changed in ({"clip_norm": 1.0}, {"schedule": "linear"}, {"warmup": "5%"}, {"weight_average": 0.9}):
        assert model.sweep_id(resolved(training=changed)) != plain
    assert model.sweep_id(resolved(resources={"processes": 2})) == plain
    assert model.definition(resolved(**STDLIB))["training"]["clip_norm"] == 1.0


@pytest.mark.parametrize(
    "resources, processes",
    [({}, 1), ({"gpu": 0.25}, 1), ({"gpu": 4}, 4), ({"gpu": 4, "processes": 2}, 2), ({"processes": 2, "cpu": 1}, 2)],
    ids=str,
)
def test_one_process_for_each_gpu(resources: dict[str, Any], processes: int) -> None:
    assert resolved(resources=resources).resources.processes == processes


@pytest.mark.slow
def test_a_trial_is_trained_as_the_file_says(tmp_path: Path) -> None:
    """Clipping to nearly nothing leaves the weights, and so the loss, where they were; facts of the task are kept."""
    losses = {}
    for clip in (0, 1e-12):
        text = yaml.safe_dump({**yaml.safe_load(sweep_text(trials=1, confirm=0)), "training": {"clip_norm": clip}})
        folder = swept(text, tmp_path / str(clip))
        ended = {t.job.arm: t for t in results.ended_trials(folder)}
        losses[clip] = ended["sgd"].result.metrics["loss/val"]
        raw = json.loads((folder.trial(ended["sgd"].trial_id) / "result.json").read_text())
        assert raw["facts"] == {"rows": "64"}
    assert losses[0] < 0.9 * losses[1e-12]
