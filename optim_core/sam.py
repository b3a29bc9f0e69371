"""Sharpness-aware minimization: SAM, ASAM and Friendly-SAM over SGD or AdamW.

With g the gradient at the weights w, T = |w| + adaptivity on the weights that it applies to and 1 elsewhere, and m the
running mean of past gradients, each step evaluates the gradient at w + epsilon and applies it from w:

    sam           epsilon = sam_radius g / |g|                                   (Foret et al. 2021, eq. 2)
    asam          epsilon = sam_radius T^2 g / |T g|                             (Kwon et al. 2021, eq. 9)
    friendly_sam  epsilon = sam_radius v / |v|,  v = g - mean_weight m,
                  m <- mean_decay m + (1 - mean_decay) g   after its use         (Li et al. 2024, Alg. 1)

All three agree with their authors' code, step by step, in `tests/golden/agreement/vectors`.

One norm over all tensors of all groups. Weight decay acts in the step from w, never in the ascent; the ascent gradient
is not clipped. If the first or second gradient is not finite, the step is skipped.

After a step, `p.grad` is what the second call of the closure left there: the gradient at w + epsilon. The optimizer
itself never writes to it. Dropout draws a new mask in the second pass. With a GradScaler call `unscale_` and `update`
in the closure (`GradScaler.step` takes none).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optim_core.base import Params
from optim_core.declarations import NOT_NEGATIVE, SAM_RADIUS_0, SHARE, Limit
from optim_core.descent import BASES, BOUNDS, CHANGEABLE, base_defaults
from optim_core.packed import Packing
from optim_core.packed_rules import base_rule
from optim_core.ranges import check_not_negative, check_share, choice
from optim_core.registry import register
from optim_core.selection import add_unless, at_hand
from optim_core.sharded import locals_of, whole_sum
from optim_core.two_pass import Excursion, NormStatistics, TwoPass, Workers, norm_of, place, scale_of

Tensors = list[list[Tensor]]
"""One list per parameter group."""
Parts = list[Tensor]
Shape = Callable[[dict[str, Any], Parts, Parts, Parts], None]
"""Writes directions: (group, parameters, directions, gradients), the last two local."""
Norm = Callable[[Tensors, Tensors, Tensors, bool], Tensor]
"""Of (directions, gradients, parameters, whether directions stand apart from the parameters)."""
ADAPTED = ("weights", "matrices")
MEAN_STARTS = ("gradient", "zero")


@register("sam")
class SAM(TwoPass):
    """Sharpness-aware minimization; `sam_radius` >= 0 is the Euclidean radius, 0 is the base optimizer bit for bit.

    `norm_statistics`, clean or perturbed, says which pass updates BatchNorm's running statistics. It needs `model`
    (given by `from_model` and `optim_core.build`); when built from bare parameters both passes update them. `workers`,
    independent or synchronised, says whose gradient climbs when `model` is a `DistributedDataParallel`.
    """

    SELECTS = True
    CHANGEABLE = CHANGEABLE | {"sam_radius"}
    GROUPABLE = TwoPass.GROUPABLE | {"sam_radius"}
    BOUNDS: ClassVar = {**BOUNDS, "sam_radius": NOT_NEGATIVE}
    LIMITS: ClassVar[tuple[Limit, ...]] = (
        Limit(equals="{base}", at={"sam_radius": 0.0}, where={"base": BASES}, control=SAM_RADIUS_0),
    )
    PACKING: ClassVar[Packing | None] = Packing(rule=base_rule, apart=CHANGEABLE | {"sam_radius"}, climbs=True)

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

    def climb(self, params: Tensors, home: Tensors, grads: Tensors) -> bool:
        """Along the plain gradient."""
        norm = self.measured(norm_of([g for gs in grads for g in gs]))
        return self._go(params, grads, norm)

    def _go(self, params: Tensors, directions: Tensors, norm: float | Tensor) -> bool:
        """Move from w, which the parameters hold, to w + sam_radius d / norm. Does nothing and returns False if the
        norm is not finite.

        A norm on the device is not checked.
        """
        if not isinstance(norm, Tensor) and not math.isfinite(norm):
            return False
        for group, ps, ds in zip(self.param_groups, params, directions, strict=True):
            if not ps:
                continue
            radius = group["sam_radius"]
            length = scale_of(radius, norm) if isinstance(norm, Tensor) else radius / max(norm, 1e-12)
            add_unless(self._skipped, locals_of(ps), locals_of(ds), length)
        return True

    def climb_along(self, params: Tensors, home: Tensors, grads: Tensors, shape: Shape, norm: Norm) -> bool:
        """Climb along the directions that `shape` computes from the weights and gradients of a group.

        On a CPU they are computed in the weights' own storage, one tensor after another, which saves a copy and stays
        in cache; elsewhere, where kernel launches matter, for all tensors at once and apart from the weights.
        """
        apart = self.on_device() or not all(at_hand(p) for ps in params for p in ps)
        made = [[torch.empty_like(p) for p in locals_of(ps)] if apart else locals_of(ps) for ps in params]
        for group, ps, ds, gs in zip(self.param_groups, params, made, grads, strict=True):
            parts = [slice(None)] if apart else [slice(i, i + 1) for i in range(len(ps))]
            for part in parts if ps else ():
                shape(group, ps[part], ds[part], locals_of(gs[part]))
        length = self.measured(norm(made, grads, params, apart))
        if apart:
            return self._go(params, made, length)
        return place(params, home, [g["sam_radius"] for g in self.param_groups], length)


@register("asam")
class ASAM(SAM):
    """SAM in the metric of the weights' own size; `adaptivity` >= 0 keeps zero weights moving (typical radius 0.5).

    `adapted`: `weights`, every parameter with "weight" in its name, including scales of norms, as in the authors' code
    (needs names: a model, or named parameters); or `matrices`, those with two or more axes, which excludes the scales
    of norms as the paper's text suggests for biases, and needs no names.
    """

    SELECTS = True
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
        """As torch does. Raises ValueError for parameters without names if these are needed."""
        super().add_param_group(param_group)
        if "adapted" in self.param_groups[-1]:
            self._check_names(self.param_groups[-1])

    def _check_names(self, group: dict[str, Any]) -> None:
        self._named.update(zip(group["params"], group.get("param_names", ()), strict=False))
        if group["adapted"] == "weights" and not all(p in self._named for p in group["params"]):
            raise ValueError(
                "adapted is 'weights', which are identified by name: pass model.named_parameters(), or use 'matrices'"
            )

    def _adapts(self, group: dict[str, Any], p: Tensor) -> bool:
        return "weight" in self._named[p] if group["adapted"] == "weights" else p.ndim > 1

    def climb(self, params: Tensors, home: Tensors, grads: Tensors) -> bool:
        """Along d = T^2 g; |T g|^2 = d . g."""
        return self.climb_along(params, home, grads, self._metric, norm_from_slopes)

    def _metric(self, group: dict[str, Any], params: Parts, made: Parts, grads: Parts) -> None:
        adapts = [self._adapts(group, p) for p in params]
        plain, adapted = ([i for i, yes in enumerate(adapts) if yes is kind] for kind in (False, True))
        if plain:
            torch._foreach_copy_([made[i] for i in plain], [grads[i] for i in plain])
        if adapted:
            ds, gs = [made[i] for i in adapted], [grads[i] for i in adapted]
            torch._foreach_copy_(ds, locals_of([params[i] for i in adapted]))
            torch._foreach_abs_(ds)
            torch._foreach_add_(ds, group["adaptivity"])
            torch._foreach_mul_(ds, ds)
            torch._foreach_mul_(ds, gs)


@register("friendly_sam")
class FriendlySAM(SAM):
    """SAM along the new part of the gradient; `mean_weight` >= 0 and `mean_decay` in [0, 1).

    One more state tensor per parameter, `mean_gradient`. The first step is SAM's; then m is the first gradient
    (`mean_start` gradient, as in the authors' code) or (1 - mean_decay) times it (`mean_start` zero: an average from 0
    as in Alg. 1 and in the code of LLQR+SAM's authors, hence `llqr_sam`).
    """

    SELECTS = True
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

    def must_know(self) -> bool:
        """Also at the first gradient of a parameter, which may become its mean."""
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        return super().must_know() or any("mean_gradient" not in self.state.get(p, {}) for p in params)

    def climb(self, params: Tensors, home: Tensors, grads: Tensors) -> bool:
        """Along g - mean_weight m; then m is updated with g."""
        if not self.climb_along(params, home, grads, self._news, norm_of_all):
            return False
        for group, ps, gs in zip(self.param_groups, params, grads, strict=True):
            for p, g in zip(ps, gs, strict=True):
                if group["mean_start"] == "gradient" and "mean_gradient" not in self.state[p]:
                    self.state[p]["mean_gradient"] = g.clone()
            if not gs:
                continue
            means = locals_of(mean_gradients(self.state, ps))
            if self._skipped is None:
                torch._foreach_lerp_(means, locals_of(gs), 1 - group["mean_decay"])
            else:
                add_unless(self._skipped, means, torch._foreach_sub(gs, means), 1 - group["mean_decay"])
        return True

    def _news(self, group: dict[str, Any], params: Parts, made: Parts, grads: Parts) -> None:
        torch._foreach_copy_(made, grads)
        known = [i for i, p in enumerate(params) if p in self.state and "mean_gradient" in self.state[p]]
        if known:
            means = locals_of([self.state[params[i]]["mean_gradient"] for i in known])
            torch._foreach_sub_([made[i] for i in known], means, alpha=group["mean_weight"])


def norm_of_all(made: Tensors, grads: Tensors, params: Tensors, apart: bool) -> Tensor:
    """Euclidean norm of the directions."""
    if not apart:
        return norm_of([p for ps in params for p in ps])  # the parameters hold them, including shards
    return norm_of([d for ds in made for d in ds])


def norm_from_slopes(made: Tensors, grads: Tensors, params: Tensors, apart: bool) -> Tensor:
    """sqrt(d . g) over all tensors, for directions with d . g >= 0 everywhere."""
    flat, slopes = [d for ds in made for d in ds], locals_of([g for gs in grads for g in gs])
    if apart:
        squares = list(torch._foreach_norm(torch._foreach_mul(flat, slopes), 1))
    else:
        squares = [torch.dot(d.flatten(), g.flatten()) for d, g in zip(flat, slopes, strict=True)]
    wide = [s.to(squares[0].device, torch.float64) for s in squares]
    return whole_sum(wide, [p for ps in params for p in ps]).sqrt()


def mean_gradients(state: Mapping[Tensor, dict[str, Any]], params: list[Tensor]) -> list[Tensor]:
    """The `mean_gradient` of each parameter, which starts at 0."""
    for p in params:
        if "mean_gradient" not in state[p]:
            state[p]["mean_gradient"] = torch.zeros_like(p)
    return [state[p]["mean_gradient"] for p in params]
