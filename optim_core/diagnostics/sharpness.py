"""Sharpness of the loss at the current weights, by three measures over the mean loss of some batches.

    largest eigenvalue   lambda_max(H), by Lanczos with full reorthogonalization; its error bound is reported with it
    trace                E v^T H v over v of independent signs (Hutchinson 1990), with its standard error
    SAM sharpness        max of L(w + e) - L(w) over |e| <= radius            (Foret et al. 2021, eq. 1)

The last is bounded from below by ascent: e_1 = radius g / |g| is SAM's own step, and e_{k+1} = radius g_k / |g_k|, with
g_k the gradient at w + e_k, continues from there. A fixed point satisfies the first-order condition of the maximum on
the sphere; for a convex loss no step lowers the loss; near the minimum of a quadratic it is power iteration and ends at
radius^2 lambda_max / 2. The largest value seen is reported next to that of the one step.

All three are properties of the loss, independent of the optimizer's basis. Products with H use double backward, about
two gradients each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optim_core.diagnostics.basis import Product, hessian_product, parameters
from optim_core.diagnostics.registry import Subject, diagnostic
from optim_core.linalg import lanczos, ritz

LANCZOS_STEPS, PROBES, ASCENT_STEPS, RADIUS = 20, 8, 5, 0.05


def largest_eigenvalue(
    product: Product,
    like: Sequence[Tensor],
    *,
    num_steps: int = LANCZOS_STEPS,
    seed: int = 0,
    metric: Product | None = None,
) -> tuple[float, float]:
    """(largest eigenvalue of H, error bound); with a symmetric positive `metric` U that of U H.

    `like` has the shapes of the vectors that `product` takes. Some eigenvalue lies within the error of the value; that
    it is the largest is certain only in the limit of many steps. Raises ArithmeticError as `linalg.lanczos` does.
    """
    value, error, _ = leading(product, like, num_steps=num_steps, seed=seed, metric=metric)
    return value, error


def leading(
    product: Product,
    like: Sequence[Tensor],
    *,
    num_steps: int = LANCZOS_STEPS,
    seed: int = 0,
    metric: Product | None = None,
) -> tuple[float, float, list[Tensor]]:
    """`largest_eigenvalue` and its eigenvector, of Euclidean norm 1, shaped like `like`."""
    flat = torch.cat([t.reshape(-1) for t in _draw(like, seed)])
    turn = None if metric is None else _flattened(metric, like)
    alphas, betas, basis = lanczos(_flattened(product, like), flat, num_steps, turn)
    values, vectors, errors = ritz(alphas, betas)
    vector = basis @ vectors[:, -1]
    if turn is not None:  # an eigenvector of H U so far; U times it is one of U H
        vector = turn(vector)
    parts = torch.split(vector / vector.norm(), [t.numel() for t in like])
    return float(values[-1]), float(errors[-1]), [x.view_as(t) for x, t in zip(parts, like, strict=True)]


def trace(product: Product, like: Sequence[Tensor], *, probes: int = PROBES, seed: int = 0) -> tuple[float, float]:
    """(trace of H, its standard error) from `probes` >= 2 products; exact for a diagonal H."""
    draws = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(probes):
        signs = [(2.0 * torch.randint(2, t.shape, generator=draws) - 1).to(t) for t in like]
        found.append(sum(float((v * h).sum()) for v, h in zip(signs, product(signs), strict=True)))
    values = torch.tensor(found, dtype=torch.float64)
    return float(values.mean()), float(values.std() / probes**0.5)


@torch.no_grad()
def ball_sharpness(
    loss: Callable[[], Tensor], params: Sequence[Tensor], *, radius: float = RADIUS, num_steps: int = ASCENT_STEPS
) -> tuple[float, float]:
    """(rise of the loss after SAM's one step, largest rise in `num_steps` >= 1 steps) at distance `radius`.

    `loss()` is evaluated at `params`, which are moved and restored bit for bit. num_steps + 1 gradients.
    """
    home = [p.detach().clone() for p in params]
    rises: list[float] = []
    try:
        start, slope = _value_and_gradient(loss, params)
        for _ in range(num_steps):
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(slope)))
            if not 0 < float(norm) < float("inf"):
                break
            for p, w, g in zip(params, home, slope, strict=True):
                p.copy_(w + (radius / norm) * g)
            value, slope = _value_and_gradient(loss, params)
            rises.append(value - start)
    finally:
        for p, w in zip(params, home, strict=True):
            p.copy_(w)
    return (rises[0], max(rises)) if rises else (0.0, 0.0)


@diagnostic("sharpness")
def sharpness(subject: Subject) -> dict[str, float]:
    """All three over the batches, about 65 gradients each: geometry/hessian_max, _trace (and their _error), and
    geometry/sharpness_one_step and geometry/sharpness_ball at radius 0.05, the same for every arm.
    """
    params = parameters(subject)

    def loss() -> Tensor:
        return torch.stack([subject.loss(subject.model(x), y) for x, y in subject.batches]).mean()

    one_step, ball = ball_sharpness(loss, params)
    product = hessian_product(subject)
    largest, error = largest_eigenvalue(product, params, seed=subject.seed)
    total, spread = trace(product, params, seed=subject.seed)
    return {
        "geometry/hessian_max": largest,
        "geometry/hessian_max_error": error,
        "geometry/hessian_trace": total,
        "geometry/hessian_trace_error": spread,
        "geometry/sharpness_one_step": one_step,
        "geometry/sharpness_ball": ball,
    }


def _value_and_gradient(loss: Callable[[], Tensor], params: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
    with torch.enable_grad():
        value = loss()
        slope = torch.autograd.grad(value, list(params), allow_unused=True, materialize_grads=True)
    return float(value.detach()), list(slope)


def _draw(like: Sequence[Tensor], seed: int) -> list[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=draws, dtype=torch.float64).to(t) for t in like]


def _flattened(product: Product, like: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """The same operator on vectors [n] of all coordinates."""
    sizes = [t.numel() for t in like]

    def flat(x: Tensor) -> Tensor:
        parts = [part.view_as(t) for part, t in zip(torch.split(x, sizes), like, strict=True)]
        return torch.cat([h.reshape(-1) for h in product(parts)])

    return flat
