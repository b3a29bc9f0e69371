"""The average-case methods by name, each a schedule with its hyperparameters. Formulas in `schedules`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from optim_core import spectrum
from optim_core.average_case import schedules, theory
from optim_core.average_case.optimizer import ScheduleFollower
from optim_core.average_case.schedules import Schedule
from optim_core.base import Params
from optim_core.declarations import Limit
from optim_core.ranges import check_positive
from optim_core.registry import register

JACOBI = ("alpha", "beta", "smoothness", "strong_convexity")


@register("gd")
class GradientDescent(ScheduleFollower):
    """Steps of 1 / L. On a spectrum that reaches 0 the objective falls like t^-(xi + 2)."""

    HAS_MOMENTUM: ClassVar[bool] = False
    SETTLED = frozenset({"max_momentum", "freeze_after", "restart"})
    REFERENCE = True

    def __init__(self, params: Params, *, smoothness: float | str = "auto", **options: Any) -> None:
        super().__init__(
            params, {"smoothness": smoothness}, max_momentum=1.0, freeze_after=None, restart="none", **options
        )

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """L above 0."""
        schedules.check_edges(group["smoothness"], 0.0)

    @staticmethod
    def schedule(group: Mapping[str, Any]) -> Schedule:
        """See `schedules.gradient_descent`."""
        return partial(schedules.gradient_descent, smoothness=group["smoothness"])

    @staticmethod
    def _asymptotics(problem: theory.Problem, group: Mapping[str, Any]) -> theory.Asymptotics:
        return theory.gradient_descent(problem, smoothness=group["smoothness"])


@register("nesterov")
class Nesterov(ScheduleFollower):
    """Accelerated gradient descent; momentum t / (t + 3), or constant for `strong_convexity` > 0.

    Needs only L and keeps its exponent on every spectrum: 2 (xi + 2) for xi <= -1/2, xi + 7/2 above. Besides one state
    tensor it keeps a copy of the weights, so that a closure that raises leaves them unchanged.
    """

    FROM_SPECTRUM: ClassVar[tuple[str, ...]] = ("smoothness", "strong_convexity")
    LOOKAHEAD: ClassVar[bool] = True
    LIMITS = (Limit(equals="gd", at={"max_momentum": 0.0}, deviation=1e-12),)

    def __init__(
        self, params: Params, *, smoothness: float | str = "auto", strong_convexity: float | str = 0.0, **options: Any
    ) -> None:
        super().__init__(params, {"smoothness": smoothness, "strong_convexity": strong_convexity}, **options)

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """0 <= mu < L."""
        schedules.check_edges(group["smoothness"], group["strong_convexity"])

    @staticmethod
    def schedule(group: Mapping[str, Any]) -> Schedule:
        """See `schedules.nesterov`."""
        return partial(schedules.nesterov, smoothness=group["smoothness"], strong_convexity=group["strong_convexity"])

    @staticmethod
    def _asymptotics(problem: theory.Problem, group: Mapping[str, Any]) -> theory.Asymptotics:
        return theory.nesterov(problem, smoothness=group["smoothness"], strong_convexity=group["strong_convexity"])


@register("polyak")
class Polyak(ScheduleFollower):
    """Heavy ball with the best constant coefficients for [mu, L]; needs `strong_convexity` > 0.

    Momentum rho^2 and a first step of 2 / (L + mu) (Polyak 1964). The code of Cunha et al. uses momentum rho and starts
    with a full step, which is slower.
    """

    FROM_SPECTRUM: ClassVar[tuple[str, ...]] = ("smoothness", "strong_convexity")
    LEAST_GAP: ClassVar[float] = 1e-3

    def __init__(
        self,
        params: Params,
        *,
        smoothness: float | str = "auto",
        strong_convexity: float | str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(params, {"smoothness": smoothness, "strong_convexity": strong_convexity}, **options)

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """0 < mu < L."""
        schedules.check_edges(group["smoothness"], group["strong_convexity"], gap=True)

    @staticmethod
    def schedule(group: Mapping[str, Any]) -> Schedule:
        """See `schedules.polyak`."""
        return partial(schedules.polyak, smoothness=group["smoothness"], strong_convexity=group["strong_convexity"])

    @staticmethod
    def _asymptotics(problem: theory.Problem, group: Mapping[str, Any]) -> theory.Asymptotics:
        return theory.polyak(problem, smoothness=group["smoothness"], strong_convexity=group["strong_convexity"])


class Jacobi(ScheduleFollower):
    """Common part of the three methods with Jacobi polynomials."""

    FROM_SPECTRUM: ClassVar[tuple[str, ...]] = ("smoothness", "strong_convexity")

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """0 <= mu < L, alpha and beta above -1."""
        schedules.check_edges(group["smoothness"], group["strong_convexity"])
        schedules.check_exponents(alpha=group["alpha"], beta=group["beta"])

    @classmethod
    def known(cls, said: Mapping[str, float], wanted: set[str]) -> dict[str, float]:
        """The optimal alpha and beta for known exponents."""
        values = super().known(said, wanted)
        if wanted & {"alpha", "beta"} and {"left_exponent", "right_exponent"} <= set(said):
            best = dict(
                zip(("alpha", "beta"), spectrum.optimal(said["left_exponent"], said["right_exponent"]), strict=True)
            )
            values.update({key: best[key] for key in wanted & set(best)})
        return values

    @classmethod
    def estimated(cls, found: spectrum.Spectrum, group: Mapping[str, Any], wanted: set[str]) -> dict[str, float]:
        """Alpha and beta by `spectrum.policy`, with its margin."""
        values = super().estimated(found, group, wanted)
        best = dict(zip(("alpha", "beta"), spectrum.policy(found.left_exponent, found.right_exponent), strict=True))
        return {**values, **{key: best[key] for key in wanted & set(best)}}

    @staticmethod
    def schedule(group: Mapping[str, Any]) -> Schedule:
        """See `schedules.generalized_chebyshev`."""
        return partial(schedules.generalized_chebyshev, **{key: group[key] for key in JACOBI})

    @staticmethod
    def _asymptotics(problem: theory.Problem, group: Mapping[str, Any]) -> theory.Asymptotics:
        return theory.generalized_chebyshev(problem, **{key: group[key] for key in JACOBI})


@register("generalized_chebyshev")
class GeneralizedChebyshev(Jacobi):
    """Jacobi polynomials for the weight (L - lambda)^alpha (lambda - mu)^beta, alpha and beta > -1.

    On a density like lambda^xi at 0 and (L - lambda)^tau at L, alpha = tau and beta = xi + 2 are optimal at every t for
    the objective, which falls like t^-2(xi + 2). Too large a beta costs a constant, too small a one the exponent; alpha
    above beta + tau + 1 diverges slowly. `auto` takes the model's values, or `spectrum.policy` of an estimate.
    """

    FROM_SPECTRUM: ClassVar[tuple[str, ...]] = JACOBI
    LIMITS = tuple(
        Limit(  # two members of the family, not a base method
            equals=name,
            at={"alpha": exponent, "beta": exponent},
            probe={"strong_convexity": 0.1},
            nested=False,
        )
        for name, exponent in (("chebyshev", -0.5), ("marchenko_pastur", 0.5))
    )

    def __init__(
        self,
        params: Params,
        *,
        smoothness: float | str = "auto",
        strong_convexity: float | str = 0.0,
        alpha: float | str = 0.0,
        beta: float | str = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            {"smoothness": smoothness, "strong_convexity": strong_convexity, "alpha": alpha, "beta": beta},
            **options,
        )


@register("chebyshev")
class Chebyshev(Jacobi):
    """Chebyshev's method, alpha = beta = -1/2: best worst case on [mu, L]; needs `strong_convexity` > 0."""

    LEAST_GAP: ClassVar[float] = 1e-3

    def __init__(
        self,
        params: Params,
        *,
        smoothness: float | str = "auto",
        strong_convexity: float | str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            {"smoothness": smoothness, "strong_convexity": strong_convexity, "alpha": -0.5, "beta": -0.5},
            **options,
        )

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """0 < mu < L."""
        schedules.check_edges(group["smoothness"], group["strong_convexity"], gap=True)


