"""Average-case methods off the straight road: dropout, clipping, idle parameters, groups added later, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.closures import closure_of
from tests.optim_core.spectral_problems import Bowl, D, dense, steps
from tests.optim_core.test_average_case_steps import METHODS

ESTIMATED = [name for name in dict.fromkeys(name for name, _ in METHODS) if name != "laguerre"]


class Noisy(nn.Module):
    """Least squares through dropout: a quadratic for every mask."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=D))
        self.x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2), dtype=D)

    def forward(self) -> Tensor:
        return (nn.functional.dropout(self.x, 0.5, self.training) @ self.w).square().mean() / 2


def largest_curvature(seed: int) -> float:
    torch.manual_seed(seed)
    x = nn.functional.dropout(Noisy().x, 0.5)
    return float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])


def test_every_product_of_an_estimate_sees_the_mask_of_its_gradient() -> None:
    """In a loop that does not seed its passes. Another mask in each product gave an L a hundred times too large."""
    torch.manual_seed(5)
    optimizer = optim_core.build("gd", model := Noisy(), smoothness_margin=0.0)
    optimizer.step(closure_of(optimizer, model))
    after = torch.get_rng_state()
    assert optimizer.param_groups[0]["smoothness"] == pytest.approx(largest_curvature(5), rel=1e-6)
    torch.manual_seed(5)
    model()
    assert torch.equal(torch.get_rng_state(), after)  # one pass has drawn, no more


