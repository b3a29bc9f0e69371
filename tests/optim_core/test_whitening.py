"""SPlus, PSGD-Kron and Dion by what their theory promises: whitened gradients, averages, nothing lost of a gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import optim_core
from optim_core.dion import approximated
from optim_core.psgd_kron import apply, balance, learn, spectral_norm_below
from tests.contracts.optimizer_contract import Run, equal
from tests.golden.agreement.matrices.problem import Tensors, draw


@pytest.mark.slow
def test_kron_factors_find_the_inverse_root_of_a_kronecker_covariance() -> None:
    """Q^T Q -> C^(-1/2): gradients that it multiplies are white in the mean (Li 2018, eq. 9)."""
    left, right = draw((3, 3), 1) + 2 * torch.eye(3).double(), draw((4, 4), 2) + 3 * torch.eye(4).double()
    factors = [torch.eye(3).double(), torch.eye(4).double()]
    for step in range(3000):
        gradient = left @ draw((3, 4), 10 + step) @ right
        learn(factors, gradient, draw((3, 4), 100_000 + step), 0.1 if step < 1500 else 0.01)
    whole = torch.kron(*factors)
    covariance = torch.kron(left @ left.T, right.T @ right)
    white = whole @ covariance @ whole.T @ whole @ whole.T
    assert float(torch.linalg.matrix_norm(white - torch.eye(12).double(), 2)) < 0.5
    assert all(torch.equal(f, f.triu()) for f in factors)


def test_balancing_and_the_bound_of_the_spectral_norm() -> None:
    factors, tensor = [3 * torch.eye(3).double(), 0.01 * (1 + draw((4,), 1).abs())], draw((3, 4), 2)
    before = apply(factors, tensor)
    balance(factors)
    torch.testing.assert_close(apply(factors, tensor), before, rtol=1e-12, atol=0)
    assert float(factors[0].abs().max()) == pytest.approx(float(factors[1].abs().max()), rel=1e-12)
    for seed in range(20):
        matrix = draw((6, 6), seed)
        matrix = matrix @ matrix.T
        norm = float(torch.linalg.matrix_norm(matrix, 2))
        assert 0.6 * norm <= float(spectral_norm_below(matrix)) <= norm * (1 + 1e-12)
    assert float(spectral_norm_below(torch.zeros(3, 3))) == 0


def test_kron_learns_at_every_step_first_and_then_at_its_least_share() -> None:
    values = {"least_update_share": 0.1, "update_flat_steps": 5, "update_decay": 10.0}
    run = Run(lambda m: optim_core.build("psgd_kron", m, lr=0.01, **values))
    run.steps(0, 6)
    assert run.optimizer.param_groups[0]["updates"] == 6
    run.steps(6, 46)
    assert run.optimizer.param_groups[0]["updates"] == 10


def test_kron_refuses_what_it_cannot_mean_and_clips_updates() -> None:
    for values in ({"least_update_share": 0.0}, {"least_update_share": 2.0}, {"memory_save_mode": "half"}):
        with pytest.raises(ValueError, match=next(iter(values))):
            optim_core.check("psgd_kron", **values)
    run = Run(lambda m: optim_core.build("psgd_kron", m, lr=1.0, precond_init_scale=100.0, precond_lr=0.0))
    before = run.weights()
    run.steps(0, 1)
    for old, new in zip(before, run.weights(), strict=True):
        assert float((old - new).square().mean().sqrt()) == pytest.approx(1.1, rel=1e-9)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (3, 2, 2)])
def test_dion_forgets_nothing_that_its_rank_did_not_see(shape: tuple[int, ...]) -> None:
    """M + G = M' + (1 - momentum) P R^T; with full rank and no momentum nothing is left over."""
    for fraction, momentum in ((1.0, 0.0), (0.5, 0.9)):
        model = Tensors((shape,))
        groups = [{"params": list(model.parameters()), "hidden": True}]
        optimizer: Any = optim_core.dion.Dion(groups, lr=0.1, momentum=momentum, rank_fraction=fraction)
        optimizer.step(lambda model=model: model.differentiate(1))
        state, gradient = optimizer.state[model.t0], model.t0.grad
        lost = gradient.reshape(shape[0], -1) - state["momentum_buffer"]
        if momentum == 0:
            assert float(state["momentum_buffer"].abs().max()) < 1e-12
        assert int(torch.linalg.matrix_rank(lost, rtol=1e-9)) == state["basis"].shape[1]
        lengths = torch.linalg.vector_norm(state["basis"], dim=0)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=1e-6, atol=0)


def test_dion_keeps_its_basis_where_there_is_no_gradient() -> None:
    basis = draw((3, 2), 1)
    left, right = approximated(torch.zeros(4, 3).double(), basis)
    assert torch.equal(right, basis)
    assert not left.any()


def test_splus_evaluates_the_average_and_takes_no_step_from_it() -> None:
    run = Run(lambda m: optim_core.build("splus", m, lr=0.05, average_decay=0.0, weight_decay=0.0))
    run.steps(0, 3)
    weights = run.weights()
    run.optimizer.eval()
    run.optimizer.eval()
    assert equal(run.weights(), weights)  # an average that remembers nothing
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        run.steps(3, 4)
    run.optimizer.train()
    slow = Run(lambda m: optim_core.build("splus", m, lr=0.05, average_decay=0.9))
    slow.steps(0, 3)
    weights = slow.weights()
    with slow.optimizer.judged_weights():
        assert not equal(slow.weights(), weights)
    assert equal(slow.weights(), weights)


def test_splus_steps_have_the_size_of_their_shape() -> None:
    """|sign| = sqrt(m n) in every basis, so a step of a matrix is 2 lr sqrt(m n) / (m + n) long."""
    model = Tensors(((5, 4), (3,)))
    optimizer: Any = optim_core.build("splus", model, lr=0.1, weight_decay=0.0, precondition_frequency=1)
    for number in range(1, 4):
        home = [p.detach().clone() for p in model.parameters()]
        optimizer.step(lambda number=number: model.differentiate(number))
        moved = [float((a - b.detach()).norm()) for a, b in zip(home, model.parameters(), strict=True)]
        assert moved == pytest.approx([0.1 * 2 / 9 * 20**0.5, 0.1 * 0.001 * 3**0.5], rel=1e-9)
