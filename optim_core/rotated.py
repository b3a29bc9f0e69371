"""`rotated(base)`: any torch optimizer on the rotated problem f_R(u) = f(R^T u), u = R w, by name as an arm.

    u = R w;   u' = base step on u with gradient R g;   w <- w + R^T (u' - u)

For SGD with momentum this is SGD, whatever R: the control of every claim about rotations. The base's own code takes
the step, on the parameters themselves, which hold u for a moment; its buffers live in the rotated coordinates. Unlike
`rotated_adamw` weight decay is what the base makes of it in rotated coordinates (the same for L2 and decoupled decay).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from optim_core import registry
from optim_core.base import Baseline, Closure, Counting
from optim_core.rotations import Options, lookup
from optim_core.rotations.base import hyperparameter
from optim_core.rotations.space import Space
from optim_core.turned import Turned

LINEAR = ("momentum_buffer", "exp_avg")
SQUARED = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
DEFAULTS = {hyperparameter(f.name): f.default for f in fields(Options)}
"""Hyperparameters of the rotation, and the seed of the run, with their defaults."""


class Rotated(Turned):
    """Stands in front of a `Baseline` class in the method resolution order."""

    BASE: ClassVar[str]
    """Name of the base."""

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step of the base in the rotated basis; returns the loss before it."""
        loss = self.evaluate(closure)
        entered = [self.enter(i, closure) for i in range(len(self.param_groups))]
        turned = [e for e in entered if e[1] and not e[0].is_identity]
        for space, params, _ in turned:
            self._move_buffers(space, params)
        kept = [_go(space, params, rotated) for space, params, rotated in turned]
        for group in self.param_groups:
            group["step"] += 1
        super(Baseline, self).step()  # type: ignore[misc]
        for (space, params, _), (home, at, gradients) in zip(turned, kept, strict=True):
            _come_back(space, params, home, at, gradients)
            self.keep(space)
        return loss

    def __reduce__(self) -> tuple[Any, ...]:
        """The class is made by `rotated` and has no name of its own to be pickled by."""
        return _blank, (self.BASE,), self.__getstate__()

    def _move_buffers(self, space: Space, params: Sequence[Tensor]) -> None:
        """The base's buffers into a refreshed basis: linear ones as m, squared ones as v."""
        if not space.has_changed:
            return
        shaped = {k for p in params for k, v in self.state[p].items() if isinstance(v, Tensor) and v.shape == p.shape}
        for key in shaped - {k for p in params for k in space.memory[p]}:
            if key not in LINEAR + SQUARED:
                raise RuntimeError(f"it is not known how {key!r} moves between bases; use rotation_transport carry")
            owners = [p for p in params if isinstance(self.state[p].get(key), Tensor)]
            if len(owners) == len(params):
                moved = space.moved([self.state[p][key] for p in params], squared=key in SQUARED)
                for p, value in zip(params, moved, strict=True):
                    self.state[p][key].copy_(value)


def _go(
    space: Space, params: Sequence[Tensor], rotated: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Put u = R w and R g in the place of w and g; returns (w, u, g)."""
    home, gradients = [p.clone() for p in params], [p.grad for p in params]
    for p, u, h in zip(params, space.forward(params), rotated, strict=True):
        p.copy_(u)
        p.grad = h.to(p.dtype)
    return home, [p.clone() for p in params], gradients


def _come_back(
    space: Space,
    params: Sequence[Tensor],
    home: Sequence[Tensor],
    at: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> None:
    moves = space.backward([p - u for p, u in zip(params, at, strict=True)])
    for p, w, move, gradient in zip(params, home, moves, gradients, strict=True):
        p.copy_(w + move)
        p.grad = gradient


@registry.wrapper("rotated")
@lru_cache(maxsize=64)
def rotated(base: str) -> type[Counting]:
    """The class of `rotated(base)`: hyperparameters of the base, then those of the rotation.

    Raises KeyError for an unknown base, or one that takes more than one gradient or has a step of its own.
    """
    inner = registry.lookup(base)
    if not issubclass(inner, Baseline) or issubclass(inner, Turned):
        raise KeyError(f"rotated({base}): the base has to be one of torch's kind of optimizers, such as sgd or adamw")
    parameters = [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in registry.hyperparameters(base).values()),
        *(inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v) for k, v in DEFAULTS.items()),
    ]

    def construct(self: Any, params: Any, *, model: nn.Module | None = None, **values: Any) -> None:
        options = {**DEFAULTS, **{k: v for k, v in values.items() if k in DEFAULTS}}
        check(**options)
        inner.__init__(self, list(params), **{k: v for k, v in values.items() if k not in DEFAULTS})
        self.defaults.update(options)
        for group in self.param_groups:
            group.update(options)
        self.open_spaces(model)

    def check(**values: Any) -> None:
        options = Options.of(values)
        if not lookup(options.kind).COMPLETE:
            raise ValueError(f"rotation is {options.kind!r}, which keeps a part of the space; use it in rotated_adamw")

    construct.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    members = {
        "__init__": construct,
        "check_values": staticmethod(check),
        "__doc__": f"`{base}` in a rotated basis.",
        "BASE": base,
    }
    found = type(f"Rotated{inner.__name__}", (Rotated, inner), members)
    found.__signature_of__ = found  # type: ignore[attr-defined]  # not the one that a foreign base inherits
    return found


def _blank(base: str) -> Rotated:
    """An optimizer that is still without parameters, which `__setstate__` gives it."""
    cls = cast(type[Rotated], rotated(base))
    return cls.__new__(cls)


registry.register("rotated(sgd)")(rotated("sgd"))
