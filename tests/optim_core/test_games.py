"""The optimizers for games against dense matrices, their theory, and what they refuse."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.games import DivergenceWarning, maps, rates, updates
from optim_core.games.field import differentiate
from tests.optim_core.games_reference import F64, Game, bilinear, iterate, play, quadratic

METHODS: dict[str, dict[str, float]] = {
    "gda": {"lr": 0.3},
    "alternating_gda": {"lr": 0.4},
    "extragradient": {"lr": 0.4, "extrapolation": 0.7},
    "optimistic": {"lr": 0.2},
    "bilinear_optimal": {"lr": 0.5},
    "hamiltonian": {"lr": 0.8},
    "consensus": {"lr": 0.3, "consensus": 0.9},
}


def random_game(seed: int = 3) -> Game:
    """Strongly monotone, far from normal, with an offset; players of 4 and 6 variables."""
    g = torch.Generator().manual_seed(seed)
    J = 0.4 * torch.randn(10, 10, generator=g, dtype=F64)
    J[:4, :4], J[4:, 4:] = J[:4, :4] + J[:4, :4].T, J[4:, 4:] + J[4:, 4:].T
    J += (0.2 - float(torch.linalg.eigvalsh((J + J.T) / 2).min())) * torch.eye(10, dtype=F64)
    J /= torch.linalg.matrix_norm(J, 2)
    return Game(J, 4, b=torch.randn(10, generator=g, dtype=F64))


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [-0.4, 0.0, 0.5])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore::optim_core.games.DivergenceWarning")
def test_fifty_steps_equal_the_explicit_matrix(name: str, momentum: float) -> None:
    """G9: against the definition iterated with dense matrices, and against the 50th power of the error's map."""
    game = random_game()
    values = {**METHODS[name], "momentum": momentum}
    expected = iterate(name, game.J, 4, game.b, game.start, 50, **values)
    points = game.run(play(name, game, **values), 50)
    scale = float(expected.abs().max())
    assert float((points - expected).abs().max()) <= 1e-9 * scale
    solution = torch.linalg.solve(game.J, game.b)
    power = torch.linalg.matrix_power(maps.linear_map(name, game.J, game.sizes, **values), 50)
    error = power @ torch.cat([game.start - solution] * 2)
    assert float((points[-1] - solution - error[:10]).abs().max()) <= 1e-9 * scale


def test_each_player_has_its_own_settings() -> None:
    game = random_game()
    x, y = game.players
    optimizer = optim_core.games.GDA(
        [{"params": x, "lr": 0.1}, {"params": list(y.parameters()), "momentum": 0.5}], lr=0.3
    )
    game.run(optimizer, 20)
    rows = torch.tensor([0.0] * 4 + [1.0] * 6, dtype=F64)
    map_ = maps.linear_map("gda", game.J, game.sizes, lr=0.1 + 0.2 * rows, momentum=0.5 * rows)
    solution = torch.linalg.solve(game.J, game.b)
    error = torch.linalg.matrix_power(map_, 20) @ torch.cat([game.start - solution] * 2)
    assert torch.allclose(game.point() - solution, error[:10], atol=1e-12)


@pytest.mark.slow
def test_gradient_descent_diverges_and_alternation_cycles_on_bilinear_games() -> None:
    """G1, dynamics."""
    game = Game(bilinear(), 20)
    norms = game.run(play("gda", game, lr=0.1), 100).norm(dim=1)
    assert bool((norms[1:] > norms[:-1]).all())
    game = Game(bilinear(), 20)
    norms = game.run(play("alternating_gda", game, lr=1.0), 500).norm(dim=1)
    assert float(norms.max() / norms[0]) < 3
    assert float(norms[-100:].max() / norms[0]) > 0.3


@pytest.mark.slow
def test_extragradient_converges_on_bilinear_games() -> None:
    game = Game(bilinear(), 20)
    choice = rates.bilinear_extragradient(0.1, 1.0)
    norms = game.run(play("extragradient", game, **choice.hyperparameters()), 2000).norm(dim=1)
    assert float(norms[-1] / norms[0]) < 1e-3


