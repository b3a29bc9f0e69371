"""LLQR+SAM: a fast sharpness correction in a slow learned geometry (Dufort-Labbe et al. 2026, arXiv 2605.16134).

With g1 the gradient at w, g2 that at w + epsilon and U the geometry of `llqr`, learned once for both passes at w:

    w <- base(w, U g2)                                       all perturbations but pe_vanilla, where g2 is used plain
    pe            epsilon = sam_radius U v / |U v|                     the default; Euclidean norm
    pe_vanilla    the same                                             the step is base(w, g2)
    pm            epsilon = sam_radius U v / sqrt(v^T U v)             maximizes v^T epsilon over epsilon^T U^-1 epsilon
                                                                       <= sam_radius^2; U must be positive
    pel, pml      as pe and pm, layer by layer with sam_radius / sqrt(number of layers)
    ge            epsilon = sam_radius v / |v|                         geometry in the step only

`direction` is what v is (g1 by default): `friendly` g1 - mean_weight m with m a running mean of gradients, `momentum`
the base's buffer (g1 before there is one), `noise` Gaussian, seeded by the step counter, `opposite` -g1, and `past`
the previous step's perturbed gradient minus m, which takes one gradient a step: the loss returned is then the one at
w + epsilon. A layer is a module that owns parameters. With a diagonal U of unit mean, sam_radius of `sam` transfers to
pe; under pm the excursion grows with sqrt(U).

Cost: two gradients per step (`past`: one), one refresh per interval as in `llqr`, two actions of U; one kept copy of
the weights and one temporary of their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optim_core import llqr_settings as settings
from optim_core.base import Closure, Params
from optim_core.curvature import dot
from optim_core.declarations import FROZEN_PRECONDITIONER, NOT_NEGATIVE, SHARE, Limit
from optim_core.descent import BASES
from optim_core.fresh import NotFinite, gradients
from optim_core.geometry import LearnedGeometry
from optim_core.ranges import check_not_negative, check_share, choice
from optim_core.registry import register
from optim_core.sam import mean_gradients
from optim_core.selection import add_unless, multiply_unless
from optim_core.two_pass import Excursion, NormStatistics, TwoPass, Workers, norm_of, scale_of, with_gradient

PERTURBATIONS = ("pe", "pm", "pel", "pml", "ge", "pe_vanilla")
DIRECTIONS = ("gradient", "friendly", "momentum", "noise", "opposite", "past")
OFTEN = {"refresh_interval": 4, "first_refresh_full": False}
Tensors = list[list[Tensor]]


@register("llqr_sam")
class LLQRSAM(LearnedGeometry, TwoPass):
    """`llqr` at a second gradient; `sam_radius` >= 0, where 0 is `llqr` bit for bit and ema_rate 0 is `sam`.

    `perturbation` and `direction` as in the module's table, `norm_statistics` as for `sam`, everything else as for
    `llqr`. `mean_weight` >= 0 and `mean_decay` in [0, 1) belong to the directions friendly and past.
    """

    GRAD_EVALS: ClassVar[float] = 2.0
    SELECTS = True
    CHANGEABLE = LearnedGeometry.CHANGEABLE | {"sam_radius", "mean_weight", "mean_decay"}
    BOUNDS: ClassVar = {
        **LearnedGeometry.BOUNDS, "sam_radius": NOT_NEGATIVE, "mean_weight": NOT_NEGATIVE, "mean_decay": SHARE
    }  # fmt: skip
    LIMITS = (
        Limit(
            equals="llqr",
            at={"sam_radius": 0.0},
            where={"direction": DIRECTIONS, "perturbation": ("pe", "pm", "pel", "pml", "ge"), "base": BASES},
        ),
        Limit(
            equals="sam",
            at={"ema_rate": 0.0},
            where={"direction": ("gradient",), "perturbation": ("pe", "ge", "pe_vanilla"), "base": BASES},
            probe=OFTEN,
        ),
        Limit(
            equals="sam",
            at={"ema_rate": 0.0},
            where={"direction": ("gradient",), "perturbation": ("pm",), "base": BASES},
            probe=OFTEN,
            deviation=1e-12,
        ),
        Limit(
            equals="friendly_sam",
            at={"ema_rate": 0.0},
            where={"direction": ("friendly",), "perturbation": ("pe", "pm", "ge", "pe_vanilla"), "base": BASES},
            other={"mean_start": "zero"},
            probe=OFTEN,
            deviation=1e-11,
        ),
        Limit(
            equals="{base}",
            at={"ema_rate": 0.0, "sam_radius": 0.0},
            where={"base": BASES},
            probe=OFTEN,
            nested=False,
            control=FROZEN_PRECONDITIONER,
        ),
    )

    def __init__(
        self,
        params: Params,
        *,
        sam_radius: float = 0.05,
        perturbation: str = "pe",
        direction: str = "gradient",
        mean_weight: float = 1.0,
        mean_decay: float = 0.9,
        norm_statistics: str = "clean",
        workers: str = "independent",
        model: nn.Module,
        **of_geometry: Any,
    ) -> None:
        check_not_negative(sam_radius=sam_radius, mean_weight=mean_weight)
        check_share(mean_decay=mean_decay)
        choice("perturbation", perturbation, PERTURBATIONS)
        choice("direction", direction, DIRECTIONS)
        statistics, together = NormStatistics(model, norm_statistics), Workers(model, workers)
        own = {
            "sam_radius": sam_radius,
            "perturbation": perturbation,
            "direction": direction,
            "mean_weight": mean_weight,
            "mean_decay": mean_decay,
            "norm_statistics": norm_statistics,
            "workers": workers,
        }
        super().__init__(params, own, model=model, **of_geometry)
        self._excursion, self._statistics, self._workers = Excursion(), statistics, together

    @classmethod
    def gradients_of(cls, hyperparameters: Mapping[str, Any]) -> float:
        """Two, or one along a past gradient."""
        return 1.0 if hyperparameters.get("direction") == "past" else 2.0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As for `llqr`; `perturbation` and `direction` must be the same for all groups."""
        super().add_param_group(param_group)
        group, first = self.param_groups[-1], self.param_groups[0]
        for key in ("perturbation", "direction"):
            if group[key] != first[key]:
                raise ValueError(f"{key} is {group[key]} in one group and {first[key]} in another; it must be one")
        if group["perturbation"] in ("pm", "pml") and not settings.is_positive(group):
            raise ValueError(
                f"perturbation {group['perturbation']} measures epsilon in the metric of U, which structure "
                f"{group['structure']} does not keep positive; use positive=True with diagonal, e_kronecker or "
                "diagonal_kronecker, or a structure named psd_"
            )

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; calls the closure twice (direction `past`: once). Returns the loss at the first point it saw."""
        if self.param_groups[0]["direction"] == "past":
            return self._step_along_the_past(closure)
        return TwoPass.step(self, closure)

    def first_step(self) -> bool:
        """As `TwoPass.first_step`; raises ValueError for direction past, whose single gradient needs a closure."""
        if self.param_groups[0]["direction"] == "past":
            raise ValueError("direction past takes one gradient, at a point that it chooses; call step(closure)")
        return super().first_step()

    def must_know(self) -> bool:
        """Also along directions that depend on the step number, or on a gradient left by a step."""
        group = self.param_groups[0]
        fresh = group["direction"] == "friendly" and any(
            p.grad is not None and "mean_gradient" not in self.state.get(p, {})
            for g in self.param_groups
            for p in g["params"]
        )
        return super().must_know() or group["direction"] in ("noise", "past") or fresh

    def climb(self, params: Tensors, home: Tensors, grads: Tensors) -> bool:
        """Refresh U at w if that is due, then move by epsilon."""
        self.begin_step()
        group = self.param_groups[0]
        wanted = self._directions(params, grads)
        found = self._move(params, wanted)
        if found and group["direction"] == "friendly":
            for own, ps, gs in zip(self.param_groups, params, grads, strict=True):
                self._average(own, ps, gs)
        return found

    def descend(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """The base's step along U g2, or g2 itself."""
        plain = group["perturbation"] == "pe_vanilla"
        super().descend(group, params, grads if plain else self.precondition(group, params, grads))

    def _directions(self, params: Tensors, grads: Tensors) -> Tensors:
        """V, in new tensors unless it is the gradient."""
        kind = self.param_groups[0]["direction"]
        made: dict[str, Callable[[dict[str, Any], list[Tensor], list[Tensor]], list[Tensor]]] = {
            "gradient": lambda group, ps, gs: gs,
            "opposite": lambda group, ps, gs: list(torch._foreach_neg(gs)) if gs else [],
            "friendly": self._minus_mean,
            "past": self._minus_mean,
            "momentum": self._of_the_base,
            "noise": lambda group, ps, gs: [self._noise(i, p) for i, p in enumerate(ps)],
        }
        return [made[kind](g, ps, gs) for g, ps, gs in zip(self.param_groups, params, grads, strict=True)]

    def _minus_mean(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        means = mean_gradients(self.state, params)
        return list(torch._foreach_sub(grads, torch._foreach_mul(means, group["mean_weight"]))) if params else []

    def _average(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        means = mean_gradients(self.state, params)
        if params:
            multiply_unless(self._skipped, means, group["mean_decay"])
            add_unless(self._skipped, means, grads, 1 - group["mean_decay"])

    def _of_the_base(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        key = "momentum_buffer" if group["base"] == "sgd" else "exp_avg"
        return [self.state[p].get(key, g) for p, g in zip(params, grads, strict=True)]

    def _noise(self, index: int, p: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(self.param_groups[0]["steps"]) * 1_000_003 + index)
        return torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p.device, p.dtype)

    def _move(self, params: Tensors, wanted: Tensors) -> bool:
        """Move from w to w + epsilon. Does nothing and returns False for a direction that is not finite."""
        kind = self.param_groups[0]["perturbation"]
        turned = wanted
        if kind != "ge":
            turned = [self.precondition(g, ps, vs) for g, ps, vs in zip(self.param_groups, params, wanted, strict=True)]
        if kind in ("pel", "pml"):
            return self._move_by_layer(params, wanted, turned, matrix=kind == "pml")
        length = self._length([v for vs in wanted for v in vs], [x for xs in turned for x in xs], matrix=kind == "pm")
        if not isinstance(length, Tensor) and not math.isfinite(length):
            return False
        for group, ps, xs in zip(self.param_groups, params, turned, strict=True):
            if ps:
                add_unless(self._skipped, ps, xs, _scale(group["sam_radius"], length))
        return True

    def _move_by_layer(self, params: Tensors, wanted: Tensors, turned: Tensors, *, matrix: bool) -> bool:
        layers: dict[nn.Module, list[tuple[Tensor, Tensor, Tensor, float]]] = {}
        for group, ps, vs, xs in zip(self.param_groups, params, wanted, turned, strict=True):
            for p, v, x in zip(ps, vs, xs, strict=True):
                layers.setdefault(self.owner(p), []).append((p, v, x, group["sam_radius"]))
        lengths = [
            self._length([v for _, v, _, _ in own], [x for _, _, x, _ in own], matrix=matrix) for own in layers.values()
        ]
        if not all(isinstance(n, Tensor) or math.isfinite(n) for n in lengths):
            return False
        for own, length in zip(layers.values(), lengths, strict=True):
            for p, _, x, radius in own:
                add_unless(self._skipped, [p], [x], _scale(radius / math.sqrt(len(layers)), length))
        return True

    def _length(self, vectors: list[Tensor], turned: list[Tensor], *, matrix: bool) -> float | Tensor:
        """Length of U v: sqrt(v^T U v) with `matrix`, otherwise its Euclidean norm."""
        if not matrix:
            return self.measured(norm_of(turned))
        square = self.measured(dot(vectors, turned))
        return square.clamp_min(0.0).sqrt() if isinstance(square, Tensor) else math.sqrt(max(square, 0.0))

    @torch.no_grad()
    def _step_along_the_past(self, closure: Closure | None) -> Tensor:
        """Climb along the gradient of the previous step, then take one gradient there."""
        params = [[p for p in g["params"] if "last_gradient" in self.state.get(p, {})] for g in self.param_groups]
        last = [[self.state[p]["last_gradient"] for p in ps] for ps in params]
        self._statistics.before_first()
        self._excursion.leave([p for ps in params for p in ps])
        try:
            if any(params):
                self._move(params, self._directions(params, last))
            loss = self.evaluate(closure)
        except NotFinite:
            self._statistics.forget()
            raise
        finally:
            self._excursion.back()
        seen = [with_gradient(g) for g in self.param_groups]
        grads = [gradients(ps) for ps in seen]
        self.begin_step()
        for group, used, before, ps, gs in zip(self.param_groups, params, last, seen, grads, strict=True):
            self._average(group, used, before)
            for p, g in zip(ps, gs, strict=True):
                self.state[p]["last_gradient"] = g.clone()
            self.descend(group, ps, gs)
        return loss


def _scale(radius: float, length: float | Tensor) -> float | Tensor:
    return scale_of(radius, length) if isinstance(length, Tensor) else radius / max(length, 1e-12)
