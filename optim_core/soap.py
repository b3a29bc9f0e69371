"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, arXiv 2409.11321, Alg. 3).

For every axis k of a gradient G, with G_k its unfolding [d_k, rest]:

    L_k <- shampoo_beta L_k + (1 - shampoo_beta) G_k G_k^T
    H = G rotated by Q_k^T along every axis;  m, v: Adam's averages of H and H * H
    w <- w - lr (m / (sqrt(v) + eps), rotated back by Q_k along every axis)

with both bias corrections in lr, then w <- (1 - lr weight_decay) w. L_k and Q_k learn after the step; Q_k are the
eigenvectors of L_k at first and qr(L_k Q_k), columns sorted by Rayleigh quotient, every `precondition_frequency` steps,
when m moves into the new basis and v follows the order of its columns. The first gradient of a parameter is only used
for its basis: nothing moves, not even by weight decay.

Agrees with the authors' code (github.com/nikhilvyas/SOAP) step by step, see tests/golden/agreement, with its defaults
`merge_dims=False`, `normalize_grads=False`, `correct_bias=True`; decompositions are in float32 at least.

If L_k is singular, as for an axis longer than all others together, rounding determines the basis of its null space, and
v depends on it. Runs that differ by rounding, such as one process and two workers, then drift apart (weights by 5e-3
after 24 steps of a 5-6-4 network); with such axes excluded by `max_precond_dim` they do not.

Memory, besides Adam's: 2 d_k^2 per rotated axis. A step costs 4 p sum_k d_k multiplications for p entries, the average
half as much, a refresh about 3 d_k^3 per axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.baselines import Betas, check_adam
from optim_core.declarations import COUNT, NOT_NEGATIVE, SHARE, Limit
from optim_core.layerwise import LayerWise
from optim_core.ranges import check_share
from optim_core.registry import register
from optim_core.rotations.decompose import eigenvectors, power_step, robust
from optim_core.turned import FAILURES

Bases = Sequence[Tensor | None]
BLOCK = 160
"""Rows of a Gram matrix that are multiplied at once: large enough for the full rate of a matrix product."""


@register("soap")
class Soap(Betas, LayerWise):
    """All parameters with two or more axes; vectors use Adam, unless `precondition_1d`.

    lr, weight_decay >= 0; beta1, beta2, shampoo_beta in [0, 1), shampoo_beta -1: beta2; eps > 0
    precondition_frequency   steps between refreshes of the bases, 1 or above
    max_precond_dim          longest axis that is rotated, 1 or above
    """

    CHANGEABLE = frozenset({"lr", "weight_decay", "beta1", "beta2", "eps", "precondition_frequency"})
    BOUNDS: ClassVar = {
        "weight_decay": NOT_NEGATIVE, "beta1": SHARE, "beta2": SHARE, "shampoo_beta": (-1.0, 1.0),
        "precondition_frequency": COUNT, "max_precond_dim": COUNT,
    }  # fmt: skip
    WHOLE: ClassVar = {"precondition_frequency": 1, "max_precond_dim": 1}
    LIMITS = (
        Limit(  # an equivalent form, without decay and with an eps negligible against sqrt(v)
            equals="rotated_adamw",
            at={"weight_decay": 0.0, "eps": 1e-10, "shampoo_beta": 0.8, "precondition_frequency": 2},
            other={"rotation": "soap_eig", "rotation_ema": 0.8, "rotation_refresh": 2},
            deviation=1e-5,
            nested=False,
        ),
    )

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 3e-3,
        beta1: float = 0.95,
        beta2: float = 0.95,
        shampoo_beta: float = -1.0,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        max_precond_dim: int = 10000,
        precondition_1d: bool = False,
    ) -> None:
        super().__init__(params, self.checked(locals(), paired=True))

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        check_adam(**values)
        check_decay(**values)

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """H, m, v and w of the module's formula, then L and Q."""
        axes = rotated_axes(gradient, group["max_precond_dim"], vectors=group["precondition_1d"])
        if "step" in state:
            bases = [state.get(f"basis_{k}") for k in range(gradient.ndim)]
            state["step"] += 1
            rotated = transformed(gradient, [None if basis is None else basis.T for basis in bases])
            direction, length = _adam(group, state, rotated)
            p.sub_(transformed(direction, bases).to(p.dtype), alpha=length)
            p.mul_(1 - group["lr"] * group["weight_decay"])
        self._learn(group, state, gradient, axes)
        if "step" not in state and all(f"basis_{k}" in state for k in axes):
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)

    def _learn(self, group: dict[str, Any], state: dict[str, Any], gradient: Tensor, axes: Sequence[int]) -> None:
        """Average the Gram matrices; compute the first bases, or refresh them when due."""
        average_grams(state, gradient, axes, decay_of(group))
        if axes and ("step" not in state or (state["step"] and state["step"] % group["precondition_frequency"] == 0)):
            for k in axes:
                group[FAILURES] = group.get(FAILURES, 0) + (0 if _refresh(state, k) else 1)


