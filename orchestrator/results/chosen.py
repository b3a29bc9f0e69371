"""What an arm chose: one configuration, or one for each of its studies, and the range over them as text."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.definition.kinds import is_composite, short
from orchestrator.definition.states import Stage
from orchestrator.trial.lineage import describe


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A configuration, and the mean of the tuned metric over its seeds."""

    value: float | None
    """None: every trial behind it diverged."""
    parameters: Mapping[str, Any]
    lineage: Sequence[tuple[int, Mapping[str, Any]]] = ()
    """What was changed during training (`Job.lineage`)."""
    trial_id: str = ""
    """The first of its trials."""
    stage: Stage = Stage.TUNE
    """tune: it was selected by this value, which is optimistic."""
    seeds: int = 1
    diverged: int = 0
    """Trials that did."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "value": self.value,
            "parameters": dict(self.parameters),
            **({"lineage": self.lineage} if self.lineage else {}),
            "trial_id": self.trial_id,
            "stage": self.stage,
            "seeds": self.seeds,
            **({"diverged": self.diverged} if self.diverged else {}),
        }


@dataclass(frozen=True, kw_only=True)
class ArmChoice(Choice):
    """What an arm chose; over several studies, the configuration of one of them and the mean value of all."""

    study: int | None = None
    """Whose configuration it is; None: the arm has a single study."""
    studies: Mapping[int, Choice] = field(default_factory=dict)
    """The choice of each study, if there are several."""

    @property
    def counted(self) -> list[Choice]:
        """The studies behind the value: those that are as far as the furthest."""
        return [one for one in self.studies.values() if one.stage is self.stage]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = super().document()
        if self.study is None:
            return found
        lost = {"diverged": found.pop("diverged")} if self.diverged else {}
        studies = [{"study": study, **one.document()} for study, one in self.studies.items()]
        return {**found, "study": self.study, "studies": studies, **lost}


def chosen_words(best: ArmChoice) -> str:
    """The choice of an arm: `lr 0.31 to 0.88 (median 0.52), 8 studies`.

    For hyperparameters that changed during training, several studies show the last values.
    """
    if best.study is None:
        words = [f"{k} {short(v)}" for k, v in describe(best.parameters, best.lineage).items()]
        return ", ".join(words) or "no hyperparameter"
    found = [f"{k} {v}" for k, v in ranges([one.parameters for one in best.counted]).items()]
    number = f"{len(best.counted)} {'study' if len(best.counted) == 1 else 'studies'}"
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
