"""The optimizer of average-case methods: steps against matrices, resume, estimates, warnings and refusals."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.optim_core.spectral_problems import (
    Bowl,
    D,
    dense,
    steps,
)

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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("restart", ["function", "gradient"])
def test_restarts_on_a_loss_that_is_not_quadratic(restart: str) -> None:
    optimizer = optim_core.build("nesterov", model := Ravine(), smoothness=100.0, restart=restart)
    steps(optimizer, model, 1500)
    assert optimizer.param_groups[0]["restarts"] >= 1
    assert float(model().detach()) < 1e-6


@pytest.mark.slow
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
