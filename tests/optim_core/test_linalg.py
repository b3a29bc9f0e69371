"""Lanczos against dense eigenvalues, Newton-Schulz against the polar factor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from optim_core.linalg import lanczos, newton_schulz, ritz


def symmetric(spectrum: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    n = len(spectrum)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.diag(spectrum.double()) @ q.T


def start(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_all_steps_give_the_whole_spectrum() -> None:
    matrix = symmetric(torch.linspace(-2, 5, 30))
    alphas, betas, basis = lanczos(lambda x: matrix @ x, start(30), 30)
    values, vectors, errors = ritz(alphas, betas)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-12)
    torch.testing.assert_close(basis.T @ basis, torch.eye(30, dtype=torch.float64), rtol=0, atol=1e-13)
    assert float(errors.max()) == 0
    found = basis @ vectors
    torch.testing.assert_close(matrix @ found, found * values, rtol=0, atol=1e-12)


def test_recurrence_and_error_bound() -> None:
    """A Q = Q T + beta q e^T, and each Ritz value within its error of an eigenvalue."""
    matrix = symmetric(torch.logspace(-4, 2, 80))
    alphas, betas, basis = lanczos(lambda x: matrix @ x, start(80), 12)
    values, vectors, errors = ritz(alphas, betas)
    left = matrix @ basis - basis @ (basis.T @ matrix @ basis)
    assert float(left[:, :-1].norm()) < 1e-11
    assert float(left[:, -1].norm()) == pytest.approx(float(betas[-1]), rel=1e-10)
    distance = (values[:, None] - torch.linalg.eigvalsh(matrix)[None]).abs().amin(1)
    assert bool((distance <= errors + 1e-10).all())
    assert float(values[-1]) == pytest.approx(100, rel=1e-6)
    moments = [float((vectors[0] ** 2 * values**power).sum()) for power in (1, 2, 3)]
    q = start(80) / start(80).norm()
    wanted = [float(q @ torch.linalg.matrix_power(matrix, power) @ q) for power in (1, 2, 3)]
    assert moments == pytest.approx(wanted, rel=1e-10)


def test_orthogonal_where_plain_lanczos_loses_it() -> None:
    """One eigenvalue far from the rest converges early; without reorthogonalization it comes back as a ghost."""
    matrix = symmetric(torch.cat([torch.linspace(0, 1, 199), torch.tensor([1e4])]))
    alphas, betas, basis = lanczos(lambda x: matrix @ x, start(200), 60)
    assert float((basis.T @ basis - torch.eye(60, dtype=torch.float64)).abs().max()) < 1e-13
    assert int((ritz(alphas, betas)[0] > 10).sum()) == 1


def test_stops_in_an_invariant_subspace() -> None:
    matrix = torch.diag(torch.tensor([3.0, 3.0, 1.0, 0.0], dtype=torch.float64))
    alphas, betas, _ = lanczos(lambda x: matrix @ x, torch.ones(4, dtype=torch.float64), 4)
    assert len(alphas) == 3
    assert float(betas[-1]) == 0
    assert ritz(alphas, betas)[0].tolist() == pytest.approx([0, 1, 3], abs=1e-12)
    assert len(lanczos(lambda x: 0 * x, torch.ones(4), 4)[0]) == 1


def test_in_a_metric_the_eigenvalues_are_those_of_the_product() -> None:
    matrix, metric = symmetric(torch.linspace(-2, 5, 20)), symmetric(torch.logspace(-2, 1, 20), seed=3)
    alphas, betas, basis = lanczos(lambda x: matrix @ x, start(20), 20, metric=lambda x: metric @ x)
    wanted = torch.linalg.eigvals(metric @ matrix).real.sort().values
    torch.testing.assert_close(ritz(alphas, betas)[0], wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(basis.T @ metric @ basis, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-11)
    with pytest.raises(ArithmeticError, match="not positive"):
        lanczos(lambda x: x, start(20), 5, metric=lambda x: matrix @ x - 3 * x)


@pytest.mark.parametrize(
    "begin, steps, message",
    [(torch.zeros(3), 2, "not zero"), (torch.ones(3), 0, "num_steps"), (torch.ones(2, 2), 1, "vector")],
)
def test_bad_input_is_refused(begin: Tensor, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lanczos(lambda x: x, begin, steps)


def test_a_product_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ArithmeticError, match="not finite"):
        lanczos(lambda x: x / 0, torch.ones(3), 2)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_newton_schulz_evens_out_the_singular_values_alone(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Values from 1 down to 1e-2 of the largest come to lie in [0.6, 1.3]; the vectors stay."""
    draws = torch.Generator().manual_seed(2)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=draws, dtype=torch.float64), full_matrices=False)
    matrix = 37 * u @ torch.diag(torch.logspace(0, -2, min(shape), dtype=torch.float64)) @ vt
    found = u.T @ newton_schulz(matrix, dtype=dtype).double() @ vt.T
    values, tolerance = found.diagonal(), 1e-12 if dtype == torch.float64 else 0.1
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert float((found - torch.diag(values)).abs().max()) < tolerance
