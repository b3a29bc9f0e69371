"""Average-case methods: coefficients, polynomials, exact values and exponents (spec A1 to A8)."""

from __future__ import annotations

import math
from itertools import islice, product

import pytest
import torch
from torch import nn

import optim_core
from optim_core.average_case import schedules, theory
from optim_core.average_case.schedules import follow
from tests.closures import closure_of
from tests.optim_core.spectral_problems import (
    SIZE,
    STEPS,
    Bowl,
    D,
    course,
    exponent,
    gcm,
    metric,
    nodes,
)


def test_a1_coefficients() -> None:
    def first(schedule: schedules.Schedule, n: int) -> tuple[list[float], list[float]]:
        found = list(islice(follow(schedule), n))
        return [c.step for c in found], [c.momentum for c in found]

    h, m = first(gcm(-0.5, -0.5), 9)
    assert h == pytest.approx([2] + [4] * 8, abs=1e-12)
    assert m == pytest.approx([0] + [1] * 8, abs=1e-12)
    h, m = first(gcm(0.5, 0.5), 9)
    assert h == pytest.approx([4 * (t + 1) / (t + 2) for t in range(9)], abs=1e-12)
    assert m == pytest.approx([t / (t + 2) for t in range(9)], abs=1e-12)
    h, m = first(gcm(0.5, 1.5), 11)
    assert [*h[:3], h[10]] == pytest.approx([1.6, 2.142857143, 2.488888889, 3.396923077], abs=1e-8)
    assert [*m[:3], m[10]] == pytest.approx([0, 0.160714286, 0.296296296, 0.704895105], abs=1e-8)
    h, m = first(gcm(0, 2), 3)
    assert h == pytest.approx([1.333333333, 1.875, 2.24], abs=1e-8)
    assert m == pytest.approx([0, 0.09375, 0.213333333], abs=1e-8)
    h, m = first(gcm(-0.5, -0.5, 1, 0.01), 3)
    assert h == pytest.approx([1.98019802, 3.81096123, 3.682497888], abs=1e-8)
    assert m == pytest.approx([0, 0.924535421, 0.859661433], abs=1e-8)
    h, m = first(gcm(0.5, 1.5, 1, 0.01), 3)
    assert h == pytest.approx([1.590457256, 2.113356582, 2.43574069], abs=1e-8)
    assert m == pytest.approx([0, 0.154421033, 0.2802862], abs=1e-8)


@pytest.mark.parametrize("alpha, beta", product((-0.5, 0, 0.5, 1, 2, 5), (-0.5, 0, 0.5, 1, 2, 5)))
def test_a1_signs_and_limits(alpha: float, beta: float) -> None:
    for h, m, _ in islice(follow(gcm(alpha, beta)), 400):
        assert h > 0
        assert m >= 0
        assert beta < 0 or m <= 1 + 1e-12
    assert gcm(0.5, 1.5)(10_000, 0.0).step == pytest.approx(4, abs=2e-3)


