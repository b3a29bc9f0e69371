"""Looks share alpha: whatever was added between them, any false verdict stays as rare as promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from orchestrator.statistics.power import settled
from orchestrator.statistics.significance import holm, sign_flip_rows
from orchestrator.statistics.spending import level, share, spent

ALPHA, SWEEPS = 0.05, 4000
ROOM = 2 * math.sqrt(ALPHA * (1 - ALPHA) / SWEEPS)
"""Two standard errors of a simulated size."""


def levels(units: list[int], comparisons: int, planned: int) -> list[float]:
    """Of each look at so many units; the first spends what an exact test can err in, the others their share."""
    found, gone = [], 0.0
    for look in range(1, len(units) + 1):
        part = share(ALPHA - gone, look, planned)
        found.append(level(part, look))
        gone += spent(found[0], units[0], comparisons) if look == 1 else part
    assert gone <= ALPHA + 1e-12
    return found


@pytest.mark.slow
@pytest.mark.parametrize("planned", [1, 2, 3])
@pytest.mark.parametrize("units", [[6, 10], [8, 12, 16], [5, 9], [6, 7, 8, 9, 10]])
def test_two_equal_arms_are_called_different_at_any_look_as_rarely_as_at_one(units: list[int], planned: int) -> None:
    d = np.random.default_rng(sum(units)).normal(size=(SWEEPS, max(units)))
    wrong = np.zeros(SWEEPS, dtype=bool)
    for n, at in zip(units, levels(units, 1, planned), strict=True):
        wrong |= settled(d[:, :n], 1, at)
    assert wrong.mean() <= ALPHA + ROOM
    unspent = np.zeros(SWEEPS, dtype=bool)
    for n in units:
        unspent |= settled(d[:, :n], 1, ALPHA)
    if len(units) > 3:
        assert unspent.mean() > ALPHA + 2 * ROOM, (
            "each look at the whole of alpha errs more: there is something to mend"
        )


@pytest.mark.parametrize("planned", [1, 2])
def test_whoever_adds_by_what_he_saw_errs_no_more(planned: int) -> None:
    """He adds so many units as make a false verdict most likely, given the first ones; a normal test, any number."""
    draw, first = np.random.default_rng(3), 8
    at = levels([first, 16], 1, planned)
    z, critical = draw.normal(size=200_000), [-ndtri(one / 2) for one in at]
    # crossing is most likely for n2 = n1 (critical^2 / z^2 - 1): Proschan and Hunsberger (1995)
    more = np.maximum(critical[1] ** 2 / z**2 - 1, 0)
    weight = 1 / (1 + more)
    later = np.sqrt(weight) * z + np.sqrt(1 - weight) * draw.normal(size=z.shape)
    own = spent(at[0], first, 1)
    by_chance = np.abs(z) > -ndtri(own / 2)
    assert np.mean(by_chance | (np.abs(later) > critical[1])) <= ALPHA + 2 * math.sqrt(ALPHA / len(z))
    same = np.abs(later) > -ndtri(share(ALPHA - own, 2, planned) / 2)
    assert np.mean(same) > share(ALPHA - own, 2, planned) * 1.5, "the share itself as level would err more"


def test_several_arms_at_two_looks() -> None:
    """Three equal arms, all pairs, Holm within each look."""
    values = np.random.default_rng(5).normal(size=(1000, 3, 12))
    pairs = np.stack([values[:, i] - values[:, j] for i, j in ((0, 1), (0, 2), (1, 2))], axis=1)
    wrong = np.zeros(len(values), dtype=bool)
    for n, at in zip([8, 12], levels([8, 12], 3, 2), strict=True):
        p = np.stack([sign_flip_rows(pairs[:, k, :n]) for k in range(3)], axis=1)
        wrong |= np.array([min(holm(list(row))) < at for row in p])
    assert wrong.mean() <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / len(values))


@pytest.mark.parametrize("n", [4, 5, 6, 7, 8, 10])
@pytest.mark.parametrize("at", [0.05, 0.025, 0.1])
def test_a_first_look_spends_what_its_exact_test_errs_in(n: int, at: float) -> None:
    """Over all sign patterns of differences that are all different, p takes each of its steps once."""
    d = 2.0 ** np.arange(n) * np.array(np.meshgrid(*[[-1.0, 1.0]] * n)).T.reshape(-1, n)
    errs = float((sign_flip_rows(d) < at).mean())
    assert spent(at, n, 1) == pytest.approx(errs)
    assert errs <= spent(at, n, 3) + 1e-12 or spent(at, n, 3) <= at


def test_tests_by_drawn_signs_spend_all() -> None:
    assert spent(0.05, 17, 1) == 0.05


@pytest.mark.parametrize("part", [1e-9, 1e-4, 0.02, 0.3, 1.0])
def test_the_level_of_a_later_look_is_below_its_share(part: float) -> None:
    assert level(part, 1) == part
    assert 0 < level(part, 2) < part
    assert level(0.0, 1) == level(0.0, 5) == 0.0


@pytest.mark.parametrize("planned", [1, 3])
def test_no_number_of_looks_spends_more_than_there_is(planned: int) -> None:
    gone: list[float] = []
    for look in range(1, 40):
        gone.append(share(ALPHA - sum(gone), look, planned))
    assert sum(gone) <= ALPHA + 1e-12
    assert min(gone[:planned]) == pytest.approx(ALPHA / planned)


def test_a_clear_difference_is_found_at_the_second_look() -> None:
    """Spending costs power, not all of it: two planned looks at 8 and 12 studies find 1.5 standard deviations."""
    d = np.random.default_rng(1).normal(size=(500, 12)) + 1.5
    at = levels([8, 12], 1, 2)
    assert settled(d, 1, at[1]).mean() > 0.8
