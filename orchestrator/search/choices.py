"""Choices of a categorical parameter as Optuna stores them: it takes only numbers, text, truth values and None.

Where one of the values is a list or a mapping, all of them are stored as JSON text.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.definition.kinds import is_composite
from orchestrator.definition.space import Parameter


def choices(p: Parameter) -> list[Any]:
    """The choices handed to Optuna."""
    return [stored_as(p, value) for value in p.values]


def stored_as(p: Parameter, value: Any) -> Any:
    """What Optuna stores in place of a value."""
    return json.dumps(value, sort_keys=True) if any(map(is_composite, p.values)) else value


def chosen(p: Parameter, stored: Any) -> Any:
    """The value represented by this in Optuna."""
    return json.loads(stored) if any(map(is_composite, p.values)) else stored
