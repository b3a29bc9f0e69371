"""Components of the noise, power of designs and what settles a question, against data made with known components."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import stdtrit

from orchestrator.statistics import power, studies
from orchestrator.statistics.studies import Components, Design


def drawn(
    rng: np.random.Generator, found: Components, *, repeats: int, studies_: int, confirm: int, effect: float = 0.0
) -> np.ndarray:
    """Differences [repeats, studies, confirm]."""
    search = rng.normal(size=(repeats, studies_, 1)) * math.sqrt(found.between)
    return effect + search + rng.normal(size=(repeats, studies_, confirm)) * math.sqrt(found.within)


@pytest.mark.slow
@pytest.mark.parametrize(("within", "between"), [(1.0, 1.0), (0.5, 2.0), (4.0, 3.0)])
def test_components_are_found(within: float, between: float) -> None:
    """V4: R 8, m 3, 2 000 draws, mean within 3 %."""
    d = drawn(np.random.default_rng(4), Components(within=within, between=between), repeats=2000, studies_=8, confirm=3)
    found = [studies.components(list(one)) for one in d]
    assert np.mean([c.within for c in found if c]) == pytest.approx(within, rel=0.03)
    assert np.mean([c.between for c in found if c]) == pytest.approx(between, rel=0.03)


@pytest.mark.slow
def test_components_of_ragged_studies_are_found() -> None:
    d = drawn(np.random.default_rng(9), Components(within=1.0, between=1.0), repeats=3000, studies_=8, confirm=4)
    kept = [1, 4, 2, 3, 4, 1, 2, 4]
    found = [studies.components([row[:m] for row, m in zip(one, kept, strict=True)]) for one in d]
    assert np.mean([c.within for c in found if c]) == pytest.approx(1.0, rel=0.04)
    assert np.mean([c.between for c in found if c]) == pytest.approx(1.0, rel=0.04)


def test_components_by_hand() -> None:
    d = [np.array([1.0, 3.0]), np.array([5.0, 7.0]), np.array([3.0, 5.0])]
    found = studies.components(d)
    assert found == Components(within=2.0, between=4.0 - 2.0 / 2)
    assert found.share_of_search(2) == 3.0 / 4.0
    assert found.best_confirm(6) == math.sqrt(6 * 2.0 / 3.0)
    same = studies.estimate(d)
    assert (same.difference, same.confirm, same.p) == (4.0, 2.0, 0.25)
    assert studies.components([np.array([1.0])] * 8) is None
    assert studies.components([np.array([1.0, 2.0])]) is None
    assert Components(within=1.0, between=0.0).best_confirm(6) == math.inf


@pytest.mark.parametrize("studies_", [6, 8, 12])
def test_interval_over_studies_covers(studies_: int) -> None:
    """V3 on made data: 93 to 97 % for a known difference."""
    d = drawn(
        np.random.default_rng(1), Components(within=1.0, between=2.0), repeats=3000, studies_=studies_, confirm=2,
        effect=0.4,
    )  # fmt: skip
    means = d.mean(axis=2)
    half = stdtrit(studies_ - 1, 0.975) * means.std(axis=1, ddof=1) / math.sqrt(studies_)
    assert 0.93 <= (np.abs(means.mean(axis=1) - 0.4) <= half).mean() <= 0.97
    one = studies.estimate(list(d[0]))
    assert one.interval == pytest.approx((means[0].mean() - half[0], means[0].mean() + half[0]), abs=1e-12)


@pytest.mark.parametrize("effect", [0.8, 1.4, 2.0])
def test_power_of_a_design_is_the_simulated_rate(effect: float) -> None:
    """V7 on made data: within 5 points for three effects, the noise of the search counted."""
    found, design = Components(within=1.0, between=1.2), Design(studies=8, configurations=6, tune=1, confirm=2)
    d = drawn(np.random.default_rng(3), found, repeats=2500, studies_=8, confirm=2, effect=effect)
    seen = power.settled(d.mean(axis=2), 1, 0.05).mean()
    assert studies.power_of(design, effect, found) == pytest.approx(seen, abs=0.05)
    blind = Components(within=1.0, between=0.0)
    assert studies.power_of(design, effect, blind) > studies.power_of(design, effect, found)


def test_best_confirm_seeds_are_where_the_variance_is_least() -> None:
    found, search = Components(within=3.0, between=0.5), 6
    costs = {m: (search + m) * found.variance(m) for m in range(1, 60)}
    assert min(costs, key=lambda m: costs[m]) == round(found.best_confirm(search)) == 6


def test_best_design_affords_the_floor_and_detects_most() -> None:
    found = {(6, 1): Components(within=3.0, between=0.5)}
    best = studies.best_design(120, found)
    assert best is not None
    assert best.trials <= 120
    assert best.studies >= 6
    rivals = [
        power.detectable(120 // (6 + m)) * math.sqrt(found[6, 1].variance(m))  # type: ignore[operator]
        for m in range(1, 15)
    ]
    reach = power.detectable(best.studies)
    assert reach is not None
    assert reach * math.sqrt(found[6, 1].variance(best.confirm)) == pytest.approx(min(rivals))
    many = studies.best_design(120, found, comparisons=10)
    assert many is not None
    assert many.studies >= 9
    assert studies.best_design(41, found) is None  # six studies of six and one need 42
    assert studies.best_design(42, found) == Design(studies=6, configurations=6, tune=1, confirm=1)


def test_between_searches_the_one_that_detects_more_is_taken() -> None:
    found = {(3, 1): Components(within=1.0, between=9.0), (12, 1): Components(within=1.0, between=0.01)}
    best = studies.best_design(160, found)
    assert best is not None
    assert best.configurations == 12


def settling(between: float, within: float, search: int | None = 12) -> studies.Settling:
    """For 8 studies of 2 confirm seeds whose components are exactly these, and a mean of 0.6."""
    signs = np.array([1, 1, 1, 1, -1, -1, -1, -1]) * math.sqrt(7 / 8)
    means = 0.6 + signs * math.sqrt(between + within / 2)
    d = [m + np.array([1.0, -1.0]) * math.sqrt(within / 2) for m in means]
    made = studies.components(d)
    assert made is not None
    assert (made.between, made.within) == pytest.approx((between, within))
    return studies.cheapest(d, search, comparisons=1, alpha=0.05, margin=0.0)


def test_what_settles_it_cheapest_depends_on_which_noise_dominates() -> None:
    seeds = settling(between=0.05, within=2.0)
    assert seeds.cheapest == "confirm"
    assert seeds.confirm is not None
    assert seeds.trials == 8 * (seeds.confirm - 2)
    search = settling(between=1.0, within=0.1)
    assert search.cheapest == "studies"
    assert search.confirm is None  # no number of confirm seeds removes the noise of the search
    assert search.studies is not None
    assert search.trials == search.studies * (12 + 2)
    unknown = settling(between=1.0, within=0.1, search=None)
    assert (unknown.cheapest, unknown.trials) == ("studies", None)


def test_what_would_settle_it_does() -> None:
    """With the studies that it asks for, such differences are found in about 80 %."""
    asked = settling(between=1.0, within=0.1).studies
    assert asked is not None
    d = drawn(
        np.random.default_rng(2), Components(within=0.1, between=1.0), repeats=4000, studies_=8 + asked, confirm=2,
        effect=0.6,
    ).mean(axis=2)  # fmt: skip
    t = np.abs(d.mean(axis=1) / d.std(axis=1, ddof=1)) * math.sqrt(8 + asked)
    assert (t > stdtrit(7 + asked, 0.975)).mean() == pytest.approx(0.8, abs=0.04)


def test_equal_studies_are_settled_by_nothing() -> None:
    found = studies.cheapest([np.array([0.0, 0.0])] * 8, 12, comparisons=1, alpha=0.05, margin=0.0)
    assert found == studies.Settling(studies=None, confirm=None, trials=None, cheapest=None)
