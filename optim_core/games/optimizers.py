"""The optimizers for games by name: each method with its hyperparameters. The shared step is in `base`."""

from __future__ import annotations

from typing import Any

from optim_core.declarations import Limit
from optim_core.games.base import GameOptimizer
from optim_core.games.field import Players
from optim_core.games.rates import COSTS
from optim_core.registry import register


class OfTwoPoints(GameOptimizer):
    """Common part of methods that evaluate a second field at distance `extrapolation`."""

    def __init__(self, params: Players, *, extrapolation: float | None = None, **of_all: Any) -> None:
        super().__init__(params, {"extrapolation": extrapolation}, **of_all)


@register("gda")
class GDA(GameOptimizer):
    """Simultaneous gradient steps of all players; diverges on bilinear games.

    Optimal on ellipses about the positive real axis, with momentum > 0 on wide and < 0 on tall ones (`rates.ellipse`).
    """

    METHOD = "gda"
    REFERENCE = True


@register("alternating_gda")
class AlternatingGDA(GameOptimizer):
    """Gradient steps in turn, each player seeing the moves before its own; cycles on bilinear games.

    Calls the closure once per player and is charged one evaluation per call, GRAD_EVALS for two players. Only one
    player's loss is differentiated after each call, so a step for two takes 1.7 times the time of `gda`, not 2.
    """

    METHOD = "alternating_gda"
    GRAD_EVALS = COSTS["alternating_gda"]


@register("extragradient")
class Extragradient(OfTwoPoints):
    """The gradient at w - extrapolation v(w), applied from w; `extrapolation` > 0, default: equal to lr.

    Suitable for strongly monotone games (`rates.half_disc`); with momentum for crosses and vertical pairs.
    """

    METHOD = "extragradient"
    GRAD_EVALS = COSTS["extragradient"]


@register("optimistic")
class Optimistic(GameOptimizer):
    """2 v(w_t) - v(w_{t-1}): extragradient at the cost of one gradient; lr below 1/(sqrt 3 L) on bilinear games."""

    METHOD = "optimistic"


@register("bilinear_optimal")
class BilinearOptimal(OfTwoPoints):
    """-J v by two gradients, with momentum: optimal on bilinear games (`rates.bilinear` gives lr and momentum).

    `extrapolation` > 0 is the perturbation gamma along v, default 1e-3 max(1, |w|) / |v|. Diverges on games with an
    eigenvalue within 45 degrees of the real axis, such as minimization; `hamiltonian` does not.
    """

    METHOD = "bilinear_optimal"
    GRAD_EVALS = COSTS["bilinear_optimal"]


@register("hamiltonian")
class Hamiltonian(GameOptimizer):
    """Gradient descent on |v|^2 / 2: converges on every affine game (`rates.hamiltonian` gives lr and momentum).

    Also attracted by stationary points that solve no player's problem; `consensus` avoids this.
    """

    METHOD = "hamiltonian"
    GRAD_EVALS = COSTS["hamiltonian"]


@register("consensus")
class Consensus(GameOptimizer):
    """v + consensus J'v; `consensus` >= 0 is tau / alpha, so lr = 0 moves nothing and 0 is `gda` at a higher cost.

    With consensus >= 1/g, g the smallest singular value of J, momentum accelerates it as it does `hamiltonian`.
    """

    METHOD = "consensus"
    GRAD_EVALS = COSTS["consensus"]
    LIMITS = (Limit(equals="gda", at={"consensus": 0.0}),)

    def __init__(self, params: Players, *, consensus: float = 1.0, **of_all: Any) -> None:
        super().__init__(params, {"consensus": consensus}, **of_all)
