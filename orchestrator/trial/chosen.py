"""An arm's choice as text: one configuration, or the range over its studies."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.definition.kinds import is_composite, short
from orchestrator.trial.lineage import describe


def chosen_words(best: Mapping[str, Any]) -> str:
    """The choice of an arm in the `best` document: `lr 0.31 to 0.88 (median 0.52), 8 studies`.

    For hyperparameters that changed during training, several studies show the last values.
    """
    studies = best.get("studies")
    if studies is None:
        parameters = describe(best["parameters"], best.get("lineage", ()))
        words = [f"{k} {short(v)}" for k, v in parameters.items()]
        return ", ".join(words) or "no hyperparameter"
    counted = [one["parameters"] for one in studies if one["stage"] == best["stage"]]
    found = [f"{k} {v}" for k, v in ranges(counted).items()]
    number = f"{len(counted)} {'study' if len(counted) == 1 else 'studies'}"
    return ", ".join([*(found or ["no hyperparameter"]), number])


def ranges(chosen: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Hyperparameter -> its values over the studies: `0.31 to 0.88 (median 0.52)`, `identity (5), output (3)`.

    A value shared by all studies stands alone; for one that only some have, the number of studies is given.
    """
    found = {}
    for name in dict.fromkeys(name for one in chosen for name in one):
        values = [one[name] for one in chosen if name in one]
        some = "" if len(values) == len(chosen) else f", in {len(values)} of {len(chosen)}"
        found[name] = _range(values) + some
    return found


def _range(values: Sequence[Any]) -> str:
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        counts = Counter(map(_words, values)).most_common()
        return counts[0][0] if len(counts) == 1 else ", ".join(f"{value} ({n})" for value, n in counts)
    low, high = min(values), max(values)
    if low == high:
        return _number(low)
    return f"{_number(low)} to {_number(high)} (median {_number(statistics.median(values))})"


def _words(value: Any) -> str:
    return short(value) if is_composite(value) else str(value)


def _number(value: float) -> str:
    return f"{value:g}" if float(value).is_integer() else f"{value:.3g}"
