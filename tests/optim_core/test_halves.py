"""`first_step` and `second_step`: a step for loops without a closure, bit for bit the one with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.two_pass import TwoPass
from tests.closures import closure_of
from tests.contracts.optimizer_contract import SETTINGS, Run, batches_for, equal
from tests.optim_core.test_two_pass import norm_network

KIN = [n for n in optim_core.names() if issubclass(optim_core.lookup(n), TwoPass)]


def make(name: str, **values: Any) -> Run:
    given = {**SETTINGS.get(name, {"lr": 0.05}), "sam_radius": 0.3, **values}
    return Run(lambda m: optim_core.build(name, m, **given, **batches_for(name)))


def loss_of(run: Run, index: int) -> Tensor:
    x, y = run.batch(index)
    return nn.functional.cross_entropy(run.model(x), y)


def in_halves(run: Run, index: int, *, careless: bool = False) -> float:
    """A step of a loop of its own; `careless` takes the second pass whatever `first_step` returns."""
    loss = loss_of(run, index)
    loss.backward()
    if run.optimizer.first_step() or careless:
        loss_of(run, index).backward()
        run.optimizer.second_step()
    return float(loss.detach())


@pytest.mark.slow
@pytest.mark.parametrize("name", KIN)
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("careless", [False, True])
def test_are_the_closure_way_bit_for_bit(name: str, base: str, careless: bool) -> None:
    run, twin = make(name, base=base, weight_decay=0.01), make(name, base=base, weight_decay=0.01)
    losses = [in_halves(run, index, careless=careless) for index in range(10)]
    assert losses == twin.steps(0, 10)
    assert equal(run.weights(), twin.weights())
    assert run.optimizer.grad_evals == twin.optimizer.grad_evals
    assert all(p.grad is None for p in run.model.parameters())


def test_norm_statistics_are_those_of_the_clean_pass() -> None:
    models = [norm_network(), norm_network()]
    batches = torch.randn(4, 32, 4, generator=torch.Generator().manual_seed(3))
    halves, whole = (optim_core.build("sam", m, lr=0.1, sam_radius=0.5) for m in models)
    for x in batches:
        models[0](x).square().mean().backward()
        assert halves.first_step()
        models[0](x).square().mean().backward()
        halves.second_step()
        whole.step(closure_of(whole, lambda x=x: models[1](x).square().mean()))
    assert equal(list(models[0].state_dict().values()), list(models[1].state_dict().values()))
    before = [t.clone() for t in models[0].state_dict().values()]
    models[0](batches[0] * float("inf")).square().mean().backward()
    with pytest.warns(RuntimeWarning, match="not finite"):
        assert not halves.first_step()
    assert equal(list(models[0].state_dict().values()), before)


@pytest.mark.parametrize("name", KIN)
@pytest.mark.parametrize("half", [1, 2])
def test_a_gradient_that_is_not_finite_skips_the_step(name: str, half: int) -> None:
    run = make(name)
    home = run.weights()

    def spoil() -> None:
        next(run.model.parameters()).grad[0] = float("nan")  # type: ignore[index]

    loss_of(run, 0).backward()
    if half == 1:
        spoil()
        with pytest.warns(RuntimeWarning, match="not finite"):
            assert not run.optimizer.first_step()
    else:
        assert run.optimizer.first_step()
        loss_of(run, 0).backward()
        spoil()
        with pytest.warns(RuntimeWarning, match="not finite"):
            run.optimizer.second_step()
    assert equal(run.weights(), home)
    assert run.optimizer.skipped_steps == 1
    in_halves(run, 1)
    assert not equal(run.weights(), home)


def test_what_cannot_be_done_in_halves_is_said() -> None:
    run = make("sam")
    with pytest.raises(RuntimeError, match="no gradient"):
        run.optimizer.first_step()
    loss_of(run, 0).backward()
    run.optimizer.first_step()
    with pytest.raises(RuntimeError, match="no gradient"):
        run.optimizer.second_step()
    loss_of(run, 0).backward()
    with pytest.raises(RuntimeError, match="twice"):
        run.optimizer.first_step()
    past = make("llqr_sam", direction="past")
    loss_of(past, 0).backward()
    with pytest.raises(ValueError, match="past"):
        past.optimizer.first_step()
    perturbed: Callable[[nn.Module], Any] = lambda m: optim_core.build("sam", m, norm_statistics="perturbed")  # noqa: E731
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = perturbed(model)
    model(torch.randn(4, 2)).sum().backward()
    with pytest.raises(ValueError, match="perturbed"):
        optimizer.first_step()


def test_schedulers_see_the_steps() -> None:
    run = make("sam")
    scheduler = torch.optim.lr_scheduler.StepLR(run.optimizer, 1)
    in_halves(run, 0)
    scheduler.step()
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