def check_decay(**values: Any) -> None:
    """Raise ValueError for a `shampoo_beta` that is neither -1 nor in [0, 1)."""
    if values.get("shampoo_beta", -1) != -1:
        check_share(shampoo_beta=values["shampoo_beta"])


def decay_of(group: dict[str, Any]) -> float:
    """Of the factors: `shampoo_beta`, or beta2."""
    return float(group["shampoo_beta"] if group["shampoo_beta"] >= 0 else group["betas"][1])


def rotated_axes(tensor: Tensor, longest: int, *, vectors: bool) -> list[int]:
    """Axes that get a basis: none for an empty tensor or a scalar, and for a vector only with `vectors`."""
    if tensor.numel() == 0 or (tensor.ndim == 1 and not vectors):
        return []
    return [k for k, size in enumerate(tensor.shape) if size <= longest]


def gram_of(tensor: Tensor, axis: int) -> Tensor:
    """G_k G_k^T [d_k, d_k] of the unfolding along an axis."""
    unfolded = tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
    return unfolded @ unfolded.T


def average_grams(state: dict[str, Any], gradient: Tensor, axes: Sequence[int], decay: float) -> None:
    """Update L_k of the axes in `state`, with weight 1 - decay, or add if decay is 1."""
    for k in axes:
        unfolded = gradient.movedim(k, 0).reshape(gradient.shape[k], -1)
        if f"gram_{k}" not in state:
            state[f"gram_{k}"] = unfolded.new_zeros(len(unfolded), len(unfolded))
        _average_gram(state[f"gram_{k}"], unfolded, decay)


def _average_gram(average: Tensor, x: Tensor, decay: float) -> None:
    """Average x x^T into a symmetric matrix [d, d] in place.

    On a CPU only the blocks on and below the diagonal, which saves up to half of the product, until `whole_gram` reads
    it; elsewhere the launches of many small kernels would cost more than they save.
    """
    for rows, until in _block_rows(average):
        block, product = average[rows, :until], x[rows] @ x[:until].T
        if decay == 1:
            block.add_(product)
        else:
            block.lerp_(product, 1 - decay)


def whole_gram(average: Tensor) -> Tensor:
    """The average with the blocks above its diagonal filled in from those below, in place."""
    for rows, _ in _block_rows(average):
        average[: rows.start, rows] = average[rows, : rows.start].T
    return average


def _block_rows(square: Tensor) -> Iterator[tuple[slice, int]]:
    """(rows, end of the columns up to the diagonal's block) of each row of blocks."""
    size = BLOCK if square.device.type == "cpu" else max(len(square), 1)
    for start in range(0, len(square), size):
        end = min(start + size, len(square))
        yield slice(start, end), end


def transformed(tensor: Tensor, matrices: Bases) -> Tensor:
    """The tensor with a matrix [d_k, d_k] applied along every axis k that has one."""
    for k, matrix in enumerate(matrices):
        if matrix is not None:
            tensor = _along(tensor, matrix, k)
    return tensor


def _along(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    if tensor.ndim == 2:  # a contiguous result: what follows is elementwise
        return matrix.to(tensor) @ tensor if axis == 0 else tensor @ matrix.to(tensor).T
    found: Tensor = torch.tensordot(matrix.to(tensor), tensor, dims=([1], [axis]))
    return found.movedim(0, axis)


def _adam(group: dict[str, Any], state: dict[str, Any], h: Tensor) -> tuple[Tensor, float]:
    """Update the moments by h; (m / (sqrt(v) + eps), lr with both bias corrections)."""
    beta1, beta2 = group["betas"]
    state["exp_avg"].lerp_(h, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(h, h, value=1 - beta2)
    length = group["lr"] * (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
    return state["exp_avg"] / state["exp_avg_sq"].sqrt().add_(group["eps"]), length


def _refresh(state: dict[str, Any], axis: int) -> bool:
    """Recompute the basis of an axis and move m and v into it; False if that failed and the old one is kept."""
    gram, old = state.get(f"gram_{axis}"), state.get(f"basis_{axis}")
    if gram is None:
        return False
    found = robust(eigenvectors if old is None else lambda g: power_step(g, old), whole_gram(gram))
    if found is None:
        return False
    if old is not None:
        state["exp_avg"] = _along(state["exp_avg"], found[0].T @ old, axis)
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, found[1].long())
    state[f"basis_{axis}"] = found[0]
    return True
