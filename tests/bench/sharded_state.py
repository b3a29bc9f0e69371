"""State of each process under FSDP2, two gloo processes, beside that of one: `python -m tests.bench.sharded_state`.

A stack of square and oblong layers of 1 M parameters, two steps of each optimizer. Bytes are those of the tensors in
`optimizer.state` on that process, peak those of the whole process (ru_maxrss) over what it had before the optimizer.
"""

from __future__ import annotations

import datetime
import itertools
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import optim_core
from optim_core.sharded import local
from tests.closures import closure_of

WORLD = 2
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {}),
    "sam": ("sam", {}),
    "soap": ("soap", {}),
    "shampoo": ("shampoo", {}),
    "kl_shampoo": ("kl_shampoo", {}),
    "psgd_kron": ("psgd_kron", {}),
    "muon": ("muon", {}),
    "rotated_adamw svd": ("rotated_adamw", {"rotation": "svd"}),
}
WIDTHS = (256, 512, 256, 512, 256, 512, 256, 512, 256)


def network() -> nn.Sequential:
    """Eight layers, tanh between them."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(WIDTHS)]
    return nn.Sequential(*(m for layer in layers for m in (layer, nn.Tanh())))


def measured(arm: str, model: nn.Module) -> tuple[int, int]:
    """(bytes of state, growth of the process's peak in bytes) after two steps."""
    name, values = ARMS[arm]
    x = torch.randn(64, WIDTHS[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    optimizer: Any = optim_core.build(name, model, lr=0.01, **values)
    closure = closure_of(optimizer, lambda: model(x).square().mean())
    for _ in range(2):
        optimizer.step(closure)
    kept = [local(v) for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return sum(t.numel() * t.element_size() for t in kept), (peak - before) * 1024


def worker(arm: str, rank: int, world: int, folder: Path) -> None:
    """Measure one arm in this process and leave the two numbers in the folder."""
    torch.set_num_threads(1)
    model: nn.Module = network()
    if world > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
        mesh = init_device_mesh("cpu", (world,))
        for layer in model.children():
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    torch.save(measured(arm, model), folder / f"{rank}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


def of(arm: str, world: int) -> list[tuple[int, int]]:
    """What the processes of one arm measured, each in a fresh interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.sharded_state", arm]
        running = [subprocess.Popen([*command, str(r), str(world), folder]) for r in range(world)]
        try:
            for process in running:
                if process.wait(timeout=120) != 0:
                    raise RuntimeError(f"{arm}: a process ended with {process.returncode}")
        finally:
            for process in running:
                process.kill()
        return [torch.load(Path(folder) / f"{r}.pt") for r in range(world)]


def main() -> None:
    """Print the table."""
    parameters = sum(p.numel() for p in network().parameters())
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, CPU, gloo; {parameters / 1e6:.2f} M parameters, float32"
    )
    print(f"weights {parameters * 4 / 1e6:.2f} MB; MB of state, and share of one process's state on the fuller rank\n")
    print(f"{'':20}{'one':>9}{'rank 0':>9}{'rank 1':>9}{'share':>8}{'peak, one':>11}{'rank 0':>9}{'rank 1':>9}")
    for arm in ARMS:
        (whole, peak), ranks = of(arm, 1)[0], of(arm, WORLD)
        sizes, peaks = [s for s, _ in ranks], [p for _, p in ranks]
        row = "".join(f"{n / 1e6:9.2f}" for n in (whole, *sizes)) + f"{max(sizes) / whole:8.2f}"
        print(f"{arm:20}{row}{peak / 1e6:11.1f}" + "".join(f"{n / 1e6:9.1f}" for n in peaks), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
