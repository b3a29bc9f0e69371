"""PSGD with a Kronecker-factored preconditioner fitted by gradient steps on a Lie group (Li 2018, 2022).

For every axis k of a tensor there is an upper triangular Q_k [d_k, d_k], or a vector for a long axis. With m the
bias-corrected average of gradients and v standard normal noise (arXiv 1512.04202, 2211.04422):

    A = m + noise, Q_k along every axis;  B = v, Q_k^-T along every axis
    Q_k <- Q_k - precond_lr triu(A_k A_k^T - B_k B_k^T) Q_k / |A_k A_k^T + B_k B_k^T|,  A_k the unfolding [d_k, rest]
    P = m with Q_k^T Q_k along every axis, scaled down to a root mean square of 1.1 at most
    w <- w - lr (P + weight_decay w)         decay on tensors with two axes or more

so that Q_k^T Q_k approaches the inverse root of the covariance. |.| is a cheap lower bound of the spectral norm. Q
learns at each of the first `update_flat_steps` steps, then less and less often, down to a share `least_update_share` of
the steps. `precond_lr` 0 with `momentum` 0 is plain gradient descent with clipped updates.

Agrees step by step with Kron (github.com/evanatyourservice/kron_torch), the commonly used implementation, see
tests/golden/agreement, except for intentional differences: the noise that keeps A away from 0 is not used in P, while
that code writes it into m; factors are balanced at every hundredth update, not at random; a filter is [out, in * height
* width] with `merge_dims`, while there, after JAX's order of axes, it is [out * in * height, width].

Memory: m, and d_k^2 per axis. A step costs 4 p sum_k d_k multiplications for p entries; learning costs the same again
plus a triangular solve. No value is read back from the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Params
from optim_core.declarations import NOT_NEGATIVE, SHARE, Limit
from optim_core.layerwise import LayerWise
from optim_core.probes import normal
from optim_core.ranges import check_not_negative, check_positive, check_share, choice
from optim_core.registry import register
from optim_core.soap import gram_of, transformed

SAVE_MODES = ("none", "smart_one_diag", "one_diag", "all_diag")
HIGHEST = 1.1
"""Maximum root mean square of an update."""
BALANCE = 100
"""Updates of Q between balancing steps, in which the factors of a tensor are scaled to the same size."""
NOISE = math.sqrt(torch.finfo(torch.float32).eps)


@register("psgd_kron")
class PsgdKron(LayerWise):
    """All parameters; vectors have a diagonal Q unless `precondition_1d`.

    lr, weight_decay, precond_lr, update_decay >= 0; momentum, in [0, 1); precond_init_scale > 0
    least_update_share in (0, 1], update_flat_steps >= 0   Q learns at exp(-update_decay (t - flat steps)) of steps
    max_precond_dim     longest axis with a triangular factor; 0: diagonal ones only
    memory_save_mode    none; one_diag, a diagonal factor for the longest axis; smart_one_diag, for the longest where
                        it is the only one of its length; all_diag
    """

    CHANGEABLE = frozenset({"lr", "weight_decay", "momentum", "precond_lr"})
    BOUNDS: ClassVar = {
        "weight_decay": NOT_NEGATIVE, "momentum": SHARE, "precond_lr": NOT_NEGATIVE, "least_update_share": SHARE,
        "update_decay": NOT_NEGATIVE, "update_flat_steps": NOT_NEGATIVE, "max_precond_dim": NOT_NEGATIVE,
    }  # fmt: skip
    LIMITS = (
        Limit(  # if no update is clipped
            equals="sgd",
            at={"precond_lr": 0.0, "momentum": 0.0, "weight_decay": 0.0},
            other={"momentum": 0.0, "nesterov": False},
            deviation=1e-12,
            nested=False,
        ),
    )
    WHOLE: ClassVar = {"max_precond_dim": 0, "update_flat_steps": 0}

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 3e-4,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        precond_lr: float = 0.1,
        precond_init_scale: float = 1.0,
        least_update_share: float = 0.03,
        update_flat_steps: int = 500,
        update_decay: float = 0.001,
        max_precond_dim: int = 8192,
        memory_save_mode: str = "none",
        precondition_1d: bool = False,
        merge_dims: bool = True,
        momentum_into_precond_update: bool = True,
        run_seed: int = 0,
    ) -> None:
        super().__init__(params, {**self.checked(locals()), "steps": 0, "since_update": 0, "updates": 0})
        self._learns = self._balances = False

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        super().check_values(**values)
        check_not_negative(
            **{k: values[k] for k in ("lr", "weight_decay", "precond_lr", "update_decay") if k in values}
        )
        check_share(**{k: values[k] for k in ("momentum",) if k in values})
        check_positive(**{k: values[k] for k in ("precond_init_scale", "least_update_share") if k in values})
        if values.get("least_update_share", 1) > 1:
            raise ValueError(f"least_update_share is {values['least_update_share']}; it must lie in (0, 1]")
        choice("memory_save_mode", values.get("memory_save_mode", "none"), SAVE_MODES)

    def begin(self) -> None:
        """Decide whether Q learns in this step, for all tensors or none, by the schedule of the first group."""
        first = self.param_groups[0]
        exponent = first["update_decay"] * (first["update_flat_steps"] - first["steps"])
        share = max(first["least_update_share"], math.exp(min(exponent, 0.0)))
        first["steps"] += 1
        first["since_update"] += 1
        self._learns = first["since_update"] >= 1 / share - 1e-6  # 1 / 0.1 is not 10
        if self._learns:
            first["since_update"] = 0
            first["updates"] += 1
        self._balances = self._learns and first["updates"] % BALANCE == 0

    def move(self, group: dict[str, Any], state: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """M, Q and w of the module's formula."""
        shaped = gradient.reshape(_merged(gradient.shape, merge=group["merge_dims"]))
        if "step" not in state:
            state["step"], state["momentum_buffer"] = 0, torch.zeros_like(shaped)
            scale = group["precond_init_scale"] ** (1 / shaped.ndim)
            for k, diagonal in enumerate(_diagonal_axes(group, gradient.ndim, shaped.shape)):
                ones = torch.full((shaped.shape[k],), scale, dtype=shaped.dtype, device=shaped.device)
                state[f"factor_{k}"] = ones if diagonal else torch.diag(ones)
        state["step"] += 1
        state["momentum_buffer"].lerp_(shaped, 1 - group["momentum"])
        mean = state["momentum_buffer"] / (1 - group["momentum"] ** state["step"])
        factors = [state[f"factor_{k}"] for k in range(shaped.ndim)]
        if self._balances and gradient.ndim > 1:
            balance(factors)
        if self._learns:
            place = group["run_seed"], self.param_groups[0]["updates"], self.place_of(p)
            noise = normal(shaped.shape, shaped, *place)
            learn(factors, mean if group["momentum_into_precond_update"] else shaped, noise, group["precond_lr"])
        update = apply(factors, apply(factors, mean), transpose=True)
        update = update * (HIGHEST / (update.square().mean().sqrt() + 1e-12)).clamp_max(1)
        update = update.reshape(p.shape)
        if group["weight_decay"] and p.ndim > 1:
            update = update + group["weight_decay"] * p
        p.add_(update.to(p.dtype), alpha=-group["lr"])


