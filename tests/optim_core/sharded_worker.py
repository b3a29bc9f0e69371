"""One of several processes that train a sharded model: `python -m tests.optim_core.sharded_worker RANK WORLD FOLDER`.

Writes FOLDER/RANK.pt: for each case what its weights were after all steps, what they were for a fresh optimizer that
was loaded half-way, the bytes of state of this process; or the error that refused it, and whether the weights stood.
FOLDER/CASE holds the checkpoint that was taken half-way. Where FOLDER/alone_CASE is one of a single process, also what
the weights were that went on from it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import optim_core
from optim_core.sharded import local
from tests.closures import closure_of
from tests.contracts.optimizer_contract import SETTINGS

HALF, STEPS = 3, 5
OF_ONE_MODEL = [n for n in optim_core.names() if not optim_core.lookup(n).PLAYS_GAMES]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in OF_ONE_MODEL},
    "sam of adamw": ("sam", {"base": "adamw"}),
    **{f"rotated_adamw {kind}": ("rotated_adamw", {"rotation": kind}) for kind in ("layer", "svd", "soap_eig")},
    **{f"rotated_adamw {kind}": ("rotated_adamw", {"rotation": kind}) for kind in ("egop", "global")},
    "rotated(adamw) svd": ("rotated(adamw)", {"rotation": "svd"}),
    "RMSprop": ("torch.optim.RMSprop", {}),
    "an estimate": ("nesterov", {"smoothness": "estimate"}),
}
REFUSED = {"llqr": "curvature", "llqr_sam": "curvature", "rotated_adamw egop": "egop", "rotated_adamw global": "global",
           "an estimate": "smoothness"}  # fmt: skip
OFTEN = {"precondition_frequency": 2, "rotation_refresh": 2, "look_interval": 2}


def problem() -> tuple[nn.Sequential, Callable[[int], tuple[Tensor, Tensor]]]:
    """A regression whose gradients have regular Gram matrices: no basis is left to rounding."""
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)

    def batch(index: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(100 + index)
        return torch.randn(16, 5, generator=g, dtype=torch.float64), torch.randn(
            16, 5, generator=g, dtype=torch.float64
        )

    return model, batch


def begin(case: str, model: nn.Module) -> Any:
    """The optimizer of a case."""
    name, values = CASES[case]
    known = optim_core.hyperparameters(name)
    own = {key: value for key, value in OFTEN.items() if key in known} | SETTINGS.get(name, {"lr": 0.05})
    if optim_core.needs_batches(name):
        own |= {"loss": nn.functional.mse_loss, "refresh_batches": problem()[1]}
    return optim_core.build(name, model, **{**own, **values})


def train(model: nn.Module, optimizer: Any, first: int, last: int, rank: int = 0, world: int = 1) -> None:
    """Steps on this process's share of each batch."""
    for index in range(first, last):
        x, y = (t.chunk(world)[rank] for t in problem()[1](index))
        optimizer.step(closure_of(optimizer, lambda x=x, y=y: nn.functional.mse_loss(model(x), y)))


def weights(model: nn.Module) -> list[Tensor]:
    """Whole."""
    return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in model.parameters()]


def save(model: nn.Module, optimizer: Any, folder: Path) -> None:
    """A checkpoint by torch."""
    own = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.save(own, checkpoint_id=folder, no_dist=not torch.distributed.is_initialized())


def load(model: nn.Module, optimizer: Any, folder: Path) -> None:
    """Into a fresh optimizer."""
    own = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is what is meant
        dcp.load(own, checkpoint_id=folder, no_dist=not torch.distributed.is_initialized())
    set_state_dict(model, optimizer, model_state_dict=own["model"], optim_state_dict=own["optimizer"])


def sharded(mesh: Any) -> nn.Module:
    """The model, each layer over the processes of the mesh."""
    model = problem()[0]
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def run(case: str, rank: int, world: int, mesh: Any, folder: Path) -> dict[str, Any]:
    """What a case leaves in the file of this process."""
    model = sharded(mesh)
    home = weights(model)
    try:
        optimizer = begin(case, model)
        train(model, optimizer, 0, 1, rank, world)
    except RuntimeError as error:
        if case not in REFUSED:
            raise
        return {
            "refused": str(error),
            "stands": all(torch.equal(a, b) for a, b in zip(home, weights(model), strict=True)),
        }
    train(model, optimizer, 1, HALF, rank, world)
    save(model, optimizer, folder / case.replace(" ", "_"))
    train(model, optimizer, HALF, STEPS, rank, world)
    again = sharded(mesh)
    fresh = begin(case, again)
    load(again, fresh, folder / case.replace(" ", "_"))
    train(again, fresh, HALF, STEPS, rank, world)
    found = {}
    if (alone := folder / f"alone_{case.replace(' ', '_')}").exists():
        joined = sharded(mesh)
        one = begin(case, joined)
        load(joined, one, alone)
        train(joined, one, HALF, STEPS, rank, world)
        found["from_one"] = weights(joined)
    kept = [local(v) for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    size = sum(t.numel() * t.element_size() for t in kept)
    return {"weights": weights(model), "resumed": weights(again), "bytes": size, **found}


def main(rank: int, world: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    found = {case: run(case, rank, world, mesh, folder) for case in CASES}
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
