"""How configurations are proposed: a built-in method, or a third-party Optuna sampler.

A sampler is named as `package.module.Class` (of Optuna, or of a module of your own), by the name under which an
installed package offers it (entry points of `geosweep.samplers`), or as `optunahub/PACKAGE:Class`, at a commit (`ref`)
or below a local registry (`registry`). Its class is loaded, and built once with its arguments, before anything starts.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from optim_core import plugins
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.model import MethodSpec
from orchestrator.definition.schema import METHODS, SAMPLERS, SweepModel

DESIGNS = ("grid", "random", "sobol")
HUB = "optunahub/"
RESERVED = {
    "seed": "each study has its own, derived from method.seed",
    "constraints_func": "use outcome_constraints, which the sampler gets",
}
COMMIT_DIGITS = 40


def is_foreign(name: str) -> bool:
    """Whether a method is a third-party sampler."""
    return name not in METHODS


def conflict(name: str) -> str:
    """Why a sampler's name is ambiguous; empty if it is not (see `optim_core.plugins`)."""
    return plugins.conflict("sampler", SAMPLERS, name, ours=name in METHODS)


def origin(name: str) -> str:
    """Where the class is defined, `package.module.Class` or, of one that a package offers, `package.module:Class`."""
    entries = plugins.offered(SAMPLERS).get(name, ())
    return entries[0].value if entries else name


def resolved(model: SweepModel, where: Where) -> MethodSpec:
    """The method, with its sampler loaded and its arguments tried. Raises SpecError with the location of the error."""
    given = model.method
    if wrong := conflict(given.name):
        raise where.error(("method", "name"), wrong)
    if not is_foreign(given.name):
        for key in ("arguments", "ref", "registry"):
            if getattr(given, key) is not None:
                raise where.error(
                    ("method", key),
                    f"is for a sampler with a dotted name, such as optuna.samplers.TPESampler, not for {given.name}",
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
            ("method", "replay"), f"{found.name} takes no seed, so its suggestions cannot be replayed; write off"
        )
    return found


def _check_pin(method: MethodSpec, where: Where) -> None:
    if not method.name.startswith(HUB):
        for key in ("ref", "registry"):
            if getattr(method, key):
                raise where.error(("method", key), f"is for {HUB}PACKAGE; the version of {method.name} is recorded")
        return
    if bool(method.ref) == bool(method.registry):
        raise where.error(
            ("method",),
            "set either ref, a commit of the registry, or registry, a local copy of it: packages in the registry "
            "change over time",
        )
    digits = set(method.ref) <= set("0123456789abcdef") and len(method.ref) == COMMIT_DIGITS
    if method.ref and not digits:
        raise where.error(("method", "ref"), f"{method.ref!r} may move; write all {COMMIT_DIGITS} digits of a commit")


@lru_cache(maxsize=32)
def load(name: str, ref: str = "", registry: str = "") -> type:
    """The class of a sampler. Raises LookupError, with the way out, when there is none."""
    if name.startswith(HUB):
        package, _, wanted = name.removeprefix(HUB).partition(":")
        module = _from_hub(package, ref, registry)
        own = f"{module.__name__}."
        there = [k for k, v in vars(module).items() if _is_sampler(v) and f"{v.__module__}.".startswith(own)]
        there = [k for k in getattr(module, "__all__", ()) if _is_sampler(getattr(module, k, None))] or there
        if not wanted and len(there) != 1:
            raise LookupError(f"{name}: say which class, {name}:CLASS{nearest('', there)}")
        wanted = wanted or there[0]
    elif "." not in name:
        return _checked(name, _offered(name))
    else:
        place, _, wanted = name.rpartition(".")
        try:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ImportError("a sampler is named package.module.Class")
            module = importlib.import_module(place)
        except ImportError as error:
            raise LookupError(f"no sampler {name!r}: {error}") from None
        except Exception as error:
            raise LookupError(
                f"no sampler {name!r}: importing {place} raised {type(error).__name__}: {error}"
            ) from error
        there = [key for key, value in vars(module).items() if _is_sampler(value) and not key.startswith("_")]
    found = getattr(module, wanted, None)
    if found is None:
        raise LookupError(f"no sampler {name!r}{nearest(wanted, there)}")
    return _checked(name, found)


def _checked(name: str, found: Any) -> type:
    if not _is_sampler(found) or inspect.isabstract(found):
        raise LookupError(f"{name!r} is not a sampler; name a subclass of optuna.samplers.BaseSampler")
    kind: type = found
    return kind


def _offered(name: str) -> Any:
    try:
        return plugins.load("sampler", SAMPLERS, name)
    except plugins.PluginError as error:
        raise LookupError(str(error)) from None


def _from_hub(package: str, ref: str, registry: str) -> Any:
    os.environ.setdefault("OPTUNAHUB_NO_ANALYTICS", "1")  # it would prompt on standard input
    try:
        hub = importlib.import_module("optunahub")
    except ImportError:
        raise LookupError(
            f"{HUB}{package} needs optunahub: pip install optunahub, or name a sampler that is installed here as "
            "package.module.Class"
        ) from None
    stem = f"optunahub_registry.package.{package.replace('/', '.')}."
    for loaded in [name for name in sys.modules if name.startswith(stem)]:
        del sys.modules[loaded]  # the parts of another copy of the package
    try:
        if registry:
            return hub.load_local_module(package, registry_root=str(_root(registry, package).absolute()))
        return hub.load_module(package, ref=ref)
    except Exception as error:
        away = f"it is fetched from github.com at {ref[:10]}, once; without a network, name a local copy with registry:"
        way_out = f"is there {registry}/{package}/__init__.py?" if registry else away
        raise LookupError(f"{HUB}{package} cannot be loaded ({type(error).__name__}: {error}); {way_out}") from None


def _root(registry: str, package: str) -> Path:
    """The folder that packages lie in: `package` of a clone of optunahub's registry, or the one named."""
    clone = Path(registry) / "package"
    return clone if (clone / package).is_dir() else Path(registry)


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
        warnings.simplefilter("ignore")  # about samplers being experimental
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
        raise where.error(place, f"{method.name} rejects its arguments: {type(error).__name__}: {error}") from None


def identity(method: MethodSpec) -> Mapping[str, str]:
    """What identifies the sampler besides its name: package version, commit, or digest of the local copy."""
    if method.ref:
        return {"ref": method.ref, "optunahub": _version("optunahub")}
    if method.registry:
        package = method.name.removeprefix(HUB).partition(":")[0]
        folder = _root(method.registry, package) / package
        found = hashlib.sha256()
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{path.relative_to(folder)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
        return {"registry": found.hexdigest(), "optunahub": _version("optunahub")}
    if entries := plugins.offered(SAMPLERS).get(method.name):
        owner = entries[0].dist
        return {owner.name: owner.version} if owner is not None else {}
    top = method.name.partition(".")[0]
    owners = _owners().get(top, [])
    return {owner: _version(owner) for owner in sorted(set(owners))}


@cache
def _owners() -> Mapping[str, Sequence[str]]:
    """Module -> packages that have it; reads the file lists of everything installed."""
    return metadata.packages_distributions()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