def _merged(shape: Sequence[int], *, merge: bool) -> tuple[int, ...]:
    """The shape in which a tensor is processed: a scalar as a vector, and filters as a matrix with `merge`."""
    if len(shape) > 2 and merge:
        return shape[0], math.prod(shape[1:])
    return tuple(shape) or (1,)


def _diagonal_axes(group: dict[str, Any], order: int, shape: Sequence[int]) -> list[bool]:
    """For each axis whether its factor is diagonal; `order` is the number of axes of the parameter itself."""
    mode, longest = group["memory_save_mode"], max(range(len(shape)), key=lambda k: (shape[k], k))
    alone = len(shape) > 1 and sorted(shape)[-1] > sorted(shape)[-2]
    saved = mode == "one_diag" or (mode == "smart_one_diag" and alone)
    whole = mode == "all_diag" or (order < 2 and not group["precondition_1d"])
    return [
        whole or size == 1 or size > group["max_precond_dim"] or (saved and k == longest)
        for k, size in enumerate(shape)
    ]


def apply(factors: Sequence[Tensor], tensor: Tensor, *, transpose: bool = False) -> Tensor:
    """The tensor with Q_k, or its transpose, along every axis k; a diagonal factor is a vector. [*shape] -> [*shape]"""
    for k, factor in enumerate(factors):
        if factor.ndim == 1:
            tensor = tensor * factor.view([-1 if j == k else 1 for j in range(tensor.ndim)])
    matrices = [None if f.ndim == 1 else f.T if transpose else f for f in factors]
    return transformed(tensor, matrices)


def _whitened(factors: Sequence[Tensor], noise: Tensor) -> Tensor:
    """Q_k^-T along every axis."""
    for k, factor in enumerate(factors):
        if factor.ndim == 1:
            noise = noise / factor.view([-1 if j == k else 1 for j in range(noise.ndim)])
        else:
            rows = noise.movedim(k, -1)
            flat = rows.reshape(-1, rows.shape[-1])
            solved: Tensor = torch.linalg.solve_triangular(factor, flat, upper=True, left=False)
            noise = solved.reshape(rows.shape).movedim(-1, k)
    return noise


def learn(factors: Sequence[Tensor], target: Tensor, noise: Tensor, rate: float) -> None:
    """One in-place step of every Q_k toward the inverse root of the covariance of `target`; skipped if not finite."""
    tiny = torch.finfo(target.dtype).tiny
    seen = apply(factors, target + NOISE * target.abs().mean() * noise)
    whitened = _whitened(factors, noise)
    found = []
    for k, factor in enumerate(factors):
        if factor.ndim == 1:
            others = [j for j in range(target.ndim) if j != k]
            first, second = (x.square().sum(dim=others) if others else x.square() for x in (seen, whitened))
            norm = (first + second).amax().clamp_min(tiny)
            found.append(factor - rate * (first - second) * factor / norm)
        else:
            first, second = gram_of(seen, k), gram_of(whitened, k)
            norm = spectral_norm_below(first + second).clamp_min(tiny)
            found.append(factor - (rate / norm) * torch.triu(first - second) @ factor)
    for factor, new in zip(factors, found, strict=True):
        factor.copy_(torch.where(new.isfinite().all(), new, factor))


def spectral_norm_below(matrix: Tensor) -> Tensor:
    """A lower bound of the spectral norm of a symmetric [n, n], from one power step on its longest column."""
    largest = matrix.abs().amax()
    scaled = matrix / largest.clamp_min(torch.finfo(matrix.dtype).tiny)
    column = scaled.index_select(1, scaled.square().sum(dim=0).argmax()).flatten()
    image = scaled @ column
    length = torch.linalg.vector_norm(image)
    bound: Tensor = torch.linalg.vector_norm(scaled @ (image / torch.where(length > 0, length, 1))) * largest
    return bound


def balance(factors: Sequence[Tensor]) -> None:
    """Scale the factors, in place, to the same largest entry; their product is unchanged."""
    sizes = torch.stack([f.abs().amax() for f in factors])
    scales = sizes.log().mean().exp() / sizes
    for factor, scale in zip(factors, scales, strict=True):
        factor.mul_(scale)