def test_extragradient_looks_ahead_through_the_same_mask() -> None:
    """For affine v the push of bilinear_optimal gives -J v for every mask, so the step is that of the seeded game."""
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(2), dtype=D)
    found = []
    for seeded in (False, True):
        players = [nn.Parameter(torch.ones(4, dtype=D)), nn.Parameter(torch.ones(30, dtype=D))]

        def losses(players: list[nn.Parameter] = players, seeded: bool = seeded) -> list[Tensor]:
            if seeded:
                torch.manual_seed(7)
            f = (nn.functional.dropout(x, 0.5) @ players[0]) @ players[1] / 30
            return [f, -f]

        optimizer = optim_core.games.BilinearOptimal([[p] for p in players], lr=0.1)
        torch.manual_seed(7)
        optimizer.step(losses)
        found.append(torch.cat([p.detach() for p in players]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_clipped_gradient_does_not_enter_the_estimate() -> None:
    """Closures clip what moves the weights only; a difference of a clipped and a whole gradient is no product."""
    H, start = dense()
    optimizer = optim_core.build("gd", model := Bowl(H, start.clone()))
    plain = closure_of(optimizer, model)

    def clipping() -> Tensor:
        loss = plain()
        if not optimizer.ascending:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        return loss

    optimizer.step(clipping)
    assert optimizer.param_groups[0]["smoothness"] == pytest.approx(1.02, rel=1e-6)


class Halves(nn.Module):
    """Two bowls of which one may be left out of the loss."""

    def __init__(self) -> None:
        super().__init__()
        H, start = dense()
        self.one, self.two, self.both = Bowl(H, start.clone()), Bowl(0.9 * H, start.clone()), True

    def forward(self) -> Tensor:
        return self.one() + self.two() if self.both else self.one()


@pytest.mark.parametrize("name, values", METHODS)
def test_what_has_no_gradient_does_not_move(name: str, values: dict[str, Any]) -> None:
    optimizer = optim_core.build(name, model := Halves(), **values)
    for _ in range(5):
        optimizer.step(closure_of(optimizer, model))
    model.both = False
    idle, moving = model.two.x.detach().clone(), model.one.x.detach().clone()
    for _ in range(3):
        optimizer.step(closure_of(optimizer, model))
    assert torch.equal(model.two.x, idle)
    assert not torch.equal(model.one.x, moving)


@pytest.mark.parametrize("name, values", METHODS)
def test_a_group_added_later_takes_part(name: str, values: dict[str, Any]) -> None:
    """Its schedule begins at its own first step: the old group goes on as if alone, the new one as if new."""
    alone, fresh = Bowl(*dense()), Bowl(*dense())
    model = Halves()
    optimizer = optim_core.build(name, model.one, **values)
    first, second = optim_core.build(name, alone, **values), optim_core.build(name, fresh, **values)
    model.both = False
    for _ in range(6):
        optimizer.step(closure_of(optimizer, model))
    model.both, model.two.H = True, model.one.H
    optimizer.add_param_group({"params": list(model.two.parameters()), **values})
    for _ in range(6):
        optimizer.step(closure_of(optimizer, model))
    steps(first, alone, 12)
    steps(second, fresh, 6)
    torch.testing.assert_close(model.one.x, alone.x, rtol=0, atol=1e-13)
    torch.testing.assert_close(model.two.x, fresh.x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", [*ESTIMATED, "laguerre"])
def test_a_group_added_later_is_estimated_and_the_rest_keeps_what_was_given(name: str) -> None:
    given = dict(next(values for other, values in METHODS if other == name))
    model = Halves()
    optimizer = optim_core.build(name, model.one, **given)
    model.both = False
    for _ in range(4):
        optimizer.step(closure_of(optimizer, model))
    model.both, model.two.H = True, 3 * model.one.H
    words = dict.fromkeys(optimizer.FROM_SPECTRUM, "estimate")
    optimizer.add_param_group({"params": list(model.two.parameters()), **words})
    assert optimizer.next_cost() > 1
    for _ in range(30):
        optimizer.step(closure_of(optimizer, model))
    old, new = optimizer.param_groups
    assert all(old[key] == value for key, value in given.items())
    assert not [key for key in optimizer.FROM_SPECTRUM if isinstance(new[key], str)]
    if "smoothness" in new:
        assert new["smoothness"] >= 3 - 1e-6
    assert float(model().detach()) < float(Halves()().detach()) / 2


def test_an_estimated_bound_grows_with_a_group_added_later() -> None:
    """The largest eigenvalue is one of the whole Hessian: x'y couples the groups beyond either bound."""
    x, y = (nn.Parameter(torch.ones(3, dtype=D)) for _ in range(2))
    optimizer = optim_core.average_case.GradientDescent([x], smoothness="estimate")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (x @ x + y @ y) / 2 + 0.9 * (x @ y)
        value.backward()
        return value

    optimizer.step(loss)
    assert optimizer.param_groups[0]["smoothness"] == pytest.approx(1.02, rel=1e-6)
    optimizer.add_param_group({"params": [y]})
    optimizer.step(loss)
    assert [g["smoothness"] for g in optimizer.param_groups] == pytest.approx([1.9 * 1.02] * 2, rel=1e-6)


def test_a_group_with_numbers_out_of_range_is_refused_and_left_out() -> None:
    optimizer = optim_core.build("polyak", nn.Linear(2, 2), smoothness=1.0, strong_convexity=0.1)
    with pytest.raises(ValueError, match=r"strong_convexity is 2\.0"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "strong_convexity": 2.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name, values", METHODS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_steps_on_alike(name: str, values: dict[str, Any], copied: Callable[[Any], Any]) -> None:
    optimizer = optim_core.build(name, model := Bowl(*dense()), **values)
    steps(optimizer, model, 3)
    optimizer.freeze()
    twin, other = copied((model, optimizer))
    assert torch.equal(steps(other, twin, 5), steps(optimizer, model, 5))
    assert other.next_cost() == optimizer.next_cost()


def test_a_copy_of_a_frozen_optimizer_is_frozen() -> None:
    optimizer = optim_core.build("gd", model := Bowl(*dense()), smoothness=2.0, refresh_interval=1)
    steps(optimizer, model, 2)
    optimizer.freeze()
    assert copy.deepcopy(optimizer).next_cost() == 1
