"""The effect of a method on the error of an affine game v(w) = J (w - w*): roots for eigenvalues, a matrix for J.

With D_t = w_t - w_{t-1} every method is a linear map of (w_t - w*, w_{t-1} - w*), and on an eigenvalue lambda of J

    gda                z^2 - (1 + momentum - psi) z + momentum,  psi = lr lambda
    extragradient      the same with psi = lr lambda (1 - extrapolation lambda)
    bilinear_optimal   psi = -lr lambda^2
    hamiltonian        psi = lr |lambda|^2                        (normal J)
    consensus          psi = lr (lambda + consensus |lambda|^2)   (normal J)
    optimistic         z^2 - (1 + momentum - 2 lr lambda) z + momentum - lr lambda

`alternating_gda` is not a polynomial of J and has only a matrix. Matrices are valid for every J. d is the number of
parameters of all players, n the number of eigenvalues.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optim_core.games.rates import COSTS

POLYNOMIAL = tuple(name for name in COSTS if name != "alternating_gda")


def squashed(
    method: str,
    points: Tensor,
    *,
    lr: float | Tensor = 1.0,
    extrapolation: float | Tensor = 0.0,
    consensus: float = 0.0,
) -> Tensor:
    """Psi for eigenvalues `points` [n] (complex) of a normal J; [n] -> [n]. Not for optimistic, alternating_gda.

    Parameters may also be tensors [m, 1], which give [m, n].
    """
    if method == "gda":
        return lr * points
    if method == "extragradient":
        return lr * points * (1 - extrapolation * points)
    if method == "bilinear_optimal":
        return -lr * points**2
    if method == "hamiltonian":
        return lr * (points.abs() ** 2).to(points.dtype)
    if method == "consensus":
        return lr * (points + consensus * points.abs() ** 2)
    raise ValueError(f"{method!r} has no psi; available: gda, extragradient, bilinear_optimal, hamiltonian, consensus")


def roots(
    method: str,
    points: Tensor,
    *,
    lr: float | Tensor,
    extrapolation: float | Tensor = 0.0,
    momentum: float | Tensor = 0.0,
    consensus: float = 0.0,
) -> Tensor:
    """Both roots z for each eigenvalue, [n] complex -> [2, n]: the image of the shape under the method.

    For parameters [m, 1]: [2, m, n].
    """
    if method == "optimistic":
        return quadratic_roots(1 + momentum - 2 * lr * points, momentum - lr * points)
    psi = squashed(method, points, lr=lr, extrapolation=extrapolation, consensus=consensus)
    return quadratic_roots(1 + momentum - psi, torch.zeros_like(psi) + momentum)


def quadratic_roots(sum_of_roots: Tensor, product: Tensor) -> Tensor:
    """Roots of z^2 - sum z + product, [n], [n] -> [2, n], without cancellation in the smaller one."""
    root = torch.sqrt(sum_of_roots**2 - 4 * product)
    root = torch.where((sum_of_roots.conj() * root).real < 0, -root, root)
    large = (sum_of_roots + root) / 2
    small = torch.where(large == 0, large, product / large)
    return torch.stack([large, small])


def polynomial_rate(method: str, points: Tensor, **parameters: float) -> float:
    """Largest root modulus over the eigenvalues `points` [n]; `parameters` as in `roots`."""
    return float(roots(method, points, **parameters).abs().max())


def linear_map(
    method: str,
    J: Tensor,
    sizes: Sequence[int],
    *,
    lr: float | Tensor,
    extrapolation: float | Tensor = 0.0,
    momentum: float | Tensor = 0.0,
    consensus: float | Tensor = 0.0,
) -> Tensor:
    """M [2 d, 2 d] with (w_{t+1}, w_t) - w* = M ((w_t, w_{t-1}) - w*) for J [d, d]; players own `sizes` parameters.

    Every parameter is a number or one number per coordinate, [d]. Raises ValueError for an unknown method.
    """
    identity = torch.eye(len(J), dtype=J.dtype)

    def diagonal(value: float | Tensor) -> Tensor:
        return identity * torch.as_tensor(value, dtype=J.dtype)

    step, ahead, keep = diagonal(lr), diagonal(extrapolation), diagonal(momentum)
    now, before = identity + keep, -keep
    if method == "alternating_gda":
        now, before = _alternating(J, sizes, step, now, before)
    elif method == "optimistic":
        now, before = now - 2 * step @ J, before + step @ J
    else:
        directions = {
            "gda": lambda: J,
            "extragradient": lambda: J @ (identity - ahead @ J),
            "bilinear_optimal": lambda: -J @ J,
            "hamiltonian": lambda: J.T @ J,
            "consensus": lambda: J + diagonal(consensus) @ J.T @ J,
        }
        if method not in directions:
            raise ValueError(f"no method {method!r}; available: {', '.join(COSTS)}")
        now = now - step @ directions[method]()
    return torch.cat([torch.cat([now, before], 1), torch.cat([identity, torch.zeros_like(J)], 1)])


def _alternating(J: Tensor, sizes: Sequence[int], step: Tensor, now: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Each player sees the moves already made in this step."""
    current = torch.cat([torch.eye(len(J), dtype=J.dtype), torch.zeros_like(J)], 1)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        kept = torch.cat([now[rows], before[rows]], 1)
        current = current.clone()
        current[rows] = kept - step[rows, rows] @ J[rows] @ current
        start += size
    return current[:, : len(J)], current[:, len(J) :]


def radius(matrix: Tensor, kernel: int = 0) -> float:
    """Spectral radius of `matrix`, without the `kernel` eigenvalues nearest to 1.

    Error in the kernel of J never changes; it gives an eigenvalue 1 that says nothing about the rate.
    """
    values = torch.linalg.eigvals(matrix)
    order = torch.argsort((values - 1).abs())
    return float(values[order[kernel:]].abs().max())
