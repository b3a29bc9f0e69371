"""Several arms over several tasks: Friedman's test and Nemenyi's comparison of mean ranks (Demsar 2006).

Tasks are the blocks, never seeds of one task. With few tasks Nemenyi has almost no power (12 tasks of 4 arms, true
shift of one standard deviation: smallest p about .06), so a diagram is drawn only from six tasks on.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.statistics.intervals import Array
from orchestrator.statistics.significance import ranks

FEWEST_TASKS = 6


def mean_ranks(scores: pd.DataFrame) -> pd.Series:
    """Mean rank of each arm over the tasks; scores [task, arm], larger is better, rank 1 is best, ties share their
    rank.
    """
    return scores.rank(axis=1, ascending=False).mean(axis=0)


def kendall(x: Array, y: Array) -> float:
    """Kendall's tau-b of two rankings of the same items; NaN if one of them is constant (Kendall 1945)."""
    a, b = (np.sign(np.subtract.outer(r, r)) for r in (ranks(x), ranks(y)))
    of = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / of if of else math.nan


def friedman(scores: pd.DataFrame) -> float:
    """P value of Friedman's test that all arms rank alike."""
    from scipy import stats

    return float(stats.friedmanchisquare(*(scores[arm] for arm in scores)).pvalue)


def nemenyi(scores: pd.DataFrame) -> pd.DataFrame:
    """P values [arm, arm] for all pairs of mean ranks."""
    import scikit_posthocs

    found: pd.DataFrame = scikit_posthocs.posthoc_nemenyi_friedman(scores.to_numpy())
    found.index, found.columns = scores.columns, scores.columns
    return found


def document(scores: pd.DataFrame) -> dict[str, Any]:
    """Mean ranks and p values, or why there are none."""
    whole = scores.dropna(axis=1)
    tasks, arms = whole.shape
    if tasks < FEWEST_TASKS or arms < 3:
        why = f"{tasks} tasks with {arms} arms in common; a critical-difference diagram needs {FEWEST_TASKS} and 3"
        return {"drawn": False, "why": why}
    p = nemenyi(whole)
    return {
        "drawn": True,
        "why": "",
        "mean_ranks": {str(k): float(v) for k, v in mean_ranks(whole).sort_values().items()},
        "friedman_p": friedman(whole),
        "nemenyi_p": {a: {b: float(row[b]) for b in row} for a, row in p.to_dict().items()},
    }