@pytest.mark.parametrize("alpha, beta", [(-0.5, -0.5), (0.5, 0.5), (0.5, 1.5), (0, 2), (2, 1), (0, 1)])
@pytest.mark.parametrize("mu", [0.0, 0.01])
def test_a2_residual_polynomials_are_orthogonal(alpha: float, beta: float, mu: float) -> None:
    u, w = nodes(400, beta, alpha)
    values = course(gcm(alpha, beta, 1, mu), mu + (1 - mu) * u, 60)
    gram = (values * w) @ values.T
    scale = gram.diagonal().sqrt()
    off = (gram / scale[:, None] / scale[None, :] - torch.eye(61, dtype=D)).abs().max()
    assert off < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("xi, tau", [(-0.5, 0.5), (0, 0), (0.5, 0.5)])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a3_the_optimizer_reaches_the_exact_optimum(xi: float, tau: float, order: int) -> None:
    lam, w = nodes(SIZE, xi, tau)
    model = Bowl(torch.zeros(0), w.sqrt())
    model.forward = lambda: 0.5 * (lam * model.x**2).sum()  # type: ignore[method-assign]
    optimizer = optim_core.build("generalized_chebyshev", model, smoothness=1.0, alpha=tau, beta=xi + order + 1)
    b, g = xi + order, math.lgamma
    start = float((lam**order * w).sum())
    for t in range(1, 900):
        optimizer.step(closure_of(optimizer, model))
        if t % 29 == 0 or t < 6:
            exact = (
                g(b + 2) + g(tau + b + 2) - g(tau + 1) + g(t + 1) + g(t + tau + 1) - g(t + b + 2) - g(t + tau + b + 2)
            )
            found = float((lam**order * model.x.detach() ** 2).sum()) / start
            assert found == pytest.approx(math.exp(exact), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("xi", [-0.9, -0.75, -0.5, 0.0, 0.5, 1.0])
def test_a4_exponents(xi: float) -> None:
    lam, w = nodes(SIZE, xi, 0.0)
    problem = {"smoothness": 1.0, "strong_convexity": 0.0, "left_exponent": xi, "right_exponent": 0.0}
    rates = {}
    for name, values in (
        ("gd", {}),
        ("nesterov", {}),
        ("generalized_chebyshev", {"alpha": 0.0, "beta": xi + 2}),
    ):
        optimizer = optim_core.build(name, nn.Linear(1, 1), smoothness=1.0, **values)
        rates[name] = exponent(metric(optimizer.residual(lam, STEPS), lam, w))
        promised = optimizer.asymptotics(problem)
        assert promised is not None
        assert promised.contraction == 1
        assert rates[name] == pytest.approx(promised.power, rel=0.1)
    assert rates["gd"] < rates["nesterov"] < rates["generalized_chebyshev"]
    assert rates["gd"] == pytest.approx(xi + 2, rel=0.01)
    assert rates["generalized_chebyshev"] == pytest.approx(2 * (xi + 2), rel=0.01)
    if xi == -0.5:
        assert 2.7 <= rates["nesterov"] <= 3.0


def test_a5_random_spectra() -> None:
    generator = torch.Generator().manual_seed(3)
    import numpy as np

    lam = torch.tensor(np.random.default_rng(1).beta(0.5, 1.5, 2000))
    draws = torch.randn(20, 2000, generator=generator, dtype=D).square().mean(0)
    even = draws / draws.sum()
    rate = exponent(metric(course(gcm(0.5, 1.5), lam, 301), lam, even), 20, 300)
    plain = exponent(
        metric(course(lambda t, r: schedules.gradient_descent(t, r, smoothness=1.0), lam, 301), lam, even), 20, 300
    )
    assert rate == pytest.approx(3, rel=0.1)
    assert rate > plain + 1


@pytest.mark.parametrize(
    "alpha, beta, promised",
    [(-0.5, -0.5, 0), (0.5, 0.5, 2), (0.5, 0.9, 2.8), (0.5, 1, 3), (0.5, 1.5, 3), (0.5, 2.5, 3), (0.5, 4, 3),
     (2.5, 1.5, 1), (3, 1.5, 0)],
)  # fmt: skip
def test_a6_exponents_of_the_wrong_parameters(alpha: float, beta: float, promised: float) -> None:
    lam, w = nodes(SIZE, -0.5, 0.5)
    problem = {"smoothness": 1.0, "left_exponent": -0.5, "right_exponent": 0.5}
    optimizer = optim_core.build("generalized_chebyshev", nn.Linear(1, 1), smoothness=1.0, alpha=alpha, beta=beta)
    found = optimizer.asymptotics(problem)
    assert found is not None
    assert found.power == pytest.approx(promised)
    assert exponent(metric(optimizer.residual(lam, STEPS), lam, w)) == pytest.approx(promised, rel=0.1, abs=0.1)


def test_a6_a_point_mass_at_the_edge_stalls_alpha_equal_to_beta() -> None:
    lam, w = nodes(SIZE, -0.5, 0.5)
    lam, w = torch.cat([lam, torch.ones(1, dtype=D)]), torch.cat([0.99 * w, torch.full((1,), 0.01, dtype=D)])
    for alpha, beta, promised in ((0.5, 0.5, 0.0), (0.5, 1.5, 2.0), (-0.5, 1.5, 3.0)):
        found = theory.generalized_chebyshev(
            theory.Problem.of({"smoothness": 1.0, "left_exponent": -0.5, "right_exponent": -1.0}, 1),
            alpha=alpha, beta=beta, smoothness=1.0, strong_convexity=0.0,
        )  # fmt: skip
        assert found.power == promised
        rate = exponent(metric(course(gcm(alpha, beta), lam, STEPS), lam, w))
        assert rate == pytest.approx(promised, rel=0.1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ripple", "gap", "cut", "atom"])
def test_a7_only_the_edges_matter(kind: str) -> None:
    from trainables.models.spectra import deform

    lam, w = nodes(SIZE, -0.5, 0.5)
    changed = deform(kind, lam, w, torch.Generator())
    for schedule, ahead in (
        (gcm(0.5, 1.5), False),
        (lambda t, r: schedules.gradient_descent(t, r, smoothness=1.0), False),
        (lambda t, r: schedules.nesterov(t, r, smoothness=1.0), True),
    ):
        before = exponent(metric(course(schedule, lam, STEPS, ahead), lam, w))
        after = exponent(metric(course(schedule, changed[0], STEPS, ahead), *changed))
        assert abs(after - before) < 0.1


@pytest.mark.parametrize("alpha, beta", [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (0.5, 1.5)])
def test_a8_with_a_gap(alpha: float, beta: float) -> None:
    mu = 0.01
    rho = (1 - math.sqrt(mu)) / (1 + math.sqrt(mu))
    h, m, _ = list(islice(follow(gcm(alpha, beta, 1, mu)), 401))[-1]
    tight = 1e-9 if abs(alpha) == abs(beta) == 0.5 and alpha == beta else 2e-3
    assert h == pytest.approx(4 / (1 + math.sqrt(mu)) ** 2, rel=tight)
    assert m == pytest.approx(rho**2, rel=2 * tight)
    u, w = nodes(600, -0.5, 0.5)
    lam = mu + (1 - mu) * u
    values = metric(course(gcm(alpha, beta, 1, mu), lam, 200), lam, w)
    problem = {"smoothness": 1.0, "strong_convexity": mu, "left_exponent": -0.5, "right_exponent": 0.5}
    found = theory.generalized_chebyshev(
        theory.Problem.of(problem, 1), alpha=alpha, beta=beta, smoothness=1.0, strong_convexity=mu
    )
    assert found.contraction == pytest.approx(rho**2)
    factor = float(values[200] / values[100]) ** 0.01
    assert factor == pytest.approx(found.contraction * 2 ** (-found.power / 100), rel=1e-5 if beta < 0 else 2e-3)


@pytest.mark.slow
def test_exponents_at_edges_that_do_not_meet() -> None:
    """Inflated and wrong edges: contraction and power against 900 steps of each method."""
    u, w = nodes(1200, -0.5, 0.5)
    cases: list[tuple[str, dict[str, float], float, float]] = [
        ("gd", {"smoothness": 1.0}, 0.02, 1.0),
        ("nesterov", {"smoothness": 1.0, "strong_convexity": 0.02}, 0.02, 1.0),
        ("nesterov", {"smoothness": 1.0, "strong_convexity": 0.04}, 0.02, 1.0),
        ("nesterov", {"smoothness": 1.0, "strong_convexity": 0.01}, 0.02, 1.0),
        ("polyak", {"smoothness": 1.0, "strong_convexity": 0.02}, 0.02, 1.0),
        ("chebyshev", {"smoothness": 1.0, "strong_convexity": 0.04}, 0.02, 1.0),
        ("chebyshev", {"smoothness": 1.0, "strong_convexity": 0.04}, 0.0, 1.0),
        ("generalized_chebyshev", {"smoothness": 1.02, "alpha": 0.5, "beta": 1.5}, 0.0, 1.0),
        ("generalized_chebyshev", {"smoothness": 1.0, "alpha": 0.5, "beta": 1.5}, 0.0, 1.01),
        ("nesterov", {"smoothness": 1.0}, 0.0, 1.4),
    ]
    for name, values, low, high in cases:
        lam = low + (high - low) * u
        problem = {"smoothness": high, "strong_convexity": low, "left_exponent": -0.5, "right_exponent": 0.5}
        optimizer = optim_core.build(name, nn.Linear(1, 1), **values)
        found = optimizer.asymptotics(problem)
        assert found is not None
        m = metric(optimizer.residual(lam, 900), lam, w).log()
        promised = 450 * math.log(found.contraction) - found.power * math.log(2)
        measured = float(m[880:901].mean() - m[430:451].mean())
        assert measured == pytest.approx(promised, rel=0.03, abs=0.12), (name, values, low, high)


@pytest.mark.parametrize("alpha, beta, mu", [(0.5, 1.5, 0.0), (0.0, 2.0, 0.0), (0.5, 1.5, 0.02), (-0.5, -0.5, 0.02)])
def test_residuals_are_jacobi_polynomials(alpha: float, beta: float, mu: float) -> None:
    from scipy.special import eval_jacobi

    lam = torch.linspace(mu, 1, 41, dtype=D)
    found = course(gcm(alpha, beta, 1, mu), lam, 50)
    for t in (1, 5, 50):
        image = [(2 * v - 1 - mu) / (1 - mu) for v in (lam.numpy(), 0.0)]
        exact = eval_jacobi(t, alpha, beta, image[0]) / eval_jacobi(t, alpha, beta, image[1])
        assert (found[t] - torch.tensor(exact)).abs().max() < 1e-9


@pytest.mark.parametrize("xi, order", [(-0.5, 0), (-0.5, 1), (0.0, 1), (1.0, 2)])
def test_laguerre_reaches_the_exact_optimum(xi: float, order: int) -> None:
    from trainables.models.spectra import gauss_laguerre

    lam, w = gauss_laguerre(160, xi)
    b = xi + order
    values = metric(course(lambda t, r: schedules.laguerre(t, r, beta=b + 1, scale=1.0), lam, 80), lam, w, order)
    for t in (1, 10, 40, 80):
        exact = math.exp(math.lgamma(b + 2) + math.lgamma(t + 1) - math.lgamma(t + b + 2))
        assert float(values[t]) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("beta, scale", [(1.5, 1.0), (0.5, 1.0), (3.5, 1.0), (1.5, 1.5), (0.5, 1.5)])
def test_exponents_of_laguerre(beta: float, scale: float) -> None:
    from trainables.models.spectra import gauss_laguerre

    lam, w = gauss_laguerre(185, -0.5)
    problem = {"smoothness": math.inf, "left_exponent": -0.5, "right_exponent": math.inf, "eigenvalue_scale": 1.0}
    found = theory.laguerre(theory.Problem.of(problem, 1), beta=beta, scale=scale)
    assert found is not None
    values = course(lambda t, r: schedules.laguerre(t, r, beta=beta, scale=scale), lam, 170)
    assert exponent(metric(values, lam, w), 40, 170) == pytest.approx(found.power, rel=0.05)
