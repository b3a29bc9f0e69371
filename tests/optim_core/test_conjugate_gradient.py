"""Conjugate gradients: the dense definition, finite termination, optimality, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.closures import closure_of
from tests.optim_core.spectral_problems import Bowl, D, dense, nodes, steps
from tests.optim_core.test_average_case_edges import Noisy


def build(model: nn.Module, **values: Any) -> Any:
    return optim_core.build("conjugate_gradient", model, **values)


def spectrum(eigenvalues: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A dense H with these eigenvalues, and a start."""
    g = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=D)).Q
    H = Q @ torch.diag(eigenvalues) @ Q.T
    return (H + H.T) / 2, torch.randn(n, generator=g, dtype=D)


def krylov_minimizer(H: Tensor, start: Tensor, t: int) -> Tensor:
    """The point of start + span(H e, .., H^t e) with the least objective, e the error, by dense least squares."""
    basis = start.new_zeros(len(start), t)
    v = H @ start
    for k in range(t):
        for _ in range(2):
            v = v - basis[:, :k] @ (basis[:, :k].T @ v)
        basis[:, k] = v / v.norm()
        v = H @ basis[:, k]
    return start - basis @ torch.linalg.solve(basis.T @ H @ basis, basis.T @ H @ start)


def test_every_step_has_the_least_objective_of_its_krylov_space() -> None:
    H, start = dense()
    found = steps(build(model := Bowl(H, start.clone())), model, 11)
    for t in (1, 2, 5, 8, 11):
        assert (found[t - 1] - krylov_minimizer(H, start, t)).abs().max() < 1e-9


@pytest.mark.parametrize("distinct", [1, 2, 4, 7])
@pytest.mark.parametrize("centre", [0.0, 30.0])
def test_it_ends_after_as_many_steps_as_there_are_eigenvalues(distinct: int, centre: float) -> None:
    eigenvalues = torch.linspace(0.1, 3, distinct, dtype=D).repeat(5)
    H, start = spectrum(eigenvalues)
    at = torch.full_like(start, centre)
    found = steps(build(model := Bowl(H, start + at, at)), model, distinct) - at
    assert float(found[-1].norm() / start.norm()) < 1e-10
    if distinct > 1:
        assert float(found[-2].norm() / start.norm()) > 1e-3


def test_it_rests_at_the_minimum() -> None:
    """Rounding beyond finite termination neither moves far nor is taken for another loss; a kernel stays untouched."""
    eigenvalues = torch.tensor([0.0, 0.0, 0.3, 1.0, 2.0], dtype=D)
    H, start = spectrum(eigenvalues)
    found = steps(build(model := Bowl(H, start.clone())), model, 60)
    assert float((H @ found[-1]).norm()) < 1e-10
    assert (found[-1] - found[4]).abs().max() < 1e-8


def test_at_the_minimum_from_the_start_there_is_nothing_to_do() -> None:
    H, start = dense()
    optimizer = build(model := Bowl(H, torch.zeros_like(start)))
    assert not steps(optimizer, model, 2).any()
    assert (optimizer.grad_evals, optimizer.skipped_steps) == (2, 0)


@pytest.mark.parametrize("xi, tau", [(-0.5, 0.5), (0.5, 0.5), (0.0, 0.0)])
def test_on_a_beta_density_it_is_the_optimal_chebyshev_method(xi: float, tau: float) -> None:
    """Below the number of quadrature nodes the two minimise the same objective over the same polynomials."""
    lam, w = nodes(400, xi, tau)
    runs = []
    for name, values in (
        ("conjugate_gradient", {}),
        ("generalized_chebyshev", {"smoothness": 1.0, "alpha": tau, "beta": xi + 2}),
    ):
        model = Bowl(torch.diag(lam), w.sqrt())
        runs.append(steps(optim_core.build(name, model, **values), model, 60))
    assert (runs[0] - runs[1]).abs().max() < 1e-8


