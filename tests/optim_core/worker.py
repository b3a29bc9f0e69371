"""One of several processes that train one model: `python -m tests.optim_core.worker RANK WORLD FOLDER`.

Writes FOLDER/RANK.pt: for each method and way of climbing the weights after two steps, and what a step did whose first
gradient was not finite on rank 1 only. The model is wrapped in `DistributedDataParallel`, over gloo on the CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import optim_core
from tests.closures import closure_of
from tests.contracts.optimizer_contract import problem

STEPS = 2
VALUES = {"lr": 0.1, "sam_radius": 0.4}


def closure(model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
    return closure_of(optimizer, lambda: nn.functional.cross_entropy(model(x), y))


def train(rank: int, world: int, name: str, workers: str) -> list[Tensor]:
    """Weights after two steps on this worker's share of each batch."""
    inner, batch = problem()
    model = DistributedDataParallel(inner)
    optimizer = optim_core.build(name, model, workers=workers, **VALUES)
    for index in range(STEPS):
        x, y = batch(index)
        optimizer.step(closure(model, x.chunk(world)[rank], y.chunk(world)[rank], optimizer))
    return [p.detach() for p in inner.parameters()]


def learn(rank: int, name: str) -> list[Tensor]:
    """Weights and learned factors after four steps and two refreshes, on batches that differ between the workers."""
    inner, batch = problem()
    model = DistributedDataParallel(inner)
    optimizer = optim_core.build(
        name, model, lr=0.1, loss=nn.functional.cross_entropy, refresh_interval=2,
        refresh_batches=lambda index: batch(1000 * (rank + 1) + index),
    )  # fmt: skip
    for index in range(4):
        optimizer.step(closure(model, *batch(10 * rank + index), optimizer))
    factors = [v for s in optimizer.state.values() for k, v in sorted(s.items()) if k.startswith("geometry_")]
    return [p.detach() for p in inner.parameters()] + factors


def skip(rank: int) -> tuple[int, bool]:
    """(skipped steps, whether the weights stand) when the batch of rank 1 alone is not finite."""
    inner, batch = problem()
    model = DistributedDataParallel(inner)
    optimizer = optim_core.build("sam", model, **VALUES)
    before = [p.detach().clone() for p in inner.parameters()]
    x, y = batch(0)
    optimizer.step(closure(model, x * (float("nan") if rank == 1 else 1), y, optimizer))
    stands = all(torch.equal(a, b) for a, b in zip(before, inner.parameters(), strict=True))
    return optimizer.skipped_steps, stands


def main(rank: int, world: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found: dict[str, object] = {
        f"{name}/{workers}": train(rank, world, name, workers)
        for name in ("sam", "asam", "friendly_sam")
        for workers in ("independent", "synchronised")
    }
    found |= {name: learn(rank, name) for name in ("llqr", "llqr_sam")}
    found["skip"] = skip(rank)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
