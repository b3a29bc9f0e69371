"""Sharpness-aware minimisation: SAM, ASAM and Friendly-SAM over SGD or AdamW.

With g the gradient at the weights w, T = |w| + adaptivity on matrices and 1 on biases and norms, and m the running
mean of past gradients, each step evaluates the gradient at w + epsilon and applies it from w:

    sam           epsilon = sam_radius g / |g|                                   (Foret et al. 2021, eq. 2)
    asam          epsilon = sam_radius T^2 g / |T g|                             (Kwon et al. 2021, eq. 9)
    friendly_sam  epsilon = sam_radius v / |v|,  v = g - mean_weight m,
                  m <- mean_decay m + (1 - mean_decay) g   after its use         (Li et al. 2024, Alg. 1)

One norm over all tensors of all groups. Weight decay acts in the step from w, never in the ascent; nothing clips the
ascent. Beyond the base optimizer it costs one gradient and one kept copy of the weights, which is not part of the
state. Weights come back from that copy bit for bit, also when the second pass raises.

`p.grad` after a step is what the second call of the closure left there: the gradient at w + epsilon. The optimizer
itself never writes to it. Dropout draws a fresh mask in the second pass. Float16 with a GradScaler is not supported
(`GradScaler.step` takes no closure); bfloat16 autocast is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from optim_core.base import Closure, Counting, Params, check_not_negative, check_share
from optim_core.descent import base_defaults, descend
from optim_core.registry import register

SKIPPED = "skipped_steps"


def global_norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm over all tensors together, accumulated in float32 at least."""
    norms = torch._foreach_norm(list(tensors))
    wide = torch.promote_types(norms[0].dtype, torch.float32)
    # The one read-back of a step: whether it may be taken at all depends on the value.
    return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device, wide) for n in norms])))


class Excursion:
    """Leaves a point of weight space and comes back bit for bit, with one copy of the weights that is kept."""

    def __init__(self) -> None:
        self._buffers: dict[Tensor, Tensor] = {}
        self.params: list[Tensor] = []
        self.home: list[Tensor] = []

    def leave(self, params: list[Tensor]) -> None:
        """Remember the weights `params` as they stand; `home` holds the copies in the same order."""
        for p in params:
            if p not in self._buffers or self._buffers[p].dtype != p.dtype or self._buffers[p].device != p.device:
                self._buffers[p] = torch.empty_like(p)
        self.params, self.home = params, [self._buffers[p] for p in params]
        torch._foreach_copy_(self.home, self.params)

    def back(self) -> None:
        """Put the remembered weights back, in place."""
        if self.params:
            torch._foreach_copy_(self.params, self.home)


class NormStatistics:
    """Which of two passes may update the running statistics of normalisation layers.

    `clean`: the first, at w (the usual choice). `perturbed`: the second, at w + epsilon, starting from the statistics
    before the step (as the authors of LLQR+SAM do).
    """

    def __init__(self, model: nn.Module | None, keep: str) -> None:
        if keep not in ("clean", "perturbed"):
            raise ValueError(f"norm_statistics is {keep!r}; it has to be clean or perturbed")
        norms = [m for m in model.modules() if isinstance(m, _NormBase)] if model is not None else []
        self._keep, self._norms = keep, norms
        self._saved: list[Tensor] = []

    def _buffers(self) -> list[Tensor]:
        return [b for m in self._norms for b in m.buffers(recurse=False)]

    def before_first(self) -> None:
        """Call before the pass at w."""
        if self._keep == "perturbed":
            self._saved = [b.clone() for b in self._buffers()]

    def between(self) -> None:
        """Call between the two passes."""
        if self._keep == "perturbed":
            self._restore()
        else:
            self._saved = [b.clone() for b in self._buffers()]

    def after_second(self) -> None:
        """Call after the pass at w + epsilon, also when it raised."""
        if self._keep == "clean":
            self._restore()

    def _restore(self) -> None:
        for buffer, saved in zip(self._buffers(), self._saved, strict=True):
            buffer.copy_(saved)


