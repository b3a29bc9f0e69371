"""An optimizer that follows a schedule of coefficients, in displacement form: one state tensor per parameter.

    d <- m_t d - h_t g,   w <- w + d                                        (Polyak 1964; coefficients in `schedules`)

The coefficients depend on the iteration number and on a few properties of the spectrum, above all L (`smoothness`).
These can be given as:

    a number     taken as it is
    `auto`       what the model says in an attribute `spectrum`, a mapping with any of smoothness, strong_convexity,
                 left_exponent, right_exponent, eigenvalue_scale; what it does not say is estimated
    `estimate`   estimated, whatever the model says

An estimate is made in the first step, before anything has moved: `lanczos_steps` Hessian products, each the difference
of two gradients of that step's closure (`products`) and each charged as one gradient evaluation. The gradient of that
step is not clipped. Estimates are stored in the parameter groups: a resumed run does not estimate again. A product
perturbs the weights and restores them bit for bit; layers with running statistics see those passes too.

Underestimating L is fatal for momentum that tends to 1. The optimizer therefore monitors the loss and warns, once, if
it is not finite or has risen above its first value by more than it had fallen and at least doubled; a loss that is not
finite moves nothing. For non-quadratic losses: `restart` restarts the schedule, `refresh_interval` re-estimates L.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from optim_core import spectrum
from optim_core.average_case import theory
from optim_core.average_case.products import Differences, epsilon, wide
from optim_core.average_case.schedules import Coefficients, Schedule, follow, limit
from optim_core.average_case.together import JudgesWithLoss
from optim_core.base import Closure, Params
from optim_core.declarations import INF, NOT_NEGATIVE, SHARE
from optim_core.fresh import gradients
from optim_core.ranges import check_not_negative
from optim_core.replay import Draws
from optim_core.sharded import locals_of, refuse
from optim_core.two_pass import Excursion, global_norm

WORDS = ("auto", "estimate")
RESTARTS = ("none", "function", "gradient")
REFRESH_STEPS, GROWTH = 10, 1.02
"""Products per refresh; a refresh takes effect if L grew by more than 2%."""
RISES, UPHILL = 3, 2
COUNTERS = {
    "steps": 0, "restarts": 0, "rises": 0, "warned": False, "first_loss": None, "lowest_loss": None, "last_loss": None
}  # fmt: skip


class ScheduleFollower(JudgesWithLoss):
    """Base of the average-case methods. A subclass provides `schedule`, `check` and, if there is one, `_asymptotics`.

    Options of every method: `smoothness_margin` >= 0 enlarges an estimated L; `lanczos_steps` >= 2 products per
    estimate; `step_scale` >= 0 multiplies h (below 1 for noisy gradients); `max_momentum` caps m; `freeze_after` keeps
    the coefficients constant from that iteration on; `restart` is none, function (after three rises of the loss) or
    gradient (after two steps uphill, <g, d> > 0); `refresh_interval` in steps between new estimates of L, 0 for never.
    """

    REFRESH_INTERVAL = "refresh_interval"
    CHANGEABLE = frozenset({"step_scale", "refresh_interval"})
    GROUPABLE = frozenset()
    LEARNING_RATE = ""
    BOUNDS: ClassVar = {
        "strong_convexity": NOT_NEGATIVE, "alpha": (-1.0, INF), "beta": (-1.0, INF), "step_scale": NOT_NEGATIVE,
        "smoothness_margin": NOT_NEGATIVE, "max_momentum": SHARE, "refresh_interval": NOT_NEGATIVE,
        "lanczos_steps": (2, INF),
    }  # fmt: skip
    FROM_SPECTRUM: ClassVar[tuple[str, ...]] = ("smoothness",)
    """Hyperparameters that may be `auto` or `estimate`."""
    LOOKAHEAD: ClassVar[bool] = False
    """Whether the gradient is taken at w + m d."""
    LEAST_GAP: ClassVar[float] = 0.0
    """Smallest estimate of strong_convexity over L: eigenvalues below it still contract, only slower."""
    HAS_MOMENTUM: ClassVar[bool] = True
    """Whether m is ever above 0; otherwise there is no state."""

    def __init__(
        self,
        params: Params,
        own: Mapping[str, Any],
        /,
        *,
        smoothness_margin: float = 0.02,
        lanczos_steps: int = 20,
        step_scale: float = 1.0,
        max_momentum: float = 1.0,
        freeze_after: int | None = None,
        restart: str = "none",
        refresh_interval: int = 0,
    ) -> None:
        options = self.checked(locals())
        check_not_negative(
            smoothness_margin=smoothness_margin,
            step_scale=step_scale,
            max_momentum=max_momentum,
            refresh_interval=refresh_interval,
            freeze_after=freeze_after or 0,
        )
        if lanczos_steps < 2:
            raise ValueError(f"lanczos_steps is {lanczos_steps}; it must be at least 2")
        if restart not in RESTARTS:
            raise ValueError(f"restart is {restart!r}; it must be one of {', '.join(RESTARTS)}")
        for key in self.FROM_SPECTRUM:
            if isinstance(own[key], str) and own[key] not in WORDS:
                raise ValueError(f"{key} is {own[key]!r}; it must be a number, auto or estimate")
        super().__init__(params, {**own, **options, "t": 0, "ratio": 0.0, "estimated": []})
        self.param_groups[0].update(COUNTERS)
        self._excursion = Excursion()
        self._frozen = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does; earlier losses are not compared with those that include the new parameters.

        Raises ValueError for numbers outside the method's range.
        """
        settings = {**self.defaults, **param_group}
        if not self._words(settings):
            self.check(settings)
        super().add_param_group(param_group)
        self.param_groups[0].update(first_loss=None, lowest_loss=None, last_loss=None, rises=0)

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over all parameters of `model`; the values in its `spectrum` replace the word `auto`."""
        made = super().from_model(model, **hyperparameters)
        known = getattr(model, "spectrum", None)
        if isinstance(known, Mapping):
            for group in made.param_groups:
                group.update(cls.known(known, {k for k in cls._words(group) if group[k] == "auto"}))
                if not cls._words(group):
                    cls.check(group)
        return made

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """One gradient, plus the products of a refresh amortized over its interval. The first estimate is not
        included.
        """
        interval = hyperparameters.get("refresh_interval", 0)
        return 1.0 + (REFRESH_STEPS / interval if interval else 0.0)

    @classmethod
    def known(cls, said: Mapping[str, float], wanted: set[str]) -> dict[str, float]:
        """Values of the `wanted` hyperparameters that follow from a model's knowledge of its spectrum."""
        return {key: float(said[key]) for key in wanted & set(said)}

    @classmethod
    def estimated(cls, found: spectrum.Spectrum, group: Mapping[str, Any], wanted: set[str]) -> dict[str, float]:
        """Values of the `wanted` hyperparameters that follow from an estimate."""
        values = {}
        if "smoothness" in wanted:
            values["smoothness"] = found.upper_bound(group["smoothness_margin"])
        if "strong_convexity" in wanted:
            upper = values.get("smoothness", group["smoothness"])
            values["strong_convexity"] = max(found.smallest, cls.LEAST_GAP * upper)
        return values

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """Raise ValueError for numbers outside the method's range."""
        raise RuntimeError("this method has no check()")

    @staticmethod
    def schedule(group: Mapping[str, Any]) -> Schedule:
        """The method's coefficients for the numbers in `group`."""
        raise RuntimeError("this method has no schedule()")

    @staticmethod
    def _asymptotics(problem: theory.Problem, group: Mapping[str, Any]) -> theory.Asymptotics | None:
        return None

    def asymptotics(self, problem: Mapping[str, float], order: int = 1) -> theory.Asymptotics | None:
        """How fast M_order falls on a spectrum described as in `theory`; None if no theory applies.

        Also None while a number must still be estimated, and for options that leave the method's polynomials.
        """
        group = self.param_groups[0]
        if not self.follows_polynomials() or group["step_scale"] != 1 or group["freeze_after"] is not None:
            return None
        if any(m > group["max_momentum"] + 1e-9 for _, m, _ in islice(follow(self.schedule(group)), 64)):
            return None
        return self._asymptotics(theory.Problem.of(problem, order), group)

    def follows_polynomials(self) -> bool:
        """Whether `residual` describes the run: every number is known, and nothing restarts the schedule."""
        group = self.param_groups[0]
        return not (self._words(group) or group["restart"] != "none" or group["refresh_interval"])

    def residual(self, eigenvalues: Tensor, steps: int) -> Tensor:
        """P_0 to P_steps at `eigenvalues` [n]: [steps + 1, n], with this optimizer's current settings, without
        restarts.
        """
        coefficients = follow(self._limited(self.param_groups[0]))
        return theory.residual(coefficients, eigenvalues, steps, lookahead=self.LOOKAHEAD)

    def next_cost(self) -> float:
        """One, plus the products of an estimate if one is due."""
        return self.GRAD_EVALS + self._products()

    def freeze(self) -> None:
        """Stop refreshing. Raises ValueError if the first estimate does not fit: without L no step can be taken."""
        if any(self._words(g) for g in self.param_groups):
            raise ValueError(
                f"the budget is less than the {self.next_cost():g} gradient evaluations for an estimate and one step; "
                f"raise it, lower lanczos_steps, or give {' and '.join(self.FROM_SPECTRUM)} as numbers"
            )
        self._frozen = True

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step; returns the loss before it (with LOOKAHEAD, at w + m d)."""
        self._check_shards()
        products = self._products()
        ahead = [p for g in self.param_groups for p in g["params"] if p in self.state] if self.LOOKAHEAD else []
        if ahead:
            self._excursion.leave(ahead)
        try:
            for group in self.param_groups if ahead else ():
                if moved := [p for p in group["params"] if p in self.state]:
                    m = self._coefficients(group).momentum
                    torch._foreach_add_(moved, self._displacements(moved), alpha=m)
            if products:
                draws = Draws(p for g in self.param_groups for p in g["params"])
                loss = self.evaluate_unclipped(closure)
            else:
                loss = self.evaluate_together(closure)
            value = self.read(loss)  # decides whether the step may be taken
            if not self._fine(value):
                self._excursion.back()
                return loss
            if products:
                self._estimate(closure, products, draws)
        except BaseException:
            self._excursion.back()
            raise
        for p, home in zip(ahead, self._excursion.home if ahead else (), strict=True):
            if p.grad is None:
                p.copy_(home)
        if self._restart_due(value):
            self._restart()
        for group in self.param_groups:
            h, m, ratio = self._coefficients(group)
            self._move(group, h, m)
            group["t"], group["ratio"] = group["t"] + 1, ratio
        self.param_groups[0]["steps"] += 1
        return loss

    def _coefficients(self, group: Mapping[str, Any]) -> Coefficients:
        return self._limited(group)(group["t"], group["ratio"])

    def _limited(self, group: Mapping[str, Any]) -> Schedule:
        return limit(
            self.schedule(group),
            step_scale=group["step_scale"],
            max_momentum=group["max_momentum"],
            freeze_after=group["freeze_after"],
        )

    def _displacements(self, params: list[Tensor]) -> list[Tensor]:
        return [self.state[p]["displacement"] for p in params]

    def _move(self, group: dict[str, Any], h: float, m: float) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        grads = gradients(params)
        if not params:
            return
        if not self.HAS_MOMENTUM:
            torch._foreach_add_(params, grads, alpha=-h)
            return
        for p in params:
            if "displacement" not in self.state[p]:
                self.state[p]["displacement"] = torch.zeros_like(p)
        displacements = self._displacements(params)
        torch._foreach_mul_(displacements, m)
        torch._foreach_add_(displacements, grads, alpha=-h)
        if self.LOOKAHEAD:
            torch._foreach_add_(params, grads, alpha=-h)
        else:
            torch._foreach_add_(params, displacements)

    def _fine(self, loss: float) -> bool:
        """Whether the loss is finite; warns, once, if it is not or if the method is clearly diverging."""
        first = self.param_groups[0]
        finite = math.isfinite(loss)
        if finite and first["lowest_loss"] is None:
            first["first_loss"] = first["lowest_loss"] = loss
        if finite:
            first["lowest_loss"] = min(first["lowest_loss"], loss)
            begun = first["first_loss"]
            risen = loss - begun > max(begun - first["lowest_loss"], abs(begun))
        if (not finite or risen) and not first["warned"]:
            first["warned"] = True
            numbers = ", ".join(f"{k}={first[k]}" for k in ("smoothness", "alpha", "beta") if k in first)
            warnings.warn(
                f"{type(self).__name__} diverges: the loss is {loss:.3g} at iteration {first['t']}. The largest "
                f"eigenvalue of the Hessian is probably above smoothness, or beta is below alpha ({numbers}). Give a "
                "larger smoothness or the word estimate; for losses that are not quadratic, set restart",
                RuntimeWarning,
                stacklevel=3,
            )
        return finite

    def _restart_due(self, loss: float) -> bool:
        first = self.param_groups[0]
        if first["restart"] == "function":
            rising = first["last_loss"] is not None and loss > first["last_loss"]
            first["rises"] = first["rises"] + 1 if rising else 0
            first["last_loss"] = loss
            return bool(first["rises"] >= RISES)
        if first["restart"] == "gradient":
            params = [p for g in self.param_groups for p in g["params"] if p in self.state and p.grad is not None]
            products = torch._foreach_mul(gradients(params), self._displacements(params)) if params else []
            uphill = bool(products) and float(sum(x.sum() for x in products)) > 0
            first["rises"] = first["rises"] + 1 if uphill else 0
            return bool(first["rises"] >= UPHILL)
        return False

    def _restart(self) -> None:
        """T <- 0: momentum 0 then discards the displacement."""
        self.param_groups[0].update(rises=0, last_loss=None, restarts=self.param_groups[0]["restarts"] + 1)
        for group in self.param_groups:
            group.update(t=0, ratio=0.0)

    @classmethod
    def _words(cls, group: Mapping[str, Any]) -> set[str]:
        """Hyperparameters that are still given as words."""
        return {key for key in cls.FROM_SPECTRUM if isinstance(group[key], str)}

    def _check_shards(self) -> None:
        """Raise RuntimeError, before anything moves, if sharded weights would later be needed as one vector."""
        for group in self.param_groups:
            found = sorted(self._words(group)) + ["refresh_interval"] * bool(group["refresh_interval"])
            reason = f"{', '.join(found)}: an estimate needs all weights in one vector; give numbers instead"
            refuse(group["params"], type(self).__name__, reason if found else "")

    def _products(self) -> int:
        """Hessian products that the next step needs for an estimate."""
        first = self.param_groups[0]
        size = sum(int(p.numel()) for g in self.param_groups for p in g["params"])
        if any(self._words(g) for g in self.param_groups):
            return min(int(first["lanczos_steps"]), size)
        interval, steps = first["refresh_interval"], first["steps"]
        if interval and steps and steps % interval == 0 and not self._frozen and "smoothness" in first:
            return min(REFRESH_STEPS, size)
        return 0

    def _estimate(self, closure: Closure | None, products: int, draws: Draws) -> None:
        """Replace the words, or refresh L, from Hessian products at the current weights.

        Words of a group that was added later are replaced likewise; an L estimated earlier grows to the new one.
        """
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        base = [g.clone() for g in gradients(params)]
        wanted = set().union(*(self._words(g) for g in self.param_groups))
        differences = Differences(params, base, draws, lambda: self.evaluate_unclipped(closure))
        found = spectrum.estimate(
            differences.flat(epsilon(params) ** 0.5 * (1 + global_norm(params))),
            self._probe(params),
            products,
            exponents=bool(wanted & {"alpha", "beta"}),
        )
        torch._foreach_copy_(locals_of(gradients(params)), locals_of(base))
        for group in self.param_groups:
            if words := self._words(group):
                group.update(self.estimated(found, group, words), estimated=sorted(words))
                self.check(group)
            elif "smoothness" in (group if not wanted else group["estimated"]):
                self._raise_smoothness(group, found)

    def _raise_smoothness(self, group: dict[str, Any], found: spectrum.Spectrum) -> None:
        """Take a larger L and restart, if the current one is too small by more than 2%."""
        if found.largest * (1 + group["smoothness_margin"]) > GROWTH * group["smoothness"]:
            group["smoothness"] = found.upper_bound(group["smoothness_margin"])
            self._restart()

    @staticmethod
    def _probe(params: list[Tensor]) -> Tensor:
        """The same random Lanczos start every time, drawn without touching the global random state."""
        size = sum(p.numel() for p in params)
        start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return start.to(params[0].device, wide(params))
