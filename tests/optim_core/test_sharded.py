"""Every optimizer under `fully_shard` on two processes (gloo, CPU): the steps of one process, or a refusal by name.

One pair of processes is started for all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optim_core
from optim_core.sharded import whole_sum
from tests.optim_core import sharded_worker
from tests.optim_core.sharded_worker import CASES, HALF, REFUSED, STEPS, begin, load, problem, save, train, weights
from tests.orchestrator.command import together

WORLD = 2
TAKEN = [case for case in CASES if case not in REFUSED]
FROM_ONE = ("adamw", "sam of adamw", "soap", "kl_shampoo", "muon", "rotated_adamw svd", "schedule_free")
"""Whose checkpoint of one process is taken up by two."""
OWNED = ("soap", "shampoo", "kl_shampoo", "splus", "psgd_kron", "dion", "muon", "normuon")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sharded")
    for case in FROM_ONE:
        model = problem()[0]
        optimizer = begin(case, model)
        train(model, optimizer, 0, HALF)
        save(model, optimizer, found / f"alone_{case.replace(' ', '_')}")
    together(Path(sharded_worker.__file__), found, WORLD)
    return found


@pytest.fixture(scope="session")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(WORLD)]


def farthest(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", TAKEN)
def test_two_processes_are_one_also_after_a_checkpoint_and_on_another_number(
    found: list[dict[str, Any]], folder: Path, case: str
) -> None:
    model = problem()[0]
    train(model, begin(case, model), 0, STEPS)
    whole = weights(model)
    assert farthest(whole, weights(problem()[0])) > 1e-4
    for rank in range(WORLD):
        assert farthest(found[rank][case]["weights"], whole) < 1e-6
        assert farthest(found[rank][case]["resumed"], found[rank][case]["weights"]) < 1e-12
    alone = problem()[0]
    optimizer = begin(case, alone)
    load(alone, optimizer, folder / case.replace(" ", "_"))
    train(alone, optimizer, HALF, STEPS)
    assert farthest(weights(alone), whole) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("case", FROM_ONE)
def test_a_checkpoint_of_one_process_goes_on_on_two(found: list[dict[str, Any]], case: str) -> None:
    model = problem()[0]
    train(model, begin(case, model), 0, STEPS)
    for rank in range(WORLD):
        assert farthest(found[rank][case]["from_one"], weights(model)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_all_weights_at_once_says_so_before_anything_moves(found: list[dict[str, Any]], case: str) -> None:
    for rank in range(WORLD):
        refused = found[rank][case]
        assert "does not support sharded parameters" in refused["refused"]
        assert REFUSED[case] in refused["refused"]
        assert "DistributedDataParallel" in refused["refused"]
        assert refused["stands"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OWNED)
def test_the_state_of_a_layer_exists_once(found: list[dict[str, Any]], name: str) -> None:
    """Two layers of the same size on two processes: half of one process's state each, unless one alone is hidden."""
    model = problem()[0]
    optimizer = begin(name, model)
    train(model, optimizer, 0, STEPS)
    kept = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    whole = sum(t.numel() * t.element_size() for t in kept)
    sizes = [found[rank][name]["bytes"] for rank in range(WORLD)]
    assert sum(sizes) == pytest.approx(whole, abs=64)  # step counters of AdamW are everywhere
    assert name in ("muon", "normuon", "dion") or max(sizes) <= 0.65 * whole


def test_sums_over_tensors_that_are_not_sharded() -> None:
    parts = [torch.tensor(1.5), torch.tensor(2.0)]
    assert float(whole_sum(parts, parts)) == 3.5


def test_games_are_refused_too() -> None:
    assert all(optim_core.lookup(n).NOT_SHARDED for n in optim_core.names() if optim_core.lookup(n).PLAYS_GAMES)
