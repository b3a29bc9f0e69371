"""Optimizers by name: `@register("sam")`, `names()`, `hyperparameters(name)`, `build(name, model, **values)`."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import nn

from optim_core import plugins
from optim_core.base import DECLARATIONS, Baseline, Counting
from optim_core.declarations import Limit
from optim_core.groups import divide
from optim_core.named import Named, nearest

T = TypeVar("T", bound=type[Counting])
W = TypeVar("W", bound=Callable[[str], type[Counting]])
GROUP = "geosweep.optimizers"
"""The entry point group of plug-ins."""
HOMES: Mapping[str, tuple[str, ...]] = {
    "average_case": (
        "conjugate_gradient",
        "gd",
        "nesterov",
        "polyak",
        "generalized_chebyshev",
        "chebyshev",
        "marchenko_pastur",
        "laguerre",
    ),
    "baselines": ("sgd", "adamw"),
    "dion": ("dion",),
    "fisher_sam": ("fisher_sam",),
    "games": (
        "gda",
        "alternating_gda",
        "extragradient",
        "optimistic",
        "bilinear_optimal",
        "hamiltonian",
        "consensus",
        "tuned_game",
    ),
    "gsam": ("gsam",),
    "kl_shampoo": ("kl_shampoo",),
    "llqr": ("llqr",),
    "llqr_sam": ("llqr_sam",),
    "looksam": ("looksam",),
    "muon": ("muon",),
    "normuon": ("normuon",),
    "psgd_kron": ("psgd_kron",),
    "rotated": ("rotated(sgd)",),
    "rotated_adamw": ("rotated_adamw",),
    "sam": ("sam", "asam", "friendly_sam"),
    "schedule_free": ("schedule_free",),
    "shampoo": ("shampoo",),
    "soap": ("soap",),
    "splus": ("splus",),
}
"""Module of this package -> optimizers that it registers on import."""
WRAPPER_HOMES: Mapping[str, tuple[str, ...]] = {"rotated": ("rotated",)}
_REGISTRY: Named[type[Counting]] = Named("optimizer", "optim_core", HOMES)
_PLUGINS: set[str] = set()
_WRAPPERS: Named[Callable[[str], type[Counting]]] = Named("wrapper", "optim_core", WRAPPER_HOMES)
NO_GROUPS: Mapping[str, Mapping[str, Any]] = {}
NOT_HYPERPARAMETERS = frozenset(
    {"self", "params", "loss", "refresh_batches", "args", "kwargs", "named_parameters", "model", "run_seed"}
)


def register(name: str) -> Callable[[T], T]:
    """Class decorator that registers an optimizer as `name`. Raises ValueError for a name already taken."""
    return _REGISTRY.add(name)


def wrapper(name: str) -> Callable[[W], W]:
    """Decorator for a function from the name of an optimizer to a wrapped one, registered as `name(inner)`."""
    return _WRAPPERS.add(name)


def adopt(name: str, cls: type) -> type[Counting]:
    """Register a subclass of `Counting`, or of torch's Optimizer, as `name`; returns the registered class.

    Raises ValueError for a name already taken, and for a class that cannot be an arm.
    """
    try:
        return _REGISTRY.add(name)(_counting(name, cls))
    except KeyError as error:
        raise ValueError(str(error.args[0])) from None


def names() -> list[str]:
    """All names, registered or offered by an installed distribution, sorted."""
    return sorted({*_REGISTRY.names(), *plugins.offered(GROUP)})


def registered() -> list[str]:
    """The names available without importing anything, sorted."""
    return _REGISTRY.names()


def name_of(cls: type) -> str:
    """The name under which a class was registered or adopted, or `package.module.Class`."""
    for name, found in _REGISTRY.loaded().items():
        if cls in (found, getattr(found, "__signature_of__", None)):
            return name
    return f"{cls.__module__}.{cls.__qualname__}"


def conflict(name: str) -> str:
    """Why a name is ambiguous; empty if it is not (see `plugins`)."""
    return plugins.conflict("optimizer", GROUP, name, ours=name in _REGISTRY.names() and name not in _PLUGINS)


def lookup(name: str) -> type[Counting]:
    """The class for `name`: a registered one, `package.module.Class` of torch's kind, or `wrapper(name)`.

    An unknown name is looked up among the plug-ins of installed distributions. Raises KeyError with the nearest name if
    there is no such optimizer.
    """
    if (registered := _REGISTRY.get(name) or _plugin(name)) is not None:
        return registered
    outer, found, inner = name.partition("(")
    if found and name.endswith(")") and (make := _WRAPPERS.get(outer)) is not None:
        return make(inner[:-1])
    if name.startswith("__main__."):  # where a class may be redefined at any time
        return _foreign.__wrapped__(name)
    if "." in name:
        return _foreign(name)
    raise KeyError(f"no optimizer {name!r}{nearest(name, names())}")


def _plugin(name: str) -> type[Counting] | None:
    """The optimizer that an installed distribution offers as `name`; registers it."""
    try:
        found = plugins.load("optimizer", GROUP, name)
        if found is None:
            return None
        _PLUGINS.add(name)
        return _REGISTRY.get(name) or adopt(name, found)  # its module may register it itself
    except ValueError as error:
        raise KeyError(str(error)) from None


@lru_cache(maxsize=256)
def _foreign(name: str) -> type[Counting]:
    module_name, _, class_name = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise KeyError(f"no optimizer {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise KeyError(f"no optimizer {name!r}: {plugins.broken(module_name, error)}") from error
    return _counting(name, cls)


def _counting(name: str, cls: Any) -> type[Counting]:
    """Wraps a class of torch's kind with what arms need. Raises KeyError for one that cannot be an arm."""
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise KeyError(f"{name!r} is not a torch.optim.Optimizer")
    if issubclass(cls, Counting):
        return cls
    declared = {key: getattr(cls, key) for key in DECLARATIONS if hasattr(cls, key)}
    own = {**declared, "__signature_of__": cls, "__reduce__": _by_name(name)}
    own |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    found = cast(type[Baseline], type(cls.__name__, (Baseline, cls), own))
    in_groups = _rehearse(name, found)
    if "GROUPABLE" not in declared:
        found.GROUPABLE = in_groups or Baseline.GROUPABLE
    return found


