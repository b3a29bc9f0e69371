"""`game_rate`: the convergence rate of a game, measured and by theory, for games with up to 400 parameters.

The field v and its Jacobian J are taken at the current point; the predicted rate is the spectral radius of the method's
linear map with the current hyperparameters (global for affine games, local for others).

    geometry/rate_measured   factor of |v| for one gradient evaluation, over the last half of the run
    geometry/rate_theory     radius ** (1 / gradient evaluations of a step)
    geometry/rate_gap        measured - theory: the asymptotic rate is approached from above at a double root
    geometry/radius          spectral radius of one step
    geometry/growth          largest |v| so far over the first one: the transient

Cost: d products with J, and the eigenvalues of a matrix of order 2 d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optim_core.diagnostics.registry import Subject, diagnostic
from optim_core.games import maps
from optim_core.games.base import GameOptimizer
from optim_core.games.field import jacobian

LARGEST = 400


@diagnostic("game_rate")
def game_rate(subject: Subject) -> dict[str, float]:
    """Rates of the optimizer's method. Raises ValueError if there is no game, or if it is too large."""
    optimizer = subject.optimizer
    if subject.losses is None or not isinstance(optimizer, GameOptimizer):
        raise ValueError("game_rate measures games: it needs a task with players and an optimizer for games")
    params = [p for g in optimizer.param_groups for p in g["params"]]
    dimension = sum(p.numel() for p in params)
    if dimension > LARGEST:
        raise ValueError(f"game_rate forms the Jacobian of up to {LARGEST} parameters; this game has {dimension}")
    with torch.enable_grad():
        losses = subject.losses()
    J = jacobian(losses, [g["params"] for g in optimizer.param_groups]).to("cpu", torch.float64)
    found = {"geometry/growth": optimizer.trace.growth}
    if bool(torch.isfinite(J).all()) and bool((J != 0).any()):
        matrix = step_matrix(optimizer, J)
        found["geometry/radius"] = maps.radius(matrix, len(J) - int(torch.linalg.matrix_rank(J, rtol=1e-9)))
        found["geometry/rate_theory"] = found["geometry/radius"] ** (1 / optimizer.step_cost())
    measured = optimizer.trace.rate()
    if measured is not None:
        found["geometry/rate_measured"] = measured
        if "geometry/rate_theory" in found:
            found["geometry/rate_gap"] = measured - found["geometry/rate_theory"]
    return found


def step_matrix(optimizer: GameOptimizer, J: Tensor) -> Tensor:
    """`maps.linear_map` [2 d, 2 d] of the optimizer in its current state, each player with its own settings."""
    sizes = [sum(p.numel() for p in g["params"]) for g in optimizer.param_groups]

    def spread(values: list[float]) -> Tensor:
        return torch.cat([torch.full((n,), v, dtype=torch.float64) for n, v in zip(sizes, values, strict=True)])

    groups = optimizer.param_groups
    lrs = [optimizer.step_size(g) for g in groups]
    gammas = [lr if g.get("extrapolation") is None else g["extrapolation"] for g, lr in zip(groups, lrs, strict=True)]
    return maps.linear_map(
        optimizer.method,
        J,
        sizes,
        lr=spread(lrs),
        extrapolation=spread(gammas),
        momentum=spread([g["momentum"] for g in groups]),
        consensus=spread([g.get("consensus", 0.0) for g in groups]),
    )