def with_gradient(group: dict[str, Any]) -> list[Tensor]:
    """The parameters of a group that received a gradient. Raises RuntimeError for sparse or complex ones."""
    found = [p for p in group["params"] if p.grad is not None]
    for p in found:
        if p.grad.is_sparse or p.is_complex():
            raise RuntimeError(f"a parameter of shape {tuple(p.shape)} has a sparse or complex gradient; not supported")
    return found


class TwoPass(Counting):
    """The step of the SAM family; a subclass says in `climb` where the second gradient is taken."""

    GRAD_EVALS: ClassVar[float] = 2.0
    _excursion: Excursion
    _statistics: NormStatistics

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over the parameters of `model`, whose normalisation layers keep the statistics of one pass only."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        params = [p for p in model.parameters() if p.requires_grad]
        return cls(params, **{"model": model, **hyperparameters})

    @property
    def skipped_steps(self) -> int:
        """Steps that were not taken because the first gradient was not finite."""
        return int(self.param_groups[0].get(SKIPPED, 0))

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Move `params` in place from the copies `home` to the point of the second gradient.

        Each argument has one list for each parameter group. Returns False when the direction is not finite.
        """
        raise RuntimeError(f"{type(self).__name__} has no climb()")

    def descend(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Step of the base optimizer from the unperturbed weights along the second gradient."""
        descend(group, params, grads, self.state)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; calls the closure twice and returns the loss at the unperturbed weights.

        A first gradient that is not finite skips the step (one call, counted in `skipped_steps`).
        """
        self._statistics.before_first()
        loss = self.evaluate(closure, ascent=True)
        params = [with_gradient(g) for g in self.param_groups]
        self._excursion.leave([p for ps in params for p in ps])
        try:
            homes = iter(self._excursion.home)
            home = [[next(homes) for _ in ps] for ps in params]
            if not self.climb(params, home, [[_grad(p) for p in ps] for ps in params]):
                self.param_groups[0][SKIPPED] = self.skipped_steps + 1
                return loss
            self._statistics.between()
            try:
                self.evaluate(closure)
            finally:
                self._statistics.after_second()
        finally:
            self._excursion.back()
        for group in self.param_groups:
            moved = with_gradient(group)
            self.descend(group, moved, [_grad(p) for p in moved])
        return loss


def _grad(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def place(params: list[list[Tensor]], home: list[list[Tensor]], radii: Sequence[float], norm: float) -> bool:
    """Turn directions d held in `params` into w + radius d / norm. False, and nothing done, for a norm not finite."""
    if not math.isfinite(norm):
        return False
    for ps, ws, radius in zip(params, home, radii, strict=True):
        if ps:
            torch._foreach_mul_(ps, radius / max(norm, 1e-12))
            torch._foreach_add_(ps, ws)
    return True


@register("sam")
class SAM(TwoPass):
    """Sharpness-aware minimisation; `sam_radius` >= 0 is the Euclidean radius, 0 is the base optimizer bit for bit.

    `norm_statistics`, clean or perturbed, says which pass updates BatchNorm's running statistics. It needs `model`
    (given by `from_model` and `optim_core.build`); built from bare parameters both passes update them.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.1,
        sam_radius: float = 0.05,
        base: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        norm_statistics: str = "clean",
        model: nn.Module | None = None,
    ) -> None:
        check_not_negative(sam_radius=sam_radius)
        statistics = NormStatistics(model, norm_statistics)
        defaults = base_defaults(
            base=base, lr=lr, momentum=momentum, weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps
        )
        super().__init__(params, {**defaults, "sam_radius": sam_radius, "norm_statistics": norm_statistics})
        self._excursion, self._statistics = Excursion(), statistics

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Along the plain gradient."""
        norm = global_norm([g for gs in grads for g in gs])
        if not math.isfinite(norm):
            return False
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            if ps:
                torch._foreach_add_(ps, gs, alpha=group["sam_radius"] / max(norm, 1e-12))
        return True


@register("asam")
class ASAM(SAM):
    """SAM in the metric of the weights' own size; `adaptivity` >= 0 keeps zero weights moving (usual radius 0.5)."""

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.1,
        sam_radius: float = 0.5,
        adaptivity: float = 0.01,
        base: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        norm_statistics: str = "clean",
        model: nn.Module | None = None,
    ) -> None:
        check_not_negative(adaptivity=adaptivity)
        super().__init__(
            params, lr=lr, sam_radius=sam_radius, base=base, momentum=momentum, weight_decay=weight_decay,
            beta1=beta1, beta2=beta2, eps=eps, norm_statistics=norm_statistics, model=model,
        )  # fmt: skip
        self.defaults["adaptivity"] = adaptivity
        for group in self.param_groups:
            group.setdefault("adaptivity", adaptivity)

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Along T^2 g, computed in the weights' own storage, so that no further copy is needed."""
        self._scale(params, home, grads, power=1)
        norm = global_norm([p for ps in params for p in ps])
        self._scale(params, home, grads, power=2)
        return place(params, home, [g["sam_radius"] for g in self.param_groups], norm)

    def _scale(
        self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]], power: int
    ) -> None:
        for group, ps, ws, gs in zip(self.param_groups, params, home, grads, strict=True):
            if not ps:
                continue
            torch._foreach_copy_(ps, gs)
            matrices = [(p, w) for p, w in zip(ps, ws, strict=True) if p.ndim > 1]
            for p, w in matrices:  # one parameter at a time: a temporary of its size only
                for _ in range(power):
                    p.mul_(w.abs().add_(group["adaptivity"]))


