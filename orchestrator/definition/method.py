"""How configurations are proposed: our own words, or somebody else's sampler of Optuna's kind.

A sampler is named as `package.module.Class` (of Optuna, or of a module of one's own), or as `optunahub/PACKAGE:Class`,
at a commit (`ref`) or below a local registry (`registry`). Its class is loaded, and built once with its arguments,
before anything starts.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.model import MethodSpec
from orchestrator.definition.schema import SweepModel

DESIGNS = ("grid", "random", "sobol")
HUB = "optunahub/"
RESERVED = {
    "seed": "each study has its own, made of method.seed",
    "constraints_func": "write outcome_constraints, which the sampler is told",
}
COMMIT_DIGITS = 40


def is_foreign(name: str) -> bool:
    """Whether a method is a sampler of somebody else's."""
    return "." in name or name.startswith(HUB)


def resolved(model: SweepModel, where: Where) -> MethodSpec:
    """The method, its sampler loaded and its arguments tried. Raises SpecError with the place of what is wrong."""
    given = model.method
    if not is_foreign(given.name):
        for key in ("arguments", "ref", "registry"):
            if getattr(given, key) is not None:
                raise where.error(
                    ("method", key),
                    f"goes with a sampler by its dotted name, such as optuna.samplers.TPESampler, "
                    f"not with {given.name}",
                )
        return MethodSpec(**given.model_dump(exclude={"arguments", "ref", "registry"}))
    found = MethodSpec(
        **given.model_dump(exclude={"arguments", "ref", "registry"}),
        arguments=dict(given.arguments or {}),
        ref=given.ref or "",
        registry=given.registry or "",
    )
    _check_pin(found, where)
    try:
        cls = load(found.name, found.ref, found.registry)
    except LookupError as error:
        raise where.error(("method", "name"), str(error.args[0])) from None
    _check_arguments(cls, found, where)
    if found.replay == "strict" and not takes_seed(cls):
        raise where.error(
            ("method", "replay"), f"{found.name} takes no seed, so that its suggestions cannot be replayed; write off"
        )
    return found


def _check_pin(method: MethodSpec, where: Where) -> None:
    if not method.name.startswith(HUB):
        for key in ("ref", "registry"):
            if getattr(method, key):
                raise where.error(("method", key), f"goes with {HUB}PACKAGE; the version of {method.name} is recorded")
        return
    if bool(method.ref) == bool(method.registry):
        raise where.error(
            ("method",),
            "name either ref, a commit of the registry, or registry, a local copy of it: what a name stands for there "
            "changes with time",
        )
    digits = set(method.ref) <= set("0123456789abcdef") and len(method.ref) == COMMIT_DIGITS
    if method.ref and not digits:
        raise where.error(("method", "ref"), f"{method.ref!r} may move; write the {COMMIT_DIGITS} digits of a commit")


@lru_cache(maxsize=32)
def load(name: str, ref: str = "", registry: str = "") -> type:
    """The class of a sampler. Raises LookupError, with the way out, when there is no such one."""
    if name.startswith(HUB):
        package, _, wanted = name.removeprefix(HUB).partition(":")
        module = _from_hub(package, ref, registry)
        there = [
            k for k, v in vars(module).items() if _is_sampler(v) and getattr(v, "__module__", "") == module.__name__
        ]
        there = [k for k in getattr(module, "__all__", ()) if _is_sampler(getattr(module, k, None))] or there
        if not wanted and len(there) != 1:
            raise LookupError(f"{name}: say which class, {name}:CLASS{nearest('', there)}")
        wanted = wanted or there[0]
    else:
        place, _, wanted = name.rpartition(".")
        try:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ImportError("a sampler is named package.module.Class")
            module = importlib.import_module(place)
        except ImportError as error:
            raise LookupError(f"no sampler {name!r}: {error}") from None
        except Exception as error:
            raise LookupError(f"no sampler {name!r}: {place} ends in {type(error).__name__}: {error}") from error
        there = [key for key, value in vars(module).items() if _is_sampler(value) and not key.startswith("_")]
    found = getattr(module, wanted, None)
    if found is None:
        raise LookupError(f"no sampler {name!r}{nearest(wanted, there)}")
    if not _is_sampler(found) or inspect.isabstract(found):
        raise LookupError(f"{name!r} is no sampler: name a class below optuna.samplers.BaseSampler")
    kind: type = found
    return kind


def _from_hub(package: str, ref: str, registry: str) -> Any:
    os.environ.setdefault("OPTUNAHUB_NO_ANALYTICS", "1")  # it would ask on standard input
    try:
        hub = importlib.import_module("optunahub")
    except ImportError:
        raise LookupError(
            f"{HUB}{package} needs optunahub: pip install optunahub, or name a sampler that is installed here as "
            "package.module.Class"
        ) from None
    try:
        if registry:
            return hub.load_local_module(package, registry_root=str(Path(registry).absolute()))
        return hub.load_module(package, ref=ref)
    except Exception as error:
        way_out = f"is there {registry}/{package}/__init__.py?" if registry else "with a copy, name it by registry:"
        raise LookupError(f"{HUB}{package} cannot be loaded ({type(error).__name__}: {error}); {way_out}") from None


def _is_sampler(value: Any) -> bool:
    return isinstance(value, type) and any(
        base.__name__ == "BaseSampler" and base.__module__.startswith("optuna.samplers") for base in value.__mro__
    )


def takes_seed(cls: type) -> bool:
    """Whether the sampler's constructor has a seed."""
    known = inspect.signature(cls).parameters
    return "seed" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def build(method: MethodSpec, seed: int) -> Any:
    """The sampler with its arguments and this seed."""
    cls = load(method.name, method.ref, method.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a sampler is experimental
        return cls(**method.arguments, **({"seed": seed} if takes_seed(cls) else {}))


def _check_arguments(cls: type, method: MethodSpec, where: Where) -> None:
    known = inspect.signature(cls).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for key in method.arguments:
        at = ("method", "arguments", key)
        if key in RESERVED:
            raise where.error(at, RESERVED[key])
        if key not in known and not anything:
            raise where.error(at, f"{method.name} has no argument {key!r}{nearest(key, set(known) - set(RESERVED))}")
    needed = [k for k, p in known.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if missing := [key for key in needed if key not in method.arguments and key not in RESERVED]:
        raise where.error(("method",), f"arguments: {missing[0]}: missing; {method.name} needs it")
    try:
        build(method, 0)
    except Exception as error:
        culprit = next((key for key in method.arguments if key in str(error)), None)
        place = ("method", "arguments", culprit) if culprit else ("method", "arguments" if method.arguments else "name")
        raise where.error(place, f"{method.name} refuses its arguments: {type(error).__name__}: {error}") from None


def identity(method: MethodSpec) -> Mapping[str, str]:
    """What the sampler is, beside its name: its package's version, the commit, or the digest of the local copy."""
    if method.ref:
        return {"ref": method.ref, "optunahub": _version("optunahub")}
    if method.registry:
        folder = Path(method.registry) / method.name.removeprefix(HUB).partition(":")[0]
        found = hashlib.sha256()
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{path.relative_to(folder)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
        return {"registry": found.hexdigest(), "optunahub": _version("optunahub")}
    top = method.name.partition(".")[0]
    owners = _owners().get(top, [])
    return {owner: _version(owner) for owner in sorted(set(owners))}


@cache
def _owners() -> Mapping[str, Sequence[str]]:
    """Module -> packages that have it; reads the list of files of everything that is installed."""
    return metadata.packages_distributions()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