@pytest.mark.parametrize("seed", range(4))
def test_no_method_has_a_lower_objective_after_as_many_steps(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    H, start = spectrum(torch.rand(30, generator=generator, dtype=D) ** 3 + 1e-3, seed)
    edges = torch.linalg.eigvalsh(H)
    numbers = {"smoothness": float(edges[-1]), "strong_convexity": float(edges[0])}
    courses = {}
    for name, values in (
        ("conjugate_gradient", {}), ("gd", {"smoothness": numbers["smoothness"]}), ("chebyshev", numbers),
        ("polyak", numbers), ("nesterov", numbers), ("marchenko_pastur", numbers), ("generalized_chebyshev", numbers),
    ):  # fmt: skip
        points = steps(optim_core.build(name, model := Bowl(H, start.clone()), **values), model, 25)
        courses[name] = ((points @ H) * points).sum(1)
    best = courses.pop("conjugate_gradient")
    assert all(bool((best <= other * (1 + 1e-9)).all()) for other in courses.values())


def test_the_rate_of_a_wide_spectrum_in_float32() -> None:
    """kappa 1e4: within the bound 2 rho^t of Chebyshev polynomials as far as float32 gradients reach."""
    H, start = spectrum(torch.logspace(-4, 0, 40, dtype=D))
    H, start = H.float(), start.float()
    points = steps(build(model := Bowl(H, start.clone())), model, 150)
    begun = float(start @ H @ start)
    rho = (1 - 1e-2) / (1 + 1e-2)
    for t in (10, 40, 80):
        assert float(points[t - 1] @ H @ points[t - 1]) <= (2 * rho**t) ** 2 * begun
    assert float(points[-1] @ H @ points[-1]) < 1e-5 * begun


def test_two_gradients_a_step_and_the_loss_before_it() -> None:
    H, start = dense()
    optimizer = build(model := Bowl(H, start.clone()))
    loss = float(optimizer.step(closure_of(optimizer, model)).detach())
    assert loss == pytest.approx(float(start @ H @ start) / 2, rel=1e-14)
    assert optimizer.grad_evals == optim_core.cost_per_step("conjugate_gradient") == optimizer.next_cost() == 2


def test_several_groups_are_one_vector() -> None:
    H, start = dense()
    whole = steps(build(model := Bowl(H, start.clone())), model, 8)
    parts = [nn.Parameter(start[:5].clone()), nn.Parameter(start[5:].clone())]
    optimizer = optim_core.average_case.ConjugateGradient([{"params": [p]} for p in parts])
    for _ in range(8):

        def loss() -> Tensor:
            optimizer.zero_grad()
            x = torch.cat(parts)
            value = 0.5 * x @ (H @ x)
            value.backward()
            return value

        optimizer.step(loss)
    assert (torch.cat([p.detach() for p in parts]) - whole[-1]).abs().max() < 1e-10


class Wavy(nn.Module):
    """Convex, not quadratic."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([2.0, -1.0, 0.5], dtype=D))

    def forward(self) -> Tensor:
        return torch.cosh(self.x * torch.tensor([1.0, 2.0, 0.5], dtype=D)).sum()


def test_a_loss_that_is_not_quadratic_is_refused_where_it_stands() -> None:
    optimizer = build(model := Wavy())
    optimizer.step(closure_of(optimizer, model))
    before = model.x.detach().clone()
    with pytest.raises(RuntimeError, match="for quadratic losses with the same data at every step"):
        optimizer.step(closure_of(optimizer, model))
    assert torch.equal(model.x, before)


def test_another_batch_at_every_step_is_refused() -> None:
    H, start = dense()
    optimizer = build(model := Bowl(H, start))
    with pytest.raises(RuntimeError, match="same data at every step"):
        for k in range(2):
            model.centre = torch.full_like(start, float(k))
            optimizer.step(closure_of(optimizer, model))


def test_dropout_in_a_loop_without_seeds_is_another_loss_at_every_step() -> None:
    torch.manual_seed(0)
    optimizer = build(model := Noisy())
    optimizer.step(closure_of(optimizer, model))
    with pytest.raises(RuntimeError, match="same data at every step"):
        optimizer.step(closure_of(optimizer, model))
    quiet = build(model := Noisy().eval())
    steps_to_the_end = [float(quiet.step(closure_of(quiet, model)).detach()) for _ in range(8)]
    assert steps_to_the_end[-1] < 1e-18 * steps_to_the_end[0]


@pytest.mark.parametrize("H", [torch.diag(torch.tensor([1.0, -2.0], dtype=D)), torch.zeros(2, 2, dtype=D)])
def test_what_has_no_minimum_is_refused(H: Tensor) -> None:
    x = nn.Parameter(torch.tensor([0.1, 3.0], dtype=D))
    optimizer = optim_core.average_case.ConjugateGradient([x])

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = 0.5 * x @ (H @ x) + x.sum()
        value.backward()
        return value

    before = x.detach().clone()
    with pytest.raises(RuntimeError, match="not a convex quadratic"):
        optimizer.step(loss)
    assert torch.equal(x, before)
    optimizer.param_groups[0]["on_mismatch"] = "restart"
    optimizer.step(loss)
    assert torch.equal(x, before)
    assert optimizer.skipped_steps == 1


def test_restart_goes_on_downhill_on_another_loss() -> None:
    optimizer = build(model := Wavy(), on_mismatch="restart")
    losses = [float(optimizer.step(closure_of(optimizer, model)).detach()) for _ in range(30)]
    assert losses[-1] == pytest.approx(3.0, abs=1e-9)
    assert optimizer.param_groups[0]["restarts"] > 0


def test_a_closure_that_clips_changes_nothing() -> None:
    H, start = dense()
    points = []
    for clip in (math.inf, 1e-3):
        optimizer = build(model := Bowl(H, start.clone()))

        def clipping(optimizer: Any = optimizer, model: nn.Module = model, clip: float = clip) -> Tensor:
            loss = closure_of(optimizer, model)()
            if not optimizer.ascending:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            return loss

        for _ in range(4):
            optimizer.step(clipping)
        points.append(model.x.detach())
    assert torch.equal(*points)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    H, start = dense()
    optimizer = build(model := Bowl(H, start.clone()))
    steps(optimizer, model, 2)
    before = model.x.detach().clone()
    model.H = H * math.nan
    with pytest.warns(RuntimeWarning, match="not finite"):
        steps(optimizer, model, 1)
    assert torch.equal(model.x, before)
    assert optimizer.skipped_steps == 1
    model.H = H
    assert float(steps(optimizer, model, 12)[-1].norm()) < 1e-9


@pytest.mark.parametrize(
    "values, words",
    [({"step_scale": 1.5}, r"step_scale is 1\.5"), ({"step_scale": math.nan}, "step_scale is nan"),
     ({"on_mismatch": "ignore"}, "on_mismatch is 'ignore'")],
)  # fmt: skip
def test_values_out_of_range_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(nn.Linear(2, 2), **values)
