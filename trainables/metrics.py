"""The result of a task's `evaluate` as numbers: NumPy scalars and one-element tensors are converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURED = ("cost/grad_evals", "cost/steps", "cost/skipped_steps", "time/step_s")
"""Metrics of the training loop itself."""


def numbers(returned: Any, task: str) -> dict[str, float]:
    """Metric name -> float. NaN and infinities count as numbers.

    Raises TypeError, naming the metric, for anything else: text, None, a list, several elements; and for a name in
    MEASURED.
    """
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"evaluate of task {task} returned {_shown(returned)}; return a dict of numbers, "
            'for example {"loss/val": 0.3}'
        )
    return {_name(key, task): _number(key, value, task) for key, value in returned.items()}


def _name(key: Any, task: str) -> str:
    if key in MEASURED:
        raise TypeError(f"evaluate of task {task} returned {key!r}, which the training loop measures; rename it")
    if isinstance(key, str) and key:
        return key
    raise TypeError(f"evaluate of task {task} returned a metric named {key!r}; a metric's name must be text")


def _number(key: str, value: Any, task: str) -> float:
    try:
        if not isinstance(value, str | bytes) and value is not None:
            return float(value.item() if hasattr(value, "item") else value)
    except OverflowError:
        raise TypeError(f"evaluate of task {task} returned {key!r} = an integer beyond 1e308") from None
    except (TypeError, ValueError, RuntimeError):
        pass
    way = "leave it out when it has no value" if value is None else "return a number, or leave it out"
    raise TypeError(f"evaluate of task {task} returned {key!r} = {_shown(value)}; {way}")


def _shown(value: Any) -> str:
    text = repr(value)
    kind = "" if value is None else f" ({type(value).__name__})"
    return f"{text if len(text) <= 60 else text[:57] + '...'}{kind}"
