"""Optimizers for smooth games: one parameter group per player, a closure that returns one loss per player.

The closure takes no argument, computes the losses of all players at the current parameters and returns them as a list,
in the order of the players (zero-sum: `return [f, -f]`). It does not call backward: player i's gradient is that of loss
i with respect to player i's parameters, by `torch.autograd.grad`; `p.grad` is not changed. The second call of
`extragradient` and `bilinear_optimal` is compared with the first: it draws the same random numbers, and batch
normalization must be in evaluation mode. `hamiltonian` and `consensus` differentiate twice: use tanh and softplus, not
ReLU. The rules are in `updates`, their theory in `rates` and `maps`.

Constant momentum starts with a transient: after a full first step from D = 0, |v| can rise to 0.37 kappa times its
first value, kappa = 2 / (1 - sqrt momentum), before it falls. `short_first_step` uses lr / (1 + momentum) there, the
first step of Chebyshev's method, and |v| falls from the start. It applies only to momentum above 0.

A method outside its spectral shape diverges: once |v| exceeds 1e4 / (1 - sqrt |momentum|) times its first value, which
no such transient does, a `DivergenceWarning` is issued, and a step along a direction that is not finite is not taken
(`skipped_steps` counts), so weights never become NaN. `restart=True` drops the momentum if |v| more than doubles over
20 steps, for games that are not affine; affine games converge without it, and a step tuned for momentum may not
tolerate repeated restarts. A step reads two numbers back from the device.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from optim_core.base import Closure, Counting
from optim_core.declarations import NOT_NEGATIVE
from optim_core.games import maps, updates
from optim_core.games.field import Players, differentiate, evaluate_game
from optim_core.games.rates import COSTS
from optim_core.games.trace import GROWTH, DivergenceWarning, Trace
from optim_core.judging import SKIPPED
from optim_core.ranges import check_not_negative
from optim_core.replay import Draws
from optim_core.two_pass import Excursion, global_norm

PUSH = 1e-3


class GameOptimizer(Counting):
    """The step shared by all methods; `METHOD` names the direction.

    `params` has one entry per player: a module, a list of parameters, or a dictionary with "params" and that player's
    settings (such as its own "lr"). Players must not share a parameter. lr >= 0, momentum in (-1, 1). `own`: what a
    method adds to these settings.
    """

    PLAYS_GAMES: ClassVar[bool] = True
    NOT_SHARDED = "it takes gradients by torch.autograd.grad, which sharding does not sum over the processes"
    CHANGEABLE = frozenset({"lr", "momentum", "consensus", "extrapolation"})
    GROUPABLE = frozenset()
    BOUNDS: ClassVar = {"momentum": (-1.0, 1.0), "consensus": NOT_NEGATIVE}
    METHOD: ClassVar[str]

    def __init__(
        self,
        params: Players,
        own: Mapping[str, Any] = MappingProxyType({}),
        /,
        *,
        lr: float = 0.1,
        momentum: float = 0.0,
        short_first_step: bool = False,
        restart: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "short_first_step": short_first_step, "restart": restart, **own}
        groups = _groups(params)
        for settings in (defaults, *({**defaults, **g} for g in groups)):
            _check(settings)
        super().__init__(groups, {"method": self.METHOD, **defaults})
        self._excursion = Excursion()

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Build over a list with one module, or one list of parameters, per player."""
        if not isinstance(model, list | tuple):
            raise TypeError(f"{cls.__name__} plays games: model is a list with one module per player, not one module")
        return cls(model, **hyperparameters)

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """Gradient evaluations per step, with two players if the cost depends on their number."""
        return COSTS[cls.METHOD]

    @classmethod
    def roots(cls, points: Tensor, **hyperparameters: Any) -> Tensor | None:
        """Images of the eigenvalues `points` [n] of a normal J under the method, [2, n]; None unless it is a polynomial
        of J.

        `hyperparameters`: all of the method's own.
        """
        if cls.METHOD not in maps.POLYNOMIAL:
            return None
        own = ("lr", "momentum", "consensus")
        given: dict[str, Any] = {key: hyperparameters[key] for key in own if key in hyperparameters}
        if "extrapolation" in hyperparameters:
            ahead = hyperparameters["extrapolation"]
            given["extrapolation"] = given["lr"] if ahead is None else ahead
        return maps.roots(cls.METHOD, points, **{key: float(value) for key, value in given.items()})

    @property
    def method(self) -> str:
        """The method in use."""
        return str(self.param_groups[0]["method"])

    @property
    def trace(self) -> Trace:
        """The record of |v| along the run."""
        return Trace(self.param_groups[0])

    @staticmethod
    def step_size(group: dict[str, Any]) -> float:
        """The length of a player's step: its lr, times the unit that `tuned_game` found."""
        return float(group["lr"] * group.get("unit", 1.0))

    def next_cost(self) -> float:
        """Gradient evaluations of the next step."""
        return self.step_cost()

    def step_cost(self) -> float:
        """Gradient evaluations per step of the method in use; for alternating_gda one per player."""
        return COSTS[self.method] * (len(self.param_groups) / 2 if self.method == "alternating_gda" else 1)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> list[Tensor]:  # type: ignore[override]
        """One step; returns the losses of all players at the previous point, as given by the first call.

        Raises TypeError without a closure, RuntimeError if it returned the wrong number of losses, called backward, or
        gave a loss without a graph. Nothing has moved then.
        """
        cost = self.step_cost()
        looks_ahead = self.method in ("extragradient", "bilinear_optimal")
        draws = Draws(p for g in self.param_groups for p in g["params"]) if looks_ahead else None
        losses = evaluate_game(self, closure)
        field, pulled = self._differentiate(losses, twice=self.method in ("hamiltonian", "consensus"))
        norm = global_norm(_flat(field))
        if self.method == "alternating_gda":
            taken = self._step_in_turn(closure, field)
        else:
            direction = self._direction(closure, field, pulled, norm, draws)
            taken = math.isfinite(norm) and math.isfinite(global_norm(_flat(direction)))
            if taken:
                for i, group in enumerate(self.param_groups):
                    self._move(group, direction[i])
        self.charge(cost)
        self._remember(norm, taken)
        return [x.detach() for x in losses]

    def _differentiate(
        self, losses: Sequence[Tensor], twice: bool = False, only: int | None = None
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """The field of each player and, if asked to differentiate `twice`, J'v."""
        return differentiate(losses, [g["params"] for g in self.param_groups], twice, only)

    def _direction(
        self,
        closure: Closure | None,
        field: list[list[Tensor]],
        pulled: list[list[Tensor]],
        norm: float,
        draws: Draws | None,
    ) -> list[list[Tensor]]:
        groups = list(zip(self.param_groups, field, strict=True))
        if self.method == "optimistic":
            return [self._optimistic(g["params"], v) for g, v in groups]
        if self.method == "hamiltonian":
            return pulled
        if self.method == "consensus":
            return [updates.consensus(v, j, g["consensus"]) for (g, v), j in zip(groups, pulled, strict=True)]
        if self.method == "extragradient":
            gammas = [
                self.step_size(g) if g["extrapolation"] is None else g["extrapolation"] for g in self.param_groups
            ]
            return self._ahead(closure, field, gammas, draws)
        if self.method == "bilinear_optimal":
            if norm == 0 or not math.isfinite(norm):
                return field
            given = self.param_groups[0]["extrapolation"]
            if given is None:  # a perturbation that is not lost in the rounding of the weights
                given = PUSH * max(1.0, global_norm([p for g in self.param_groups for p in g["params"]])) / norm
            ahead = self._ahead(closure, field, [given] * len(field), draws)
            return [updates.bilinear(a, v, given) for a, v in zip(ahead, field, strict=True)]
        return field

    def _ahead(
        self, closure: Closure | None, field: list[list[Tensor]], gammas: list[float], draws: Draws | None
    ) -> list[list[Tensor]]:
        """The field at w - gamma v; the weights are restored bit for bit, even if the closure raises."""
        self._excursion.leave([p for g in self.param_groups for p in g["params"]])
        try:
            for group, v, gamma in zip(self.param_groups, field, gammas, strict=True):
                torch._foreach_add_(group["params"], v, alpha=-gamma)
            with draws.again() if draws is not None else nullcontext():
                return self._differentiate(evaluate_game(self, closure))[0]
        finally:
            self._excursion.back()

    def _step_in_turn(self, closure: Closure | None, field: list[list[Tensor]]) -> bool:
        """Each player moves knowing the moves of the players before it."""
        taken = True
        for i, group in enumerate(self.param_groups):
            v = field[0] if i == 0 else self._differentiate(evaluate_game(self, closure), only=i)[0][i]
            if not math.isfinite(global_norm(v)):
                taken = False
                continue
            self._move(group, v)
        return taken

    def _move(self, group: dict[str, Any], direction: list[Tensor]) -> None:
        params, displacement, lr = group["params"], None, self.step_size(group)
        if group["momentum"] != 0:
            if group["short_first_step"] and not any("displacement" in self.state[p] for p in params):
                lr /= 1 + max(group["momentum"], 0.0)
            for p in params:
                if "displacement" not in self.state[p]:
                    self.state[p]["displacement"] = torch.zeros_like(p)
            displacement = [self.state[p]["displacement"] for p in params]
        updates.step(params, direction, displacement, lr, group["momentum"])

    def _optimistic(self, params: list[Tensor], field: list[Tensor]) -> list[Tensor]:
        before = [self.state[p].get("previous_field", v) for p, v in zip(params, field, strict=True)]
        direction = updates.optimistic(field, before)
        for p, v in zip(params, field, strict=True):
            self.state[p]["previous_field"] = v
        return direction

    def _remember(self, norm: float, taken: bool) -> None:
        first = self.param_groups[0]
        if not taken:
            first[SKIPPED] = self.skipped_steps + 1
        trace = self.trace
        if not taken and self.skipped_steps == 1:
            warnings.warn(
                f"{self.method}: the field or the losses are not finite at step {trace.steps}; the step is not taken "
                "and the weights stay where they are. Lower lr, or use a method for this game's spectral shape "
                "(optim_core.games.recommend)",
                DivergenceWarning,
                stacklevel=4,
            )
        largest = max(abs(g["momentum"]) for g in self.param_groups)
        if trace.record(norm, self.grad_evals, allowed=GROWTH / (1 - math.sqrt(largest))):
            warnings.warn(
                f"{self.method} diverges: |v| has grown {trace.growth:.0e} times by step {trace.steps}. Lower lr, or "
                "use a method for this game's spectral shape (optim_core.games.recommend)",
                DivergenceWarning,
                stacklevel=4,
            )
        if first["restart"] and trace.doubled():
            for state in self.state.values():
                state.pop("displacement", None)
            trace.forget_recent()


def _flat(tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [t for ts in tensors for t in ts]


def _groups(params: Players) -> list[dict[str, Any]]:
    """One parameter group per player. Raises TypeError or ValueError for invalid players."""
    groups: list[dict[str, Any]] = []
    for i, player in enumerate(params):
        if isinstance(player, Tensor) or (isinstance(player, tuple) and player and isinstance(player[0], str)):
            raise TypeError("each player is a module or a list of parameters; for one player pass [parameters]")
        settings: dict[str, Any] = dict(player) if isinstance(player, dict) else {"params": player}
        own: Any = settings["params"]
        tensors = list(own.parameters() if isinstance(own, nn.Module) else own)
        settings["params"] = [p for p in tensors if p.requires_grad]
        if not settings["params"]:
            raise ValueError(f"player {i} has no parameter that requires a gradient")
        for j, other in enumerate(groups):
            shared = [p for p in settings["params"] if any(p is q for q in other["params"])]
            if shared:
                shape = tuple(shared[0].shape)
                raise ValueError(f"players {j} and {i} share a parameter of shape {shape}; give each its own copy")
        groups.append(settings)
    return groups


def _check(settings: dict[str, Any]) -> None:
    check_not_negative(lr=settings["lr"])
    if not -1 < settings["momentum"] < 1:
        raise ValueError(f"momentum is {settings['momentum']}; it must lie in (-1, 1), of either sign")
    if settings.get("extrapolation") is not None:
        value = settings["extrapolation"]
        if not 0 < value < float("inf"):
            raise ValueError(f"extrapolation is {value}; it must be above 0, or left out")
    if "consensus" in settings:
        check_not_negative(consensus=settings["consensus"])