@pytest.mark.slow
def test_the_optimal_method_is_hamiltonian_descent_on_bilinear_games() -> None:
    """G2: the rate over 400 steps, and the same points for every push gamma."""
    choice = rates.bilinear(0.1, 1.0)
    values = {"lr": choice.lr, "momentum": choice.momentum}
    hamiltonian = Game(bilinear(), 20)
    points = hamiltonian.run(play("hamiltonian", hamiltonian, **values), 400)
    assert float(points[-1].norm() / points[0].norm()) ** (1 / 400) < 0.83
    for gamma in (1.0, 0.1, None):
        game = Game(bilinear(), 20)
        ahead = game.run(play("bilinear_optimal", game, extrapolation=gamma, **values), 400)
        assert float((ahead - points).abs().max()) < 1e-10
        assert float(ahead[-1].norm() / ahead[0].norm()) ** (1 / 400) < 0.83


def test_chebyshev_coefficients_keep_their_promise_at_every_step() -> None:
    """G2: time-varying coefficients through the optimizer's own parameter groups."""
    game, rate = Game(bilinear(), 20), rates.bilinear(0.1, 1.0).rate
    optimizer = play("hamiltonian", game, lr=0.1)
    start = float(game.point().norm())
    for k, (lr, momentum) in enumerate(itertools.islice(rates.chebyshev(0.01, 1.0), 60), 1):
        for group in optimizer.param_groups:
            group.update(lr=lr, momentum=momentum if k > 1 else 1e-300)  # the displacement is kept from the first step
        optimizer.step(game.losses)
        assert float(game.point().norm()) / start <= 2 * rate**k / (1 + rate ** (2 * k)) * (1 + 1e-9)


@pytest.mark.slow
def test_outside_its_shape_a_method_warns_and_hamiltonian_converges() -> None:
    """G8: on J = I bilinear_optimal climbs; weights stay finite to the end, and the warning comes once."""
    game = Game(torch.eye(6, dtype=F64), 3)
    optimizer = play("bilinear_optimal", game, lr=1.0, momentum=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        points = game.run(optimizer, 600)
    messages = [str(w.message) for w in caught if issubclass(w.category, DivergenceWarning)]
    assert len(messages) == 2
    assert "bilinear_optimal diverges" in messages[0]
    assert "not finite" in messages[1]
    assert optimizer.skipped_steps > 0
    assert bool(torch.isfinite(points).all())
    game = Game(torch.eye(6, dtype=F64), 3)
    choice = rates.hamiltonian(1.0, 1.0)
    assert float(game.run(play("hamiltonian", game, lr=0.9 * choice.lr), 100)[-1].norm()) < 1e-12


def test_the_pull_is_the_gradient_of_half_the_squared_field() -> None:
    """G10: a tanh network against one who shifts its inputs, by central differences."""
    torch.manual_seed(5)
    players = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(F64), nn.Linear(3, 3).to(F64)]
    x = torch.randn(8, 3, dtype=F64)
    params = [list(p.parameters()) for p in players]

    def losses() -> list[Tensor]:
        shift = players[1](x)
        fit = (players[0](x + shift) - x[:, :1]).pow(2).mean()
        return [fit, shift.pow(2).mean() - fit]

    _, pulled = differentiate(losses(), params, twice=True)

    @torch.enable_grad()
    def energy() -> float:
        return float(sum((v**2).sum() for vs in differentiate(losses(), params)[0] for v in vs)) / 2

    found, expected, h = [], [], 1e-5
    for p, j in zip(itertools.chain(*params), itertools.chain(*pulled), strict=True):
        for i in range(p.numel()):
            with torch.no_grad():
                p.view(-1)[i] += h
                up = energy()
                p.view(-1)[i] -= 2 * h
                down = energy()
                p.view(-1)[i] += h
            expected.append((up - down) / (2 * h))
            found.append(float(j.flatten()[i]))
    a, b = torch.tensor(found), torch.tensor(expected)
    assert float((a - b).norm() / b.norm()) < 1e-6


