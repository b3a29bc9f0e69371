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

from orchestrator.compare.answer import shown
from orchestrator.definition.states import Goal
from orchestrator.statistics.comparison import compare, compare_values
from orchestrator.statistics.intervals import mean_interval, summarize
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import headline, sentence, too_few
from orchestrator.statistics.significance import (
    floor_of_seeds,
    holm,
    outperforming,
    sign_flip,
    sign_flip_rows,
    wilcoxon,
)


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
    with pytest.raises(Refused, match="fewer than 6"):
        compare(table(a=A[:5], b=B[:5]), metric="m", goal=Goal.MAXIMIZE)


@pytest.mark.parametrize("n", [6, 9, 10, 30])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_intervals_are_scipys_at_every_n(n: int, confidence: float) -> None:
    d = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.ttest_1samp(d, 0.0).confidence_interval(confidence)
    assert mean_interval(d, confidence) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert (summarize(d, confidence).lo, summarize(d, confidence).hi) == mean_interval(d, confidence)


def test_document() -> None:
    document = compare(table(a=A, b=B, c=C), metric="m", goal=Goal.MAXIMIZE)
    json.dumps(document.document())
    pairs = {(p.a, p.b): p for p in document.pairs}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs["a", "c"].verdict == "better"
    assert pairs["a", "c"].difference == pytest.approx(np.mean(A) - np.mean(C))
    assert pairs["a", "c"].outperforms == 1.0
    smallest = 2 / 2**7
    assert pairs["a", "c"].p == smallest
    assert pairs["a", "c"].p_holm == pytest.approx(3 * smallest)
    assert pairs["a", "b"].verdict == "inconclusive"
    assert pairs["a", "b"].seeds_needed > 7
    worse = compare(table(a=A, c=C), metric="m", goal=Goal.MINIMIZE, baseline="c").pairs[0]
    assert (worse.a, worse.b, worse.verdict) == ("a", "c", "worse")


def test_equivalence_needs_a_margin() -> None:
    near = [x + (-1) ** i * 1e-4 for i, x in enumerate(A)]
    assert compare(table(a=A, b=near), metric="m", goal=Goal.MAXIMIZE, margin=0.01).pairs[0].verdict == "equivalent"
    assert compare(table(a=A, b=near), metric="m", goal=Goal.MAXIMIZE).pairs[0].verdict == "inconclusive"


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
        ("seed", 7, "have different confirm seeds"),
        ("state", "FAILED", "1 confirm trials failed"),
        ("grad_evals", 200.0, "budgets differ by more than 2%"),
    ],
)
def test_tampered_tables_are_refused(column: str, value: Any, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        compare(spoil(table(a=A, b=B), column, value), metric="m", goal=Goal.MAXIMIZE)


@pytest.mark.parametrize(("spent", "allowed"), [(101.9, True), (98.1, True), (102.2, False), (97.9, False)])
def test_budgets_within_two_percent_are_alike(spent: float, allowed: bool) -> None:
    """(max - min) / mean, over all confirm trials."""
    spoiled = spoil(table(a=A, b=B), "grad_evals", spent)
    if allowed:
        assert compare(spoiled, metric="m", goal=Goal.MAXIMIZE).pairs
        return
    with pytest.raises(Refused, match="budgets differ by more than 2%"):
        compare(spoiled, metric="m", goal=Goal.MAXIMIZE)


@pytest.mark.parametrize(
    "arguments, reason",
    [({"metric": "x"}, "no trial has the metric"), ({"baseline": "z"}, "baseline 'z' has no confirm trials")],
)
def test_wrong_questions_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        compare(table(a=A, b=B), **{"metric": "m", "goal": Goal.MAXIMIZE, **arguments})
    with pytest.raises(Refused, match="needs two arms"):
        compare(table(a=A), metric="m", goal=Goal.MAXIMIZE)


@pytest.mark.parametrize("seeds, arms", [(6, 2), (8, 3), (12, 3)])
def test_false_verdicts_under_the_null(seeds: int, arms: int) -> None:
    """2 000 sweeps whose arms are equal: at most 5 % + 2 standard errors say better or worse of any pair.

    A verdict asks for Holm-adjusted p < 0.05, whatever the interval says, so the share of such p bounds it from above.
    """
    rng = np.random.default_rng(11)
    values = rng.normal(size=(arms, 2000, seeds)) + 2 * rng.normal(size=(1, 2000, seeds))
    pairs = list(itertools.combinations(range(arms), 2))
    ps = np.stack([sign_flip_rows(values[a] - values[b]) for a, b in pairs])
    called = ps.min(axis=0) * len(pairs) < 0.05  # Holm's first step
    assert called.mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)
    for sweep in np.flatnonzero(called)[:2]:
        judged = compare_values({str(a): values[a, sweep] for a in range(arms)}, goal=Goal.MAXIMIZE)
        assert [p.p_holm for p in judged] == pytest.approx(holm(list(ps[:, sweep])), abs=1e-12)


def test_wilcoxon_is_scipys_and_exact_with_ties() -> None:
    d = np.array([0.3, -0.1, 0.7, 0.2, 0.5, -0.4, 0.9])
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, abs=1e-12)
    tied = np.array([1.0, 1.0, -1.0, 2.0, 3.0, 3.0, 0.0, 2.0])
    method = stats.PermutationMethod(n_resamples=np.inf)
    assert wilcoxon(tied) == pytest.approx(stats.wilcoxon(tied[tied != 0], method=method).pvalue, abs=1e-12)
    assert wilcoxon(np.zeros(6)) == 1.0
    long = np.random.default_rng(0).normal(0.4, 1, 30)
    assert wilcoxon(long) == pytest.approx(stats.wilcoxon(long).pvalue, abs=1e-12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06], abs=1e-12)
    assert [floor_of_seeds(k, 0.05) for k in (1, 3, 10)] == [6, 7, 9]


def test_probability_of_outperforming() -> None:
    share, (low, high) = outperforming(np.array([1.0, 2.0, 0.0, -1.0]))
    assert share == (1 + 1 + 0.5 + 0) / 4
    assert 0 < low < share < high < 1
    won = outperforming(np.ones(9))
    exact = stats.binomtest(9, 9).proportion_ci(0.95, method="exact")
    assert won == (1.0, pytest.approx((exact.low, 1.0), rel=1e-9))


def test_the_arm_ahead_comes_first_and_turning_back_changes_nothing() -> None:
    document = compare(table(a=C, b=A), metric="m", goal=Goal.MAXIMIZE)
    pair = shown(document)[0]
    assert (pair.a, pair.verdict) == ("b", "better")
    other = compare(table(a=A, b=C), metric="m", goal=Goal.MAXIMIZE).pairs[0]
    for key in ("difference", "interval", "outperforms", "outperforms_interval", "p"):
        assert getattr(pair, key) == pytest.approx(getattr(other, key), abs=1e-12)
    assert sentence(pair, "m").startswith("The configuration found for b beats the one found for a: +0.1")
    assert headline(document).startswith("The configuration found for b beats the one found for a. One search each")


def test_too_few_seeds_for_the_comparisons_is_said() -> None:
    document = compare(table(a=A[:6], b=B[:6], c=C[:6]), metric="m", goal=Goal.MAXIMIZE)
    assert "6 seeds cannot settle 3 comparisons" in too_few(document)
    assert too_few(compare(table(a=A[:6], c=C[:6]), metric="m", goal=Goal.MAXIMIZE)) == ""