@register("friendly_sam")
class FriendlySAM(SAM):
    """SAM along the part of the gradient that is new; `mean_weight` >= 0 and `mean_decay` in [0, 1).

    One more state tensor for each parameter, `mean_gradient`, beginning at 0: the first step is SAM's.
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 0.1,
        sam_radius: float = 0.05,
        mean_weight: float = 1.0,
        mean_decay: float = 0.9,
        base: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        norm_statistics: str = "clean",
        model: nn.Module | None = None,
    ) -> None:
        check_not_negative(mean_weight=mean_weight)
        check_share(mean_decay=mean_decay)
        super().__init__(
            params, lr=lr, sam_radius=sam_radius, base=base, momentum=momentum, weight_decay=weight_decay,
            beta1=beta1, beta2=beta2, eps=eps, norm_statistics=norm_statistics, model=model,
        )  # fmt: skip
        self.defaults.update(mean_weight=mean_weight, mean_decay=mean_decay)
        for group in self.param_groups:
            group.setdefault("mean_weight", mean_weight)
            group.setdefault("mean_decay", mean_decay)

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Along g - mean_weight m, computed in the weights' own storage; then m takes in g."""
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            if ps:
                torch._foreach_copy_(ps, gs)
                means = [self.state[p].get("mean_gradient", torch.zeros_like(p)) for p in ps]
                torch._foreach_add_(ps, means, alpha=-group["mean_weight"])
        norm = global_norm([p for ps in params for p in ps])
        if not place(params, home, [g["sam_radius"] for g in self.param_groups], norm):
            return False
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            update_means(self.state, ps, gs, group["mean_decay"])
        return True


def update_means(state: Any, params: list[Tensor], grads: list[Tensor], decay: float) -> None:
    """M <- decay m + (1 - decay) g for the `mean_gradient` of each parameter, which begins at 0."""
    for p in params:
        if "mean_gradient" not in state[p]:
            state[p]["mean_gradient"] = torch.zeros_like(p)
    if params:
        means = [state[p]["mean_gradient"] for p in params]
        torch._foreach_mul_(means, decay)
        torch._foreach_add_(means, grads, alpha=1 - decay)
