"""The result of a task's `evaluate` as numbers: NumPy scalars and one-element tensors are converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURED = ("cost/grad_evals", "cost/steps", "cost/skipped_steps", "time/step_s")
"""Metrics of the training loop itself."""

MEAN_LOSS = "loss/train"
"""The training loop's mean loss over the steps since the last evaluation, which replaces a task's own value."""


def replaced(returned: Mapping[str, float], declared: Mapping[str, Any], task: str) -> str:
    """Why a value that a task returned would be lost without its knowledge; empty if none is."""
    if MEAN_LOSS not in returned or MEAN_LOSS in declared:
        return ""
    return (
        f"evaluate of task {task} returned {MEAN_LOSS!r}, which the training loop measures: its mean over the steps "
        "since the last evaluation; give yours another name, such as loss/train_set"
    )


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
    if isinstance(key, str) and key and _is_text(key):
        return key
    raise TypeError(f"evaluate of task {task} returned a metric named {key!r}; a metric's name must be text")


def _is_text(key: str) -> bool:
    """Whether a name can be written to a file: half of a pair of UTF-16 code units cannot."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


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
