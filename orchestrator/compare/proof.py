"""How far a comparison is proved: that its trials were paired, and that they got the same compute.

    proved      pairing: on every seed both arms had the same initial weights and the same first batches, by digests;
                compute: counted in the process (gradient evaluations, steps) or by the clock (seconds)
    declared    a seed or a budget was passed to the script; how the script used it was not observed
    unknown     not even that

Built-in training is always proved, or it is not compared at all. For scripts the verdict states the level. Imported
results are declared at best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from orchestrator.definition.resolved import Imported
from orchestrator.definition.states import Stage, State
from orchestrator.statistics.pairing import PARITY
from orchestrator.statistics.verdict import Level, Proof
from orchestrator.trial.program.proof import DECLARED, PROVED, UNKNOWN

DIGESTS = {"init_digest": "initial weights", "data_digest": "first batches"}
OURS = Proof(
    pairing=Level(level=PROVED, why="equal digests of weights and batches on every seed"),
    compute=Level(level=PROVED, why="gradient evaluations were counted"),
)
"""For built-in training with a budget in gradient evaluations."""


def of_pairs(trials: pd.DataFrame, pairs: Sequence[tuple[str, str]], budget: Mapping[str, Any]) -> list[Proof]:
    """What each pair of arms rests on. `trials` has a column `proof`.

    `budget`: `unit` and `per_trial`.
    """
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    ours, found = not any(confirm["proof"]), []
    for pair in pairs:
        both = confirm[confirm["arm"].isin(pair)]
        if ours:
            found.append(replace(OURS, compute=_of_ours(both, str(budget["unit"]))))
            continue
        found.append(
            Proof(pairing=pairing(both), compute=compute(both, str(budget["unit"]), float(budget["per_trial"])))
        )
    return found


def of_imported(mark: Imported) -> Proof:
    """For every pair of imported results; `mark` is what was recorded at import."""
    paired, column = mark.is_paired, mark.budget
    return Proof(
        pairing=Level(
            level=DECLARED if paired else UNKNOWN,
            why="equal seeds were assumed to mean equal data and weights" if paired else "runs were not paired",
        ),
        compute=Level(
            level=DECLARED if column else UNKNOWN,
            why=f"the cost of runs is taken from {column}" if column else "the cost of runs is unknown",
        ),
    )


def pairing(both: pd.DataFrame) -> Level:
    """For the confirm trials of two arms."""
    unseen, differ = list[str](), list[str]()
    for column, words in DIGESTS.items():
        if not all(both[column]):
            unseen.append(words)
        elif (both.groupby(["study", "seed"])[column].nunique() > 1).any():
            differ.append(words)
    if not unseen and not differ:
        batches = min(int(p.get("batches") or 0) for p in both["proof"])
        return Level(
            level=PROVED, why=f"equal digests of weights and of {_count(batches, 'batch', 'es')} on every seed"
        )
    why = "; ".join(
        [*([f"{_and(differ)} differ between the arms"] if differ else []),
         *([f"{_and(unseen)} were not observed"] if unseen else [])]
    )  # fmt: skip
    if all(p.get("seed") for p in both["proof"]):
        return Level(level=DECLARED, why=f"the seed was passed on; {why}")
    return Level(level=UNKNOWN, why=f"no seed was passed on; {why}")


def compute(both: pd.DataFrame, unit: str, given: float) -> Level:
    """For the confirm trials of two arms. Counts that are unequal in the budget's unit were refused earlier."""
    counted = [p.get("grad_evals") for p in both["proof"]]
    steps = [p.get("steps") for p in both["proof"]]
    if unit == "seconds":
        return Level(level=PROVED, why="by the clock")
    if unit == "grad_evals" and all(counted):
        return Level(level=PROVED, why=f"gradient evaluations were counted{_other(counted, given)}")
    if unit == "steps" and all(steps):
        return Level(level=PROVED, why=f"steps were counted{_other(steps, given)}{_gradients(both, counted)}")
    why = _gradients(both, counted).removeprefix("; ") or f"{unit} were not counted"
    ends = _reports_end(both, given)
    if all(p.get("budget") for p in both["proof"]):
        kept = any(p["budget"] == "kept" for p in both["proof"])
        why = f"{'trials were stopped at the budget' if kept else 'the budget was passed on'}; {why}"
        return Level(level=DECLARED, why=why, reports=ends)
    return Level(level=UNKNOWN, why=f"no budget was passed on; {why}", reports=ends)


def _of_ours(both: pd.DataFrame, unit: str) -> Level:
    """For built-in training, which counts every unit; equal steps, tokens or seconds can be unequal gradients."""
    if unit == "grad_evals":
        return OURS.compute
    whole = both[both["state"] == State.COMPLETE]
    why = "by the clock" if unit == "seconds" else f"{unit} were counted"
    return Level(level=PROVED, why=f"{why}{_gradients(whole, whole['grad_evals'].tolist())}")


def _other(counts: Sequence[float | None], given: float) -> str:
    """Notes an amount that differs from the budget, if every trial has one."""
    mean = sum(count or 0.0 for count in counts) / len(counts)
    return "" if abs(mean - given) <= PARITY * given else f", {mean:,.10g} where {given:,.10g} were given"


def _gradients(both: pd.DataFrame, counted: Sequence[float | None]) -> str:
    """The arms' gradient evaluations, where they were counted."""
    if not counted or not all(counted):
        return ""
    means = both.assign(counted=[float(c or 0.0) for c in counted]).groupby("arm")["counted"].mean()
    if (means.max() - means.min()) / means.mean() <= PARITY:
        return "; gradient evaluations were equal"
    return f"; gradient evaluations were {', '.join(f'{arm} {mean:,.0f}' for arm, mean in means.items())}"


def _reports_end(both: pd.DataFrame, given: float) -> str:
    """`sam 8, sgd 4`: where the reports of scripts end, if that is not the budget, or not the same in both arms.

    The last report of a script that counts from zero is one step before the end.
    """
    if not any("told" in p for p in both["proof"]):
        return ""
    trained = both[both["state"] == State.COMPLETE]
    if not all("told" in p for p in trained["proof"]):
        return ""
    means = trained.assign(told=[float(p["told"]) for p in trained["proof"]]).groupby("arm")["told"].mean()
    within = PARITY * given
    if means.max() - means.min() > within or (means - given).abs().max() > max(within, 1.0):
        return ", ".join(f"{arm} {mean:,.4g}" for arm, mean in means.items())
    return ""


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _count(n: int, word: str, plural: str) -> str:
    return f"{n} {word}{'' if n == 1 else plural}"
