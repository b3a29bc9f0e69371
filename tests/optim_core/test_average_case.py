"""Average-case methods: coefficients, polynomials, exact values, exponents, and what happens outside of their range."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from itertools import islice, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.average_case import schedules, theory
from optim_core.average_case.schedules import follow, generalized_chebyshev
from optim_core.diagnostics.average_case_rate import fitted_rate

D = torch.float64
SIZE, STEPS = 2000, 951


def nodes(size: int, left: float, right: float) -> tuple[Tensor, Tensor]:
    """Gauss nodes in (0, 1) and weights (sum 1) of u^left (1 - u)^right; exact for half-integer exponents."""
    from scipy.special import roots_jacobi

    k = torch.arange(1, size + 1, dtype=D)
    if (left, right) == (-0.5, 0.5):
        angle = k * math.pi / (2 * size + 1)
        return angle.cos() ** 2, angle.sin() ** 2 * 4 / (2 * size + 1)
    if (left, right) == (0.5, 0.5):
        angle = k * math.pi / (size + 1)
        return (angle / 2).cos() ** 2, angle.sin() ** 2 * 2 / (size + 1)
    x, w = roots_jacobi(size, right, left)
    return torch.tensor((1 + x) / 2), torch.tensor(w / w.sum())


def gcm(alpha: float, beta: float, smoothness: float = 1.0, strong_convexity: float = 0.0) -> schedules.Schedule:
    return lambda t, ratio: generalized_chebyshev(
        t, ratio, alpha=alpha, beta=beta, smoothness=smoothness, strong_convexity=strong_convexity
    )


def course(schedule: schedules.Schedule, lam: Tensor, steps: int, lookahead: bool = False) -> Tensor:
    return theory.residual(follow(schedule), lam, steps, lookahead=lookahead)


def metric(values: Tensor, lam: Tensor, weights: Tensor, order: int = 1) -> Tensor:
    """M_order(t) / M_order(0) for all t, [t + 1]."""
    weighted = weights * lam**order
    return values.square() @ weighted / weighted.sum()


def exponent(m: Tensor, first: int = 200, last: int = 950) -> float:
    t = torch.arange(first, last + 1, dtype=D)
    return fitted_rate(t, m[first : last + 1].log(), geometric=False)


class Bowl(nn.Module):
    """1/2 (x - c)' H (x - c)."""

    def __init__(self, H: Tensor, start: Tensor, centre: Tensor | None = None) -> None:
        super().__init__()
        self.H, self.centre, self.x = H, torch.zeros_like(start) if centre is None else centre, nn.Parameter(start)

    def forward(self) -> Tensor:
        away = self.x - self.centre
        return 0.5 * away @ (self.H @ away)


def closure(optimizer: Any, model: nn.Module) -> Callable[[], Tensor]:
    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = model()
        loss.backward()
        return loss

    return evaluate


def steps(optimizer: Any, model: nn.Module, count: int) -> Tensor:
    """The iterates after each step, [count, n]."""
    found = []
    for _ in range(count):
        optimizer.step(closure(optimizer, model))
        found.append(model.x.detach().clone())
    return torch.stack(found)


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
        optimizer.step(closure(optimizer, model))
        if t % 29 == 0 or t < 6:
            exact = (
                g(b + 2) + g(tau + b + 2) - g(tau + 1) + g(t + 1) + g(t + tau + 1) - g(t + b + 2) - g(t + tau + b + 2)
            )
            found = float((lam**order * model.x.detach() ** 2).sum()) / start
            assert found == pytest.approx(math.exp(exact), rel=1e-8)


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


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("gd", {"smoothness": 1.0}),
    ("nesterov", {"smoothness": 1.0}),
    ("nesterov", {"smoothness": 1.0, "strong_convexity": 0.02}),
    ("polyak", {"smoothness": 1.0, "strong_convexity": 0.02}),
    ("chebyshev", {"smoothness": 1.0, "strong_convexity": 0.02}),
    ("generalized_chebyshev", {"smoothness": 1.0, "alpha": 0.5, "beta": 1.5}),
    ("generalized_chebyshev", {"smoothness": 1.0, "alpha": 0.5, "beta": 1.5, "strong_convexity": 0.02}),
    ("generalized_chebyshev", {"smoothness": 1.0, "freeze_after": 20, "step_scale": 0.8}),
    ("marchenko_pastur", {"smoothness": 1.0, "strong_convexity": 0.0}),
    ("marchenko_pastur", {"smoothness": 1.0, "strong_convexity": 0.02}),
    ("laguerre", {"eigenvalue_scale": 0.4, "beta": 1.5}),
]


