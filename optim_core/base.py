"""What every optimizer here shares: the closure contract, the count of gradient evaluations, faithful loading.

A *gradient evaluation* is one forward and backward pass over one nominal batch, the currency of every budget.
Optimizers call the closure themselves and count what they spend, refreshes of a preconditioner included.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from optim_core.declarations import NOT_NEGATIVE, SHARE, HeatMap, Limit

Closure = Callable[[], Any]
COUNTER = "grad_evals"


class Counting(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that requires a closure and counts gradient evaluations.

    The count lives in the first parameter group, hence in `state_dict`, and survives a resume. Subclasses either
    implement `step(closure)` themselves (call `self.evaluate(closure)` for every pass) or stand in front of a torch
    optimizer in the method resolution order.
    """

    GRAD_EVALS: ClassVar[float] = 1.0
    """Gradient evaluations of one step without any refresh."""
    CHANGEABLE: ClassVar[frozenset[str]] = frozenset({"lr"})
    """Hyperparameters, of those it has, that are read anew at every step, so that `change` takes effect."""
    LEARNING_RATE: ClassVar[str] = "lr"
    """The hyperparameter that scales its steps, which every arm tunes over decades. Empty: theory sets the length."""
    REFRESH_INTERVAL: ClassVar[str] = ""
    """The hyperparameter that says how many steps lie between two refreshes. Empty: every step computes the same."""
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyperparameter -> (lowest, highest) value that means anything: an optimum at such a bound is at no edge."""
    HEAT_MAP: ClassVar[HeatMap | None] = None
    """Two hyperparameters that reports draw against each other."""
    LIMITS: ClassVar[tuple[Limit, ...]] = ()
    """Settings at which it takes the steps of another optimizer."""
    EQUIVARIANT: ClassVar[Mapping[str, Any] | None] = None
    """Settings at which its steps are the same in every orthonormal basis, also one that changes; None: nowhere."""
    REFERENCE: ClassVar[bool] = False
    """Whether it is what everybody would have used, which a fair comparison has as an arm."""
    PLAYS_GAMES: ClassVar[bool] = False
    """Whether it takes one module per player, and a closure that returns one loss per player without backward."""

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Build over all parameters of `model`. Override when more than parameters is needed (names, modules)."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        return cls([p for p in model.parameters() if p.requires_grad], **hyperparameters)

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """Average gradient evaluations of one step, refreshes amortised. Pure arithmetic, for plans."""
        return cls.GRAD_EVALS

    @classmethod
    def cost_of_start(cls, **hyperparameters: Any) -> float:
        """Gradient evaluations spent once, before the first step, beside those of the step. For plans."""
        return 0.0

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter that the constructor would refuse. Sweep files are checked with it."""

    @property
    def grad_evals(self) -> float:
        """Gradient evaluations spent so far."""
        return float(self.param_groups[0].get(COUNTER, 0.0))

    def charge(self, amount: float) -> None:
        """Add `amount` gradient evaluations to the count."""
        self.param_groups[0][COUNTER] = self.grad_evals + amount

    @property
    def ascending(self) -> bool:
        """Whether the gradient now evaluated only says where to look next and will not move the weights itself.

        Closures that alter the gradient, by clipping for instance, leave such a one as it is.
        """
        return bool(getattr(self, "_ascending", False))

    def evaluate_ascent(self, closure: Closure | None) -> Tensor:
        """`evaluate` for a gradient that perturbs and is then thrown away (see `ascending`)."""
        self._ascending = True
        try:
            return self.evaluate(closure)
        finally:
            self._ascending = False

    def next_cost(self) -> float:
        """Gradient evaluations that the next step will spend; more than GRAD_EVALS when a refresh is due."""
        return self.GRAD_EVALS

    def change(self, **values: float) -> None:
        """Train on with other values of hyperparameters that are in CHANGEABLE. Raises ValueError for another one."""
        for name, value in values.items():
            if name not in self.CHANGEABLE or any(name not in group for group in self.param_groups):
                raise ValueError(f"{name} of {type(self).__name__} cannot change while it trains")
            for group in self.param_groups:
                group[name] = value

    def freeze(self) -> None:
        """Stop refreshing, because a refresh no longer fits the budget. Nothing to do without refreshes."""

    def evaluate(self, closure: Closure | None) -> Tensor:
        """Run the closure once, with gradients enabled, charge one evaluation and return the loss.

        Raises TypeError when there is no closure, RuntimeError when it returned nothing or forgot `backward`, also when
        gradients of an earlier call are still there.
        """
        if closure is None:
            raise TypeError(
                f"{type(self).__name__}.step needs a closure that clears the gradients, computes the loss, "
                "calls backward and returns the loss"
            )
        params = [p for g in self.param_groups for p in g["params"]]
        stamps = [_Stamp(p.grad) for p in params]
        with torch.enable_grad():
            loss = closure()
        if loss is None:
            raise RuntimeError(f"the closure given to {type(self).__name__}.step returned None; return the loss")
        if all(stamp.stale(p.grad) for stamp, p in zip(stamps, params, strict=True)):
            raise RuntimeError(
                f"the closure given to {type(self).__name__}.step left no gradient; call loss.backward()"
            )
        self.charge(1.0)
        return cast(Tensor, loss)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does."""
        eager(super().add_param_group)(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch does."""
        eager(super().zero_grad)(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As torch does."""
        return cast(dict[str, Any], eager(super().state_dict)())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load as torch does, then put back the saved dtype of every state tensor.

        torch casts floating state to the dtype of its parameter, which would turn a float32 basis beside bfloat16
        weights into bfloat16, and a resumed run would no longer be the same run.
        """
        eager(super().load_state_dict)(cast(dict[str, Any], state_dict))
        ids = [i for g in state_dict["param_groups"] for i in g["params"]]
        params = [p for g in self.param_groups for p in g["params"]]
        for i, p in zip(ids, params, strict=True):
            for key, saved in state_dict["state"].get(i, {}).items():
                if isinstance(saved, Tensor) and self.state[p][key].dtype != saved.dtype:
                    device = self.state[p][key].device
                    self.state[p][key] = saved.detach().clone().to(device=device)


class _Stamp:
    """Recognises a gradient that nobody has written to since, without keeping its memory alive."""

    def __init__(self, gradient: Tensor | None) -> None:
        self._tensor = None if gradient is None else weakref.ref(gradient)
        self._version = 0 if gradient is None else gradient._version

    def stale(self, gradient: Tensor | None) -> bool:
        """Whether `gradient` is missing or still what it was."""
        if gradient is None:
            return True
        return self._tensor is not None and self._tensor() is gradient and gradient._version == self._version


class Baseline(Counting):
    """Stands in front of one of torch's own optimizers: the closure is evaluated first, then its step runs."""

    CHANGEABLE = frozenset({"lr", "momentum", "weight_decay"})
    BOUNDS: ClassVar = {"momentum": SHARE, "weight_decay": NOT_NEGATIVE}

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Evaluate the closure once, take the step of the optimizer behind, return the loss."""
        loss = self.evaluate(closure)
        with torch.set_grad_enabled(bool(self.defaults.get("differentiable"))):
            eager(super().step)()
        return loss


def eager(method: Callable[..., Any]) -> Callable[..., Any]:
    """One of torch's own methods without what it is wrapped in for `torch.compile`; any other as it is.

    The wrapper's first call imports torch's compiler, a fifth of the time in which a worker comes to its first step.
    """
    if not method.__module__.startswith("torch.optim"):
        return method
    return cast(Callable[..., Any], inspect.unwrap(method.__func__).__get__(method.__self__))  # type: ignore[attr-defined]


def check_positive(**values: float) -> None:
    """Raise ValueError for the first value that is not a finite number above zero."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it has to be a number above 0")


def check_not_negative(**values: float) -> None:
    """Raise ValueError for the first value that is negative or not finite."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}; it has to be 0 or above")


def check_share(**values: float) -> None:
    """Raise ValueError for the first value outside [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it has to lie in [0, 1)")


DECLARATIONS = (
    "CHANGEABLE",
    "LEARNING_RATE",
    "REFRESH_INTERVAL",
    "BOUNDS",
    "HEAT_MAP",
    "LIMITS",
    "EQUIVARIANT",
    "REFERENCE",
)
"""What an optimizer that is no `Counting` may declare as well."""
Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
