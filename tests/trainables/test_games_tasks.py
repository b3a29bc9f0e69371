"""Tasks that are games: their spectra, the rates they promise, the solution they measure against."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import optim_core
import trainables
from optim_core.games import classify, rates, recommend
from optim_core.games.field import differentiate, jacobian
from trainables.tasks.affine_games import SHAPES
from trainables.tasks.gan_ring import centres, energy_distance, ring
from trainables.tasks.logistic_game import solution

MU, L, REACH = 0.05, 1.0, 0.8
CLOSED = {
    "interval": rates.interval(MU, L),
    "disc": rates.disc(MU, L),
    "ellipse": rates.ellipse((L - MU) / 2, REACH, (L + MU) / 2),
    "vertical": rates.vertical(MU, REACH / 10, REACH),
    "imaginary": rates.bilinear(REACH / 10, REACH),
    "cross": rates.cross(MU, L, REACH),
    "half_disc": rates.half_disc(MU, L),
}


def dense(task: Any, seed: int = 0) -> Tensor:
    """J by automatic differentiation of the losses that the task hands to the optimizer."""
    players = task.model(seed)
    return jacobian(task.closure(players, task.batch(seed, 0), lambda: None)(), [list(p.parameters()) for p in players])


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_what_they_are_called(shape: str) -> None:
    """The Jacobian is normal, its eigenvalues have the shape, and the reference is the closed form of theory."""
    task = trainables.build("shape_game", shape=shape, mu=MU, L=L, reach=REACH, dimension=24)
    J = dense(task)
    assert torch.allclose(J @ J.T, J.T @ J, atol=1e-12)
    found = classify(torch.linalg.eigvals(J))
    assert found.kind == shape
    reference = task.evaluate(task.model(0))["rate/reference"]
    assert reference == pytest.approx(CLOSED[shape].per_evaluation, rel=1e-12)
    assert recommend(found).per_evaluation <= reference + 1e-7  # double roots: the root of rounding


@pytest.mark.parametrize("law", ["linear", "log", "edges"])
def test_bilinear_games_have_the_singular_values_asked_for(law: str) -> None:
    task = trainables.build("bilinear", rows=4, columns=7, smallest=0.2, largest=2.0, law=law)
    J = dense(task, seed=3)
    s = torch.linalg.svdvals(J[:4, 4:])
    assert (float(s.min()), float(s.max())) == pytest.approx((0.2, 2.0))
    assert torch.equal(J, -J.T)
    assert int(torch.linalg.matrix_rank(J)) == 8
    assert task.evaluate(task.model(3))["rate/reference"] == pytest.approx(rates.bilinear(0.2, 2.0).per_evaluation)


@pytest.mark.parametrize("normal", [True, False])
def test_quadratic_games_have_the_curvatures_asked_for(normal: bool) -> None:
    task = trainables.build("quadratic_game", dimension=6, normal=normal, own_min=0.1, own_max=0.4)
    J = dense(task)
    own, coupling = torch.linalg.eigvalsh(J[:6, :6]), torch.linalg.svdvals(J[:6, 6:])
    assert (float(own[0]), float(own[-1])) == pytest.approx((0.1, 0.4))
    assert (float(coupling[-1]), float(coupling[0])) == pytest.approx((0.1, 1.0))
    assert torch.allclose(J @ J.T, J.T @ J, atol=1e-12) == normal
    s = torch.linalg.svdvals(J)
    promised = rates.hamiltonian(float(s[-1]), float(s[0])).per_evaluation
    assert task.evaluate(task.model(0))["rate/reference"] == pytest.approx(promised)


@pytest.mark.parametrize("name", ["bilinear", "quadratic_game", "shape_game"])
def test_the_residual_is_that_of_the_losses(name: str) -> None:
    task = trainables.build(name)
    players = task.model(2)
    params = [list(p.parameters()) for p in players]

    def norm() -> float:
        field, _ = differentiate(task.closure(players, (), lambda: None)(), params)
        return float(torch.cat([v for vs in field for v in vs]).norm())

    start = norm()
    assert task.evaluate(players)["residual/log10"] == pytest.approx(0.0, abs=1e-12)
    optimizer = optim_core.build("hamiltonian", players, lr=0.5)  # type: ignore[arg-type]
    for _ in range(5):
        optimizer.step(task.closure(players, (), lambda: None))
    assert task.evaluate(players)["residual/log10"] == pytest.approx(math.log10(norm() / start), abs=1e-9)
    with torch.no_grad():
        next(players[0].parameters()).fill_(float("nan"))
    assert task.evaluate(players)["residual/log10"] == 10.0


@pytest.mark.slow
def test_the_logistic_solution_is_where_extragradient_ends() -> None:
    task = trainables.build("logistic_game")
    players = task.model(0)
    optimizer = optim_core.build("extragradient", players, lr=0.8)  # type: ignore[arg-type]
    began = task.evaluate(players)
    assert began["distance/log10"] == pytest.approx(0.0, abs=1e-12)
    for index in range(700):
        optimizer.step(task.closure(players, task.batch(0, index), lambda: None))
    found = task.evaluate(players)
    assert found["distance/log10"] < -6
    assert found["field/log10"] < -6
    assert float(solution(0.1, 0.2)[1].norm()) > 0.05


def test_logistic_batches_are_parts_of_the_data() -> None:
    task = trainables.build("logistic_game", batch_size=32)
    x, y = task.batch(0, 4)
    assert x.shape == (32, 30)
    assert set(y.tolist()) <= {-1.0, 1.0}
    assert not torch.equal(x, task.batch(0, 5)[0])


def test_the_energy_distance_tells_samples_apart() -> None:
    """Against the definition by loops, and zero in the mean between samples of one law."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 2, generator=g), torch.randn(5, 2, generator=g) + 1

    def mean(a: Tensor, b: Tensor, same: bool) -> float:
        found = [float((p - q).norm()) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return sum(found) / len(found)

    expected = 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)
    assert energy_distance(x, y) == pytest.approx(expected, abs=1e-5)
    same = energy_distance(ring(8, 0.02, 600, g), ring(8, 0.02, 600, g))
    other = energy_distance(ring(8, 0.02, 600, g), ring(4, 0.02, 600, g))
    assert abs(same) < 0.02 < other


