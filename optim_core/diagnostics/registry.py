"""Diagnostics by name: `@diagnostic("sharpness")`, `names()`, `measure(names, subject)`.

A diagnostic is a function of a `Subject` that returns numbers keyed `geometry/...`. Its gradient evaluations are not
charged to the budget, since they do not train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optim_core.base import Counting
from optim_core.named import Named

PREFIX = "geometry/"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject of a measurement."""

    model: nn.Module
    """In evaluation mode: normalization layers use their running statistics and dropout is off."""
    loss: Callable[[Tensor, Any], Tensor]
    """`loss(outputs, targets)`, a mean over the batch."""
    batches: Sequence[tuple[Any, Any]]
    """`(inputs, targets)`, the same at every measurement of a run."""
    optimizer: Counting | None = None
    """The optimizer that trains the model, for diagnostics of its state."""
    seed: int = 0
    """Seed of random probes."""
    losses: Callable[[], Sequence[Tensor]] | None = None
    """For games, whose `model` is a ModuleList of the players: the losses of all players on the first batch."""


Diagnostic = Callable[[Subject], dict[str, float]]
_REGISTRY: Named[Diagnostic] = Named("diagnostic")


def diagnostic(name: str) -> Callable[[Diagnostic], Diagnostic]:
    """Decorator that registers a diagnostic as `name`. Raises ValueError for a name already taken."""
    return _REGISTRY.add(name)


def names() -> list[str]:
    """All registered names, sorted."""
    return _REGISTRY.names()


def lookup(name: str) -> Diagnostic:
    """The diagnostic `name`. Raises KeyError with the nearest registered name."""
    return _REGISTRY.lookup(name)


def measure(wanted: Iterable[str], subject: Subject) -> dict[str, float]:
    """Run the named diagnostics and restore everything: modes, gradients, buffers, weights, random state.

    Raises ValueError if a diagnostic returns a key outside `geometry/`.
    """
    model = subject.model
    modes = [(m, m.training) for m in model.modules()]
    kept = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
    gradients = [(p, p.grad) for p in model.parameters()]
    found: dict[str, float] = {}
    devices = sorted({t.device.index or 0 for t, _ in kept if t.device.type == "cuda"})
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices):
            for name in wanted:
                for p, _ in gradients:
                    p.grad = None
                found.update(lookup(name)(subject))
    finally:
        with torch.no_grad():
            for tensor, saved in kept:
                tensor.copy_(saved)
        for p, gradient in gradients:
            p.grad = gradient
        for module, mode in modes:
            module.training = mode
    for key in found:
        if not key.startswith(PREFIX):
            raise ValueError(f"a diagnostic returned {key!r}; keys must begin with {PREFIX}")
    return found