@register("marchenko_pastur")
class MarchenkoPastur(Jacobi):
    """alpha = beta = 1/2: optimal for the distance on a Marchenko-Pastur spectrum with edges mu and L.

    For entries of variance s and r columns per row the edges are s (1 - sqrt r)^2 and s (1 + sqrt r)^2.
    """

    def __init__(
        self,
        params: Params,
        *,
        smoothness: float | str = "auto",
        strong_convexity: float | str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            {"smoothness": smoothness, "strong_convexity": strong_convexity, "alpha": 0.5, "beta": 0.5},
            **options,
        )


@register("laguerre")
class Laguerre(ScheduleFollower):
    """For spectra without an upper edge, lambda^xi exp(-lambda / scale): beta = xi + 2 is optimal for the objective.

    `eigenvalue_scale` > 0 is the scale, beta > -1. A scale below the spectrum's own diverges.
    """

    FROM_SPECTRUM: ClassVar[tuple[str, ...]] = ("eigenvalue_scale", "beta")
    SETTLED = frozenset({"refresh_interval"})

    def __init__(
        self, params: Params, *, eigenvalue_scale: float | str = "auto", beta: float | str = "auto", **options: Any
    ) -> None:
        super().__init__(params, {"eigenvalue_scale": eigenvalue_scale, "beta": beta}, refresh_interval=0, **options)

    @staticmethod
    def check(group: Mapping[str, Any]) -> None:
        """A scale above 0, beta above -1."""
        check_positive(eigenvalue_scale=group["eigenvalue_scale"])
        schedules.check_exponents(beta=group["beta"])

    @classmethod
    def known(cls, said: Mapping[str, float], wanted: set[str]) -> dict[str, float]:
        """Beta = xi + 2."""
        values = super().known(said, wanted)
        if "beta" in wanted and "left_exponent" in said:
            values["beta"] = spectrum.optimal(said["left_exponent"], math.inf)[1]
        return values

    @classmethod
    def estimated(cls, found: spectrum.Spectrum, group: Mapping[str, Any], wanted: set[str]) -> dict[str, float]:
        """Scale and exponent of the Gamma density with the same mean and variance."""
        gamma = {"eigenvalue_scale": found.eigenvalue_scale, "beta": spectrum.policy(found.gamma_exponent, 0.0)[1]}
        return {key: gamma[key] for key in wanted}

    @staticmethod
    def schedule(group: Mapping[str, Any]) -> Schedule:
        """See `schedules.laguerre`."""
        return partial(schedules.laguerre, beta=group["beta"], scale=group["eigenvalue_scale"])

    @staticmethod
    def _asymptotics(problem: theory.Problem, group: Mapping[str, Any]) -> theory.Asymptotics | None:
        return theory.laguerre(problem, beta=group["beta"], scale=group["eigenvalue_scale"])