def _by_name(name: str) -> Callable[[Counting], tuple[Any, ...]]:
    """How to pickle an optimizer of a class that is made by `lookup` and cannot be imported."""

    def reduce(self: Counting) -> tuple[Any, ...]:
        return _blank, (name,), self.__getstate__()

    return reduce


def _blank(name: str) -> Counting:
    """An optimizer without parameters, to be filled by `__setstate__`."""
    cls = lookup(name)
    return cls.__new__(cls)


def _rehearse(name: str, cls: type[Counting]) -> frozenset[str]:
    """Raise KeyError, with the reason, if a third-party optimizer cannot take two steps on a small network.

    With its defaults, on a weight and a bias; returns the defaults of its parameter groups, from which torch's kind of
    optimizers read hyperparameters. Skipped for a class with required values that have not been given yet.
    """
    known = hyperparameters_of(cls)
    demanded = _demanded(known)
    for key, kind in demanded.items():
        if kind is not inspect.Parameter.empty and not {"int", "float", "bool", "str"} & set(_words(kind)):
            raise KeyError(f"{name!r} cannot be an arm: it requires {key}, {kind}, which is neither a number nor text")
    if demanded:
        return frozenset()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Linear(3, 2)
        inputs = torch.randn(4, 3)
        try:
            optimizer = cls.from_model(model, **({"lr": 1e-3} if "lr" in known else {}))

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = model(inputs).square().mean()
                loss.backward()
                return cast(torch.Tensor, loss)

            for _ in range(2):
                optimizer.step(closure)  # type: ignore[arg-type]
            return frozenset(optimizer.defaults)
        except Exception as error:
            raise KeyError(
                f"{name!r} cannot be an arm: two steps along plain gradients of a linear layer ended in "
                f"{type(error).__name__}: {error}. An arm is built from a model's parameters and steps once per "
                "gradient; it must not require closures, second derivatives, names or its own parameter groups. "
                "A subclass of optim_core.Counting may evaluate its closure as often as it needs"
            ) from None


def _demanded(known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Hyperparameters without a default, except lr, with their annotations."""
    return {key: p.annotation for key, p in known.items() if p.default is p.empty and key != "lr"}


def _words(annotation: Any) -> list[str]:
    """The identifiers in an annotation."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", repr(annotation))
    return re.findall(r"\w+", text)


def hyperparameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The hyperparameters of an optimizer: its constructor's arguments, in order, with their defaults."""
    return hyperparameters_of(lookup(name))


def hyperparameters_of(cls: type[Counting]) -> Mapping[str, inspect.Parameter]:
    """As `hyperparameters`, for a class."""
    return {key: p for key, p in _arguments(cls).items() if key not in NOT_HYPERPARAMETERS}


def _arguments(cls: type[Counting]) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor. If one of ours takes others by `**`, those of its base class are included.

    `lr` comes first, the base's last; those that a subclass has `SETTLED` are excluded, as is what has no name.
    """
    given: type = getattr(cls, "__signature_of__", cls)
    own = inspect.signature(given.__init__).parameters  # type: ignore[misc]
    unnamed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = {key: p for key, p in own.items() if p.kind not in unnamed}
    if any(p.kind is p.VAR_KEYWORD for p in own.values()) and issubclass(given, Counting):
        owner = next(i for i, c in enumerate(given.__mro__) if "__init__" in vars(c))
        theirs = _arguments(given.__mro__[owner + 1])
        first = {key: p for key, p in {**theirs, **found}.items() if key == "lr"}
        found = {**first, **found, **{key: p for key, p in theirs.items() if key not in found}}
    return {key: p for key, p in found.items() if key not in getattr(given, "SETTLED", ())}


def changeable(name: str) -> frozenset[str]:
    """The hyperparameters of the named optimizer that may change during training."""
    return lookup(name).CHANGEABLE & set(hyperparameters(name))


def groupable(name: str) -> frozenset[str]:
    """The hyperparameters of the named optimizer that may differ between groups of parameters (see `groups`)."""
    return lookup(name).GROUPABLE & set(hyperparameters(name))


def learning_rate(name: str) -> str:
    """The hyperparameter that is the named optimizer's learning rate; empty when it has none."""
    role, known = lookup(name).LEARNING_RATE, hyperparameters(name)
    return role if role in known and known[role].default is not None else ""


