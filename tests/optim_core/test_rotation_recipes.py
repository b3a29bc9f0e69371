"""What rotations do to AdamW on problems whose answer is known (quadratics) or was measured (digits), rate tuned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import optim_core
import trainables
from optim_core.diagnostics import Subject, measure
from tests.closures import closure_of
from trainables.loop import Training

pytestmark = pytest.mark.slow

RATES = (0.03, 0.1, 0.3)


def trained(
    task: str, seed: int, steps: int, change: Callable[[Any], None] = lambda o: None, **values: Any
) -> Training:
    """A run to the end; `values` are hyperparameters of rotated_adamw and `curvature` of the task."""
    parameters = {"curvature": values.pop("curvature")} if "curvature" in values else {}
    settings = {"beta2": 0.95, "weight_decay": 0.0, "rotation_block": 64, "rotation_refresh": 25, **values}

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        optimizer = optim_core.build("rotated_adamw", model, **settings)
        change(optimizer)
        return optimizer

    run = Training(
        trainables.build(task, **parameters), build, budget=steps, seed=seed, evaluations=max(1, steps // 50)
    )
    while not run.finished:
        run.last = run.advance()  # type: ignore[attr-defined]
    return run


def best(kind: str, curvature: str, seed: int = 0) -> float:
    """Final / initial loss at the best rate."""
    runs = [
        trained("kronecker", seed, 300, curvature=curvature, rotation=kind, run_seed=1000 + seed, lr=lr) for lr in RATES
    ]
    return min(run.last.metrics["loss/relative"] for run in runs)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind, below, above", [("identity", 1e-10, 0.0), ("dense", 1.0, 1e-7)])
def test_diagonal_quadratic(kind: str, below: float, above: float) -> None:
    """d = 64, condition 1e4, 400 steps of cosine: a diagonal preconditioner needs the basis."""
    curvature = torch.logspace(0, -4, 64, dtype=torch.float64)

    def final(lr: float) -> float:
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(64, dtype=torch.float64))
        optimizer = optim_core.lookup("rotated_adamw")([("w", w)], rotation=kind, beta2=0.95, weight_decay=0.0)
        first = float(0.5 * (curvature * w.detach() ** 2).sum())
        closure = closure_of(optimizer, lambda: 0.5 * (curvature * w**2).sum())
        for t in range(400):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * t / 400))
            optimizer.step(closure)
        return float(closure().detach()) / first

    assert above <= min(final(lr) for lr in RATES) <= below


@pytest.mark.parametrize("mixed", [(), pytest.param(("input",), marks=pytest.mark.long)], ids=["two", "three"])
def test_row_scaled_quadratic(mixed: tuple[str, ...]) -> None:
    """Mixing entries of a row costs nothing; mixing columns, layers or everything costs decades, in this order."""
    found = {kind: best(kind, "rows") for kind in ("output", *mixed, "layer", "global")}
    assert found["output"] <= 1e-9
    assert min(value for kind, value in found.items() if kind != "output") >= 1e-6
    assert found["global"] >= 2 * found["layer"]


@pytest.mark.parametrize(
    "others",
    [("identity", "layer"), pytest.param(("output", "input", "global"), marks=pytest.mark.long)],
    ids=["two", "three"],
)
def test_hidden_basis_quadratic(others: tuple[str, ...]) -> None:
    """Singular vectors of the gradient, refreshed every 25 steps and moments carried, find the basis."""
    assert best("svd", "hidden") * 30 <= min(best(kind, "hidden") for kind in others)


def test_moving_m_alone_is_caught() -> None:
    """The planted error that configuration refuses: v left in the old basis while m moves."""

    def only_m(optimizer: Any) -> None:
        space = optimizer._spaces[0]
        moved = space.moved
        space.moved = lambda moments, squared: list(moments) if squared else moved(moments, squared=False)

    values = {"rotation": "svd", "rotation_transport": "mv", "rotation_refresh": 5, "lr": 0.3, "curvature": "hidden"}
    both = trained("kronecker", 0, 100, **values).last.metrics["loss/relative"]  # type: ignore[attr-defined]
    alone = trained("kronecker", 0, 100, change=only_m, **values).last.metrics["loss/relative"]  # type: ignore[attr-defined]
    assert both < 0.01 < 0.5 < alone


@pytest.mark.parametrize("seeds", [1, pytest.param(5, marks=pytest.mark.long)])
def test_digits(seeds: int) -> None:
    """Mean training loss of the last 50 of 300 steps, at the tuned rate.

    That output stays below 1.2 is a matter of these five seeds (see sweeps/RESULTS.md); the other lines hold for most.
    """
    means: dict[str, float] = {}
    variation: dict[str, float] = {}
    for kind in ("identity", "output", "layer", "global", "svd"):
        losses, cvs = [], []
        for seed in range(seeds):
            run = trained("digits_fit", seed, 300, rotation=kind, run_seed=seed, lr=0.04)
            losses.append(run.last.metrics["loss/train"])  # type: ignore[attr-defined]
            task = trainables.build("digits_fit")
            subject = Subject(
                model=run.model, loss=task.loss, batches=[task.refresh_batch(seed, 0)], optimizer=run.optimizer
            )
            cvs.append(measure(["update_orthogonality"], subject)["geometry/update_cv"])
        means[kind], variation[kind] = sum(losses) / seeds, sum(cvs) / seeds
    assert means["svd"] < 0.6 * means["identity"]
    assert means["output"] <= 1.2 * means["identity"] or seeds < 5
    assert min(means["layer"], means["global"]) >= 1.4 * means["identity"]
    assert variation["svd"] < variation["identity"]
