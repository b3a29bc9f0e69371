"""Register your own tasks and optimizers by name, for sweeps run by this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

from torch.optim import Optimizer

import optim_core
import trainables

C = TypeVar("C", bound=type)
T = TypeVar("T", bound=type[trainables.Task])


@overload
def task(name: T) -> T: ...
@overload
def task(name: str) -> Callable[[T], T]: ...
def task(name: str | T) -> T | Callable[[T], T]:
    """Class decorator that lets sweeps name a task: `@geosweep.task("ring")`, or `@geosweep.task` for the class's name.

    The class may be defined in a notebook or a script: it is sent to the workers. (Tasks in a module that the command
    can import need no name: use `package.module:Task`.) Redefining the same class replaces it. Raises ValueError for a
    name that is already taken.

    >>> import geosweep
    >>> @geosweep.task("nothing-to-learn")
    ... class Nothing(geosweep.Task):
    ...     METRICS = {"loss/val": geosweep.Metric(goal="minimize", worst=1.0)}
    """
    if isinstance(name, str):
        return trainables.task(name)
    return trainables.task(_class(name).__name__)(name)


@overload
def register(thing: C, name: str = "") -> C: ...
@overload
def register(thing: str) -> Callable[[C], C]: ...
def register(thing: str | C, name: str = "") -> C | Callable[[C], C]:
    """Register a task or an optimizer by name: call it, or use it as a decorator with or without a name.

    Any `torch.optim.Optimizer` that takes plain steps along gradients works; its constructor's keyword arguments are
    its hyperparameters. It is tried on a small network. Raises TypeError for anything else, ValueError for a name that
    is already taken and for an optimizer that cannot be an arm.

    >>> import geosweep, torch
    >>> @geosweep.register("sign_descent")
    ... class SignDescent(torch.optim.Optimizer):
    ...     def __init__(self, params, lr: float = 0.01):
    ...         super().__init__(params, {"lr": lr})
    ...     @torch.no_grad()
    ...     def step(self, closure=None):
    ...         for group in self.param_groups:
    ...             for p in group["params"]:
    ...                 p.add_(p.grad.sign(), alpha=-group["lr"])
    >>> list(geosweep.optimizers.hyperparameters("sign_descent"))
    ['lr']
    """
    if isinstance(thing, str):
        return lambda cls: _registered(cls, thing)
    return _registered(thing, name or _class(thing).__name__)


def _registered(cls: C, name: str) -> C:
    if issubclass(_class(cls), trainables.Task):
        return trainables.task(name)(cls)
    if issubclass(cls, Optimizer):
        optim_core.adopt(name, cls)
        return cls
    raise TypeError(f"{cls.__qualname__} is neither a geosweep.Task nor a torch.optim.Optimizer")


def _class(thing: C) -> C:
    if not isinstance(thing, type):
        raise TypeError(f"{thing!r} is neither a class nor a name")
    return thing