def references() -> list[str]:
    """The standard reference optimizers, in order of registration."""
    return [name for name in _REGISTRY.in_order() if _REGISTRY.lookup(name).REFERENCE]


def limits(name: str) -> list[Limit]:
    """The limits that the named optimizer's class declares or inherits and that its constructor can reach."""
    known = hyperparameters(name)
    return [limit for limit in lookup(name).LIMITS if limit.at.keys() <= known.keys()]


def in_limit(name: str, limit: Limit, given: Mapping[str, Any]) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """(settings in the limit, the other optimizer's name, its settings), for settings `given` of the named one."""
    probe = {key: value for key, value in limit.probe.items() if key in hyperparameters(name)}
    here, other = {**given, **probe, **limit.at}, limit.name_of_other(given)
    shared = {key: value for key, value in here.items() if key in hyperparameters(other)}
    return here, other, {**shared, **limit.other}


def cost_per_step(name: str, **values: Any) -> float:
    """Average gradient evaluations per step of the named optimizer with these hyperparameters."""
    return lookup(name).cost_per_step(**values)


def steps_within(name: str, budget: float, **values: Any) -> int:
    """Steps that a budget of gradient evaluations affords with the named optimizer and these hyperparameters."""
    return lookup(name).steps_within(budget, **values)


def cost_of_start(name: str, **values: Any) -> float:
    """Gradient evaluations that the named optimizer spends once, before its first step."""
    return lookup(name).cost_of_start(**values)


def costs_alike(name: str) -> bool:
    """Whether the named optimizer spends as many gradient evaluations with any other hyperparameters."""
    own, plain = lookup(name), Counting
    return (
        own.cost_per_step.__func__ is plain.cost_per_step.__func__  # type: ignore[attr-defined]
        and own.cost_of_start.__func__ is plain.cost_of_start.__func__  # type: ignore[attr-defined]
        and own.steps_within.__func__ is plain.steps_within.__func__  # type: ignore[attr-defined]
    )


def check(name: str, **values: Any) -> None:
    """Raise ValueError for a value that the named optimizer is known to reject, without building it."""
    lookup(name).check_values(**values)


def try_out(name: str, **values: Any) -> None:
    """Raise ValueError if a third-party optimizer rejects these hyperparameters, which only building it reveals."""
    cls = lookup(name)
    if not hasattr(cls, "__signature_of__"):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cls.from_model(nn.Linear(3, 2), **_as_declared(name, values))
        except Exception as error:
            raise ValueError(str(error) or type(error).__name__) from None


def build(
    name: str,
    model: nn.Module | list[nn.Module],
    *,
    groups: Mapping[str, Mapping[str, Any]] = NO_GROUPS,
    **values: Any,
) -> Counting:
    """The named optimizer over `model` (for games: a list with one module per player).

    `llqr` and `llqr_sam` also take `loss` and `refresh_batches`. Unknown hyperparameters are never ignored: they raise
    TypeError naming the nearest known one. `groups`: name -> patterns under `match`, and hyperparameters for the
    parameters with matching names (see `optim_core.groups`).
    """
    known = hyperparameters(name)
    for key in values:
        if key not in known and key not in ("loss", "refresh_batches", "run_seed"):
            raise TypeError(f"optimizer {name!r} has no hyperparameter {key!r}{nearest(key, known)}")
    made = lookup(name).from_model(model, **_as_declared(name, values))
    if groups:
        if isinstance(model, list):
            raise ValueError("groups: the players of a game are already groups")
        given = {
            one: {"match": each["match"], **_as_declared(name, _without_match(each))} for one, each in groups.items()
        }
        divide(made, model, given)
    return made


def _without_match(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "match"}


def _as_declared(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, as in files, converted to tuples if the constructor's default is a tuple."""
    known = hyperparameters(name)
    return {
        key: tuple(value)
        if isinstance(value, list) and key in known and isinstance(known[key].default, tuple)
        else value
        for key, value in values.items()
    }


def needs_batches(name: str) -> bool:
    """Whether the optimizer draws its own batches (`loss` and `refresh_batches` are required)."""
    return "refresh_batches" in _arguments(lookup(name))


def needs_run_seed(name: str) -> bool:
    """Whether the optimizer draws random numbers: trials pass the run's seed as `run_seed`."""
    return "run_seed" in _arguments(lookup(name))
