"""Shampoo and KL-Shampoo by their limits: Adam before the first roots, U V^T without memory, covariances known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.soap import average_grams, whole_gram
from tests.closures import closure_of
from tests.contracts.optimizer_contract import Run
from tests.contracts.rotation_contract import flat
from tests.golden.agreement.matrices.problem import Tensors, draw


def test_before_the_first_roots_it_is_adamw() -> None:
    values = {"lr": 0.02, "weight_decay": 0.1, "beta2": 0.99}
    ours = Run(lambda m: optim_core.build("shampoo", m, start_preconditioning_step=100, grafting_beta2=0.99, **values))
    twin = Run(lambda m: optim_core.build("adamw", m, **values))
    ours.steps(0, 40)
    twin.steps(0, 40)
    assert float((flat(ours.weights()) - flat(twin.weights())).abs().max()) <= 1e-12


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_one_step_with_no_memory_is_the_polar_factor(shape: tuple[int, int]) -> None:
    """(G G^T)^(-1/4) G (G^T G)^(-1/4) = U V^T of G = U S V^T (Bernstein and Newhouse 2024, arXiv 2409.20325)."""
    layer = nn.Linear(shape[1], shape[0], bias=False).double()
    home, g = layer.weight.detach().clone(), draw(shape, 1)
    settings = {"beta1": 0.0, "beta2": 0.0, "weight_decay": 0.0, "grafting": "none", "precondition_frequency": 1}
    optimizer: Any = optim_core.build("shampoo", layer, lr=1.0, **settings)
    optimizer.step(closure_of(optimizer, lambda: (layer.weight * g).sum()))
    u, _, vt = torch.linalg.svd(g, full_matrices=False)
    torch.testing.assert_close(home - layer.weight.detach(), u @ vt, rtol=0, atol=1e-6)


def test_a_step_has_the_length_of_what_it_grafts() -> None:
    lengths = {}
    for grafting in ("adam", "sgd", "none"):
        model = Tensors(((5, 4),))
        settings = {"precondition_frequency": 1, "weight_decay": 0.0, "lr": 1.0, "beta1": 0.0}
        optimizer: Any = optim_core.build("shampoo", model, grafting=grafting, **settings)
        home = model.t0.detach().clone()
        optimizer.step(lambda model=model: model.differentiate(1))
        lengths[grafting] = float((model.t0.detach() - home).norm())
    assert lengths["adam"] == pytest.approx(20**0.5, rel=1e-6)  # Adam's first step is the sign of the gradient
    assert lengths["sgd"] == pytest.approx(float(model.t0.grad.norm()), rel=1e-12)
    assert len(set(lengths.values())) == 3


def test_a_root_that_cannot_be_computed_is_counted_and_the_old_one_stays() -> None:
    model = Tensors(((3, 3), (3,)))
    optimizer: Any = optim_core.build("shampoo", model, precondition_frequency=1, precondition_1d=False)
    p = model.t0
    optimizer.step(lambda: model.differentiate(1))
    root = optimizer.state[p]["root_0"].clone()
    assert "root_0" not in optimizer.state[model.t1]
    optimizer.state[p]["gram_0"].fill_(float("nan"))
    optimizer.step(lambda: model.differentiate(2))
    assert optimizer.refresh_failures == 1
    assert torch.equal(optimizer.state[p]["root_0"], root)


@pytest.mark.parametrize(
    "values",
    [{"grafting": "adagrad"}, {"epsilon": 0.0}, {"beta2": 1.1}, {"start_preconditioning_step": 0}, {"beta1": 1.0}],
)
def test_bad_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        optim_core.build("shampoo", nn.Linear(2, 2), **values)
    assert optim_core.build("shampoo", nn.Linear(2, 2), beta2=1.0).grad_evals == 0


@pytest.mark.slow
def test_kl_shampoo_finds_the_factors_of_gradients_with_a_kronecker_covariance() -> None:
    """G = A^(1/2) Z B^(1/2): the eigenvalues of S_1 x S_2, of any scale each, become those of A x B."""
    layer = nn.Linear(4, 5, bias=False).double()
    rows, columns = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).double(), torch.tensor([1.0, 3.0, 9.0, 27.0]).double()
    settings = {"lr": 0.0, "precondition_frequency": 5, "beta2": 0.995, "weight_decay": 0.0}
    optimizer: Any = optim_core.build("kl_shampoo", layer, **settings)
    for number in range(3000):
        g = rows.sqrt()[:, None] * draw((5, 4), number) * columns.sqrt()

        def closure(g: Tensor = g) -> Tensor:
            layer.weight.grad = g
            return torch.zeros(())

        optimizer.step(closure)
    state = optimizer.state[layer.weight]
    values = [state[f"root_{k}"].pow(-2).sort().values for k in (0, 1)]
    found = torch.outer(*values)
    torch.testing.assert_close(found, torch.outer(rows, columns), rtol=0.25, atol=0)


def test_kl_shampoo_keeps_a_basis_that_cannot_be_computed_anew_and_counts_it() -> None:
    model = Tensors(((3, 3), (3,)))
    optimizer: Any = optim_core.build("kl_shampoo", model, precondition_frequency=1)
    for number in (1, 2):
        optimizer.step(lambda number=number: model.differentiate(number))
    state = optimizer.state[model.t0]
    basis = state["basis_1"].clone()
    state["gram_1"].fill_(float("nan"))
    optimizer.step(lambda: model.differentiate(3))
    assert optimizer.refresh_failures == 1
    assert torch.equal(state["basis_1"], basis)
    assert bool(torch.isfinite(model.t0).all())
    for bad in ({"initial_eigenvalue": 0}, {"max_inverse_root": -1.0}, {"max_precond_dim": -1}, {"shampoo_beta": 2.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            optim_core.build("kl_shampoo", nn.Linear(2, 2), **bad)


@pytest.mark.parametrize("decay", [0.9, 1.0])
@pytest.mark.parametrize("size", [1, 160, 161, 350])
def test_averages_of_gram_matrices_are_those_of_the_whole_product(size: int, decay: float) -> None:
    """Also where only the blocks up to the diagonal are multiplied."""
    state: dict[str, Tensor] = {}
    wanted = [torch.zeros(size, size, dtype=torch.float64), torch.zeros(7, 7, dtype=torch.float64)]
    for seed in range(3):
        g = torch.randn(size, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        average_grams(state, g, [0, 1], decay)
        weight = 1.0 if decay == 1 else 1 - decay
        wanted = [decay * old + weight * new for old, new in zip(wanted, (g @ g.T, g.T @ g), strict=True)]
        if seed == 1:
            whole_gram(state["gram_0"])  # read in between, as by a refresh
    for k in (0, 1):
        found = whole_gram(state[f"gram_{k}"])
        torch.testing.assert_close(found, wanted[k], rtol=1e-13, atol=1e-13)
        assert torch.equal(found, found.T)
