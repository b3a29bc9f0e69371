"""What all optimizers share: the closure contract, the count of gradient evaluations, exact loading.

A *gradient evaluation* is one forward and backward pass over one nominal batch, the currency of every budget.
Optimizers call the closure themselves and count what they spend, including refreshes of a preconditioner. The algebra
of a step (matrix products of a preconditioner or rotation) is not a pass over a batch and is not counted: where equal
budgets are called equal compute, look at the seconds too.

No optimizer takes a step with a gradient that is not finite: the weights stay, and `skipped_steps` counts it (see
`judging`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from optim_core.declarations import NOT_NEGATIVE, SHARE, HeatMap, Limit
from optim_core.eager import eager, is_observed
from optim_core.fresh import Call, NotFinite, Stamp
from optim_core.judging import COUNTER, Judging
from optim_core.packed import Packing
from optim_core.sharded import Layers, is_sharded, refuse

Closure = Callable[[], Any]
OF_THE_ORIGINAL = ("step", "_settle", "_left", "_layers", "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks",
                   "_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks",
                   "_optimizer_load_state_dict_pre_hooks", "_optimizer_load_state_dict_post_hooks")  # fmt: skip
"""Attributes that a copy does not inherit: whole copies of sharded layers; hooks, as in torch; a scheduler's wrapper
around `step`.
"""
OF_A_CONSTRUCTOR = ("self", "params", "own", "model", "__class__")
"""Names within a constructor that are no hyperparameters."""


class Counting(Judging):
    """A `torch.optim.Optimizer` that requires a closure and counts gradient evaluations.

    The count is in the first parameter group, hence in `state_dict`, and survives a resume. Subclasses either implement
    `step(closure)` themselves (calling `self.evaluate(closure)` for every pass) or precede a torch optimizer in the
    method resolution order.
    """

    GRAD_EVALS: ClassVar[float] = 1.0
    """Gradient evaluations per step without any refresh."""
    LEARNING_RATE: ClassVar[str] = "lr"
    """The hyperparameter that scales its steps, which every arm tunes over decades. Empty: theory sets the step
    length.
    """
    REFRESH_INTERVAL: ClassVar[str] = ""
    """The hyperparameter that sets the number of steps between refreshes. Empty: every step is computed alike."""
    BOUNDS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Hyperparameter -> (lowest, highest) meaningful value: an optimum at such a bound is not at an edge."""
    HEAT_MAP: ClassVar[HeatMap | None] = None
    """Two hyperparameters that reports plot against each other."""
    LIMITS: ClassVar[tuple[Limit, ...]] = ()
    """Settings at which it takes the steps of another optimizer."""
    EQUIVARIANT: ClassVar[Mapping[str, Any] | None] = None
    """Settings at which its steps are the same in every orthonormal basis, even a changing one; None: nowhere."""
    PACKING: ClassVar[Packing | None] = None
    """How steps of several trials are taken at once (see `packed`), declared by the class itself; None: not
    supported.
    """
    REFERENCE: ClassVar[bool] = False
    """Whether it is a standard choice that a fair comparison includes as an arm."""
    SETTLED: ClassVar[frozenset[str]] = frozenset()
    """Hyperparameters of its base class that it sets itself, if its constructor passes others on by `**`."""
    NOT_SHARDED: ClassVar[str] = ""
    """Why it does not support parameters sharded over processes (see `sharded`); empty: it does."""
    PLAYS_GAMES: ClassVar[bool] = False
    """Whether it takes one module per player, and a closure that returns one loss per player without backward."""
    _left: dict[int, Stamp]
    """The gradients left by the latest step, by id of the parameter."""
    _begins_cleared = False
    """Whether the closure being traced starts without gradients (see `compiled_closure`)."""
    _stepping = False
    _evaluated = False
    """Whether this step has evaluated the closure: from then on `p.grad` is the optimizer's own."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Make every `step` a transaction: one with a gradient that is not finite leaves the weights unchanged.

        A subclass with its own move must declare SELECTS itself.
        """
        super().__init_subclass__(**keywords)
        if "SELECTS" not in cls.__dict__ and cls.__dict__.keys() & {"step", "take", "climb", "combine", "descend"}:
            cls.SELECTS = False
        if "step" in cls.__dict__:
            cls.step = _transaction(cls.__dict__["step"])  # type: ignore[method-assign]

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """As in torch: `step` with its hooks, marked for the profiler. They run once, even if it calls the step of its
        base class. Where nobody listens, the mark is left out: it takes as long as the step of a small model.
        """
        hooked = torch.optim.Optimizer.profile_hook_step(func)  # type: ignore[type-var]

        @functools.wraps(func)
        def step(self: Counting, *args: Any, **keywords: Any) -> Any:
            return (func if self._stepping or not is_observed(self) else hooked)(self, *args, **keywords)

        return step

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Build over all parameters of `model`. Override if more than parameters is needed (names, modules)."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        return cls([p for p in model.parameters() if p.requires_grad], **hyperparameters)

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """Average gradient evaluations per step, refreshes amortized. Pure arithmetic, for plans."""
        return cls.GRAD_EVALS

    @classmethod
    def cost_of_start(cls, **hyperparameters: Any) -> float:
        """Gradient evaluations spent once, before the first step, in addition to those of the step. For plans."""
        return 0.0

    @classmethod
    def steps_within(cls, budget: float, **hyperparameters: Any) -> int:
        """Steps that a budget of gradient evaluations affords, after the cost of the start. For plans."""
        left = max(0.0, budget - cls.cost_of_start(**hyperparameters))
        return int(left / cls.cost_per_step(**hyperparameters) + 1e-9)

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter that the constructor would reject. Used to check sweep files."""

    @classmethod
    def checked(cls, arguments: Mapping[str, Any], *, paired: bool = False) -> dict[str, Any]:
        """The hyperparameters among the `locals()` of a constructor, checked; `paired`: beta1 and beta2 as in torch.

        Raises ValueError.
        """
        given = {name: value for name, value in arguments.items() if name not in OF_A_CONSTRUCTOR}
        cls.check_values(**given)
        if paired:
            given["betas"] = given.pop("beta1"), given.pop("beta2")
        return given

    def also(self, **settings: Any) -> None:
        """Hyperparameters added by a subclass: defaults for every parameter group that does not set its own."""
        self.defaults.update(settings)
        for group in self.param_groups:
            for key, value in settings.items():
                group.setdefault(key, value)

    def why_not_sharded(self, group: Mapping[str, Any]) -> str:
        """NOT_SHARDED, or the reason given by the settings of a group."""
        return self.NOT_SHARDED

    @property
    def layers(self) -> Layers:
        """Ownership of sharded layers, for methods that need whole matrices."""
        found: Layers = self.__dict__.setdefault("_layers", Layers())
        return found

    def charge(self, amount: float) -> None:
        """Add `amount` gradient evaluations to the count."""
        self.param_groups[0][COUNTER] = self.grad_evals + amount

    @property
    def ascending(self) -> bool:
        """Whether the gradient being evaluated only determines where to evaluate next and will not move the weights.

        Closures that alter gradients, for example by clipping, leave such a gradient alone.
        """
        return bool(getattr(self, "_ascending", False))

    def evaluate_ascent(self, closure: Closure | None) -> Tensor:
        """`evaluate` for a gradient that perturbs and is then discarded (see `ascending`)."""
        self._ascending = True
        try:
            return self.evaluate(closure)
        finally:
            self._ascending = False

    def evaluate_unclipped(self, closure: Closure | None) -> Tensor:
        """`evaluate` for a gradient that the step compares with another one of the same loss: closures do not alter it.

        It eventually moves the weights, so it raises NotFinite like `evaluate`.
        """
        loss = self.evaluate_ascent(closure)
        if not self.takes_step():
            raise NotFinite(loss)
        return loss

    def next_cost(self) -> float:
        """Gradient evaluations that the next step will spend; more than GRAD_EVALS if a refresh is due."""
        return self.GRAD_EVALS

    def freeze(self) -> None:
        """Stop refreshing, because a refresh no longer fits the budget. A no-op without refreshes."""

    def evaluate(self, closure: Closure | None) -> Tensor:
        """Run the closure once with gradients enabled, charge one evaluation and return the loss.

        `p.grad` then holds the gradient of this call only (see `fresh`). Raises TypeError if there is no closure,
        RuntimeError if it returned nothing, did not call `backward`, or added to gradients from outside; NotFinite,
        which `step` turns into a skipped step, unless the gradient only perturbs.
        """
        if closure is None:
            raise TypeError(
                f"{type(self).__name__}.step needs a closure that clears the gradients, computes the loss, "
                "calls backward and returns the loss"
            )
        params = [p for g in self.param_groups for p in g["params"]]
        call = Call(params, None if self._evaluated else self.__dict__.get("_left", {}))
        try:
            with torch.enable_grad():
                loss = closure()
        finally:
            call.close()
        if loss is None:
            raise RuntimeError(f"the closure given to {type(self).__name__}.step returned None; return the loss")
        call.check(type(self).__name__)
        self.charge(1.0)
        self._evaluated = True
        if not self.ascending and not self.takes_step():
            raise NotFinite(loss)
        return cast(Tensor, loss)

    def prime(self) -> None:
        """Create the state that a checkpoint is loaded into, by steps along zero that move and count nothing.

        Two steps, since some methods spend the first gradient on a basis and create their moments at the second. A
        no-op for an optimizer that must measure before its first step: its state comes from the checkpoint.
        """
        try:
            self.freeze()
        except ValueError:
            return
        params = [p for g in self.param_groups for p in g["params"] if p.requires_grad]
        home = [p.detach().clone() for p in params]
        before = [{k: v for k, v in g.items() if k != "params"} for g in self.param_groups]

        def nothing() -> Tensor:
            for p in params:
                p.grad = torch.zeros_like(p)
            return torch.zeros(())

        for p in params:
            p.grad = None
        for _ in range(2):
            self.step(nothing)  # type: ignore[arg-type]
        with torch.no_grad():
            for p, w in zip(params, home, strict=True):
                p.copy_(w)
        for group, values in zip(self.param_groups, before, strict=True):
            for key in group.keys() - values.keys() - {"params"}:
                del group[key]
            group.update(values)

    @contextmanager
    def judged_weights(self) -> Iterator[None]:
        """Within this context the parameters hold the weights to evaluate (schedule-free methods); restored bit for
        bit.
        """
        if not (callable(getattr(self, "eval", None)) and callable(getattr(self, "train", None))):
            yield
            return
        params = [p for g in self.param_groups for p in g["params"]]
        home = [p.detach().clone() for p in params]
        self.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.train()  # type: ignore[attr-defined]
            with torch.no_grad():
                for p, w in zip(params, home, strict=True):
                    p.copy_(w)

    def __getstate__(self) -> dict[str, Any]:
        """Everything except what belongs only to the original, so that a copy or a pickle can continue."""
        return {k: v for k, v in self.__dict__.items() if k not in OF_THE_ORIGINAL}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does. Raises RuntimeError for sharded parameters that it does not support."""
        eager(super().add_param_group)(param_group)
        added = self.param_groups[-1]
        if any(is_sharded(p) for p in added["params"]):
            try:
                refuse(added["params"], type(self).__name__, self.why_not_sharded(added))
            except Exception:
                del self.param_groups[-1]
                raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch does."""
        if self._begins_cleared and torch.compiler.is_compiling():
            return
        eager(super().zero_grad)(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As torch does."""
        self._settled()
        return cast(dict[str, Any], eager(super().state_dict)())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load as torch does, then restore the saved dtype of every state tensor.

        torch casts floating-point state to the dtype of its parameter, which would turn a float32 basis of bfloat16
        weights into bfloat16, and a resumed run would no longer be the same run.
        """
        self._settled()
        eager(super().load_state_dict)(cast(dict[str, Any], state_dict))
        ids = [i for g in state_dict["param_groups"] for i in g["params"]]
        params = [p for g in self.param_groups for p in g["params"]]
        for i, p in zip(ids, params, strict=True):
            for key, saved in state_dict["state"].get(i, {}).items():
                if isinstance(saved, Tensor) and self.state[p][key].dtype != saved.dtype:
                    device = self.state[p][key].device
                    self.state[p][key] = saved.detach().clone().to(device=device)


def _transaction(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step`, undone and counted if a gradient is not finite; also torch's way to create state."""

    @functools.wraps(step)
    def taken(self: Counting, closure: Closure | None = None) -> Any:
        if self._stepping:
            return step(self, closure)  # called by a subclass's step
        if closure is None and _asks_for_state(self):
            return self.prime()
        if self._late.word():
            self._settled()
        self._stepping = True
        try:
            return step(self, closure)
        except NotFinite as found:
            self.skip()
            return found.loss
        finally:
            self.end_step()
            if self._evaluated:
                self._left = {id(p): Stamp(p.grad) for g in self.param_groups for p in g["params"]}
            self._stepping = self._evaluated = False

    return taken