def test_a_perfect_generator_scores_at_the_floor() -> None:
    task = trainables.build("gan_ring", width=8)
    players = task.model(0)

    class Perfect(torch.nn.Module):
        """Maps the latent variables onto the ring; its one weight moves it all aside."""

        def __init__(self) -> None:
            super().__init__()
            self.aside = torch.nn.Parameter(torch.zeros(2))

        def forward(self, latent: Tensor) -> Tensor:
            corner = (latent[:, 0].abs() * 1e4).long() % 8
            return centres(8)[corner] + 0.02 * latent[:, 1:3] + self.aside

    perfect = Perfect()
    scores = task.evaluate([perfect, players[1]])
    assert scores["modes/covered"] == 8
    assert scores["quality/share"] == pytest.approx(1 - math.exp(-4.5), abs=0.01)
    assert abs(scores["energy/val"]) < 0.02
    assert abs(scores["energy/floor"]) < 0.02
    with torch.no_grad():
        perfect.aside.fill_(1.0)
    moved = task.evaluate([perfect, players[1]])
    assert (moved["modes/covered"], moved["quality/share"]) == (0, 0)
    assert moved["energy/val"] > 0.2


@pytest.mark.parametrize(
    "name, values",
    [
        ("bilinear", {"smallest": 0.0}),
        ("bilinear", {"smallest": 2.0}),
        ("bilinear", {"law": "cubic"}),
        ("bilinear", {"rows": 0}),
        ("quadratic_game", {"own_min": -1.0}),
        ("quadratic_game", {"coupling_min": 3.0}),
        ("shape_game", {"shape": "banana"}),
        ("shape_game", {"mu": 0.0}),
        ("shape_game", {"dimension": 2}),
        ("logistic_game", {"ridge": 0.0}),
        ("logistic_game", {"batch_size": 600}),
        ("gan_ring", {"modes": 1}),
        ("gan_ring", {"spread": 0.0}),
    ],
)
def test_bad_parameters_are_refused(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        trainables.build(name, **values)
