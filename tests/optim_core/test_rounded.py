"""Moments in bfloat16, rounded at random: exact in the mean, half the memory, and averages that do not stand still."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import optim_core
from optim_core.probes import bits
from optim_core.rounded import round_at_random
from tests.contracts.optimizer_contract import Run, check_resumes_bit_for_bit
from tests.golden.agreement.matrices.problem import Tensors
from tests.optim_core.test_contract import maker

CASES: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("rotated_adamw", {}),
    ("rotated_adamw", {"rotation": "svd", "rotation_refresh": 3}),
    ("rotated_adamw", {"rotation": "soap_eig", "rotation_refresh": 3}),
    ("rotated(adamw)", {"rotation": "layer"}),
]


def test_rounding_goes_to_a_neighbor_and_is_exact_in_the_mean() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(1)) * torch.logspace(-30, 30, 50)
    draws = torch.stack([round_at_random(x, bits(x.shape, x, seed)).double() for seed in range(4000)])
    unit = x.abs().double() * 2.0**-7
    assert bool(((draws - x.double()).abs() < unit).all())
    assert bool(((draws.mean(dim=0) - x.double()).abs() < 5 * unit / 4000**0.5).all())
    exact = torch.tensor([0.0, 1.0, -2.5, float("inf"), -float("inf")])
    assert torch.equal(round_at_random(exact, bits(exact.shape, exact, 1)).float(), exact)
    assert bool(round_at_random(torch.tensor([float("nan")]), bits((1,), exact, 1)).isnan())


def second_moments(steps: int, **values: Any) -> Tensor:
    """V of AdamW at the end of so many gradients 1 after one gradient 0.3."""
    model = Tensors(((4, 4),))
    optimizer: Any = optim_core.build("adamw", model, lr=0.0, **values)

    def closure(size: float = 0.3) -> Tensor:
        model.t0.grad = torch.full_like(model.t0, size)
        return torch.ones(())

    optimizer.step(closure)
    for _ in range(steps):
        optimizer.step(lambda: closure(1.0))
    found: Tensor = optimizer.state[model.t0]["exp_avg_sq"].double()
    return found


@pytest.mark.slow
def test_an_average_moves_by_less_than_a_unit_at_a_time() -> None:
    """Rounded to nearest v would stop where (1 - beta2) (1 - v) is half a unit of v."""
    wanted = second_moments(1500)
    stands = torch.tensor(0.3**2 * 1e-3, dtype=torch.bfloat16)
    for _ in range(1500):
        stands = (0.999 * stands.float() + 1e-3).bfloat16()
    assert abs(float(stands) - float(wanted.mean())) > 0.2
    found = second_moments(1500, state_dtype="bfloat16")
    assert float((found.mean() / wanted.mean() - 1).abs()) < 0.03


@pytest.mark.parametrize("name, values", [CASES[0], CASES[1], CASES[4]])
def test_it_trains_as_with_wide_moments_and_keeps_half(name: str, values: dict[str, Any]) -> None:
    wide = Run(maker(name, **values), torch.float32)
    narrow = Run(maker(name, state_dtype="bfloat16", **values), torch.float32)
    wide.steps(0, 30)
    narrow.steps(0, 30)
    for key in ("exp_avg", "exp_avg_sq"):
        assert {s[key].dtype for s in narrow.optimizer.state.values()} == {torch.bfloat16}
    start = Run(maker("adamw"), torch.float32).weights()
    moved = sum(float((a - b).square().sum()) for a, b in zip(wide.weights(), start, strict=True))
    apart = sum(float((a - b).square().sum()) for a, b in zip(wide.weights(), narrow.weights(), strict=True))
    assert 0 < apart < 0.01 * moved


@pytest.mark.parametrize("name, values", CASES)
def test_a_resumed_run_draws_the_same(name: str, values: dict[str, Any]) -> None:
    """Also where bases move: there moments stay in bfloat16."""
    run = Run(maker(name, state_dtype="bfloat16", **values), torch.float32)
    run.steps(0, 8)
    kept = {s[key].dtype for s in run.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")}
    assert kept == {torch.bfloat16}
    check_resumes_bit_for_bit(maker(name, state_dtype="bfloat16", **values), torch.float32, 4)


def test_groups_may_differ_and_unknown_words_are_refused() -> None:
    model = Tensors(((3, 3), (3,)))
    groups: Any = [{"params": [model.t0], "state_dtype": "bfloat16"}, {"params": [model.t1]}]
    optimizer: Any = optim_core.baselines.AdamW(groups, lr=0.1)
    plain: Any = Tensors(((3, 3), (3,)))
    other: Any = optim_core.baselines.AdamW(list(plain.parameters()), lr=0.1)
    for number in range(1, 4):
        optimizer.step(lambda number=number: model.differentiate(number))
        other.step(lambda number=number: plain.differentiate(number))
    assert torch.equal(model.t1, plain.t1)
    assert not torch.equal(model.t0, plain.t0)
    with pytest.raises(ValueError, match="state_dtype"):
        optim_core.check("adamw", state_dtype="float8")
