"""Bases that learn before or after the step: SOAP as published, what diverges, first gradients, late parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import optim_core
from tests.contracts import optimizer_contract
from tests.contracts.optimizer_contract import Run, equal
from tests.contracts.rotation_contract import flat
from tests.golden.agreement.matrices.problem import MATRICES, Tensors

SHARED = {"lr": 0.02, "beta1": 0.9, "beta2": 0.95, "eps": 1e-30, "weight_decay": 0.0}


def final(model: Tensors, optimizer: Any, steps: int, first: int = 1) -> Tensor:
    for number in range(first, first + steps):
        optimizer.step(lambda number=number: model.differentiate(number))
    return flat([p.detach() for p in model.parameters()])


def digits(name: str, seed: int, **values: Any) -> float:
    """Training loss of a 64-64-64-10 network on the digits after 200 steps of 128 samples at lr 0.01."""
    images, classes = (torch.tensor(a) for a in load_digits(return_X_y=True))
    inputs = images.float() / 16
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = optim_core.build(name, model, lr=0.01, **values)

    def closure() -> Tensor:
        chosen = torch.randint(len(inputs), (128,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs[chosen]), classes[chosen])
        loss.backward()
        return loss

    for _ in range(200):
        optimizer.step(closure)
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(inputs), classes))


@pytest.mark.slow
@pytest.mark.parametrize("refresh", [1, 10])
@pytest.mark.parametrize("longest", [4, 10000])
def test_adamw_in_the_basis_of_soap_is_soap(refresh: int, longest: int) -> None:
    """Where the two agree on eps and decay: eps far below v, no decay."""
    ours, theirs = Tensors((*MATRICES, (3,))), Tensors((*MATRICES, (3,)))
    turned = optim_core.build(
        "rotated_adamw", ours, rotation="soap_eig", rotation_refresh=refresh, rotation_ema=0.8,
        rotation_max_dim=longest, **SHARED
    )  # fmt: skip
    soap = optim_core.build(
        "soap", theirs, precondition_frequency=refresh, shampoo_beta=0.8, max_precond_dim=longest, **SHARED
    )
    assert float((final(ours, turned, 60) - final(theirs, soap, 60)).abs().max()) <= 1e-10


def test_soap_refreshes_every_ten_steps_unless_told() -> None:
    paths = [Tensors(MATRICES) for _ in range(4)]
    values = [{}, {"rotation_refresh": 10}, {"rotation_refresh": 9}, {"rotation_update": "after_step"}]
    ends = [
        final(m, optim_core.build("rotated_adamw", m, rotation="soap_eig", **v), 25)
        for m, v in zip(paths, values, strict=True)
    ]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[3])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["soap", "rotated_adamw"])
def test_soap_does_not_diverge_at_a_refresh_every_step(name: str) -> None:
    """And does where the basis learns from the gradient that it then rotates (Vyas et al. skip the first for that)."""
    every = {
        "soap": {"precondition_frequency": 1},
        "rotated_adamw": {"rotation": "soap_eig", "rotation_refresh": 1, "beta1": 0.95, "beta2": 0.95},
    }[name]
    assert max(digits(name, seed, **every) for seed in range(2)) < 0.01
    if name == "rotated_adamw":
        assert digits(name, 0, **every, rotation_update="before_step") > 1


@pytest.mark.parametrize("name", ["rotated_adamw", "rotated(sgd)", "rotated(adamw)"])
@pytest.mark.parametrize("kind", ["svd", "soap_eig"])
def test_the_first_gradient_makes_the_basis_and_moves_nothing(name: str, kind: str) -> None:
    def build(m: nn.Module) -> Any:
        return optim_core.build(name, m, rotation=kind, lr=0.05, rotation_update="after_step", rotation_refresh=3)

    run = Run(build)
    before = run.weights()
    run.steps(0, 1)
    assert equal(run.weights(), before)
    assert all(p.grad is not None for p in run.model.parameters())
    run.steps(1, 2)
    assert all(not torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
    for dtype, at in ((torch.float32, 1), (torch.bfloat16, 1), (torch.float32, 3), (torch.bfloat16, 4)):
        optimizer_contract.check_resumes_bit_for_bit(build, dtype, at)


@pytest.mark.parametrize("name", ["rotated_adamw", "rotated(sgd)"])
def test_a_parameter_that_comes_late_makes_its_basis_first(name: str) -> None:
    """Others move on meanwhile, and all of them later."""
    model = Tensors(((4, 4), (3, 3), (2,)))
    optimizer = optim_core.build(name, model, rotation="soap_eig", rotation_refresh=2, lr=0.05)
    first, second, vector = model.parameters()

    def closure(number: int, late: bool) -> Tensor:
        loss = model.differentiate(number)
        second.grad = second.grad if late else None
        return loss

    for number in range(1, 4):
        optimizer.step(lambda number=number: closure(number, late=False))
    home = [p.detach().clone() for p in (first, second, vector)]
    optimizer.step(lambda: closure(4, late=True))
    assert [torch.equal(p, w) for p, w in zip((first, second, vector), home, strict=True)] == [False, True, False]
    assert set(optimizer.forward({p: p.detach() for p in model.parameters()})) == {first, second, vector}  # type: ignore[attr-defined]
    optimizer.step(lambda: closure(5, late=True))
    assert not torch.equal(second, home[1])


def test_a_refresh_interval_that_changes_while_training_takes_effect() -> None:
    def build(m: nn.Module, refresh: int) -> Any:
        return optim_core.build("rotated_adamw", m, rotation="svd", rotation_refresh=refresh, lr=0.05)

    given, changed, kept = (Run(lambda m, r=r: build(m, r)) for r in (2, 50, 50))
    changed.optimizer.change(rotation_refresh=2)
    for run in (given, changed, kept):
        run.steps(0, 5)
    assert equal(given.weights(), changed.weights())
    assert not equal(given.weights(), kept.weights())


def test_soap_keeps_a_basis_that_cannot_be_computed_anew_and_counts_it() -> None:
    model = Tensors(((3, 3),))
    optimizer: Any = optim_core.build("soap", model, precondition_frequency=1)
    final(model, optimizer, 2)
    state = optimizer.state[model.t0]
    basis = state["basis_0"].clone()
    state["gram_0"].fill_(float("nan"))
    final(model, optimizer, 2, first=3)
    assert optimizer.refresh_failures == 2
    assert torch.equal(state["basis_0"], basis)
    assert bool(torch.isfinite(model.t0).all())


@pytest.mark.parametrize(
    "values, message",
    [
        ({"rotation_update": "later"}, "rotation_update is 'later'; it must be one of auto, before_step, after_step"),
        ({"rotation_refresh": -1}, "rotation_refresh is -1"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim_core.build("rotated_adamw", nn.Linear(2, 2), rotation="soap_eig", **values)
    for bad in ({"precondition_frequency": 0}, {"shampoo_beta": 1.0}, {"beta2": 1.0}, {"eps": 0.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            optim_core.build("soap", nn.Linear(2, 2), **bad)
