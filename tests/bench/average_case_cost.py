"""Cost of a generalized_chebyshev step beside torch's SGD with momentum (foreach) and one elementwise pass.

    python tests/bench/average_case_cost.py [output.json]

CPU seconds, interleaved in one run, median of many blocks; forward and backward are not in them: the closure hands out
gradients that are there already. The ratio is (our step) / (SGD step + one foreach pass), to stay at or below 1.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import optim_core

SHAPES = {
    "10 M in 20 tensors": [(1000, 500)] * 20,
    "2 M in 100 tensors": [(200, 100)] * 100,
    "1 M in 8 tensors": [(500, 250)] * 8,
}
BLOCKS, STEPS = 41, 6


def parameters(shapes: list[tuple[int, int]]) -> list[nn.Parameter]:
    """Weights whose gradients are set."""
    generator = torch.Generator().manual_seed(0)
    found = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    for p in found:
        p.grad = torch.randn(p.shape, generator=generator) * 1e-3
    return found


def ours(shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    """One step of generalized_chebyshev."""
    params, loss = parameters(shapes), torch.ones(())
    optimizer = optim_core.lookup("generalized_chebyshev")(params, smoothness=1.0)

    def closure() -> Tensor:
        params[0].grad.mul_(1.0)  # type: ignore[union-attr]  a fresh gradient, for the contract
        return loss

    return lambda: optimizer.step(closure)


def theirs(shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    """One step of SGD with momentum."""
    return torch.optim.SGD(parameters(shapes), lr=1e-3, momentum=0.9, foreach=True).step


def one_pass(shapes: list[tuple[int, int]]) -> Callable[[], Any]:
    """One elementwise pass over all tensors."""
    tensors = [p.detach() for p in parameters(shapes)]
    return lambda: torch._foreach_mul_(tensors, 1.0000001)


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call, over a block."""
    begun = time.process_time()
    for _ in range(STEPS):
        work()
    return (time.process_time() - begun) / STEPS


def main() -> None:
    """Print the table; write JSON where asked."""
    torch.set_num_threads(1)
    rows = {}
    for name, shapes in SHAPES.items():
        works = {"generalized_chebyshev": ours(shapes), "sgd": theirs(shapes), "pass": one_pass(shapes)}
        samples: dict[str, list[float]] = {key: [] for key in works}
        for _ in range(BLOCKS):
            for key, work in works.items():
                samples[key].append(cpu_seconds(work))
        medians = {key: statistics.median(values[3:]) for key, values in samples.items()}
        ratio = medians["generalized_chebyshev"] / (medians["sgd"] + medians["pass"])
        rows[name] = {**{f"{k}_ms": round(v * 1e3, 4) for k, v in medians.items()}, "ratio": round(ratio, 3)}
        print(name, rows[name])
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as out:
            json.dump({"torch": torch.__version__, "threads": 1, "rows": rows}, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
