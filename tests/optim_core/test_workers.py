"""SAM on two processes (gloo, CPU): whose gradient climbs, and a step that is skipped by all or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.contracts.optimizer_contract import problem
from tests.optim_core import worker
from tests.optim_core.worker import STEPS, VALUES, closure
from tests.orchestrator.command import together

pytestmark = pytest.mark.slow

WORLD = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    together(Path(worker.__file__), folder, WORLD)
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(WORLD)]


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=1e-12, atol=1e-13) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["sam", "asam", "friendly_sam"])
def test_synchronized_is_one_process_with_the_whole_batch(found: list[dict[str, Any]], name: str) -> None:
    model, batch = problem()
    optimizer = optim_core.build(name, model, **VALUES)
    for index in range(STEPS):
        optimizer.step(closure(model, *batch(index), optimizer))
    for rank in range(WORLD):
        assert close(found[rank][f"{name}/synchronised"], list(model.parameters()))
        assert not close(found[rank][f"{name}/synchronised"], found[rank][f"{name}/independent"])


def test_independent_averages_gradients_that_each_worker_took_at_a_point_of_its_own(
    found: list[dict[str, Any]],
) -> None:
    """m-sharpness by hand: for each half of the batch its own ascent, then one step along the mean gradient."""
    model, batch = problem()
    weights = list(model.parameters())
    velocity = [torch.zeros_like(w) for w in weights]

    def gradient(x: Tensor, y: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights))

    for index in range(STEPS):
        halves = [list(t.chunk(WORLD)) for t in batch(index)]
        home, seconds = [w.detach().clone() for w in weights], []
        for x, y in zip(*halves, strict=True):
            first = gradient(x, y)
            norm = torch.sqrt(sum((g**2).sum() for g in first))
            with torch.no_grad():
                for w, h, g in zip(weights, home, first, strict=True):
                    w.copy_(h + VALUES["sam_radius"] * g / norm)
            seconds.append(gradient(x, y))
            with torch.no_grad():
                for w, h in zip(weights, home, strict=True):
                    w.copy_(h)
        with torch.no_grad():
            for w, v, *gs in zip(weights, velocity, *seconds, strict=True):
                v.mul_(0.9).add_(sum(gs) / WORLD)
                w.sub_(VALUES["lr"] * v)
    for rank in range(WORLD):
        assert close(found[rank]["sam/independent"], weights)


@pytest.mark.parametrize("name", ["llqr", "llqr_sam"])
def test_all_workers_have_the_same_learned_geometry(found: list[dict[str, Any]], name: str) -> None:
    first, second = found[0][name], found[1][name]
    assert len(first) == 4 + 8
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_worker_without_a_finite_gradient_makes_all_skip(found: list[dict[str, Any]]) -> None:
    assert [f["skip"] for f in found] == [(1, True), (1, True)]


def test_the_choice_is_checked_and_means_nothing_in_one_process() -> None:
    with pytest.raises(ValueError, match="independent or synchronised"):
        optim_core.build("sam", problem()[0], workers="both")
    weights = []
    for workers in ("independent", "synchronised"):
        model, batch = problem()
        optimizer = optim_core.build("sam", model, workers=workers, **VALUES)
        optimizer.step(closure(model, *batch(0), optimizer))
        weights.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
