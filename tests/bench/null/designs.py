"""Designs of a sweep on the table of trained values: false verdicts, coverage and power, thousands of times over.

A design draws, for each arm and study, N configurations without replacement, takes the one with the best mean
validation accuracy over its t tune seeds and reads its test accuracy on m fresh seeds; tune and confirm seeds are all
distinct, and the same for both arms. With several studies the rule of `orchestrator.statistics` judges the differences
of the studies, with one study those of its confirm seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from orchestrator.statistics import power, studies
from orchestrator.statistics.studies import Components, Design
from tests.bench.null.train_values import SEEDS, VALUES
from trainables.tasks.digits import VAL

Array = NDArray[np.float64]
PATTERNS = 4000
NULL = [
    Design(studies=1, configurations=12, tune=1, confirm=9),
    Design(studies=1, configurations=12, tune=1, confirm=20),
    Design(studies=1, configurations=12, tune=3, confirm=12),
    Design(studies=1, configurations=48, tune=1, confirm=12),
    Design(studies=8, configurations=3, tune=1, confirm=1),
    Design(studies=8, configurations=4, tune=1, confirm=2),
    Design(studies=8, configurations=6, tune=1, confirm=2),
    Design(studies=8, configurations=12, tune=1, confirm=2),
    Design(studies=12, configurations=6, tune=1, confirm=1),
]
"""The quickstart's design stands first."""


@dataclass(frozen=True)
class Outcome:
    """What so many sweeps of one design said; every number a share but the last two."""

    settled: float
    right: float
    """Settled with the true sign; of no difference, half of what is settled."""
    covered: float
    """Of true differences, by the 95 % interval."""
    truth: float
    spread: float
    """Standard deviation of the estimated difference."""


@cache
def values(arm: str) -> tuple[Array, Array]:
    """Validation and test accuracy [configurations, seeds]."""
    table = pd.read_parquet(VALUES)
    own = table[table["arm"] == arm].sort_values(["configuration", "seed"])
    return own["val"].to_numpy(float).reshape(-1, SEEDS) / VAL, own["test"].to_numpy(float).reshape(-1, SEEDS) / VAL


def differences(a: str, b: str, design: Design, repeats: int, seed: int = 0) -> Array:
    """Test accuracy of arm a minus that of arm b, [repeats, studies, confirm seeds]."""
    rng, each = np.random.default_rng(seed), design.tune + design.confirm
    order = rng.random((repeats, SEEDS)).argsort(axis=1)[:, : design.studies * each]
    seeds = order.reshape(repeats, design.studies, each)
    found = []
    for arm in (a, b):
        val, test = values(arm)
        drawn = rng.random((repeats, design.studies, len(val))).argsort(axis=2)[..., : design.configurations]
        tuned = val[drawn[..., None], seeds[:, :, None, : design.tune]].mean(axis=3)
        best = np.take_along_axis(drawn, tuned.argmax(axis=2)[..., None], axis=2)
        found.append(test[best, seeds[:, :, design.tune :]])
    return found[0] - found[1]


@cache
def true_difference(a: str, b: str, configurations: int, tune: int) -> float:
    """Of the methods: the mean over 100 000 studies."""
    one = Design(studies=1, configurations=configurations, tune=tune, confirm=SEEDS - tune)
    return float(np.mean([differences(a, b, one, 10_000, seed).mean() for seed in range(1000, 1010)]))


def settled(d: Array) -> NDArray[np.bool_]:
    """Which rows of d [repeats, n] the rule calls different; above 16 differences sign patterns are drawn."""
    n = d.shape[1]
    if n <= 16:
        return np.asarray(power.settled(d, 1, 0.05))
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(PATTERNS, n))
    p = (np.abs(signs @ d.T) >= np.abs(d.sum(axis=1)) - 1e-10).mean(axis=0)
    return np.asarray((p < 0.05) & (np.abs(d.mean(axis=1)) > half_width(d)))


def half_width(d: Array) -> Array:
    """Of the 95 % interval of each row's mean."""
    n = d.shape[1]
    return np.asarray(stdtrit(n - 1, 0.975) * d.std(axis=1, ddof=1) / math.sqrt(n))


def outcome(a: str, b: str, design: Design, repeats: int, seed: int = 0) -> Outcome:
    """So many sweeps of one design."""
    d = differences(a, b, design, repeats, seed)
    units = d.mean(axis=2) if design.studies > 1 else d[:, 0]
    truth = true_difference(a, b, design.configurations, design.tune) if a != b else 0.0
    called, mean = settled(units), units.mean(axis=1)
    right = called & (mean * truth > 0) if truth else called / 2
    covered = np.abs(mean - truth) <= half_width(units) + 1e-12
    return Outcome(called.mean(), right.mean(), covered.mean(), truth, float(mean.std()))


def known_components(a: str, b: str, design: Design, studies_: int = 4000) -> Components:
    """Of the differences of these searches, from many studies."""
    many = Design(studies=1, configurations=design.configurations, tune=design.tune, confirm=4)
    found = studies.components(list(differences(a, b, many, studies_, seed=5)[:, 0]))
    assert found is not None
    return found


def label(design: Design) -> str:
    """`R 8, N 6, t 1, m 2`."""
    return f"R {design.studies}, N {design.configurations}, t {design.tune}, m {design.confirm}"


def false_verdicts(repeats: int) -> Iterator[str]:
    """Two identical arms: sgd against sgd, and sam against sam."""
    yield f"Two identical arms, {repeats:,} sweeps a design: settled, coverage (95 %), sd of the difference"
    for arm in ("sgd", "sam"):
        for design in NULL:
            found = outcome(arm, arm, design, repeats)
            yield (
                f"{arm}  {label(design):<22}{design.trials:>4} trials  {found.settled:6.1%}  {found.covered:6.1%}  "
                f"{found.spread:.4f}"
            )


def power_and_coverage(repeats: int) -> Iterator[str]:
    """Sgd against sam with half the steps: verdicts, coverage, and the power predicted from the components."""
    yield f"sgd - sam, {repeats:,} sweeps a design: right sign, wrong sign, predicted power, coverage, true difference"
    for design in NULL:
        found = outcome("sgd", "sam", design, repeats)
        predicted = ""
        if design.studies > 1:
            parts = known_components("sgd", "sam", design)
            predicted = f"{studies.power_of(design, found.truth, parts):.1%}"
        yield (
            f"{label(design):<22}{design.trials:>4} trials  {found.right:6.1%}  {found.settled - found.right:6.1%}  "
            f"{predicted:>6}  {found.covered:6.1%}  {found.truth:+.4f}"
        )
