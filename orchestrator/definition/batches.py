"""The contents of a task's nominal batch, for configurations that choose its size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import trainables
from orchestrator.definition import built
from orchestrator.definition.parts import TASK, in_section, split
from orchestrator.definition.space import Parameter, corners


def per_batch(task: str, fixed: Mapping[str, Any], chosen: Mapping[str, Any]) -> int:
    """How much of what the task counts (`Task.COUNTS`) a batch holds; the task is built once for each choice."""
    return _built(task, json.dumps({**fixed, **chosen}, sort_keys=True))


def span(task: str, fixed: Mapping[str, Any], parameters: tuple[Parameter, ...]) -> tuple[int, int] | None:
    """Least and most that a batch holds over a space; None for a task that counts nothing, or one size for all."""
    names = in_section(TASK, [p.name for p in parameters])
    if not names or not trainables.lookup(task).COUNTS:
        return None
    found = {per_batch(task, fixed, split(config).task) for config in corners(parameters, names)[:64]}
    return (min(found), max(found)) if len(found) > 1 else None


@lru_cache(maxsize=4096)
def _built(task: str, parameters: str) -> int:
    return int(built.build(task, json.loads(parameters)).tokens_per_batch())
