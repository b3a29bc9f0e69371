"""`tuned_game`: estimate the spectrum at the first step, classify its shape, use the method with the best rate.

No hyperparameters to search: spectrum.estimate -> shapes.classify -> shapes.recommend. Exact for affine games with up
to `probes` parameters; for other games the rates are those near the starting point. The choice takes 1 to 2 s, once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from optim_core.base import Closure
from optim_core.declarations import COUNT
from optim_core.games.base import GameOptimizer
from optim_core.games.field import Players, evaluate_game
from optim_core.games.shapes import classify, rate_on, recommend
from optim_core.games.spectrum import cost, estimate
from optim_core.ranges import check_positive
from optim_core.registry import register


@register("tuned_game")
class TunedGame(GameOptimizer):
    """The method and parameters that theory recommends for the game at its starting point.

    `lr` multiplies the step size found (1: unchanged). `probes` >= 1 is the number of products with J that the estimate
    may take on a large game; it is charged as `spectrum.cost` says, before the first step. `method`, `shape` and
    `predicted_rate` report what was found.
    """

    METHOD = "gda"
    LEARNING_RATE = ""
    BOUNDS: ClassVar = {"probes": COUNT}
    GRAD_EVALS = 2.0

    def __init__(self, params: Players, *, lr: float = 1.0, probes: int = 64, restart: bool = False) -> None:
        check_positive(probes=probes)
        own = {"extrapolation": None, "consensus": 0.0, "probes": probes, "unit": 1.0, "shape": ""}
        super().__init__(params, own, lr=lr, short_first_step=True, restart=restart)

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """Two: the method is not known before the game is."""
        return cls.GRAD_EVALS

    @classmethod
    def roots(cls, points: Tensor, **hyperparameters: Any) -> Tensor | None:
        """None: the method is known only once the game is."""
        return None

    @property
    def shape(self) -> str:
        """The kind of spectral shape found; empty before the first step."""
        return str(self.param_groups[0]["shape"])

    @property
    def predicted_rate(self) -> float:
        """Error factor per step on the eigenvalues found, with the `lr` of the first step.

        nan before the first step, and if players differ in their lr. A lower bound unless `exact`.
        """
        return float(self.param_groups[0].get("predicted_rate", float("nan")))

    @property
    def exact(self) -> bool:
        """Whether J was formed. For larger games Arnoldi finds small eigenvalues last; the slowest may be missing."""
        return bool(self.param_groups[0].get("exact", False))

    def next_cost(self) -> float:
        """Before the first step, includes the estimate and assumes the most expensive method."""
        return super().next_cost() if self.shape else self._estimate_cost() + 3.0

    def freeze(self) -> None:
        """Raises RuntimeError if there is no estimate yet: the budget is too small for it."""
        if not self.shape:
            raise RuntimeError(
                f"tuned_game needs {self.next_cost():g} gradient evaluations for its estimate and a first step; "
                "raise the budget or lower probes"
            )

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> list[Tensor]:  # type: ignore[override]
        """One step of the method found; the first one also estimates."""
        if not self.shape:
            self._choose(closure)
        return super().step(closure)

    def _choose(self, closure: Closure | None) -> None:
        losses = evaluate_game(self, closure)
        found = estimate(losses, [g["params"] for g in self.param_groups], self.param_groups[0]["probes"])
        shape = classify(found.points, (found.smallest, found.largest))
        choice = recommend(shape, found.points)
        lrs = {float(group["lr"]) for group in self.param_groups}
        played = replace(choice, lr=choice.lr * min(lrs))
        rate = rate_on(played, shape, found.points) if len(lrs) == 1 else float("nan")
        for group in self.param_groups:
            group.update(
                method=choice.method,
                unit=choice.lr,
                momentum=choice.momentum,
                extrapolation=choice.extrapolation or None,
                consensus=choice.consensus,
                shape=shape.kind,
                exact=found.exact,
                predicted_rate=rate,
            )
        self.charge(self._estimate_cost())

    def _estimate_cost(self) -> float:
        dimension = sum(p.numel() for g in self.param_groups for p in g["params"])
        return cost(dimension, self.param_groups[0]["probes"])
