"""Hyperparameters that changed during a trial's training (`Job.lineage`), as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.definition.kinds import short


def describe(parameters: Mapping[str, Any], lineage: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Hyperparameters as text: one that changed as '0.1, then 0.08 (evaluation 2), 0.096 (4)'."""
    found = dict(parameters)
    stretches = [*(held for _, held in lineage), parameters]
    for name, value in parameters.items():
        parts = [short(stretches[0][name])]
        for (end, before), after in zip(lineage, stretches[1:], strict=True):
            if after[name] != before[name]:
                parts.append(f"{short(after[name])} ({'' if len(parts) > 1 else 'evaluation '}{end})")
        found[name] = f"{parts[0]}, then {', '.join(parts[1:])}" if len(parts) > 1 else value
    return found
