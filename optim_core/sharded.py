"""Parameters sharded over processes: `fully_shard` (FSDP2) and other users of `DTensor`.

Elementwise methods step on the shards; sums over all entries, such as a norm or an inner product, are also summed over
the processes. Methods that need whole matrices distribute the layers: every layer has one owner in the group over which
it is sharded, which gathers its gradient and weights, keeps its state, and sends the new weights back:

    gather every layer -> each process moves those it owns, in parallel -> scatter every layer from its owner

so that the state and work of a layer exist once, as in Distributed Shampoo and Dion. Layers are assigned by size, the
largest first, each to the process with the fewest entries so far: the same on every process, and after a resume on as
many. A process holds one whole layer in addition to those that it owns.

A checkpoint with `torch.distributed.checkpoint` in its default, sharded form is complete, and loads on another number
of processes; `full_state_dict=True` has only what the first process owns, just as `state_dict()` has only its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Group = dict[str, Any]


def is_sharded(t: Tensor) -> bool:
    """Whether it is a `DTensor`, without importing its module, which takes a second."""
    return hasattr(t, "full_tensor")


def local(t: Tensor) -> Tensor:
    """The shard of this process, in the same memory; a plain tensor itself."""
    return cast("DTensor", t).to_local() if is_sharded(t) else t


def locals_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`local` of each."""
    return [local(t) for t in tensors]


def whole_sum(parts: Sequence[Tensor], owners: Sequence[Tensor]) -> Tensor:
    """Sum of scalars, each computed over a tensor of `owners` or its shard, over all tensors and shards.

    One collective for each way in which tensors are sharded; every process must call it. [] -> []
    """
    if not any(is_sharded(t) for t in owners):
        return torch.stack(list(parts)).sum()
    from torch.distributed.tensor import DTensor, Partial, Replicate

    layouts: dict[Any, list[Tensor]] = defaultdict(list)
    for part, owner in zip(parts, owners, strict=True):
        shared = cast(DTensor, owner)
        layouts[(shared.device_mesh, shared.placements) if is_sharded(owner) else None].append(part)
    sums = []
    for layout, members in layouts.items():
        total = torch.stack([m.to(members[0]) for m in members]).sum()
        if layout is not None:
            mesh, placements = layout
            spread = [Partial("sum") if p.is_shard() else Replicate() for p in placements]
            total = DTensor.from_local(total, mesh, spread).full_tensor()
        sums.append(total)
    return torch.stack([s.to(sums[0]) for s in sums]).sum()


def refuse(params: Sequence[Tensor], name: str, reason: str) -> None:
    """Raise RuntimeError for sharded parameters if a method has a reason not to support them."""
    if reason and any(is_sharded(p) for p in params):
        raise RuntimeError(
            f"{name} does not support sharded parameters (DTensor): {reason}. "
            "Wrap the model in DistributedDataParallel, which keeps whole parameters, or use another optimizer"
        )


class Layers:
    """Owners of an optimizer's sharded parameters, and the whole weights of those that this process owns."""

    def __init__(self) -> None:
        self._owners: dict[Tensor, int] = {}
        self._loads: dict[Any, list[int]] = {}
        self._wholes: dict[Tensor, Tensor] = {}
        self._places: dict[Tensor, int] = {}

    def place_of(self, p: Tensor, groups: Sequence[Group]) -> int:
        """The number of a parameter among all groups, the same on every process."""
        if p in self._places:
            return self._places[p]
        return next(i for i, x in enumerate(x for g in groups for x in g["params"]) if x is p)

    @contextmanager
    def whole(
        self, optimizer: torch.optim.Optimizer, taken: Callable[[Group, Tensor], bool], *, gradients: bool = True
    ) -> Iterator[None]:
        """Within this context, groups and state hold whole tensors of owned layers instead of the sharded parameters
        `taken`.

        Sharded layers of other owners are absent. At the end the weights are sent back to all, unless it raises. A
        no-op if nothing is sharded.
        """
        everything = [p for g in optimizer.param_groups for p in g["params"]]
        if not any(is_sharded(p) for p in everything):
            yield
            return
        before = [(g, g["params"], g.get("param_names")) for g in optimizer.param_groups]
        chosen = [p for g in optimizer.param_groups for p in g["params"] if is_sharded(p) and taken(g, p)]
        if gradients:
            chosen = [p for p in chosen if p.grad is not None]
        self._deal([p for g in optimizer.param_groups for p in g["params"] if is_sharded(p)])
        self._places = {p: i for i, p in enumerate(everything)}
        for p in chosen:
            self._gather(p, self._places[p], gradients=gradients)
        mine = {p: self._wholes[p] for p in chosen if self._owns(p)}
        absent = {p for p in chosen if p not in mine}
        for p in chosen:
            own = optimizer.state.pop(p, {})
            if p in mine:
                optimizer.state[mine[p]] = own
        for group, params, names in before:
            kept = [i for i, p in enumerate(params) if p not in absent]
            group["params"] = [mine.get(params[i], params[i]) for i in kept]
            if names is not None:
                group["param_names"] = [names[i] for i in kept]
        try:
            yield
        finally:
            for group, params, names in before:
                group["params"] = params
                if names is not None:
                    group["param_names"] = names
            for p in chosen:
                own = optimizer.state.pop(mine[p], {}) if p in mine else {}
                optimizer.state[p] = own
        for p in chosen:
            self._hand_back(cast("DTensor", p))

    def _deal(self, params: Sequence[Tensor]) -> None:
        """Assign owners to the parameters that have none yet."""
        fresh = [p for p in params if p not in self._owners]
        for p in sorted(fresh, key=lambda p: -p.numel()):
            mesh, axis = _axis(cast("DTensor", p))
            loads = self._loads.setdefault((mesh, axis), [0] * mesh.size(axis))
            self._owners[p] = loads.index(min(loads))
            loads[self._owners[p]] += p.numel()

    def _owns(self, p: Tensor) -> bool:
        mesh, axis = _axis(cast("DTensor", p))
        return bool(mesh.get_local_rank(axis) == self._owners[p])

    def _gather(self, p: Tensor, place: int, *, gradients: bool) -> None:
        weights = cast("DTensor", p).full_tensor()
        gradient = cast("DTensor", p.grad).full_tensor() if gradients else None
        if not self._owns(p):
            return
        if p not in self._wholes:
            self._wholes[p] = torch.empty_like(weights)
            self._places[self._wholes[p]] = place
        self._wholes[p].copy_(weights)
        self._wholes[p].grad = gradient
        self._places[self._wholes[p]] = place

    def _hand_back(self, p: DTensor) -> None:
        from torch.distributed.tensor import distribute_tensor

        mesh, axis = _axis(p)
        full = self._wholes[p] if self._owns(p) else torch.empty(p.shape, dtype=p.dtype, device=local(p).device)
        group = mesh.get_group(axis)
        torch.distributed.broadcast(full, group=group, group_src=self._owners[p])
        shard = distribute_tensor(full, mesh, p.placements, src_data_rank=None)
        local(p).copy_(local(shard))
        if p in self._wholes:
            self._wholes[p].grad = None


def _axis(p: DTensor) -> tuple[Any, int]:
    """(mesh, its last axis over which the tensor is sharded), or the first axis if it is not."""
    sharded = [i for i, placement in enumerate(p.placements) if placement.is_shard()]
    return p.device_mesh, sharded[-1] if sharded else 0
