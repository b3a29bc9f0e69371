"""SAM and its kin: a plain reference, exact return of the weights, BatchNorm statistics of one pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.contracts.optimizer_contract import Run, batches_for, equal


@pytest.mark.parametrize("start, share", [("gradient", 1.0), ("zero", 0.4)])
def test_friendly_sam_begins_as_sam_and_keeps_a_mean_gradient(start: str, share: float) -> None:
    values: dict[str, Any] = {"lr": 0.05, "sam_radius": 0.2, "mean_decay": 0.6, "mean_start": start}
    friendly = Run(lambda m: optim_core.build("friendly_sam", m, **values))
    plain = Run(lambda m: optim_core.build("sam", m, lr=0.05, sam_radius=0.2))
    probe = Run(lambda m: optim_core.build("sgd", m, lr=0.0))
    probe.closure(0)()
    friendly.steps(0, 1)
    plain.steps(0, 1)
    for a, b in zip(friendly.weights(), plain.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for p, q in zip(friendly.model.parameters(), probe.model.parameters(), strict=True):
        torch.testing.assert_close(friendly.optimizer.state[p]["mean_gradient"], share * q.grad, rtol=1e-12, atol=0)


def test_the_ascent_has_the_radius_as_its_length() -> None:
    run = Run(lambda m: optim_core.build("sam", m, lr=0.05, sam_radius=0.37))
    home = run.weights()
    seen: list[list[Tensor]] = []
    inner = run.closure(0)

    def closure() -> Tensor:
        seen.append(run.weights())
        return inner()

    run.optimizer.step(closure)
    assert equal(seen[0], home)
    length = torch.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(seen[1], home, strict=True)))
    assert float(length) == pytest.approx(0.37, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_bit_for_bit_also_after_an_error(dtype: torch.dtype) -> None:
    run = Run(lambda m: optim_core.build("sam", m, lr=0.05, sam_radius=0.5), dtype)
    home, inner = run.weights(), run.closure(0)

    def closure() -> Tensor:
        if run.calls:
            raise RuntimeError("second pass")
        return inner()

    with pytest.raises(RuntimeError, match="second pass"):
        run.optimizer.step(closure)
    assert equal(run.weights(), home)


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(ValueError, match="sgd, adamw"):
        optim_core.build("sam", nn.Linear(2, 2), base="adam")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sam", "llqr", "llqr_sam", "gsam"])
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_one_cycle_moves_the_momentum_that_the_base_uses(name: str, base: str) -> None:
    """torch's OneCycleLR: the same steps as with each rate and momentum set by hand."""
    run, twin = (Run(lambda m: optim_core.build(name, m, base=base, lr=0.05, **batches_for(name))) for _ in range(2))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(run.optimizer, 0.05, total_steps=6)
    key, momenta = {"sgd": "momentum", "adamw": "beta1"}[base], []
    for index in range(5):
        group = run.optimizer.param_groups[0]
        momenta.append(group["momentum"] if base == "sgd" else group["betas"][0])
        twin.optimizer.change(lr=group["lr"], **{key: momenta[-1]})
        assert run.steps(index, index + 1) == twin.steps(index, index + 1)
        scheduler.step()
    assert equal(run.weights(), twin.weights())
    assert min(momenta) < 0.9 < max(momenta)
    with pytest.raises(ValueError, match="cannot change"):
        run.optimizer.change(**{{"sgd": "beta1", "adamw": "momentum"}[base]: 0.5})


def test_a_checkpoint_with_beta1_and_beta2_apart_goes_on() -> None:
    """As state dicts were before groups held `betas`."""
    run, old = (Run(lambda m: optim_core.build("sam", m, base="adamw", lr=0.05, beta1=0.8)) for _ in range(2))
    run.steps(0, 3)
    old.steps(0, 3)
    saved = copy.deepcopy(run.optimizer.state_dict())
    group = saved["param_groups"][0]
    group["beta1"], group["beta2"] = group.pop("betas")
    old.optimizer.load_state_dict(saved)
    assert old.steps(3, 6) == run.steps(3, 6)
