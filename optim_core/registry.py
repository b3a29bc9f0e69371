"""Optimizers by name: `@register("sam")`, `names()`, `hyperparameters(name)`, `build(name, model, **values)`."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from optim_core.base import Baseline, Counting

T = TypeVar("T", bound=type[Counting])
W = TypeVar("W", bound=Callable[[str], type[Counting]])
_REGISTRY: dict[str, type[Counting]] = {}
_WRAPPERS: dict[str, Callable[[str], type[Counting]]] = {}
NOT_HYPERPARAMETERS = frozenset(
    {"self", "params", "loss", "refresh_batches", "args", "kwargs", "named_parameters", "model", "run_seed"}
)


def register(name: str) -> Callable[[T], T]:
    """Class decorator that makes an optimizer reachable as `name`. A name taken twice raises ValueError."""

    def add(cls: T) -> T:
        if name in _REGISTRY:
            raise ValueError(f"optimizer {name!r} is registered twice: {_REGISTRY[name].__name__} and {cls.__name__}")
        _REGISTRY[name] = cls
        return cls

    return add


def wrapper(name: str) -> Callable[[W], W]:
    """Decorator of a function from the name of an optimizer to one around it, reachable as `name(inner)`."""

    def add(make: W) -> W:
        if name in _WRAPPERS:
            raise ValueError(f"wrapper {name!r} is registered twice")
        _WRAPPERS[name] = make
        return make

    return add


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted(_REGISTRY)


def lookup(name: str) -> type[Counting]:
    """The class behind `name`: a registered one, `package.module.Class` of torch's kind, or `wrapper(name)`.

    Raises KeyError with the nearest registered name when there is no such optimizer.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    outer, found, inner = name.partition("(")
    if found and name.endswith(")") and outer in _WRAPPERS:
        return _WRAPPERS[outer](inner[:-1])
    if "." in name:
        return _foreign(name)
    raise KeyError(f"no optimizer {name!r}{nearest(name, names())}")


def _foreign(name: str) -> type[Counting]:
    module_name, _, class_name = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise KeyError(f"no optimizer {name!r}: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise KeyError(f"{name!r} is not a torch.optim.Optimizer")
    if issubclass(cls, Counting):
        return cls
    return type(class_name, (Baseline, cls), {"__signature_of__": cls})


def hyperparameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The hyperparameters of an optimizer: its constructor's arguments, in order, with their defaults."""
    cls = lookup(name)
    constructor = getattr(cls, "__signature_of__", cls).__init__
    found = inspect.signature(constructor).parameters
    return {
        key: p
        for key, p in found.items()
        if key not in NOT_HYPERPARAMETERS and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def changeable(name: str) -> frozenset[str]:
    """The hyperparameters of the named optimizer that may change while it trains."""
    return lookup(name).CHANGEABLE & set(hyperparameters(name))


def cost_per_step(name: str, **values: Any) -> float:
    """Average gradient evaluations per step of the named optimizer with these hyperparameters."""
    return lookup(name).cost_per_step(**values)


def cost_of_start(name: str, **values: Any) -> float:
    """Gradient evaluations that the named optimizer spends once, before its first step."""
    return lookup(name).cost_of_start(**values)


def check(name: str, **values: Any) -> None:
    """Raise ValueError for a value that the named optimizer is known to refuse, without building it."""
    lookup(name).check_values(**values)


def build(name: str, model: nn.Module | list[nn.Module], **values: Any) -> Counting:
    """The named optimizer over `model` (for games: a list with one module per player).

    `llqr` and `llqr_sam` also take `loss` and `refresh_batches`; every other optimizer ignores nothing: a
    hyperparameter that it does not have raises TypeError naming the nearest one that it has.
    """
    known = hyperparameters(name)
    for key in values:
        if key not in known and key not in ("loss", "refresh_batches", "run_seed"):
            raise TypeError(f"optimizer {name!r} has no hyperparameter {key!r}{nearest(key, known)}")
    return lookup(name).from_model(model, **values)


def needs_batches(name: str) -> bool:
    """Whether the optimizer draws batches of its own (`loss` and `refresh_batches` have to be given)."""
    return "refresh_batches" in inspect.signature(lookup(name).__init__).parameters


def needs_run_seed(name: str) -> bool:
    """Whether the optimizer draws at random: trials pass the seed of the run on as `run_seed`."""
    return "run_seed" in inspect.signature(lookup(name).__init__).parameters


def nearest(word: str, choices: Any) -> str:
    """'; did you mean X?' or a list of what there is."""
    options = [str(c) for c in choices]
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is: {', '.join(options)}" if options else ""