def dense(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    Q = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=D)).Q
    H = Q @ torch.diag(torch.linspace(0.02, 1, size, dtype=D)) @ Q.T
    return (H + H.T) / 2, torch.randn(size, generator=generator, dtype=D)


@pytest.mark.parametrize("name, values", METHODS)
def test_fifty_steps_equal_the_matrix_polynomial(name: str, values: dict[str, Any]) -> None:
    """P_t(H) formed as a matrix by the definitions of spec section 4, without the optimizer's code."""
    H, start = dense()
    optimizer = optim_core.build(name, model := Bowl(H, start.clone()), **values)
    found = steps(optimizer, model, 50)
    lam, Q = torch.linalg.eigh(H)
    for t in (1, 2, 7, 50):
        P = Q @ torch.diag(optimizer.residual(lam, t)[t]) @ Q.T
        assert (found[t - 1] - P @ start).abs().max() < 1e-9
    eye = torch.eye(len(H), dtype=D)
    if name == "gd":
        assert (found[-1] - torch.linalg.matrix_power(eye - H, 50) @ start).abs().max() < 1e-9
    if name == "chebyshev":
        x = (2 * lam - 1.02) / 0.98
        T, T0 = (torch.cos(50 * torch.arccos(x.clamp(-1, 1))), math.cosh(50 * math.acosh(1.02 / 0.98)))
        assert (found[-1] - Q @ torch.diag(T / T0) @ Q.T @ start).abs().max() < 1e-9
    if name == "polyak":
        h, m = optimizer._coefficients(optimizer.param_groups[0])[:2]
        block = torch.cat([torch.cat([(1 + m) * eye - h * H, -m * eye], 1), torch.cat([eye, 0 * eye], 1)])
        both = torch.linalg.matrix_power(block, 49) @ torch.cat([found[0], start])
        assert (found[-1] - both[: len(H)]).abs().max() < 1e-9
    if name == "nesterov":
        x, old = start, start
        for t in range(50):
            root = math.sqrt(values.get("strong_convexity", 0.0))
            y = x + ((1 - root) / (1 + root) if root else t / (t + 3)) * (x - old)
            x, old = y - H @ y, x
        assert (found[-1] - x).abs().max() < 1e-9


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


@pytest.mark.parametrize("name, values", METHODS)
def test_a10_translation_and_scale(name: str, values: dict[str, Any]) -> None:
    H, start = dense()
    away = torch.linspace(-2, 2, len(H), dtype=D)
    scaled = {k: v * 3 if k in ("smoothness", "strong_convexity", "eigenvalue_scale") else v for k, v in values.items()}
    runs = []
    for matrix, centre, numbers in ((H, 0 * away, values), (H, away, values), (3 * H, 0 * away, scaled)):
        model = Bowl(matrix, start + centre, centre)
        runs.append(steps(optim_core.build(name, model, **numbers), model, 50) - centre)
    assert (runs[1] - runs[0]).abs().max() < 1e-10
    assert (runs[2] - runs[0]).abs().max() < 1e-10


@pytest.mark.parametrize("name, values", [*METHODS, ("generalized_chebyshev", {"refresh_interval": 40})])
def test_a11_resumes_bit_for_bit_at_fifty(name: str, values: dict[str, Any]) -> None:
    H, start = dense()
    whole = optim_core.build(name, model := Bowl(H, start.clone()), **values)
    steps(whole, model, 50)
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": whole.state_dict()}, buffer)
    straight = steps(whole, model, 30)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    again = optim_core.build(name, other := Bowl(H, start.clone()), **values)
    other.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    assert again.param_groups[0]["t"] == 50
    assert torch.equal(steps(again, other, 30), straight)
    assert again.grad_evals == whole.grad_evals


def test_smoothness_from_the_closure_is_right_and_charged() -> None:
    H, start = dense()
    optimizer = optim_core.build("gd", model := Bowl(H, start.clone()))
    assert optimizer.next_cost() == 13
    steps(optimizer, model, 1)
    assert optimizer.param_groups[0]["smoothness"] == pytest.approx(1.02, rel=1e-6)
    assert optimizer.grad_evals == 13
    assert (model.x - (start - H @ start / optimizer.param_groups[0]["smoothness"])).abs().max() < 1e-12
    short = optim_core.build("chebyshev", model := Bowl(H, start.clone()), lanczos_steps=6)
    steps(short, model, 1)
    assert short.grad_evals == 7
    assert short.param_groups[0]["smoothness"] > 1
    assert 0.02 <= short.param_groups[0]["strong_convexity"] < 0.2


