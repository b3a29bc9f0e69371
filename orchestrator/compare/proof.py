"""How far a comparison is proved: that its trials were paired, and that they got the same compute.

    proved      pairing: on every seed both arms began with the same weights and saw the same first batches, by digests;
                compute: counted in the process (gradient evaluations, steps) or by the clock (seconds)
    declared    a seed, or a budget, was handed over, and what the script made of it was not seen
    unknown     not even that

Training of ours is proved throughout, or it is not compared at all. Of scripts the verdict says which it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.definition.states import Stage
from orchestrator.statistics.pairing import PARITY
from orchestrator.trial.program.proof import DECLARED, PROVED, UNKNOWN

Level = dict[str, str]
DIGESTS = {"init_digest": "initial weights", "data_digest": "first batches"}
OURS = {
    "pairing": {"level": PROVED, "why": "equal digests of weights and batches on every seed"},
    "compute": {"level": PROVED, "why": "gradient evaluations were counted"},
}
"""Of training that is ours."""


def of_pairs(
    trials: pd.DataFrame, pairs: Sequence[Mapping[str, Any]], budget: Mapping[str, Any]
) -> list[dict[str, Level]]:
    """`pairing` and `compute` of each pair, each with its `level` and `why`. `trials` has a column `proof`.

    `budget`: `unit` and `per_trial`.
    """
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    if not any(confirm["proof"]):
        return [OURS for _ in pairs]
    found = []
    for pair in pairs:
        both = confirm[confirm["arm"].isin((pair["a"], pair["b"]))]
        found.append(
            {"pairing": pairing(both), "compute": compute(both, str(budget["unit"]), float(budget["per_trial"]))}
        )
    return found


def of_imported(paired: bool, budget: str) -> dict[str, Level]:
    """Of results that others trained, of which nothing was seen. `budget`: the column of what runs spent, or empty."""
    return {
        "pairing": {"level": DECLARED, "why": "equal seeds were taken to mean equal data and weights"}
        if paired
        else {"level": UNKNOWN, "why": "the runs are not paired"},
        "compute": {"level": DECLARED, "why": f"{budget}, as imported"}
        if budget
        else {"level": UNKNOWN, "why": "nobody says what runs spent"},
    }


def pairing(both: pd.DataFrame) -> Level:
    """Of the confirm trials of two arms."""
    unseen, differ = list[str](), list[str]()
    for column, words in DIGESTS.items():
        if not all(both[column]):
            unseen.append(words)
        elif (both.groupby(["study", "seed"])[column].nunique() > 1).any():
            differ.append(words)
    if not unseen and not differ:
        batches = min(int(p.get("batches") or 0) for p in both["proof"])
        return {
            "level": PROVED,
            "why": f"equal digests of weights and of {_count(batches, 'batch', 'es')} on every seed",
        }
    why = "; ".join(
        [*([f"{_and(differ)} differ between the arms"] if differ else []),
         *([f"{_and(unseen)} were not seen"] if unseen else [])]
    )  # fmt: skip
    if all(p.get("seed") for p in both["proof"]):
        return {"level": DECLARED, "why": f"the seed was handed over; {why}"}
    return {"level": UNKNOWN, "why": f"no seed was handed over; {why}"}


def compute(both: pd.DataFrame, unit: str, given: float) -> Level:
    """Of the confirm trials of two arms. A count that shows them unequal in the budget's unit refused them before."""
    counted = [p.get("grad_evals") for p in both["proof"]]
    steps = [p.get("steps") for p in both["proof"]]
    if unit == "seconds":
        return {"level": PROVED, "why": "by the clock"}
    if unit == "grad_evals" and all(counted):
        return {"level": PROVED, "why": f"gradient evaluations were counted{_other(counted, given)}"}
    if unit == "steps" and all(steps):
        return {"level": PROVED, "why": f"steps were counted{_other(steps, given)}{_gradients(both, counted)}"}
    why = _gradients(both, counted).removeprefix("; ") or f"{unit} were not counted"
    if all(p.get("budget") for p in both["proof"]):
        kept = any(p["budget"] == "kept" for p in both["proof"])
        return {
            "level": DECLARED,
            "why": f"{'trials were ended at it' if kept else 'the budget was handed over'}; {why}",
        }
    return {"level": UNKNOWN, "why": f"no budget was handed over; {why}"}


def _other(counts: Sequence[float | None], given: float) -> str:
    """That all had another amount than the budget says, where they had."""
    mean = sum(count or 0.0 for count in counts) / len(counts)
    return "" if abs(mean - given) <= PARITY * given else f", {mean:,.10g} where {given:,.10g} were given"


def _gradients(both: pd.DataFrame, counted: Sequence[float | None]) -> str:
    """What the arms' gradient evaluations came to, where they were counted."""
    if not all(counted):
        return ""
    means = both.assign(counted=[float(c or 0.0) for c in counted]).groupby("arm")["counted"].mean()
    if (means.max() - means.min()) / means.mean() <= PARITY:
        return "; gradient evaluations were equal"
    return f"; gradient evaluations were {', '.join(f'{arm} {mean:,.0f}' for arm, mean in means.items())}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _count(n: int, word: str, plural: str) -> str:
    return f"{n} {word}{'' if n == 1 else plural}"
