"""The field of a game, v = (gradient of each player's own loss), from the losses that a closure returns.

J is the Jacobian of v over all parameters of all players in order, d of them. Products with it need losses that are
twice differentiable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optim_core.pullback import pulled_whole

Players = Sequence[nn.Module | Iterable[Tensor] | dict[str, Any]]
WANTED = "needs a closure that returns a list with one loss per player and does not call backward"


def evaluate_game(optimizer: torch.optim.Optimizer, closure: Callable[[], Any] | None) -> list[Tensor]:
    """Call the closure with gradients enabled and return its losses, one per parameter group.

    Raises TypeError without a closure, RuntimeError for a single loss or the wrong number of losses, for one that is
    not a scalar or has no graph, or if the closure called backward. Gradients are not changed.
    """
    name = type(optimizer).__name__
    if closure is None:
        raise TypeError(f"{name}.step {WANTED}")
    params = [p for g in optimizer.param_groups for p in g["params"]]
    kept = [p.grad for p in params]
    for p in params:
        p.grad = None
    try:
        with torch.enable_grad():
            losses = closure()
        if any(p.grad is not None for p in params):
            raise RuntimeError(f"the closure given to {name}.step called backward; {name}.step {WANTED}")
    finally:
        for p, gradient in zip(params, kept, strict=True):
            p.grad = gradient
    if losses is None:
        raise RuntimeError(f"the closure given to {name}.step returned None; {name}.step {WANTED}")
    players = len(optimizer.param_groups)
    if not isinstance(losses, list | tuple):
        raise RuntimeError(f"the closure given to {name}.step returned one loss for {players} players; it {WANTED}")
    if len(losses) != players:
        raise RuntimeError(f"the closure given to {name}.step returned {len(losses)} losses for {players} players")
    for i, loss in enumerate(losses):
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise RuntimeError(f"loss {i} that the closure given to {name}.step returned is not a scalar with a graph")
    return list(losses)


def differentiate(
    losses: Sequence[Tensor], players: Sequence[Sequence[Tensor]], twice: bool = False, only: int | None = None
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """(v, J'v), one list of tensors per player; J'v is empty unless asked to differentiate `twice`.

    `only` leaves all other players' lists empty. A parameter on which its player's loss does not depend counts as 0.
    Raises RuntimeError if the closure has consumed the graph by calling backward.
    """
    field: list[list[Tensor]] = []
    for i, (loss, params) in enumerate(zip(losses, players, strict=True)):
        if only not in (None, i):
            field.append([])
            continue
        last = only is not None or i == len(losses) - 1
        field.append(gradient(loss, params, retain_graph=twice or not last, create_graph=twice))
    if not twice:
        return field, []
    every = [p for params in players for p in params]
    v = [t for ts in field for t in ts]
    pulled = iter(pull(v, every, [t.detach() for t in v], retain_graph=False))
    return [[t.detach() for t in ts] for ts in field], [[next(pulled) for _ in params] for params in players]


def pull(field: Sequence[Tensor], params: Sequence[Tensor], weights: Sequence[Tensor], **keep: bool) -> list[Tensor]:
    """J'u for a field with a graph and weights u; entries without a path count as 0."""
    live = [(v, u) for v, u in zip(field, weights, strict=True) if v.requires_grad]
    if not live:
        return [torch.zeros_like(p) for p in params]
    with torch.enable_grad():
        return pulled_whole([v for v, _ in live], params, [u for _, u in live], **keep)


def jacobian(losses: Sequence[Tensor], players: Sequence[Sequence[Tensor]]) -> Tensor:
    """J [d, d] in the parameters' dtype by d products with J'; for small games."""
    every = [p for params in players for p in params]
    field = [t for loss, params in zip(losses, players, strict=True) for t in gradient(loss, params, create_graph=True)]
    rows: list[Tensor] = []
    for i, v in enumerate(field):
        for j in range(v.numel()):
            unit = torch.zeros_like(v).view(-1)
            unit[j] = 1
            weights = [unit.view_as(v) if k == i else torch.zeros_like(u) for k, u in enumerate(field)]
            rows.append(torch.cat([g.flatten() for g in pull(field, every, weights, retain_graph=True)]))
    return torch.stack(rows)


def gradient(
    loss: Tensor, params: Sequence[Tensor], *, retain_graph: bool | None = None, create_graph: bool = False
) -> list[Tensor]:
    """One player's part of v; a parameter on which the loss does not depend counts as 0."""
    with torch.enable_grad():
        found = torch.autograd.grad(
            loss, list(params), retain_graph=retain_graph, create_graph=create_graph, allow_unused=True
        )
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, params, strict=True)]
