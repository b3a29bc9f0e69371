"""Diagnostics of the geometry against dense float64 references; a measurement does not disturb training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.diagnostics import Subject, measure
from optim_core.diagnostics.basis import product_in_basis, shapes_in_basis
from optim_core.diagnostics.block_mass import layer_blocks, mass_inside, neuron_blocks
from optim_core.diagnostics.hessian_norm import norm_by_cauchy, norm_by_rows, unit
from optim_core.diagnostics.orthogonality import score, variation
from optim_core.diagnostics.second_moment import decades, spread
from tests.contracts.optimizer_contract import Run, equal
from tests.contracts.rotation_contract import flat, make, rotation_matrix

PLAIN = ["sgd", "adamw", "sam", "muon", "rotated_adamw", "rotated(sgd)", "torch.optim.RMSprop"]


def subject(run: Run, batches: int = 1) -> Subject:
    return Subject(
        model=run.model,
        loss=nn.functional.cross_entropy,
        batches=[run.batch(50 + i) for i in range(batches)],
        optimizer=run.optimizer,
    )


def dense_hessian(run: Run, batches: int) -> Tensor:
    """R H R^T by differentiating the gradient of the loss in all parameters at once."""
    names = [n for n, _ in run.model.named_parameters()]
    shapes = [p.shape for p in run.model.parameters()]

    def loss(w: Tensor) -> Tensor:
        parts = torch.split(w, [s.numel() for s in shapes])
        named = {n: x.view(s) for n, x, s in zip(names, parts, shapes, strict=True)}
        pairs = [run.batch(50 + i) for i in range(batches)]
        return sum(
            nn.functional.cross_entropy(torch.func.functional_call(run.model, named, (x,)), y) for x, y in pairs
        ) / len(pairs)

    h = torch.autograd.functional.hessian(loss, flat(run.weights()))
    r = rotation_matrix(run)
    return r @ h @ r.T


@pytest.fixture(scope="module", params=["identity", "global", "svd", "output"])
def measured(request: pytest.FixtureRequest) -> tuple[Run, Tensor]:
    run = Run(make(request.param))
    run.steps(0, 20)
    return run, dense_hessian(run, 2)


def test_products_are_those_of_the_rotated_hessian(measured: tuple[Run, Tensor]) -> None:
    run, dense = measured
    given = subject(run, 2)
    like, product = shapes_in_basis(given), product_in_basis(given)
    for i in (0, 17, len(dense) - 1):
        assert float((flat(product(unit(like, i))) - dense[:, i]).abs().max()) <= 1e-10


@pytest.mark.slow
def test_the_11_norm(measured: tuple[Run, Tensor]) -> None:
    run, dense = measured
    given = subject(run, 2)
    like, product = shapes_in_basis(given), product_in_basis(given)
    exact = float(dense.abs().sum())
    assert norm_by_rows(product, like, rows=len(dense), seed=0) == pytest.approx(exact, rel=1e-9)
    assert norm_by_cauchy(product, like, probes=200, seed=0) == pytest.approx(exact, rel=0.1)
    found = measure(["hessian_11_rows", "hessian_11_cauchy"], given)
    assert found["geometry/hessian_11_rows"] == pytest.approx(exact / len(dense), rel=0.3)
    assert found["geometry/hessian_11_cauchy"] == pytest.approx(exact / len(dense), rel=0.3)


@pytest.mark.slow
def test_block_mass(measured: tuple[Run, Tensor]) -> None:
    run, dense = measured
    given = subject(run, 2)
    like, product = shapes_in_basis(given), product_in_basis(given)
    starts = [0]
    for t in like:
        starts.append(starts[-1] + t.numel())
    for blocks in (neuron_blocks(like), layer_blocks(like)):
        ranges = [(starts[i] + first, starts[i] + last) for i, first, last in blocks]
        inside = sum(float((dense[a:b, a:b] ** 2).sum()) for a, b in ranges)
        total = sum(float((dense[:, a:b] ** 2).sum()) for a, b in ranges)
        assert mass_inside(product, like, blocks, probes=40, seed=0) == pytest.approx(inside / total, rel=0.1)
    found = measure(["block_mass"], given)
    assert 0 < found["geometry/block_mass_neuron"] <= 1
    assert 0 < found["geometry/block_mass_layer"] <= 1


def test_the_gradient_bound_is_the_largest_rotated_entry(measured: tuple[Run, Tensor]) -> None:
    run, _ = measured
    r = rotation_matrix(run)
    largest = 0.0
    for i in range(3):
        run.optimizer.zero_grad()
        x, y = run.batch(50 + i)
        nn.functional.cross_entropy(run.model(x), y).backward()
        g = flat([p.grad for p in run.model.parameters() if p.grad is not None])
        largest = max(largest, float((r @ g).abs().max()))
    assert measure(["gradient_linf"], subject(run, 3))["geometry/gradient_linf"] == pytest.approx(largest, rel=1e-9)


def test_variation_of_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    p = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    assert variation(3.7 * q[:, :5] @ p) <= 1e-12
    assert score(3.7 * q[:, :5] @ p) >= 1 - 1e-12
    g = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    assert variation(-11 * q @ g @ p) == pytest.approx(variation(g), abs=1e-10)
    s = torch.linalg.svdvals(g)
    scale = s.sum() / (s**2).sum()
    fit = float(((scale * s - 1) ** 2).mean())
    cv = variation(g)
    assert fit == pytest.approx(cv**2 / (1 + cv**2), abs=1e-12)
    assert score(g) == pytest.approx(1 / (1 + cv**2), abs=1e-12)
    wide = torch.randn(512, 512, generator=generator)
    assert variation(wide) == pytest.approx(0.623, abs=0.01)
    newton = torch.randn(64, 64, generator=generator)
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = newton
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()  # type: ignore[no-untyped-call]
    assert score(weight.detach()) >= 0.94


@pytest.mark.parametrize("kind", ["identity", "global", "svd"])
def test_update_orthogonality_is_that_of_the_next_step(kind: str) -> None:
    """CV of R^T m / (sqrt(v) + eps) after one more gradient, by the formula from the state."""
    run = Run(make(kind, weight_decay=0.1, rotation_refresh=50))
    run.steps(0, 10)
    found = measure(["update_orthogonality"], subject(run))
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.0
    before = [p.detach().clone() for p in run.model.parameters()]
    run.optimizer.step(run.closure(50))
    state = run.optimizer.state
    params = list(run.model.parameters())
    q = {
        p: (state[p]["exp_avg"] / (1 - 0.9**11)) / ((state[p]["exp_avg_sq"] / (1 - 0.999**11)).sqrt() + 1e-8)
        for p in params
    }
    u = run.optimizer.backward(q)
    assert float((before[0] - params[0].detach() - 0.03 * u[params[0]]).abs().max()) <= 1e-12
    expected = [variation(u[p]) for p in params if p.ndim > 1]
    assert found["geometry/update_cv"] == pytest.approx(sum(expected) / len(expected), rel=1e-6)


def test_concentration_of_second_moments() -> None:
    logs = torch.linspace(-8, 0, 101, dtype=torch.float64)
    assert spread(10**logs) == pytest.approx(float(logs.std(correction=0)), rel=1e-9)
    assert decades(10**logs) == pytest.approx(0.9 * 8, rel=1e-9)
    assert spread(torch.full((7,), 3.0)) == pytest.approx(0.0, abs=1e-12)
    run = Run(make("global"))
    run.steps(0, 10)
    assert measure(["second_moment"], subject(run))["geometry/second_moment_spread"] > 0
    sgd = Run(lambda m: optim_core.build("sgd", m))
    assert measure(["second_moment"], subject(sgd)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_measuring_does_not_disturb_training(name: str) -> None:
    """Also with the diagnostic that takes a trial step from a copy of the state."""
    names = ["update_orthogonality", "second_moment", "gradient_linf", "block_mass"]

    def build(m: nn.Module) -> Any:
        values = {"rotation": "svd", "rotation_refresh": 3} if "rotated" in name else {}
        return optim_core.build(name, m, lr=0.03, **values)

    watched, alone = Run(build, torch.float32), Run(build, torch.float32)
    for i in range(5):
        assert watched.steps(i, i + 1) == alone.steps(i, i + 1)
        found = measure(names, subject(watched))
        assert 0 < found["geometry/update_score"] <= 1
        assert not any(math.isnan(v) for v in found.values())
    assert equal(watched.weights(), alone.weights())
    assert watched.optimizer.grad_evals == alone.optimizer.grad_evals
