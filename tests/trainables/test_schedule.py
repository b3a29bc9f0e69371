"""Schedules: warm-up, shapes, floors, and that recipes refuse what makes no sense."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from trainables import Task
from trainables.recipe import Recipe
from trainables.schedule import NAMES, factor


@pytest.mark.parametrize("shape", NAMES)
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_schedules_warm_up_and_fall(shape: str, final: float) -> None:
    rates = [factor(shape, i / 100, 0.1, final) for i in range(101)]
    assert rates[5] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[10:]))
    assert all(0 <= factor(shape, i / 100, 0.0, final) <= 1 for i in range(101))


def test_shapes() -> None:
    """Values that the formulas give by hand."""
    assert factor("cosine", 0.5) == pytest.approx(0.5)
    assert factor("cosine", 1.0, 0.0, 0.1) == pytest.approx(0.1)
    assert factor("cosine", 0.55, 0.1, 0.1) == pytest.approx(0.55)
    assert factor("linear", 0.25, 0.0, 0.2) == pytest.approx(0.8)
    assert [factor("step", x) for x in (0.29, 0.3, 0.7, 0.9)] == pytest.approx([1, 0.1, 0.01, 0.001])
    assert factor("inverse_sqrt", 0.4, 0.1) == pytest.approx(0.5)
    assert factor("constant", 0.99, 0.5) == 1.0


def test_a_warm_up_shorter_than_a_step_never_exceeds_the_peak() -> None:
    assert factor("cosine", 0.0, 1e-4) == 1.0


@pytest.mark.parametrize(
    "values",
    [
        {"schedule": "cosin"},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"final_lr": 1.5},
        {"final_lr": 0.1, "schedule": "step"},
        {"precision": "fp8"},
        {"accumulate": 0},
        {"clip_norm": -1.0},
        {"clip_norm": float("inf")},
        {"weight_average": 1.0},
    ],
    ids=str,
)
def test_bad_recipes_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(values))} is"):
        Recipe(**values)


def test_a_tasks_recipe_is_changed_key_by_key() -> None:
    class Mine(Task):
        SCHEDULE = "linear"
        RECIPE = Recipe(warmup=0.1, clip_norm=1.0)

    assert Mine().recipe(clip_norm=0.0) == Recipe(schedule="linear", warmup=0.1)
    with pytest.raises(ValueError, match="accumulate"):
        Mine().recipe(accumulate=0)


def test_a_task_with_a_gradient_of_its_own_refuses_what_it_would_ignore() -> None:
    class Game(Task):
        def closure(self, model: Any, batch: Any, zero_grad: Any) -> Any:
            return lambda: [0.0, 0.0]

    Game.check_recipe(Recipe(schedule="constant", warmup=0.1, weight_average=0.9))
    for values in ({"precision": "bf16"}, {"accumulate": 2}, {"clip_norm": 1.0}, {"compile": True}):
        with pytest.raises(ValueError, match=f"{next(iter(values))} is .* computes its gradient itself"):
            Game.check_recipe(Recipe(**values))
