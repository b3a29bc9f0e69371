"""Float16 with a GradScaler: the recipe of the README, for optimizers of one gradient and of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contracts.optimizer_contract import equal, problem
from tests.optim_core.test_contract import maker

NAMES = ["sgd", "adamw", "rotated_adamw", "muon", "sam", "asam", "gsam", "looksam"]


def scaled(model: nn.Module, optimizer: Any, scaler: Any, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16, enabled=x.dtype == torch.float16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.update()
        return loss

    return closure


def train(name: str, steps: int, scaler: Any, dtype: torch.dtype) -> tuple[Any, list[Tensor]]:
    model, batch = problem(torch.float32)
    optimizer = maker(name)(model)
    for index in range(steps):
        x, y = batch(index)
        optimizer.step(scaled(model, optimizer, scaler, x.to(dtype), y))
    return optimizer, [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", NAMES)
def test_scales_that_are_powers_of_two_leave_no_trace(name: str) -> None:
    """The scale grows on the way; gradients are divided by it before anything looks at them."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    _, weights = train(name, 6, scaler, torch.float32)
    assert scaler.get_scale() > 2.0**10
    _, plain = train(name, 6, torch.amp.GradScaler("cpu", enabled=False), torch.float32)
    assert equal(weights, plain)


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_an_overflow_skips_the_step_and_halves_the_scale(name: str) -> None:
    """Float16 overflows above 65504: steps are skipped until the scale fits, then training goes on."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=1000)
    with pytest.warns(RuntimeWarning, match="not finite"):
        optimizer, weights = train(name, 12, scaler, torch.float16)
    assert 0 < optimizer.skipped_steps < 12
    assert scaler.get_scale() == 2.0 ** (20 - optimizer.skipped_steps)
    home = [p.detach() for p in problem(torch.float32)[0].parameters()]
    assert all(bool(w.isfinite().all()) for w in weights)
    assert not equal(weights, home)
