"""Groups of a model's parameters selected by name patterns, with their own hyperparameters.

    {"no_decay": {"match": ["*.bias", "*norm*"], "weight_decay": 0.0}, "embed": {"match": ["*emb*"], "lr": 1e-3}}

A parameter belongs to the first group with a pattern that matches its whole name (`fnmatch`, case-sensitive);
parameters without a match keep the optimizer's hyperparameters. An optimizer's groups are divided after it is built, so
that decisions it makes by name or shape itself (which matrices are orthogonalized) are unaffected; a hyperparameter may
differ between groups if the optimizer reads it from each parameter's group (`Counting.GROUPABLE`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from optim_core.adjustable import OWN
from optim_core.base import Counting


def assigned(names: Iterable[str], patterns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Parameter -> the first group that matches it; parameters without a match are omitted."""
    found: dict[str, str] = {}
    for name in names:
        group = next((g for g, each in patterns.items() if any(fnmatchcase(name, p) for p in each)), None)
        if group is not None:
            found[name] = group
    return found


def divide(optimizer: Counting, model: nn.Module, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Divide the groups of an optimizer over `model` that has not taken a step yet, preserving their order.

    Raises ValueError for a group without patterns, one that matches nothing, or a hyperparameter that must be the same
    for all.
    """
    patterns = {name: _patterns(name, given) for name, given in groups.items()}
    named = {p: name for name, p in model.named_parameters()}
    of = assigned(named.values(), patterns)
    for name, given in groups.items():
        if name not in of.values():
            raise ValueError(f"groups: {name}: none of {', '.join(patterns[name])} matches a remaining parameter")
        for key in given:
            if key != "match" and key not in type(optimizer).GROUPABLE:
                raise ValueError(f"groups: {name}: {key} of {type(optimizer).__name__} must be one for all parameters")
    divided: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for one in (None, *groups):
            members = [p for p in group["params"] if of.get(named.get(p, "")) == one]
            if members or (one is None and not group["params"]):
                divided.append(_divided(optimizer, group, members, one, groups.get(one or "", {})))
    optimizer.param_groups[:] = divided
    optimizer.divided()


def _patterns(name: str, given: Mapping[str, Any]) -> list[str]:
    found = given.get("match", ())
    if isinstance(found, str) or not found:
        raise ValueError(f"groups: {name}: match is a list of patterns, such as ['*.bias']")
    return list(found)


def _divided(
    optimizer: Counting, group: dict[str, Any], members: list[Any], name: str | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """A copy of a group with these members and their own settings."""
    made = {**group, "params": members}
    if "param_names" in group:
        of = dict(zip(group["params"], group["param_names"], strict=True))
        made["param_names"] = [of[p] for p in members]
    if name is not None:
        values = {key: value for key, value in given.items() if key != "match"}
        made["name"], made[OWN] = name, sorted(values)
        for key, value in values.items():
            try:
                optimizer.set_in_group(made, key, value)
            except ValueError as error:
                raise ValueError(f"groups: {name}: {error}") from None
    return made
