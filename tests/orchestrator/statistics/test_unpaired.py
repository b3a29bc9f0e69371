"""Comparisons of arms that are not paired: the rates that they promise, and the tests that they rest on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.definition.states import Goal
from orchestrator.statistics.intervals import Array
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.unpaired import compare_unpaired, least_p, too_few
from orchestrator.statistics.verdict import Pair

SETS = 400


def pair(a: Array, b: Array, margin: float = 0.0) -> Pair:
    values = {"a": [np.array([x]) for x in a], "b": [np.array([x]) for x in b]}
    return compare_unpaired(values, goal=Goal.MAXIMIZE, unit="seed", margin=margin)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "ratio"), [(6, 6, 1.0), (5, 9, 1.0), (6, 6, 3.0)])
def test_equal_means_are_told_apart_in_five_percent_at_most(n: int, m: int, ratio: float) -> None:
    """Other variances included; two standard errors of the simulation are allowed for."""
    draw = np.random.default_rng(n)
    found = [pair(draw.normal(0, 1, n), draw.normal(0, ratio, m)) for _ in range(SETS)]
    wrong = np.mean([one.verdict != "inconclusive" for one in found])
    covered = np.mean([one.interval[0] <= 0 <= one.interval[1] for one in found])
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / SETS)
    assert abs(covered - 0.95) <= 0.02


def test_the_interval_is_welchs() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(1, 1, 7), draw.normal(0, 3, 11)
    found = pair(a, b)
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.interval == pytest.approx((theirs.low, theirs.high))
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.counts == (7, 11)


def test_p_is_that_of_all_ways_to_deal_the_values() -> None:
    """Slow reference: every choice of four of the nine values, studentized."""
    draw = np.random.default_rng(1)
    a, b = draw.normal(1.2, 1, 4), draw.normal(0, 1, 5)
    both = np.concatenate([a, b])

    def studentized(chosen: tuple[int, ...]) -> float:
        x, y = both[list(chosen)], np.delete(both, chosen)
        return float((x.mean() - y.mean()) / math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y)))

    seen = np.array([studentized(c) for c in itertools.combinations(range(9), 4)])
    at = studentized((0, 1, 2, 3))
    assert pair(a, b).p == pytest.approx(float((np.abs(seen) >= abs(at) - 1e-12).mean()))


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 4), (4, 6), (2, 9)])
def test_the_least_p(n: int, m: int) -> None:
    found = pair(np.arange(n) + 100.0, np.arange(m) * 1.0)
    assert found.p == pytest.approx(least_p(n, m))
    assert (found.verdict == "better") == (least_p(n, m) < 0.05)


def test_too_few_units_are_said() -> None:
    three = {arm: [0.0] * 3 for arm in "ab"}
    assert "3 and 3 unpaired units cannot settle a comparison" in too_few(three, 1, 0.05)
    assert not too_few({arm: [0.0] * 6 for arm in "ab"}, 1, 0.05)
    assert "10 comparisons" in too_few({arm: [0.0] * 4 for arm in "abcde"}, 10, 0.05)
    with pytest.raises(Refused, match="shows no spread"):
        pair(np.array([1.0]), np.array([1.0, 2.0]))


def test_within_a_margin() -> None:
    draw = np.random.default_rng(2)
    near = pair(draw.normal(0, 0.1, 12), draw.normal(0, 0.1, 12), margin=1.0)
    assert (near.verdict, near.p) == ("equivalent", 1.0)
    far = pair(draw.normal(3, 0.1, 8), draw.normal(0, 0.1, 8), margin=1.0)
    assert far.verdict == "better"
    between = pair(draw.normal(0.95, 0.1, 8), draw.normal(0, 0.1, 8), margin=1.0)
    assert between.verdict == "inconclusive"


def test_values_that_are_all_the_same() -> None:
    same = pair(np.ones(6), np.ones(6))
    assert (same.p, same.verdict, same.interval) == (1.0, "inconclusive", (0.0, 0.0))
    apart = pair(np.ones(6), np.zeros(6))
    assert (apart.p, apart.verdict) == (pytest.approx(least_p(6, 6)), "better")


def test_who_is_ahead() -> None:
    found = pair(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0]))
    assert found.outperforms == pytest.approx((2 + 1.5 + 1) / 6 - 0.0)
