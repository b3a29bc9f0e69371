"""The table that the simulations draw from: every configuration trained on every seed, once and for all.

`python -m tests.bench.null.train_values` writes values.parquet: 128 random configurations of sgd and of sam on 24 seeds
each, 6 144 runs on the digits task (64-128-10 network, 40 % of the training labels wrong, 200 gradient evaluations,
which is 200 steps of sgd and 100 of sam, momentum 0.9, cosine). Learning rate in [0.02, 1], weight decay in
[5e-4, 5e-2], radius of sam in [0.02, 0.5], all log-uniform: the ranges of sweeps/quickstart.yaml. Seeds decide wrong
labels, initial weights and order; the split of the task is fixed. `val` and `test` count the images of 270 that were
classified correctly; a run that diverges gets 0, the worst value. One core needs about a quarter of an hour.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import optim_core
from trainables.loop import Diverged, Training
from trainables.task_class import Model
from trainables.tasks.digits import VAL, Digits

VALUES = Path(__file__).with_name("values.parquet")
CONFIGURATIONS, SEEDS, BUDGET = 128, 24, 200.0
RANGES = {"lr": (0.02, 1.0), "weight_decay": (5e-4, 5e-2), "sam_radius": (0.02, 0.5)}
ARMS = {"sgd": ("lr", "weight_decay"), "sam": ("lr", "weight_decay", "sam_radius")}


def configurations(arm: str) -> list[dict[str, float]]:
    """Log-uniform draws, the same at every call."""
    rng = np.random.default_rng([2026, list(ARMS).index(arm)])
    return [
        {name: float(np.exp(rng.uniform(*np.log(RANGES[name])))) for name in ARMS[arm]} for _ in range(CONFIGURATIONS)
    ]


class Narrow(Digits):
    """Digits with one hidden layer of 128 units."""

    def model(self, seed: int) -> Model:
        """64-128-10, torch's default initialisation."""
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


@cache
def task_of(seed: int) -> Narrow:
    """One task for all runs of a seed, which keeps the seed's order and labels."""
    return Narrow(model="mlp", noise=0.4)


def trained(arm: str, configuration: dict[str, float], seed: int) -> dict[str, int]:
    """Validation and test images classified correctly at the end, of VAL each."""

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        return optim_core.build(arm, model, momentum=0.9, **configuration)

    training = Training(task_of(seed), build, budget=BUDGET, seed=seed, evaluations=1)
    try:
        while not training.finished:
            point = training.advance()
            assert point is not None
            if point.grad_evals >= BUDGET:
                return {name: round(point.metrics[f"accuracy/{name}"] * VAL) for name in ("val", "test")}
    except Diverged:
        pass
    return {"val": 0, "test": 0}


def rows(arm: str) -> Iterator[dict[str, Any]]:
    """One row for each run."""
    for number, configuration in enumerate(configurations(arm)):
        for seed in range(SEEDS):
            yield {"arm": arm, "configuration": number, "seed": seed, **trained(arm, configuration, seed)}


def main() -> None:
    """Train the arms named on the command line, or all, and write or replace their rows."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or list(ARMS)
    kept = pd.read_parquet(VALUES) if VALUES.exists() else pd.DataFrame()
    if len(kept):
        kept = kept[~kept["arm"].isin(wanted)]
    fresh = pd.DataFrame([row for arm in wanted for row in rows(arm)])
    small = {"configuration": "int16", "seed": "int8", "val": "int16", "test": "int16"}
    table = pd.concat([kept, fresh.astype(small)], ignore_index=True)
    table.to_parquet(VALUES, compression="zstd", index=False)
    print(table.groupby("arm")[["val", "test"]].describe().T.to_string())


if __name__ == "__main__":
    main()
