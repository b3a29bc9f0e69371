"""Average-case methods and methods for games, step by step, beside their authors' code (tests/golden/agreement)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.closures import closure_of
from tests.golden.agreement.quadratics.problem import CENTRE, GAME_START, A, losses, read
from tests.optim_core.spectral_problems import Bowl, D

AVERAGE_CASE = read("average_case")["cases"]
GAMES = [(source, name) for source in ("games", "games_gan") for name in read(source)["cases"]]


def check(points: list[Tensor], case: dict[str, Any], tolerance: float = 1e-12) -> None:
    """Every point that the authors' code has been through, to rounding on the scale of the first step."""
    for number, expected in case["points"].items():
        gap = points[int(number) - 1] - torch.tensor(expected, dtype=D)
        assert float(gap.abs().max()) < tolerance, f"step {number}"


def run(optimizer: Any, closure: Any, params: list[nn.Parameter]) -> list[Tensor]:
    points = []
    for _ in range(60):
        optimizer.step(closure)
        points.append(torch.cat([p.detach().clone() for p in params]))
    return points


@pytest.mark.parametrize("case", [name for name in AVERAGE_CASE if name != "polyak"])
def test_average_case_methods(case: str) -> None:
    """Conjugate gradients to 1e-9: H d is a difference of two gradients here, a product there."""
    model = Bowl(A, torch.zeros(6, dtype=D), CENTRE)
    optimizer = optim_core.build(case.split()[0], model, **AVERAGE_CASE[case]["arguments"])
    points = run(optimizer, closure_of(optimizer, model), [model.x])
    check(points, AVERAGE_CASE[case], 1e-9 if case == "conjugate_gradient" else 1e-12)


def test_polyak_but_for_its_momentum_and_its_first_step() -> None:
    """Theirs has momentum rho, which converges slower than Polyak's rho^2, and begins with a full step.

    As `gda` of one player does. Ours is that with rho^2 and the short first step.
    """
    values = AVERAGE_CASE["polyak"]["arguments"]
    model = Bowl(A, torch.zeros(6, dtype=D), CENTRE)
    ours = optim_core.build("polyak", model, **values)
    h, m, _ = ours.schedule(ours.param_groups[0])(1, 0.0)
    found = []
    for momentum, short in ((m**0.5, False), (m, True)):
        twin = Bowl(A, torch.zeros(6, dtype=D), CENTRE)
        optimizer = optim_core.games.GDA([[twin.x]], lr=h, momentum=momentum, short_first_step=short)
        found.append(run(optimizer, lambda twin=twin: [twin()], [twin.x]))
    check(found[0], AVERAGE_CASE["polyak"])
    points = run(ours, closure_of(ours, model), [model.x])
    assert all(float((a - b).abs().max()) < 1e-12 for a, b in zip(points, found[1], strict=True))
    assert float((points[-1] - CENTRE).norm()) < 1e-3 * float((found[0][-1] - CENTRE).norm())


@pytest.mark.parametrize("source, name", GAMES)
def test_methods_for_games(source: str, name: str) -> None:
    """The authors' optimistic method begins with a field of 0 before the start, hence with a step of 2 lr."""
    case = read(source)["cases"][name]
    x, y = (nn.Parameter(part.clone()) for part in (GAME_START[:3], GAME_START[3:]))
    optimizer = optim_core.lookup(name)([[x], [y]], **case["arguments"])  # type: ignore[arg-type]
    if name == "optimistic":
        for p in (x, y):
            optimizer.state[p]["previous_field"] = torch.zeros_like(p)
    check(run(optimizer, lambda: losses(x, y), [x, y]), case)
