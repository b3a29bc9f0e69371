"""What is known, before trying, about whether runs of a task can be stepped together (`pack`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from trainables.recipe import Recipe
from trainables.task_class import Model, Task

PLAIN: Mapping[str, Any] = {"accumulate": 1, "weight_average": 0.0, "compile": False}


class Unpackable(ValueError):  # noqa: N818
    """These runs cannot be stepped together; the message says why."""


def unpackable(task: Task, model: Model, recipe: Recipe) -> str:
    """Why runs of this task cannot be packed; empty if nothing is known to prevent it before trying."""
    name = type(task).__name__
    if type(task).closure is not Task.closure:
        return f"task {name} computes its gradient itself"
    if not isinstance(model, nn.Module):
        return f"task {name} has several models"
    if recipe.precision == "fp16":
        return "precision fp16 scales the loss of each trial by itself"
    for key, value in PLAIN.items():
        if getattr(recipe, key) != value:
            return f"training has {key} {getattr(recipe, key)}"
    for module in model.modules():
        rate = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0)
        if isinstance(rate, int | float) and rate > 0:
            return f"the model of task {name} draws at random in training ({type(module).__name__})"
        if isinstance(module, nn.RNNBase):
            return f"the model of task {name} is recurrent ({type(module).__name__})"
    weights = list(model.parameters())
    if any(p.dtype != weights[0].dtype or p.device != weights[0].device for p in weights):
        return f"the model of task {name} has weights of several kinds"
    return ""
