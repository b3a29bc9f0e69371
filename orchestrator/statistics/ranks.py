"""Several arms over several tasks: Friedman's test and Nemenyi's comparison of mean ranks (Demsar 2006).

Tasks are the blocks, never seeds of one task. With few tasks Nemenyi has nearly no power (12 tasks of 4 arms, true
shift of one standard deviation: smallest p about .06), so that a diagram is drawn only from six tasks on.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from scipy import stats

FEWEST_TASKS = 6


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """Mean rank of each arm over the tasks; scores [task, arm], larger is better, 1 is best, ties share their rank."""
    return scores.rank(axis=1, ascending=False).mean(axis=0)


def friedman(scores: pd.DataFrame) -> float:
    """P of Friedman's test that all arms rank alike."""
    return float(stats.friedmanchisquare(*(scores[arm] for arm in scores)).pvalue)


def nemenyi(scores: pd.DataFrame) -> pd.DataFrame:
    """P [arm, arm] of all pairs of mean ranks."""
    import scikit_posthocs

    found: pd.DataFrame = scikit_posthocs.posthoc_nemenyi_friedman(scores.to_numpy())
    found.index, found.columns = scores.columns, scores.columns
    return found


def document(scores: pd.DataFrame) -> dict[str, Any]:
    """Mean ranks, p values, or why there are none."""
    whole = scores.dropna(axis=1)
    tasks, arms = whole.shape
    if tasks < FEWEST_TASKS or arms < 3:
        why = f"{tasks} tasks and {arms} arms that all have; a critical-difference diagram needs {FEWEST_TASKS} and 3"
        return {"drawn": False, "why": why}
    p = nemenyi(whole)
    return {
        "drawn": True,
        "why": "",
        "mean_ranks": {str(k): float(v) for k, v in mean_ranks(whole).sort_values().items()},
        "friedman_p": friedman(whole),
        "nemenyi_p": {a: {b: float(row[b]) for b in row} for a, row in p.to_dict().items()},
    }
