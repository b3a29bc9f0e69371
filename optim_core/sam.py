"""Sharpness-aware minimisation: SAM, ASAM and Friendly-SAM over SGD or AdamW.

With g the gradient at the weights w, T = |w| + adaptivity on the weights it applies to and 1 elsewhere, and m the
running mean of past gradients, each step evaluates the gradient at w + epsilon and applies it from w:

    sam           epsilon = sam_radius g / |g|                                   (Foret et al. 2021, eq. 2)
    asam          epsilon = sam_radius T^2 g / |T g|                             (Kwon et al. 2021, eq. 9)
    friendly_sam  epsilon = sam_radius v / |v|,  v = g - mean_weight m,
                  m <- mean_decay m + (1 - mean_decay) g   after its use         (Li et al. 2024, Alg. 1)

All three agree with their authors' code, step by step, in `tests/golden/agreement/vectors`.

One norm over all tensors of all groups. Weight decay acts in the step from w, never in the ascent; nothing clips the
ascent. A gradient that is not finite, first or second, skips the step.

`p.grad` after a step is what the second call of the closure left there: the gradient at w + epsilon. The optimizer
itself never writes to it. Dropout draws a fresh mask in the second pass. With a GradScaler call `unscale_` and `update`
in the closure (`GradScaler.step` takes none).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optim_core.base import Params
from optim_core.declarations import NOT_NEGATIVE, SAM_RADIUS_0, SHARE, Limit
from optim_core.descent import BASES, BOUNDS, CHANGEABLE, base_defaults
from optim_core.ranges import check_not_negative, check_share, choice
from optim_core.registry import register
from optim_core.sharded import local, locals_of, whole_sum
from optim_core.two_pass import Excursion, NormStatistics, TwoPass, Workers, add_scaled, norm_of, place

ADAPTED = ("weights", "matrices")
MEAN_STARTS = ("gradient", "zero")


@register("sam")
class SAM(TwoPass):
    """Sharpness-aware minimisation; `sam_radius` >= 0 is the Euclidean radius, 0 is the base optimizer bit for bit.

    `norm_statistics`, clean or perturbed, says which pass updates BatchNorm's running statistics. It needs `model`
    (given by `from_model` and `optim_core.build`); built from bare parameters both passes update them.
    `workers`, independent or synchronised, says whose gradient climbs when `model` is a `DistributedDataParallel`.
    """

    CHANGEABLE = CHANGEABLE | {"sam_radius"}
    GROUPABLE = TwoPass.GROUPABLE | {"sam_radius"}
    BOUNDS: ClassVar = {**BOUNDS, "sam_radius": NOT_NEGATIVE}
    LIMITS: ClassVar[tuple[Limit, ...]] = (
        Limit(equals="{base}", at={"sam_radius": 0.0}, where={"base": BASES}, control=SAM_RADIUS_0),
    )

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
        workers: str = "independent",
        model: nn.Module | None = None,
    ) -> None:
        check_not_negative(sam_radius=sam_radius)
        statistics = NormStatistics(model, norm_statistics)
        defaults = base_defaults(
            base=base, lr=lr, momentum=momentum, weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps
        )
        together = Workers(model, workers)
        own = {"sam_radius": sam_radius, "norm_statistics": norm_statistics, "workers": workers}
        super().__init__(params, {**defaults, **own})
        self._excursion, self._statistics, self._workers = Excursion(), statistics, together

    def measured(self, norm: Tensor) -> float | Tensor:
        """Read back, unless gradients are not looked at."""
        return float(norm) if self.checks_gradients else norm

    def also(self, **settings: Any) -> None:
        """Hyperparameters that a subclass adds: defaults of every parameter group that does not give its own."""
        self.defaults.update(settings)
        for group in self.param_groups:
            for key, value in settings.items():
                group.setdefault(key, value)

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Along the plain gradient."""
        norm = self.measured(norm_of([g for gs in grads for g in gs]))
        if isinstance(norm, Tensor):
            for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
                add_scaled(ps, gs, group["sam_radius"] / norm.clamp_min(1e-12), out=ps)
            return True
        if not math.isfinite(norm):
            return False
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            if ps:
                torch._foreach_add_(locals_of(ps), locals_of(gs), alpha=group["sam_radius"] / max(norm, 1e-12))
        return True


