"""Values of the training recipe that are searched: percentages and amounts of the budget, as in `training:` itself."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.definition.kinds import short
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec
from orchestrator.definition.parameter_models import ParameterModel, as_share
from orchestrator.definition.parts import TRAINING, in_section, split
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.space import SpaceError, corners, satisfied
from orchestrator.definition.training_model import TrainingModel
from orchestrator.definition.yaml12 import Path
from trainables.recipe import AUTO

if TYPE_CHECKING:
    from trainables import Task
    from trainables.recipe import Recipe


def converted(key: str, given: Any, model: SweepModel, where: Where, path: Path) -> Any:
    """What is given for a key of the recipe, its values as the recipe takes them. Raises SpecError."""

    def one(value: Any, at: Path) -> Any:
        return value_of(key, value, model, where, at)

    if not isinstance(given, ParameterModel):
        return one(given, path)
    changed: dict[str, Any] = {}
    if given.values is not None:
        changed["values"] = [one(value, (*path, "values", i)) for i, value in enumerate(given.values)]
    if "value" in given.model_fields_set:
        changed["value"] = one(given.value, (*path, "value"))
    for one_of_them in ("min", "max", "prior"):
        if getattr(given, one_of_them) is not None:
            changed[one_of_them] = one(getattr(given, one_of_them), (*path, one_of_them))
    if given.q is not None:
        share = as_share(given.q)
        amount = key == "warmup" and not isinstance(share, str) and share >= 1
        changed["q"] = share / model.budget.per_trial if amount else share
    return given.model_copy(update=changed)


def in_shares(key: str, value: Any, model: SweepModel, where: Where, path: Path) -> Any:
    """A warm-up of 1 or more is an amount in the budget's unit; the recipe takes its share of the budget."""
    if key != "warmup" or value < 1:
        return value
    share = value / model.budget.per_trial
    if share >= 1:
        raise where.error(path, f"{value:g} is the whole budget or more; lower it")
    return share


def value_of(key: str, value: Any, model: SweepModel, where: Where, path: Path) -> Any:
    """A value of the recipe's key as the recipe takes it. Raises SpecError."""
    if value is None:
        raise where.error(path, f"{key} cannot be null; give it a value, or leave it out for the task's own")
    try:
        read = getattr(TrainingModel.model_validate({key: value}), key)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        raise where.error(path, f"{value!r} cannot be {key}: {message}") from None
    return in_shares(key, read, model, where, path)


def check_processes(recipe: Recipe, processes: int) -> None:
    """Raise ValueError for a recipe that so many processes of a trial cannot follow."""
    if recipe.accumulate == AUTO and processes > 1:
        raise ValueError(f"accumulate is auto, but a trial has {processes} processes; auto works with one only")


def check_recipes(
    arm: ArmSpec,
    recipe: Recipe,
    task: Task,
    model: SweepModel,
    places: Mapping[str, Path],
    where: Where,
    processes: int,
) -> None:
    """The recipe is one at every corner of what an arm searches of it. Raises SpecError."""
    names = in_section(TRAINING, [p.name for p in arm.parameters])
    for config in corners(arm.parameters, names) if names else ():
        given = split(config).training
        with contextlib.suppress(SpaceError, TypeError):  # reported for the constraint itself, with its place
            if not satisfied(model.constraints, config):
                continue
        try:
            changed = replace(recipe, **given)
            task.check_recipe(changed)
            check_processes(changed, processes)
        except ValueError as error:
            culprit = next((key for key in given if str(error).startswith(key)), next(iter(given)))
            words = ", ".join(f"{key} {short(value)}" for key, value in given.items())
            beside = f" (with {words}; use when: to say which values go together)" if len(given) > 1 else ""
            raise where.error(places[f"{TRAINING}.{culprit}"], f"{error}{beside}") from None