def test_a_model_that_knows_its_spectrum_is_asked_first() -> None:
    H, start = dense()
    model = Bowl(H, start.clone())
    model.spectrum = {"smoothness": 1.0, "strong_convexity": 0.0, "left_exponent": -0.5, "right_exponent": 0.5}
    group = optim_core.build("generalized_chebyshev", model, alpha="auto", beta="auto").param_groups[0]
    assert (group["smoothness"], group["alpha"], group["beta"]) == (1.0, 0.5, 1.5)
    asked = optim_core.build("gd", model, smoothness="estimate")
    assert asked.next_cost() == 13
    with pytest.raises(ValueError, match="strong_convexity is 0"):
        optim_core.build("chebyshev", model)


@pytest.mark.parametrize(
    "name, values, word",
    [
        ("gd", {"smoothness": 0.0}, "smoothness is 0.0"),
        ("gd", {"smoothness": math.inf}, "smoothness is inf"),
        ("gd", {"smoothness": "quickly"}, "number, auto or estimate"),
        ("generalized_chebyshev", {"smoothness": 1.0, "alpha": -1.0}, "alpha is -1.0"),
        ("generalized_chebyshev", {"smoothness": 1.0, "beta": math.nan}, "beta is nan"),
        ("generalized_chebyshev", {"smoothness": 1.0, "strong_convexity": 1.0}, "strong_convexity is 1.0"),
        ("polyak", {"smoothness": 1.0, "strong_convexity": 0.0}, "strong_convexity is 0.0"[:21]),
        ("laguerre", {"eigenvalue_scale": -1.0, "beta": 1.0}, "eigenvalue_scale is -1.0"),
        ("nesterov", {"smoothness": 1.0, "restart": "sometimes"}, "restart is 'sometimes'"),
        ("nesterov", {"smoothness": 1.0, "lanczos_steps": 1}, "lanczos_steps is 1"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        optim_core.build(name, nn.Linear(2, 2), **values)


def test_smoothness_too_small_warns_before_anything_is_nan() -> None:
    H, start = dense()
    optimizer = optim_core.build("generalized_chebyshev", model := Bowl(H, start), smoothness=0.6)
    with pytest.warns(RuntimeWarning, match="above smoothness"):
        found = steps(optimizer, model, 400)
    assert optimizer.param_groups[0]["warned"]
    assert torch.isfinite(found[:20]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(optimizer, model, 3)  # said once


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    H, start = dense()
    optimizer = optim_core.build("nesterov", model := Bowl(H, start.clone()), smoothness=1.0)
    steps(optimizer, model, 3)
    model.H = H * math.nan
    before = model.x.detach().clone()
    with pytest.warns(RuntimeWarning, match="diverges"):
        steps(optimizer, model, 1)
    assert torch.equal(model.x, before)


def test_a_budget_below_the_estimate_is_refused() -> None:
    optimizer = optim_core.build("gd", nn.Linear(4, 4))
    with pytest.raises(ValueError, match="give smoothness as numbers"):
        optimizer.freeze()


class Ravine(nn.Module):
    """log cosh along a line with curvature that grows on the way to the minimum, far from quadratic."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([6.0, 4.0], dtype=D))

    def forward(self) -> Tensor:
        return torch.log(torch.cosh(10 * self.x[0])) + 0.005 * self.x[1] ** 2


@pytest.mark.parametrize("restart", ["function", "gradient"])
def test_restarts_on_a_loss_that_is_not_quadratic(restart: str) -> None:
    optimizer = optim_core.build("nesterov", model := Ravine(), smoothness=100.0, restart=restart)
    steps(optimizer, model, 1500)
    assert optimizer.param_groups[0]["restarts"] >= 1
    assert float(model().detach()) < 1e-6


def test_refreshing_smoothness_rescues_a_bound_that_is_too_small() -> None:
    H, start = dense()
    optimizer = optim_core.build(
        "generalized_chebyshev", model := Bowl(H, start), smoothness=0.6, refresh_interval=5, lanczos_steps=20
    )
    with pytest.warns(RuntimeWarning, match="above smoothness"):
        steps(optimizer, model, 200)
    assert optimizer.param_groups[0]["smoothness"] > 1
    assert optimizer.param_groups[0]["restarts"] == 1
    assert float(model().detach()) < 1e-8
    assert optimizer.grad_evals == 200 + 10 * 39
    assert optim_core.cost_per_step("generalized_chebyshev", refresh_interval=5) == 3.0
