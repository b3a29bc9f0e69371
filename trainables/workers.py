"""Several processes that train one model together, each on its part of every nominal batch.

Every worker builds the same model, optimizer and batches from the same seed and takes the same steps; gradients are
averaged by `DistributedDataParallel` (overlapped with the backward pass) and weighted by the number of terms in each
part. So every worker's optimizer sees the gradient of the whole batch: its state, refreshes and perturbations are the
same everywhere, and equal to those of a single process up to rounding. Refreshes are repeated on every worker.

BatchNorm normalizes each worker's part separately, as usual; running statistics are averaged before an evaluation. Only
worker 0 evaluates, logs and writes checkpoints; the others follow.
"""

from __future__ import annotations

import contextlib
import datetime
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

PATIENCE = datetime.timedelta(minutes=30)


def listen(host: str) -> TCPStore:
    """Worker 0's store, which the others reach at `host` and the store's `port`, a free one chosen by the system."""
    return TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)


def connect(address: str) -> TCPStore:
    """Connect an additional worker to the store of worker 0 at `address`, `host:port`."""
    host, _, port = address.rpartition(":")
    return TCPStore(host, int(port), is_master=False, timeout=PATIENCE)


class Drifted(RuntimeError):  # noqa: N818
    """Workers have different weights: something in the step is not deterministic."""


class Workers:
    """One process among `size`; `rank` 0 leads. They meet in `store`: worker 0 uses `listen`, the others `connect`.

    A single process is the default and needs no communication.
    """

    def __init__(self, *, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank is {rank}; it must lie in [0, {size})")
        self.rank, self.size = rank, size
        self.pausing = False
        """Whether any worker requested, in the last step, to stop after it."""
        self._wrapped: DistributedDataParallel | None = None
        if size > 1:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module for forward passes; the weights become those of worker 0."""
        if self.size == 1:
            return model
        self._wrapped = DistributedDataParallel(model, forward_sync_buffers=False)
        return self._wrapped

    def exchange(self, *, when: bool) -> AbstractContextManager[Any]:
        """Context for a forward and backward pass: average the gradients over the workers in it, or not yet."""
        if self._wrapped is None or when:
            return contextlib.nullcontext()
        return cast(AbstractContextManager[Any], self._wrapped.no_sync())  # type: ignore[no-untyped-call]

    def total(self, summed: Tensor, terms: float, pause: bool) -> tuple[Tensor, float]:
        """The summed loss and its number of terms over all workers; records a `pause` requested by any of them."""
        if self.size == 1:
            return summed, terms
        mine = torch.tensor([0.0, terms, float(pause)], dtype=torch.float64, device=summed.device)
        mine[0] = summed
        dist.all_reduce(mine)
        self.pausing = self.pausing or bool(mine[2] > 0)
        return mine[0].to(summed.dtype), float(mine[1])

    def same(self, thing: Any) -> Any:
        """Worker 0's value, on every worker."""
        if self.size == 1:
            return thing
        held = [thing]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def meet(self, model: nn.Module) -> None:
        """Before an evaluation: average the buffers. Raises Drifted if the weights are not the same everywhere."""
        if self.size == 1:
            return
        with torch.no_grad():
            sums = torch.stack([p.detach().double().sum() for p in model.parameters()]).nan_to_num()
            everybody = [torch.empty_like(sums) for _ in range(self.size)]
            dist.all_gather(everybody, sums)
            if not all(torch.equal(sums, other) for other in everybody):
                raise Drifted(
                    f"worker {self.rank} has different weights than the others; is something not deterministic?"
                )
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.size

    def close(self) -> None:
        """Leave the process group."""
        if self.size > 1 and dist.is_initialized():
            self._wrapped = None
            dist.destroy_process_group()
