"""Statistics beside the paired tests: expected best, tunability, profiles, ranks, edges, power, forecasts."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

import optim_core
from orchestrator.compare import profiles, tuning
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal
from orchestrator.protocol.forecast import Load, forecast, makespan
from orchestrator.search.importance import importances
from orchestrator.statistics import power, ranks
from orchestrator.statistics.expected_best import Curve, crossing, expected_best, tunability
from orchestrator.statistics.significance import holm

TWELVE = np.array([0.31, 0.77, 0.52, 0.90, 0.12, 0.66, 0.48, 0.83, 0.25, 0.71, 0.59, 0.05])


@pytest.mark.parametrize("goal, pick", [(Goal.MAXIMIZE, max), (Goal.MINIMIZE, min)])
def test_expected_best_equals_all_subsets(goal: Goal, pick: Any) -> None:
    found = expected_best(TWELVE, goal)
    for b in range(1, 13):
        subsets = [pick(s) for s in itertools.combinations(TWELVE, b)]
        assert found[b - 1] == pytest.approx(np.mean(subsets), abs=1e-12)


def test_tunability_weights() -> None:
    e = np.array([1.0, 2.0, 4.0])
    assert tunability(e) == pytest.approx({"peak": 4.0, "uniform": 7 / 3, "early": (2 * 1 + 1 * 2) / 3}, abs=1e-12)


def test_crossing_is_where_the_order_turns() -> None:
    def made(*values: float) -> Curve:
        x = np.array(values)
        return Curve(trials=np.arange(1, len(x) + 1), mean=x, low=x, high=x)

    assert crossing(made(1, 2, 5), made(2, 3, 4), Goal.MAXIMIZE) == 3
    assert crossing(made(2, 3, 4), made(1, 2, 5), Goal.MAXIMIZE) is None


def test_time_to_target_interpolates() -> None:
    steps = [10.0, 20.0, 30.0]
    assert profiles.time_to(steps, [0.2, 0.6, 0.9], 0.5, Goal.MAXIMIZE) == pytest.approx(10 + 10 * 0.3 / 0.4, abs=1e-12)
    assert profiles.time_to(steps, [0.6, 0.2, 0.9], 0.5, Goal.MAXIMIZE) == 10
    assert profiles.time_to(steps, [3.0, 2.0, 1.0], 1.5, Goal.MINIMIZE) == 25
    assert profiles.time_to(steps, [3.0, 2.0, 1.0], 0.5, Goal.MINIMIZE) == math.inf
    assert profiles.time_to(steps, [3.0, 2.0, 1.0], 2.0, Goal.MINIMIZE) == 20


def test_profile_equals_an_example_by_hand() -> None:
    """Three tasks. a: 10, 40, missed; b: 20, 20, 30. r_a = 1, 2, inf; r_b = 2, 1, 1."""
    times = pd.DataFrame({"a": [10.0, 40.0, math.inf], "b": [20.0, 20.0, 30.0]})
    r = profiles.ratios(times)
    assert r["a"].tolist() == [1, 2, math.inf]
    assert r["b"].tolist() == [2, 1, 1]
    assert profiles.profile(r["a"], [1, 1.5, 2, 4]) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3], abs=1e-12)
    tau = np.linspace(1, 4, 300_001)
    for arm, by_hand in (("a", (3 * 1 + 2 * 1) / 3 / 3), ("b", (3 + 3 + 2) / 3 / 3)):
        assert profiles.score(r[arm]) == pytest.approx(by_hand, abs=1e-12)
        assert np.trapezoid(profiles.profile(r[arm], list(tau[::100])), tau[::100]) / 3 == pytest.approx(
            by_hand, abs=1e-3
        )
    nobody = profiles.ratios(pd.DataFrame({"a": [math.inf], "b": [math.inf]}))
    assert nobody.to_numpy().tolist() == [[math.inf, math.inf]]


def test_ranks_are_scipys() -> None:
    rng = np.random.default_rng(3)
    scores = pd.DataFrame(rng.normal(size=(8, 3)) + np.arange(3), columns=list("abc"))
    assert ranks.friedman(scores) == pytest.approx(stats.friedmanchisquare(*scores.to_numpy().T).pvalue, abs=1e-12)
    by_hand = stats.rankdata(-scores.to_numpy(), axis=1).mean(axis=0)
    assert ranks.mean_ranks(scores).to_numpy() == pytest.approx(by_hand, abs=1e-12)
    q = abs(by_hand[0] - by_hand[2]) / math.sqrt(3 * 4 / (6 * 8)) * math.sqrt(2)
    assert ranks.nemenyi(scores).loc["a", "c"] == pytest.approx(stats.studentized_range.sf(q, 3, np.inf), abs=1e-6)
    assert ranks.document(scores)["drawn"]
    assert "needs 6" in ranks.document(scores.head(5))["why"]


@pytest.mark.parametrize(
    "p, value, expected",
    [
        (Parameter(name="lr", kind="float", low=1e-3, high=1.0, log=True), 1.2e-3, "lower"),
        (Parameter(name="lr", kind="float", low=1e-3, high=1.0, log=True), 0.1, ""),
        (Parameter(name="lr", kind="float", low=1e-3, high=1.0, log=True), 0.9, "upper"),
        (Parameter(name="beta1", kind="float", low=0.9, high=0.999, one_minus=True), 0.9989, "upper"),
        (Parameter(name="rotation", kind="categorical", values=("a", "b", "c")), "a", ""),
    ],
)
def test_edges(p: Parameter, value: Any, expected: str) -> None:
    assert tuning.edge(p, value) == expected


@pytest.mark.parametrize(
    "optimizer, p, value, expected",
    [
        ("llqr", Parameter(name="ema_rate", kind="float", low=0.01, high=1.0, log=True), 0.99, ""),
        ("llqr", Parameter(name="ema_rate", kind="float", low=0.01, high=1.0, log=True), 0.0101, "lower"),
        ("llqr", Parameter(name="refresh_interval", kind="categorical", values=(1, 10, 100)), 1, ""),
        ("llqr", Parameter(name="refresh_interval", kind="categorical", values=(1, 10, 100)), 100, "upper"),
        ("rotated(sgd)", Parameter(name="momentum", kind="float", low=0.0, high=0.9), 0.0, ""),
        ("torch.optim.RMSprop", Parameter(name="weight_decay", kind="float", low=0.0, high=0.1), 0.0, ""),
        ("gda", Parameter(name="momentum", kind="float", low=0.0, high=0.5), 0.0, "lower"),  # it may be negative
        ("gda", Parameter(name="momentum", kind="float", low=-1.0, high=0.5), -1.0, ""),
    ],
)
def test_a_natural_bound_that_the_optimizer_declares_is_no_edge(
    optimizer: str, p: Parameter, value: float, expected: str
) -> None:
    assert tuning.edge(p, value, optim_core.lookup(optimizer).BOUNDS[p.name]) == expected


def drawn_configurations(count: int, *names: str) -> tuple[list[Parameter], list[dict[str, float]]]:
    rows = np.random.default_rng(0).uniform(size=(count, len(names)))
    found = [dict(zip(names, map(float, row), strict=True)) for row in rows]
    return [Parameter(name=n, kind="float", low=0.0, high=1.0) for n in names], found


@pytest.mark.parametrize("goal", list(Goal))
def test_importance_finds_the_one_that_matters(goal: Goal) -> None:
    x, rows = drawn_configurations(60, "matters", "idle")
    worse = [(r["matters"] - 0.3) ** 2 for r in rows]
    found = importances(x, rows, worse if goal == Goal.MINIMIZE else [-v for v in worse], goal)
    assert next(iter(found)) == "matters"
    assert found["matters"].share > 0.8
    assert 0.3 < found["matters"].by_chance < 0.7  # one of two, when the values are dealt out at random
    assert sum(one.share for one in found.values()) == pytest.approx(1.0)
    assert sum(one.by_chance for one in found.values()) == pytest.approx(1.0)
    assert importances(x, rows[:5], [0.0] * 5, Goal.MAXIMIZE) == {}


WHOLE = """
import sys, optuna
from orchestrator.search.importance import _ped_anova_of_optuna
found = _ped_anova_of_optuna()
assert "sklearn" not in sys.modules
assert optuna.importance.PedAnovaImportanceEvaluator.__qualname__ == found.__qualname__
optuna.importance.FanovaImportanceEvaluator()  # which needs it
"""


@pytest.mark.slow
def test_importance_needs_no_scikit_learn_and_leaves_optuna_whole() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", WHOLE], check=True, timeout=120)


@pytest.mark.slow
def test_importance_of_noise_is_not_shown() -> None:
    """The largest of four shares averages 0.66 on twelve configurations of pure noise."""
    rng, shown = np.random.default_rng(1), 0
    x, rows = drawn_configurations(12, *"abcd")
    for _ in range(10):
        shown += bool(importances(x, rows, rng.normal(size=12).tolist(), Goal.MAXIMIZE))
    assert shown <= 2  # 5 % of 10 is a half; three or more happen in 1.2 % of cases


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2, 5, 21])
def test_holm_is_statsmodels(k: int) -> None:
    for seed in range(5):  # statsmodels collects garbage at every call, which takes longer than all else
        ps = np.random.default_rng([k, seed]).random(k) ** 3
        ps[k // 2] = ps[0]
        assert holm(list(ps)) == pytest.approx(multipletests(ps, method="holm")[1], abs=1e-15)


def test_power_is_statsmodels_where_that_is_right() -> None:
    expected = TTestPower().power(0.7, 20, 0.05 / 3)
    assert power.power(0.7, 20, 3) == pytest.approx(expected, abs=1e-12)
    assert power.power(3.0, 6, 3) == 0.0  # below the floor of seven
    assert power.seeds_needed(1.0) in (10, 11)  # 10 by the t test; the exact one needs a trifle more
    assert power.seeds_needed(0.585, 3) == 34
    assert power.seeds_needed(0.0) is None


def test_seeds_to_settle() -> None:
    d = np.array([1.0, 2.0, 0.5, 1.5, -0.5, 1.2, 0.1, 0.9])
    needed = power.seeds_to_settle(d, comparisons=1, alpha=0.05, margin=0.0)
    assert needed == max(9, power.seeds_needed(float(d.mean() / d.std(ddof=1))) or 0)
    small = np.array([0.1, -0.1, 0.2, -0.2, 0.15, -0.15, 0.1, -0.1])
    inside = power.seeds_to_settle(small, comparisons=1, alpha=0.05, margin=0.1)
    assert inside is not None
    half = stats.t.ppf(0.975, inside - 1) * small.std(ddof=1) / math.sqrt(inside)
    assert abs(small.mean()) + half < 0.1
    assert power.seeds_to_settle(small - small.mean(), comparisons=1, alpha=0.05, margin=0.0) is None


def test_makespan_is_list_scheduling() -> None:
    durations = np.array([[4.0], [3.0], [2.0], [2.0]])
    assert makespan(durations, 2).tolist() == [6.0]  # 4 and 3 start; 2 joins 3, the last 2 joins 4
    assert makespan(durations, 1).tolist() == [11.0]


@pytest.mark.slow
def test_forecast_intervals_cover_as_they_say() -> None:
    """200 simulated sweeps: p10 to p90 holds the true wall clock in 75 to 85 % of them."""
    rng, inside = np.random.default_rng(2026), 0
    for sweep in range(200):
        spread = rng.uniform(0.05, 0.35)
        arms = {f"a{i}": rng.normal(-4, 1) for i in range(3)}
        loads = {
            arm: Load(measured=list(np.exp(rng.normal(mu, spread, 3))), trials=20, budget=480.0)
            for arm, mu in arms.items()
        }
        truth = [480 * np.exp(rng.normal(mu, spread, 20)) for mu in arms.values()]
        wall = makespan(np.stack(truth, axis=1).reshape(-1, 1), 2)[0]
        found = forecast(loads, slots=2, gpu=0.5, seed=sweep)
        inside += found.seconds.p10 <= wall <= found.seconds.p90
        assert found.gpu_hours.p50 == pytest.approx(found.trial_seconds.p50 * 0.5 / 3600)
    assert 0.75 <= inside / 200 <= 0.85
