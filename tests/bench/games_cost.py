"""What a step of each method for games costs, in steps of `gda`: the medians of interleaved rounds, CPU time.

Run with `python -m tests.bench.games_cost`; the committed output is tests/bench/results/games_cost.txt. The charge is
what the optimizers count against a budget (`optim_core.games.rates.COSTS`).
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

import optim_core
import trainables
from optim_core.games.rates import COSTS

ROUNDS, LIMITS = 40, {"extragradient": 2.05, "consensus": 3.4}


def contenders(task: Any) -> dict[str, tuple[Any, Any]]:
    """Method -> optimizer and closure, each on players of its own."""
    found = {}
    for name in COSTS:
        players = task.model(0)
        closure = task.closure(players, task.batch(0, 0), lambda: None)
        found[name] = optim_core.build(name, players, lr=1e-4, momentum=0.1), closure
    return found


def ratios(task: Any, steps: int) -> dict[str, float]:
    """CPU time of a step over that of gda in the same round; the median over the rounds."""
    runs = contenders(task)
    rounds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        spent = {}
        for name, (optimizer, closure) in runs.items():
            began = time.process_time()
            for _ in range(steps):
                optimizer.step(closure)
            spent[name] = time.process_time() - began
        for name, seconds in spent.items():
            rounds[name].append(seconds / spent["gda"])
    return {name: statistics.median(values[ROUNDS // 8 :]) for name, values in rounds.items()}


def product_ratio(task: Any) -> float:
    """A product J u or J'u, in evaluations of the field."""
    from optim_core.games import spectrum
    from optim_core.games.field import differentiate

    players = task.model(0)
    params = [list(p.parameters()) for p in players]
    closure = task.closure(players, task.batch(0, 0), lambda: None)
    transpose, forward = spectrum.products(closure(), params)
    u = torch.ones(sum(p.numel() for ps in params for p in ps), dtype=torch.float64)
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        differentiate(closure(), params)
        middle = time.process_time()
        transpose(u)
        forward(u)
        found.append((time.process_time() - middle) / 2 / (middle - began))
    return statistics.median(found)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    tasks = {
        "gan_ring, 2 x 128 tanh, batch 256": (trainables.build("gan_ring"), 6),
        "gan_ring, 2 x 512 tanh, batch 256": (trainables.build("gan_ring", width=512), 1),
        "bilinear 20 x 20 (overhead of Python)": (trainables.build("bilinear"), 30),
    }
    for name, (task, steps) in tasks.items():
        found = ratios(task, steps)
        print(name)
        for method, ratio in found.items():
            limit = f"  (at most {LIMITS[method]})" if method in LIMITS else ""
            print(f"  {method:18} {ratio:5.2f}   charged {COSTS[method]:.0f}{limit}")
        print(f"  {'product with J':18} {product_ratio(task):5.2f}   charged 2")


if __name__ == "__main__":
    main()
