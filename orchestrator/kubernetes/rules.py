"""Registry of RayJob rules: each has a code, and yields what is wrong with a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Rule = Callable[[Mapping[str, Any]], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(code: str) -> Callable[[Rule], Rule]:
    """Registers a rule under its code."""

    def enter(found: Rule) -> Rule:
        RULES[code] = found
        return found

    return enter


def at_of(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The mapping at a path; empty if there is none."""
    found: Any = document
    for key in path:
        found = found.get(key) or {}
    return found  # type: ignore[no-any-return]


def spec_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The RayJob's spec."""
    return at_of(job, "spec")


def cluster_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its Ray cluster."""
    return at_of(job, "spec", "rayClusterSpec")


def groups_of(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Its worker groups."""
    return list(cluster_of(job).get("workerGroupSpecs") or [])


def ray_pods_of(job: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, head or group)."""
    if head := cluster_of(job).get("headGroupSpec"):
        yield "head", head
    for group in groups_of(job):
        yield f"group {group.get('groupName')}", group
