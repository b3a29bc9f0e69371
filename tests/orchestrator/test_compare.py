"""Paired statistics: equal to scipy or to counting by hand, honest under the null, and refused when unpaired."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.compare.intervals import summarize
from orchestrator.compare.paired import Refused, compare, interval, sign_flip


def table(**arms: list[float]) -> pd.DataFrame:
    rows = [
        {
            "sweep_id": "s-1", "arm": arm, "stage": "confirm", "trial_id": f"{arm}-{i}", "seed": 1000 + i,
            "state": "COMPLETE", "grad_evals": 100.0, "init_digest": f"i{i}", "data_digest": f"d{i}", "m": value,
        }
        for arm, values in arms.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


A = [0.91, 0.93, 0.92, 0.95, 0.90, 0.94, 0.93]
B = [0.90, 0.90, 0.91, 0.91, 0.89, 0.92, 0.94]
C = [0.80, 0.83, 0.82, 0.81, 0.80, 0.82, 0.79]


def test_summary_is_the_t_interval() -> None:
    found = summarize(A)
    expected = stats.t.interval(0.95, 6, loc=np.mean(A), scale=stats.sem(A))
    assert (found.lo, found.hi) == pytest.approx(expected, rel=1e-12)
    assert summarize([1.0]).lo is None
    with pytest.raises(ValueError, match="no values"):
        summarize([])


def test_sign_flip_equals_counting() -> None:
    d = np.array(A) - np.array(B)
    signs = list(itertools.product((-1, 1), repeat=7))
    count = sum(abs(sum(s * x for s, x in zip(row, d, strict=True))) >= abs(sum(d)) - 1e-12 for row in signs)
    assert sign_flip(d) == pytest.approx(count / 2**7, abs=1e-12)
    permuted = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(d) == pytest.approx(permuted.pvalue, abs=1e-12)


def test_five_seeds_could_never_be_significant_and_are_refused() -> None:
    assert sign_flip(np.ones(5)) == 2 / 2**5
    with pytest.raises(Refused, match="below 6"):
        compare(table(a=A[:5], b=B[:5]), metric="m", goal="maximize")


def test_intervals_are_scipys() -> None:
    d = np.array(A) - np.array(B)
    expected = stats.ttest_rel(A, B).confidence_interval()
    assert interval(d) == pytest.approx((expected.low, expected.high), rel=1e-12)
    long = np.random.default_rng(1).normal(0.3, 1, 12)
    boot = stats.bootstrap((long,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    assert interval(long) == pytest.approx((boot.low, boot.high), rel=1e-12)


def test_document() -> None:
    document = compare(table(a=A, b=B, c=C), metric="m", goal="maximize")
    json.dumps(document)
    pairs = {(p["a"], p["b"]): p for p in document["pairs"]}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs["a", "c"]["verdict"] == "better"
    assert pairs["a", "c"]["difference"] == pytest.approx(np.mean(A) - np.mean(C))
    assert pairs["a", "c"]["outperforms"] == 1.0
    smallest = 2 / 2**7
    assert pairs["a", "c"]["p"] == smallest
    assert pairs["a", "c"]["p_holm"] == pytest.approx(3 * smallest)
    assert pairs["a", "b"]["verdict"] == "inconclusive"
    assert pairs["a", "b"]["seeds_needed"] > 7
    worse = compare(table(a=A, c=C), metric="m", goal="minimize", baseline="c")["pairs"][0]
    assert (worse["a"], worse["b"], worse["verdict"]) == ("a", "c", "worse")


def test_equivalence_needs_a_margin() -> None:
    near = [x + (-1) ** i * 1e-4 for i, x in enumerate(A)]
    assert compare(table(a=A, b=near), metric="m", goal="maximize", margin=0.01)["pairs"][0]["verdict"] == "equivalent"
    assert compare(table(a=A, b=near), metric="m", goal="maximize")["pairs"][0]["verdict"] == "inconclusive"


def spoil(t: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    t = t.copy()
    t.loc[0, column] = value
    return t


@pytest.mark.parametrize(
    "column, value, reason",
    [
        ("init_digest", "other", "seed 1000 is not paired: init_digest"),
        ("data_digest", "other", "seed 1000 is not paired: data_digest"),
        ("seed", 1001, "a confirm seed twice"),
        ("seed", 7, "have other confirm seeds"),
        ("state", "FAILED", "1 confirm trials failed"),
        ("grad_evals", 200.0, "budgets differ by more than 2 %"),
    ],
)
def test_tampered_tables_are_refused(column: str, value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        compare(spoil(table(a=A, b=B), column, value), metric="m", goal="maximize")


@pytest.mark.parametrize(
    "arguments, reason",
    [({"metric": "x"}, "no trial has the metric"), ({"baseline": "z"}, "baseline 'z' has no confirm trials")],
)
def test_wrong_questions_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        compare(table(a=A, b=B), **{"metric": "m", "goal": "maximize", **arguments})
    with pytest.raises(Refused, match="needs two arms"):
        compare(table(a=A), metric="m", goal="maximize")


def test_false_verdicts_under_the_null() -> None:
    """2 000 comparisons of equal arms over 8 seeds: at most 5 % + 2 standard errors are called better or worse."""
    rng = np.random.default_rng(11)
    false = 0
    for _ in range(2000):
        a, b = rng.normal(size=(2, 8)) + rng.normal(size=8)
        d = a - b
        low, high = interval(d)
        false += sign_flip(d) < 0.05 and not low <= 0 <= high
    assert false / 2000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)