@pytest.mark.parametrize("players", [1, 3])
def test_any_number_of_players(players: int) -> None:
    """One player: minimisation, where gda is SGD; three in a rock-paper-scissors coupling: hamiltonian settles."""
    parts = [nn.Parameter(torch.full((2,), float(i + 1), dtype=F64)) for i in range(players)]

    def losses() -> list[Tensor]:
        return [
            p @ (p / 2 + (parts[(i + 1) % players].detach() if players == 1 else parts[(i + 1) % players]))
            for i, p in enumerate(parts)
        ]

    optimizer = optim_core.games.Hamiltonian([[p] for p in parts], lr=0.3)
    alternating = optim_core.games.AlternatingGDA([[p] for p in parts], lr=0.1)
    for _ in range(60):
        optimizer.step(losses)
    assert all(float(p.detach().norm()) < 0.1 for p in parts)
    alternating.step(losses)
    assert alternating.grad_evals == players


def test_one_player_is_gradient_descent_with_momentum() -> None:
    torch.manual_seed(0)
    model, twin = nn.Linear(3, 1).to(F64), nn.Linear(3, 1).to(F64)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(8, 3, dtype=F64)
    ours = optim_core.games.GDA([model], lr=0.1, momentum=0.6)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.6)
    for _ in range(20):
        ours.step(lambda: [(model(x) ** 2).mean()])
        theirs.zero_grad()
        (twin(x) ** 2).mean().backward()
        theirs.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_plays_on_with_momentum(copied: Any) -> None:
    game = random_game()
    optimizer = play("extragradient", game, momentum=0.3, lr=0.4)
    game.run(optimizer, 3)
    twin, other = copied((game, optimizer))
    assert torch.equal(twin.run(other, 5), game.run(optimizer, 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gda", "consensus", "tuned_game"])
def test_gradients_stay_as_found(name: str) -> None:
    game = random_game()
    game.players[0].at.grad = torch.full((4,), 7.0, dtype=F64)
    play(name, game, lr=0.1).step(game.losses)
    assert game.players[0].at.grad.tolist() == [7.0] * 4
    assert game.players[1].at.grad is None


@pytest.mark.parametrize("name", ["extragradient", "alternating_gda"])
def test_an_error_in_the_second_call_leaves_no_half_step(name: str) -> None:
    game, calls = random_game(), []

    def losses() -> list[Tensor]:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("second call")
        return game.losses()

    optimizer = play(name, game, lr=0.1)
    with pytest.raises(OSError, match="second call"):
        optimizer.step(losses)
    if name == "extragradient":
        assert torch.equal(game.point(), game.start)
    assert bool(torch.isfinite(game.point()).all())


def test_closures_that_break_the_contract_are_refused_before_anything_moves() -> None:
    game = random_game()

    def backward() -> list[Tensor]:
        losses = game.losses()
        losses[0].backward(retain_graph=True)
        return losses

    def detached() -> list[Tensor]:
        return [x.detach() for x in game.losses()]

    optimizer = play("extragradient", game)
    for closure, words in (
        (lambda: game.losses()[0], "one loss for 2 players"),
        (lambda: game.losses()[:1], "1 losses for 2 players"),
        (backward, "called backward"),
        (detached, "not a scalar with a graph"),
        (lambda: [game.players[0].at, game.players[1].at], "not a scalar with a graph"),
    ):
        with pytest.raises(RuntimeError, match=words):
            optimizer.step(closure)
        assert torch.equal(game.point(), game.start)
        assert game.players[0].at.grad is None


def test_players_that_are_none_are_refused() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    two.weight = one.weight
    for players, kind, words in (
        (one, TypeError, "list with one module per player"),
        ([one, two], ValueError, r"players 0 and 1 share a parameter of shape \(2, 2\)"),
        (list(one.parameters()), TypeError, "module or a list of parameters"),
        ([one, nn.Tanh()], ValueError, "player 1 has no parameter"),
    ):
        with pytest.raises(kind, match=words):
            optim_core.build("gda", players)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs an optimizer for games"):
        optim_core.build("sgd", [one, nn.Linear(2, 2)])


@pytest.mark.parametrize(
    "name, values, words",
    [
        ("gda", {"lr": -0.1}, "lr is -0.1"),
        ("gda", {"lr": float("nan")}, "lr is nan"),
        ("gda", {"momentum": 1.0}, "momentum is 1.0"),
        ("optimistic", {"momentum": -1.5}, "momentum is -1.5"),
        ("extragradient", {"extrapolation": 0.0}, "extrapolation is 0.0"),
        ("bilinear_optimal", {"extrapolation": -1.0}, "extrapolation is -1.0"),
        ("consensus", {"consensus": -2.0}, "consensus is -2.0"),
        ("tuned_game", {"probes": 0}, "probes is 0"),
    ],
)
def test_bad_values_are_refused(name: str, values: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        play(name, random_game(), **values)


@pytest.mark.slow
def test_restart_drops_the_momentum_when_the_field_grows() -> None:
    """Momentum that diverges by itself is tamed; without restart it is not."""

    def final(restart: bool) -> float:
        game = Game(torch.eye(4, dtype=F64) * 0.1 + bilinear(2, 0.9, 1.0), 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DivergenceWarning)
            points = game.run(play("gda", game, lr=0.06, momentum=0.95, restart=restart), 400)
        return float(points[-1].norm() / points[0].norm())

    assert final(True) < 0.1 * final(False)


def test_measured_rates_agree_with_theory() -> None:
    """The trace of |v| that diagnostics read, on a game with a simple leading root."""
    game = Game(quadratic((0.01, 0.01), (0.1, 1.0)), 15)
    singular = torch.linalg.svdvals(game.J)
    choice = rates.hamiltonian(float(singular[-1]), float(singular[0]), momentum=False)
    optimizer = play("hamiltonian", game, lr=choice.lr)
    game.run(optimizer, 300)
    assert optimizer.trace.rate() == pytest.approx(choice.per_evaluation, abs=1e-4)


@pytest.mark.slow
def test_tuned_game_finds_the_optimal_method_and_its_rate() -> None:
    game = Game(bilinear(), 20)
    optimizer = play("tuned_game", game)
    with pytest.raises(RuntimeError, match="raise the budget"):
        optimizer.freeze()
    game.run(optimizer, 100)
    assert (optimizer.shape, optimizer.method) == ("imaginary", "bilinear_optimal")
    assert optimizer.predicted_rate == pytest.approx(9 / 11, abs=1e-7)  # a double root: the root of rounding
    assert optimizer.grad_evals == 1 + 2 * 40 + 2 * 100
    assert float(game.point().norm()) / float(game.start.norm()) < 1e-5
    optimizer.freeze()


def test_tuned_game_refuses_a_game_without_curvature() -> None:
    parts = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    optimizer = optim_core.build("tuned_game", [[p] for p in parts])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="Jacobian of this game is 0"):
        optimizer.step(lambda: [p.sum() for p in parts])


def test_update_rules_as_written() -> None:
    a, b = [torch.tensor([1.0, 2.0])], [torch.tensor([0.5, -1.0])]
    assert updates.optimistic(a, b)[0].tolist() == [1.5, 5.0]
    assert updates.bilinear(b, a, 0.5)[0].tolist() == [-1.0, -6.0]
    assert updates.bilinear(a, a, math.inf)[0].tolist() == [0.0, 0.0]
    assert updates.consensus(a, b, 2.0)[0].tolist() == [2.0, 0.0]
    w, d = [torch.zeros(2)], [torch.ones(2)]
    updates.step(w, a, d, 0.1, -0.5)
    torch.testing.assert_close(w[0], torch.tensor([-0.6, -0.7]))
