"""Estimators of a spectrum's edges (spec A9), on Beta spectra and on a network's Hessian."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn

import optim_core
from optim_core import spectrum
from tests.closures import closure_of

D = torch.float64


def beta_eigenvalues(xi: float, tau: float, seed: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).beta(xi + 1, tau + 1, 2000))


def test_a9_estimates_of_a_beta_spectrum() -> None:
    found = []
    for seed in range(5):
        lam = beta_eigenvalues(-0.5, 0.5, seed)
        start = torch.randn(2000, generator=torch.Generator().manual_seed(seed), dtype=D)
        by_lanczos = spectrum.estimate(lambda x, lam=lam: lam * x, start)
        by_moments = spectrum.moments(float(lam.mean()), float(lam.var()), 1.0)
        by_gradient = spectrum.estimate(lambda x, lam=lam: lam * x, lam * start, start_is_gradient=True)
        found.append(
            (spectrum.hill(lam), *by_moments, by_lanczos.left_exponent, by_lanczos.right_exponent,
             by_gradient.left_exponent, by_lanczos.upper_bound() / float(lam.max()))
        )  # fmt: skip
    hill, xi, tau, xi_lanczos, tau_lanczos, xi_gradient, bound = torch.tensor(found).mean(0).tolist()
    assert abs(hill + 0.5) < 0.15
    assert abs(xi_lanczos + 0.5) < 0.15
    assert abs(xi_gradient + 0.5) < 0.15
    assert abs(xi + 0.5) < 0.06
    assert abs(tau - 0.5) < 0.25
    assert abs(tau_lanczos - 0.5) < 0.25
    assert 1 <= bound < 1.05


def test_a_gradient_start_sees_the_source_condition() -> None:
    found = []
    for seed in range(6):
        lam = beta_eigenvalues(-0.5, 0.5, seed)
        start = torch.randn(2000, generator=torch.Generator().manual_seed(seed), dtype=D) * lam**0.35
        fitted = spectrum.estimate(lambda x, lam=lam: lam * x, lam * start, start_is_gradient=True)
        found.append(fitted.left_exponent)
    assert sum(found) / 6 == pytest.approx(0.2, abs=0.15)


@pytest.mark.parametrize("xi, tau, top", [(-0.5, 0.5, 1.0), (0.0, 0.0, 7.0), (1.0, -0.5, 0.3), (-0.9, 2.0, 50.0)])
def test_the_fit_inverts_the_jacobi_matrix(xi: float, tau: float, top: float) -> None:
    numbers = (torch.tensor(x, dtype=D) for x in (xi, tau, top))
    assert spectrum.fit_tridiagonal(*spectrum.jacobi_matrix(*numbers, 20)) == pytest.approx((xi, tau, top), rel=1e-5)


@pytest.mark.parametrize("xi, tau", [(-0.5, 0.5), (0.5, 0.0)])
def test_the_jacobi_matrix_is_that_of_the_density(xi: float, tau: float) -> None:
    from scipy.special import roots_jacobi

    a, b = spectrum.jacobi_matrix(*(torch.tensor(x, dtype=D) for x in (xi, tau, 1.0)), 30)
    values = torch.linalg.eigvalsh(torch.diag(a) + torch.diag(b, 1) + torch.diag(b, -1))
    assert (values - torch.tensor((1 + roots_jacobi(30, tau, xi)[0]) / 2)).abs().max() < 1e-12


def test_the_margin_is_wider_for_few_steps() -> None:
    lam = torch.linspace(0.1, 1, 500, dtype=D)
    start = torch.ones(500, dtype=D)
    few, many = (spectrum.estimate(lambda x: lam * x, start, n) for n in (8, 24))
    assert few.upper_bound() == pytest.approx(1.05 * few.largest)
    assert many.upper_bound() == pytest.approx(1.02 * many.largest)
    whole = spectrum.estimate(lambda x: lam[:5] * x, torch.ones(5, dtype=D), 8)
    assert whole.complete
    assert whole.upper_bound() == pytest.approx(1.02 * float(lam[4]))


def test_no_positive_curvature_is_said() -> None:
    found = spectrum.estimate(lambda x: -x * torch.arange(1, 6, dtype=D), torch.ones(5, dtype=D))
    with pytest.raises(ValueError, match="no positive curvature"):
        found.upper_bound()


def test_policy_and_optimum() -> None:
    assert spectrum.policy(-0.5, 0.5) == (0.0, 2.0)
    assert spectrum.policy(-0.97, -0.4) == pytest.approx((-0.4, 1.6))
    assert spectrum.optimal(-0.5, 0.5) == (0.5, 1.5)
    assert spectrum.optimal(-0.5, -1.0)[0] == -0.5


@pytest.mark.parametrize("xi, tau", [(-0.8, 0.5), (0.0, -0.5), (1.4, 2.0)])
def test_hill_with_the_weights_of_a_quadrature_finds_both_edges(xi: float, tau: float) -> None:
    nodes, weights = (torch.from_numpy(x) for x in scipy.special.roots_jacobi(2000, tau, xi))
    lam = (1 + nodes) / 2
    assert spectrum.hill(lam, weights=weights) + 1 == pytest.approx(xi + 1, rel=0.12)
    assert spectrum.hill(1 - lam, weights=weights) + 1 == pytest.approx(tau + 1, rel=0.12)
    assert spectrum.hill(lam, 50, torch.full_like(lam, 3.0)) == pytest.approx(spectrum.hill(lam, 50), rel=1e-12)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="num_smallest"):
        spectrum.hill(torch.ones(10), 10)
    with pytest.raises(ValueError, match="no density"):
        spectrum.moments(2.0, 0.1, 1.0)


def test_estimates_on_a_network_equal_its_dense_hessian() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, y = torch.randn(32, 4, dtype=D), torch.randn(32, 2, dtype=D)
    names = [n for n, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        pieces = flat.split([s.numel() for s in shapes])
        weights = {n: piece.view(s) for n, piece, s in zip(names, pieces, shapes, strict=True)}
        return ((torch.func.functional_call(model, weights, (x,)) - y) ** 2).mean()

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    largest = float(torch.linalg.eigvalsh(torch.func.hessian(loss)(flat))[-1])
    optimizer = optim_core.build("gd", model, step_scale=0.0)
    optimizer.step(closure_of(optimizer, lambda: ((model(x) - y) ** 2).mean()))
    assert optimizer.param_groups[0]["smoothness"] == pytest.approx(1.02 * largest, rel=1e-4)
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), flat)
