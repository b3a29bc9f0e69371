"""A packed step is, row by row, the step of each optimizer by itself: in float64, for every class that declares one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.packed import PackedStep, Unpackable, settings, why_not

SHAPES = ((3, 2), (4,))
STEPS = 6
PACKED = [name for name in optim_core.registered() if "PACKING" in optim_core.lookup(name).__dict__]
VARIANTS: dict[str, list[dict[str, Any]]] = {"sgd": [{"nesterov": True}], "sam": [{"base": "adamw", "lr": 0.01}]}
SPREAD = {
    "lr": (0.3, 1.0, 0.1), "momentum": (0.9, 0.0, 0.5), "weight_decay": (0.0, 0.1, 0.01), "beta1": (0.9, 0.5, 0.0),
    "beta2": (0.999, 0.9, 0.99), "eps": (1e-8, 1e-4, 1e-2), "sam_radius": (0.05, 0.0, 0.5),
}  # fmt: skip
"""Hyperparameter -> its values in three trials; of lr, shares of the default."""
CASES = [(name, extra) for name in PACKED for extra in ({}, *VARIANTS.get(name, []))]


@dataclass
class Passed:
    losses: Tensor
    grads: list[list[Tensor]]
    norms: Tensor


def loss_of(flat: Tensor, step: int, trial: int) -> Tensor:
    """[..., n] -> [...]: curved, another one at every step; infinite where the tests want it."""
    target = torch.linspace(-1, 1, flat.shape[-1], dtype=flat.dtype) * (1 + 0.1 * step)
    return ((flat - target) ** 2).sum(-1) + 0.1 * (flat**4).sum(-1)


def start(trial: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(trial)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def hyperparameters(name: str, extra: dict[str, Any], trial: int) -> dict[str, Any]:
    known = optim_core.hyperparameters(name)
    lr = extra.get("lr", known["lr"].default)
    found = {**{k: v[trial] for k, v in SPREAD.items() if k in known}, **extra, "lr": SPREAD["lr"][trial] * lr}
    return {**found, "momentum": found["momentum"] or 0.2} if extra.get("nesterov") else found


def made(name: str, extra: dict[str, Any], trial: int) -> tuple[Any, nn.ParameterList]:
    params = nn.ParameterList([nn.Parameter(w) for w in start(trial)])
    return optim_core.build(name, params, **hyperparameters(name, extra, trial)), params


def flat(params: nn.ParameterList) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in params])


def alone(optimizer: Any, params: nn.ParameterList, steps: range, broken: tuple[int, int], trial: int) -> None:
    for step in steps:

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(torch.cat([p.reshape(-1) for p in params]), step, trial)
            loss = loss * (float("nan") if (step, trial) == broken else 1.0)
            loss.backward()
            return loss

        optimizer.step(closure)


def packed(
    optimizers: list[Any], rows: Tensor, steps: range, broken: tuple[int, int], *, by_row: bool = True
) -> PackedStep:
    found = PackedStep(optimizers, [rows], by_row=by_row)
    for step in steps:
        values = [found.values(k)[0] for k in range(len(optimizers))]
        found.prepare([{n: torch.tensor([[v[n] for v in values]], dtype=torch.float64) for n in values[0]}])

        def evaluate(ascending: bool, step: int = step) -> Passed:
            leaf = rows.detach().clone().requires_grad_()
            losses = loss_of(leaf, step, 0)
            spoilt = torch.tensor([float("nan") if (step, k) == broken else 1.0 for k in range(len(rows))])
            losses = losses * spoilt.to(losses)
            (grad,) = torch.autograd.grad(losses.sum(), [leaf])
            return Passed(losses.detach(), [list(grad.split(6, 1))], grad.norm(dim=1))

        done = found.step(0, evaluate)
        for k, optimizer in enumerate(optimizers):
            optimizer.charge(done.cost[k])
            if not done.taken[k]:
                optimizer.skip()
    return found


@pytest.mark.filterwarnings("ignore:.*is not finite")
@pytest.mark.parametrize("broken", [(-1, -1), (2, 1)], ids=["all finite", "one gradient is not"])
@pytest.mark.parametrize(("name", "extra"), CASES, ids=lambda x: str(x))
@pytest.mark.parametrize("by_row", [True, False], ids=["as on a CPU", "as on a GPU"])
def test_every_row_is_the_optimizer_alone(
    name: str, extra: dict[str, Any], broken: tuple[int, int], by_row: bool
) -> None:
    singles = [made(name, extra, k) for k in range(3)]
    others = [made(name, extra, k) for k in range(3)]
    rows = torch.stack([flat(params) for _, params in others])
    step = packed([o for o, _ in others], rows, range(STEPS), broken, by_row=by_row)
    for k, (optimizer, params) in enumerate(singles):
        alone(optimizer, params, range(STEPS), broken, k)
        assert torch.allclose(flat(params), rows[k], rtol=1e-12, atol=1e-13)
        assert optimizer.grad_evals == others[k][0].grad_evals
        assert optimizer.skipped_steps == others[k][0].skipped_steps == (broken[1] == k)
        step.settle(k)  # the state is that of the optimizer alone, which goes on with it
        mine, theirs = optimizer.state_dict()["state"], others[k][0].state_dict()["state"]
        assert {p: set(s) for p, s in mine.items() if s} == {p: set(s) for p, s in theirs.items() if s}
        with torch.no_grad():
            for p, w in zip(others[k][1], rows[k].split([p.numel() for p in params]), strict=True):
                p.copy_(w.view(p.shape))
        for optimizer_of, params_of in (singles[k], others[k]):
            alone(optimizer_of, params_of, range(STEPS, 2 * STEPS), (-1, -1), k)
        assert torch.allclose(flat(params), flat(others[k][1]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("by_row", [True, False], ids=["as on a CPU", "as on a GPU"])
@pytest.mark.parametrize(("name", "extra"), CASES, ids=lambda x: str(x))
def test_optimizers_that_have_taken_steps_go_on_in_a_pack(name: str, extra: dict[str, Any], by_row: bool) -> None:
    """One of the three has not begun; the others have taken different numbers of steps."""
    begun = (0, 2, 3)
    singles, others = ([made(name, extra, k) for k in range(3)] for _ in range(2))
    for k, count in enumerate(begun):
        for optimizer, params in (singles[k], others[k]):
            alone(optimizer, params, range(count), (-1, -1), k)
        alone(*singles[k], range(STEPS), (-1, -1), k)
    rows = torch.stack([flat(params) for _, params in others])
    packed([o for o, _ in others], rows, range(STEPS), (-1, -1), by_row=by_row)
    for k, (_, params) in enumerate(singles):
        assert torch.allclose(flat(params), rows[k], rtol=1e-12, atol=1e-13)


def test_what_cannot_be_stepped_at_once_says_why() -> None:
    sgd, other = (made("sgd", {"nesterov": n}, 0)[0] for n in (True, False))
    assert settings(sgd) != settings(other)
    rows = torch.zeros(2, 10, dtype=torch.float64)
    with pytest.raises(Unpackable, match="settings that differ"):
        PackedStep([sgd, other], [rows])
    with pytest.raises(Unpackable, match="ASAM does not declare"):  # whose class above does
        PackedStep([made("asam", {"adapted": "matrices"}, k)[0] for k in range(2)], [rows])
    adamw = optim_core.lookup("adamw")
    assert "state_dtype bfloat16" in why_not(adamw, {"lr": 0.1, "state_dtype": "bfloat16"})
    assert not why_not(adamw, {"lr": 0.1, "state_dtype": "auto"})


def test_subclasses_do_not_inherit_the_declaration() -> None:
    make: Callable[[str], Any] = optim_core.lookup
    for name in optim_core.registered():
        if name not in PACKED:
            assert why_not(make(name), {})
