"""Write the reference values of average-case methods and of methods for games with the authors' code:

    python -m tests.golden.agreement.quadratics.make average_case CHECKOUT

CHECKOUT is a clone of the repository that SOURCES names. Each file names it, the commit and the arguments.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.golden.agreement.quadratics.problem import CENTRE, FOLDER, GAME_START, RECORDED, A, losses

SOURCES = {
    "average_case": "github.com/leonardocunha2107/Average-Case",
    "games": "github.com/hugobb/StochasticGamesOpt",
    "games_gan": "github.com/GauthierGidel/Variational-Inequality-GAN",
}
Case = dict[str, Any]


class Quadratic:
    """What the authors' functions ask of f, in numpy."""

    def __init__(self) -> None:
        self.A, self.centre = A.numpy(), CENTRE.numpy()[:, None]
        self.x0 = 0 * self.centre
        edges = torch.linalg.eigvalsh(A)
        self.l, self.L = float(edges[0]), float(edges[-1])

    def __call__(self, x: Any) -> Any:
        """The value."""
        return (x - self.centre).T @ self.A @ (x - self.centre) / 2

    def grad(self, x: Any) -> Any:
        """The gradient."""
        return self.A @ (x - self.centre)


def average_case() -> dict[str, Case]:
    """Points, all from 0."""
    optim, f = importlib.import_module("optim"), Quadratic()
    edges = {"smoothness": f.L}
    runs: dict[str, tuple[Case, Callable[[int], Any]]] = {
        "gd": (edges, lambda n: optim.gd(f, niter=n)),
        "nesterov": (edges, lambda n: optim.nesterov(f, niter=n, L=f.L)),
        "polyak": ({**edges, "strong_convexity": f.l}, lambda n: optim.polyak(f, niter=n)),
        "conjugate_gradient": ({}, lambda n: optim.cg(f, niter=n)),
    }
    for alpha, beta in ((0.5, 2.5), (0.5, 1.5), (-0.5, 0.75), (0.0, 2.0), (1.25, 3.0)):

        def jacobi(n: int, alpha: float = alpha, beta: float = beta) -> Any:
            return optim.jacobi_momentum(f, alpha=alpha, beta=beta, niter=n)

        runs[f"generalized_chebyshev {alpha} {beta}"] = {**edges, "alpha": alpha, "beta": beta}, jacobi
    return {
        name: {"arguments": values, "points": {str(n): [float(x) for x in run(n)[1].ravel()] for n in RECORDED}}
        for name, (values, run) in runs.items()
    }


def games() -> dict[str, Case]:
    """Points of the game, all from the same start; full batches, which the game here has only."""
    algorithms = importlib.import_module("hamiltonian.algorithms")
    base = importlib.import_module("hamiltonian.games.game")
    schedulers = importlib.import_module("hamiltonian.algorithms.lr_scheduler")
    samplers = importlib.import_module("hamiltonian.games.sampler")

    class Players(base.Game):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            parts = (GAME_START[:3].clone(), GAME_START[3:].clone())
            self.players = nn.ModuleList(nn.ParameterList([nn.Parameter(part)]) for part in parts)
            self.sampler = samplers.Sampler(1)

        def loss(self, x: Any = None) -> list[Tensor]:
            return losses(self.players[0][0], self.players[1][0])

        def init(self, seed: int = 0) -> None:
            pass

    class Rate(float, schedulers.LRScheduler):  # type: ignore[misc, name-defined]
        """A step size that the authors' SGD can negate, which their own wrapper cannot be."""

        def __init__(self, value: float) -> None:
            pass

    def follow(make: Callable[[Any], Any]) -> dict[str, list[float]]:
        game, found = Players(), {}
        algorithm = make(game)
        for number in range(1, max(RECORDED) + 1):
            algorithm.update()
            if number in RECORDED:
                found[str(number)] = torch.cat([p[0].detach() for p in game.players]).tolist()
        return found

    sgd, ahead, consensus = algorithms.SGD, algorithms.Extragradient, algorithms.ConsensusOptimization
    wrap, rate = base.HamiltonianWrapper, Rate
    return {
        "gda": {
            "arguments": {"lr": 0.05},
            "points": follow(lambda g: sgd(g, full_batch=True, lr=rate(0.05))),
        },
        "alternating_gda": {
            "arguments": {"lr": 0.05},
            "points": follow(lambda g: sgd(g, full_batch=True, lr=rate(0.05), alternated=True)),
        },
        "extragradient": {
            "arguments": {"lr": 0.1, "extrapolation": 0.25},
            "points": follow(lambda g: ahead(g, lr_e=0.25, full_batch=True, lr=rate(0.1))),
        },
        "hamiltonian": {
            "arguments": {"lr": 0.1},
            "points": follow(lambda g: sgd(wrap(g), full_batch=True, lr=rate(0.1))),
        },
        "consensus": {
            "arguments": {"lr": 0.1, "consensus": 0.5},
            "points": follow(lambda g: consensus(g, lr_H=0.05, full_batch=True, lr=0.1)),
        },
    }


def games_gan() -> dict[str, Case]:
    """Points of the game under the optimizers that the authors trained GANs with."""
    extragradient, omd = (importlib.import_module(name) for name in ("extragradient", "omd"))

    def follow(make: Callable[[list[Tensor]], Any], advance: Callable[[Any, Callable[[], None]], None]) -> Any:
        parts, found = [nn.Parameter(GAME_START[:3].clone()), nn.Parameter(GAME_START[3:].clone())], {}
        optimizer = make(parts)  # type: ignore[arg-type]

        def differentiate() -> None:
            for i, p in enumerate(parts):
                p.grad = torch.autograd.grad(losses(*parts)[i], p)[0]

        for number in range(1, max(RECORDED) + 1):
            advance(optimizer, differentiate)
            if number in RECORDED:
                found[str(number)] = torch.cat([p.detach() for p in parts]).tolist()
        return found

    def twice(optimizer: Any, differentiate: Callable[[], None]) -> None:
        differentiate()
        optimizer.extrapolation()
        differentiate()
        optimizer.step()

    def once(optimizer: Any, differentiate: Callable[[], None]) -> None:
        differentiate()
        optimizer.step()

    values = {"lr": 0.15}
    return {
        "extragradient": {
            "arguments": values,
            "points": follow(lambda ps: extragradient.ExtraSGD(ps, **values), twice),
        },
        "optimistic": {"arguments": values, "points": follow(lambda ps: omd.OMD(ps, **values), once)},
    }


def main() -> None:
    """Write one file."""
    name, checkout = sys.argv[1], Path(sys.argv[2])
    sys.path[:0] = [str(checkout), str(checkout / "optim")]
    commit, date = subprocess.run(
        ["git", "log", "-1", "--format=%H %cs"], cwd=checkout, check=True, capture_output=True, text=True
    ).stdout.split()
    cases = {"average_case": average_case, "games": games, "games_gan": games_gan}[name]()
    found = {"repository": SOURCES[name], "commit": commit, "date": date, "torch": torch.__version__, "cases": cases}
    (FOLDER / f"{name}.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