@register("asam")
class ASAM(SAM):
    """SAM in the metric of the weights' own size; `adaptivity` >= 0 keeps zero weights moving (usual radius 0.5).

    `adapted`: `weights`, every parameter with "weight" in its name, scales of norms included, as the authors' code has
    it (needs names: a model, or named parameters); or `matrices`, those with two axes or more, which leaves out the
    scales of norms as the paper's text suggests for biases, and needs no names.
    """

    CHANGEABLE = SAM.CHANGEABLE | {"adaptivity"}
    BOUNDS: ClassVar = {**SAM.BOUNDS, "adaptivity": NOT_NEGATIVE}
    _named: dict[Tensor, str]

    def __init__(
        self,
        params: Params,
        *,
        sam_radius: float = 0.5,
        adaptivity: float = 0.01,
        adapted: str = "weights",
        model: nn.Module | None = None,
        **of_sam: Any,
    ) -> None:
        check_not_negative(adaptivity=adaptivity)
        choice("adapted", adapted, ADAPTED)
        self._named = {p: name for name, p in model.named_parameters()} if model is not None else {}
        super().__init__(params, sam_radius=sam_radius, model=model, **of_sam)
        self.also(adaptivity=adaptivity, adapted=adapted)
        for group in self.param_groups:
            self._check_names(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does. Raises ValueError for parameters without names where these are needed."""
        super().add_param_group(param_group)
        if "adapted" in self.param_groups[-1]:
            self._check_names(self.param_groups[-1])

    def _check_names(self, group: dict[str, Any]) -> None:
        self._named.update(zip(group["params"], group.get("param_names", ()), strict=False))
        if group["adapted"] == "weights" and not all(p in self._named for p in group["params"]):
            raise ValueError(
                "adapted is 'weights', which are told by name: give model.named_parameters(), or 'matrices'"
            )

    def _adapts(self, group: dict[str, Any], p: Tensor) -> bool:
        return "weight" in self._named[p] if group["adapted"] == "weights" else p.ndim > 1

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Along d = T^2 g, computed in the weights' own storage; |T g|^2 = d . g.

        One parameter at a time: the foreach operations have no `out` and would pass over memory more often.
        """
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            for p, d, g in zip(ps, locals_of(ps), locals_of(gs), strict=True):
                if self._adapts(group, p):
                    d.abs_().add_(group["adaptivity"]).square_().mul_(g)
                else:
                    d.copy_(g)
        directions, slopes = [p for ps in params for p in ps], [g for gs in grads for g in gs]
        pairs = [(local(d).flatten(), local(g).flatten()) for d, g in zip(directions, slopes, strict=True)]
        squares = whole_sum([torch.dot(d, g).to(pairs[0][0].device, torch.float64) for d, g in pairs], directions)
        return place(params, home, [g["sam_radius"] for g in self.param_groups], self.measured(squares.sqrt()))


@register("friendly_sam")
class FriendlySAM(SAM):
    """SAM along the part of the gradient that is new; `mean_weight` >= 0 and `mean_decay` in [0, 1).

    One more state tensor for each parameter, `mean_gradient`. The first step is SAM's; then m is the first gradient
    (`mean_start` gradient, as in the authors' code) or (1 - mean_decay) of it (`mean_start` zero: an average from 0 as
    Alg. 1 reads, and as the authors of LLQR+SAM have it, hence `llqr_sam`).
    """

    CHANGEABLE = SAM.CHANGEABLE | {"mean_weight", "mean_decay"}
    BOUNDS: ClassVar = {**SAM.BOUNDS, "mean_weight": NOT_NEGATIVE, "mean_decay": SHARE}
    LIMITS = (*SAM.LIMITS, Limit(equals="sam", at={"mean_weight": 0.0}, deviation=1e-12))

    def __init__(
        self,
        params: Params,
        *,
        mean_weight: float = 1.0,
        mean_decay: float = 0.9,
        mean_start: str = "gradient",
        **of_sam: Any,
    ) -> None:
        check_not_negative(mean_weight=mean_weight)
        check_share(mean_decay=mean_decay)
        choice("mean_start", mean_start, MEAN_STARTS)
        super().__init__(params, **of_sam)
        self.also(mean_weight=mean_weight, mean_decay=mean_decay, mean_start=mean_start)

    def climb(self, params: list[list[Tensor]], home: list[list[Tensor]], grads: list[list[Tensor]]) -> bool:
        """Along g - mean_weight m, computed in the weights' own storage; then m takes in g."""
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            for p, g in zip(ps, gs, strict=True):  # `out` saves a pass over memory that foreach would take
                m = self.state[p].get("mean_gradient") if p in self.state else None
                torch.sub(local(g), 0 if m is None else local(m), alpha=group["mean_weight"], out=local(p))
        norm = self.measured(norm_of([p for ps in params for p in ps]))
        if not place(params, home, [g["sam_radius"] for g in self.param_groups], norm):
            return False
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            for p, g in zip(ps, gs, strict=True):
                if group["mean_start"] == "gradient" and "mean_gradient" not in self.state[p]:
                    self.state[p]["mean_gradient"] = g.clone()
            if gs:
                means = mean_gradients(self.state, ps)
                torch._foreach_lerp_(locals_of(means), locals_of(gs), 1 - group["mean_decay"])
        return True


def mean_gradients(state: Mapping[Tensor, dict[str, Any]], params: list[Tensor]) -> list[Tensor]:
    """The `mean_gradient` of each parameter, which begins at 0."""
    for p in params:
        if "mean_gradient" not in state[p]:
            state[p]["mean_gradient"] = torch.zeros_like(p)
    return [state[p]["mean_gradient"] for p in params]
