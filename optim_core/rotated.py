"""`rotated(base)`: any torch optimizer on the rotated problem f_R(u) = f(R^T u), u = R w, selectable as an arm.

    u = R w;   u' = base step on u with gradient R g;   w <- w + R^T (u' - u)

For SGD with momentum this is SGD for any R, which is the control for every claim about rotations. The base's own code
takes the step, on the parameters themselves, which temporarily hold u; its buffers are in the rotated coordinates.
Unlike in `rotated_adamw`, weight decay is whatever the base does in rotated coordinates (the same for L2 and decoupled
decay).
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
from optim_core.kernels import refuse_sparse, stored_like
from optim_core.rotations import Options, lookup
from optim_core.rotations.base import PREFIX, hyperparameter
from optim_core.rotations.space import Space
from optim_core.turned import Turned, bases_aside, limits_under_rotation

LINEAR = ("momentum_buffer", "exp_avg")
SQUARED = ("exp_avg_sq", "max_exp_avg_sq", "square_avg")
DEFAULTS = {hyperparameter(f.name): f.default for f in fields(Options)}
"""Hyperparameters of the rotation, and the seed of the run, with their defaults."""


class Rotated(Turned):
    """Precedes a `Baseline` class in the method resolution order."""

    EQUIVARIANT = None  # not inherited from its base's declarations
    REFERENCE = False
    BASE: ClassVar[str]
    """Name of the base."""

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step of the base in the rotated basis; returns the loss before it."""
        loss = self.evaluate(closure)
        refuse_sparse(self.param_groups)
        with self.whole_layers():
            self._take_rotated(closure)
        return loss

    def _take_rotated(self, closure: Closure | None) -> None:
        entered = [self.enter(i, closure) for i in range(len(self.param_groups))]
        moving = {p for _, params, _ in entered for p in params}
        waiting = [
            (p, p.grad) for g in self.param_groups for p in g["params"] if p.grad is not None and p not in moving
        ]
        for p, _ in waiting:
            p.grad = None
        turned = [(i, *e) for i, e in enumerate(entered) if e[1] and not e[0].is_identity]
        kept = [_go(space, params, rotated) for _, space, params, rotated in turned]
        for i, (_, params, _) in enumerate(entered):
            if params:
                self.counted(i, "step")
        with bases_aside(self.state):
            cast(Any, super()).take()
        for (index, space, params, _), (home, at, gradients) in zip(turned, kept, strict=True):
            _come_back(space, params, home, at, gradients)
            self.leave(index, space, params)
        for p, gradient in waiting:
            p.grad = gradient

    def __reduce__(self) -> tuple[Any, ...]:
        """The class is made by `rotated` and has no importable name for pickling."""
        return _blank, (self.BASE,), self.__getstate__()

    def move_moments(self, space: Space) -> None:
        """Move the base's buffers into the basis just learned by `space`: linear ones like m, squared ones like v."""
        turning = [p for p in space.params if space.is_rotated(p)]
        shaped = {k for p in turning for k, v in self.state[p].items() if isinstance(v, Tensor) and v.shape == p.shape}
        for key in sorted(k for k in shaped if not k.startswith(PREFIX)):
            if key not in LINEAR + SQUARED:
                raise RuntimeError(f"it is unknown how to move {key!r} between bases; use rotation_transport carry")
            buffers = [self.state[p].get(key) for p in space.params]
            given = [torch.zeros_like(p) if b is None else b for p, b in zip(space.params, buffers, strict=True)]
            for buffer, value in zip(buffers, space.moved(given, squared=key in SQUARED), strict=True):
                if buffer is not None:
                    buffer.copy_(value)


def _go(
    space: Space, params: Sequence[Tensor], rotated: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Replace w and g by u = R w and R g; returns (w, u, g)."""
    home, gradients = [p.clone() for p in params], [p.grad for p in params]
    for p, u, h in zip(params, space.forward(params), rotated, strict=True):
        p.copy_(u)
        p.grad = stored_like(h.to(p.dtype), p)
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

    Raises KeyError for an unknown base, or one that takes more than one gradient or has its own step.
    """
    inner = registry.lookup(base)
    if not issubclass(inner, Baseline) or issubclass(inner, Turned):
        raise KeyError(f"rotated({base}): the base must be one of torch's kind of optimizers, such as sgd or adamw")
    parameters = [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
        inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in registry.hyperparameters(base).values()),
        *(inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY, default=v) for k, v in DEFAULTS.items()),
    ]

    def construct(self: Any, params: Any, *, model: nn.Module | None = None, **values: Any) -> None:
        options = {**DEFAULTS, **{k: v for k, v in values.items() if k in DEFAULTS}}
        check(**values)
        inner.__init__(self, list(params), **{k: v for k, v in values.items() if k not in DEFAULTS})
        self.defaults.update(options)
        for group in self.param_groups:
            group.update(options)
        self.open_spaces(model)

    def check(**values: Any) -> None:
        inner.check_values(**values)
        options = Options.of(values)
        if not lookup(options.kind).COMPLETE:
            raise ValueError(
                f"rotation is {options.kind!r}, which keeps only part of the space; use it in rotated_adamw"
            )

    construct.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    members = {
        "__init__": construct,
        "check_values": staticmethod(check),
        "__doc__": f"`{base}` in a rotated basis.",
        "BASE": base,
        "SELECTS": inner.SELECTS,
        "CHANGEABLE": inner.CHANGEABLE | Turned.CHANGEABLE,
        "BOUNDS": {**inner.BOUNDS, **Turned.BOUNDS},
        "LIMITS": limits_under_rotation(base, inner),
    }
    found = type(f"Rotated{inner.__name__}", (Rotated, inner), members)
    found.__signature_of__ = found  # type: ignore[attr-defined]  # not the one that a foreign base inherits
    return found


def _blank(base: str) -> Rotated:
    """An optimizer without parameters, to be filled by `__setstate__`."""
    cls = cast(type[Rotated], rotated(base))
    return cls.__new__(cls)


registry.register("rotated(sgd)")(rotated("sgd"))
