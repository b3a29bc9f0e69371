"""Guesses: draws come from around them in the stated share, from everywhere else too, and as plain functions of u."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from orchestrator.definition import model, sweep_file
from orchestrator.definition.prior import CONFIDENCES
from orchestrator.definition.space import Parameter, place_of, value_at
from orchestrator.search.designs import design_for
from tests.orchestrator.sweep_files import sweep_text

RATE = Parameter(name="a", kind="float", low=1e-4, high=1.0, log=True)
KINDS = [
    (RATE, 1e-3),
    (RATE, 1e-4),
    (Parameter(name="b", kind="float", low=-2.0, high=6.0), 5.0),
    (Parameter(name="c", kind="int", low=2, high=9), 4),
    (Parameter(name="d", kind="int", low=2, high=20, step=3), 8),
    (Parameter(name="e", kind="int", low=1, high=100, log=True), 10),
    (Parameter(name="f", kind="float", low=0.5, high=0.999, one_minus=True), 0.9),
    (Parameter(name="g", kind="float", low=0.1, high=0.9, step=0.2), 0.3),
    (Parameter(name="h", kind="float", low=0.1, high=0.9, step=0.2, log=True), 0.3),
]
GRID = [(i + 0.5) / 4000 for i in range(4000)]


@pytest.mark.slow
@pytest.mark.parametrize("p, guess", KINDS, ids=lambda x: getattr(x, "name", ""))
@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_numbers(p: Parameter, guess: float, confidence: str) -> None:
    """Against the truncated normal of scipy, mixed with the uniform."""
    guessed = replace(p, prior=guess, prior_confidence=confidence)
    assert value_at(p, min(place_of(p, guess), 1 - 1e-12)) == pytest.approx(
        guess, abs=0.11 if p.step and p.log else 1e-9
    )
    values = [value_at(guessed, u) for u in GRID]
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert all(p.low <= v <= p.high for v in values)
    share, spread = CONFIDENCES[confidence]
    m = place_of(p, guess)
    normal = stats.truncnorm(-m / spread, (1 - m) / spread, m, spread)
    for t in (0.1, 0.4, 0.7):
        edge = value_at(p, t)
        if p.kind == "int" or p.step:
            continue
        drawn = sum(v <= edge for v in values) / len(values)
        assert drawn == pytest.approx((1 - share) * t + share * normal.cdf(t), abs=1e-3)


@pytest.mark.slow
def test_values() -> None:
    p = Parameter(name="v", kind="categorical", values=("x", 1, True), prior=True, prior_confidence="medium")
    counts = {repr(v): sum(repr(value_at(p, u)) == repr(v) for u in GRID) / len(GRID) for v in p.values}
    assert counts == {
        "'x'": pytest.approx(0.1, abs=1e-3),
        "1": pytest.approx(0.1, abs=1e-3),
        "True": pytest.approx(0.8, abs=1e-3),
    }


def text(prior: str = "", method: str = "random") -> str:
    return sweep_text(method=method, trials=200).replace("min: 0.01, max: 0.3", f"min: 0.01, max: 0.3{prior}")


@pytest.mark.parametrize("method", ["random", "sobol", "tpe"])
def test_designs_of_all_arms_follow_their_guesses(method: str) -> None:
    spec = sweep_file.loads(text(", prior: 0.1, prior_confidence: high", method))
    plain = sweep_file.loads(text(method=method))
    for name, arm in spec.arms.items():
        near, anywhere = (
            [math.log(design.configuration(i)["lr"]) for i in range(100)]
            for design in (design_for(spec, arm), design_for(plain, plain.arms[name]))
        )
        width = math.log(0.3 / 0.01)
        assert abs(np.median(near) - math.log(0.1)) < 0.05 * width
        assert np.std(near) < 0.6 * np.std(anywhere)
    assert model.sweep_id(spec) != model.sweep_id(plain)
    assert "prior" not in str(model.definition(plain))


def test_the_default_confidence_is_medium() -> None:
    a, b = (sweep_file.loads(text(f", prior: 0.1{more}")) for more in ("", ", prior_confidence: medium"))
    assert model.sweep_id(a) == model.sweep_id(b)


def test_null_is_a_guess_and_the_order_of_keys_is_none() -> None:
    words = "arms:\n  a:\n    optimizer: torch.optim.SGD\n    parameters:\n      lr: 0.1\n      foreach: "
    text = sweep_text().split("arms:")[0] + words + "{values: [true, null], prior: null}\n"
    spec = sweep_file.loads(text + "method:" + sweep_text().split("method:")[1])
    (p,) = [p for p in spec.arms["a"].parameters if p.name == "foreach"]
    assert (p.prior, p.prior_confidence) == (None, "medium")
    assert sum(value_at(p, u) is None for u in GRID) / len(GRID) == pytest.approx(0.85, abs=1e-3)