def _asks_for_state(optimizer: Counting) -> bool:
    """Whether the caller is `torch.distributed.checkpoint`: no state yet, every rate 0 and every gradient exactly 0."""
    params = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad]
    return (
        not optimizer.state
        and all(float(g.get("lr", 0.0)) == 0 for g in optimizer.param_groups)
        and all(p.grad is not None and not bool(p.grad.any()) for p in params)
    )


class Baseline(Counting):
    """Precedes one of torch's own optimizers: the closure is evaluated first, then torch's step runs."""

    CHANGEABLE = frozenset({"lr", "momentum", "weight_decay"})
    BOUNDS: ClassVar = {"momentum": SHARE, "weight_decay": NOT_NEGATIVE}

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """As the base class does; a schedule-free optimizer is then in training mode."""
        found = super().from_model(model, **hyperparameters)
        if callable(train := getattr(found, "train", None)):
            train()
        return found

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Evaluate the closure once, take the torch optimizer's step, return the loss."""
        loss = self.evaluate(closure)
        with torch.set_grad_enabled(bool(self.defaults.get("differentiable"))):
            self.take()
        return loss

    def take(self) -> None:
        """The torch optimizer's step along the current gradients."""
        eager(super().step)()


DECLARATIONS = ("CHANGEABLE", "GROUPABLE", "LEARNING_RATE", "REFRESH_INTERVAL", "BOUNDS", "HEAT_MAP", "LIMITS",
                "EQUIVARIANT", "REFERENCE")  # fmt: skip
"""What an optimizer that is not a `Counting` may also declare."""
Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
