"""What a step of the methods of matrices costs beside its gradient, on a decoder of 10 M parameters.

    python -m tests.bench.matrices_cost [--iterations 3] [--small]

Steps between refreshes, along a gradient that is there already, so that nothing else is in the figure: medians of
process CPU seconds on one thread, which other processes do not disturb. The bound is the FLOPs of the products that the
formula has, at the rate of a matrix product measured beside the arm; elementwise passes come on top. An iteration is
the gradient at 512 tokens and the step, over the gradient and a step of SGD: it falls with the number of tokens, since
the step's share does not grow with them. Rivals' SOAP (extra `compare`) stands beside ours, at the same time. State is
bytes over those of the parameters; `of two` is the larger share of
two processes when the model is sharded and each layer has one owner.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
from typing import Any

import torch
from torch import Tensor

import optim_core
from optim_core.hidden import HiddenMatrices, hidden_matrices
from tests.bench.sam_llqr_cost import Bench, flops_per_second

NEVER = 10**9
ARMS: dict[str, dict[str, Any]] = {
    "muon": {"newton_schulz_dtype": "float32"},
    "normuon": {"newton_schulz_dtype": "float32"},
    "dion": {},
    "dion, a quarter of the rank": {"rank_fraction": 0.25},
    "soap": {"precondition_frequency": NEVER},
    "shampoo": {"precondition_frequency": NEVER, "start_preconditioning_step": 1},
    "kl_shampoo": {"precondition_frequency": NEVER},
    "splus": {"precondition_frequency": NEVER},
    "psgd_kron, learning": {},
    "psgd_kron": {"update_flat_steps": 0, "update_decay": 50.0, "least_update_share": 1e-6},
}


def flops(arm: str, m: int, n: int) -> float:
    """Of the products of one step for a matrix [m, n], two for each multiplication."""
    low, high = min(m, n), max(m, n)
    if arm in ("muon", "normuon"):
        return 5 * (4.0 * m * n * low + 2.0 * low**3)
    if arm.startswith("dion"):
        r = low / 4 if "quarter" in arm else low
        return 8.0 * m * n * r + 4.0 * high * r**2
    passes = {"soap": 6, "shampoo": 4, "kl_shampoo": 10, "splus": 6, "psgd_kron": 4, "psgd_kron, learning": 11}[arm]
    return passes * float(m * n * (m + n)) + (2.0 * (m**3 + n**3) if arm.endswith("learning") else 0.0)


def seconds_of(bench: Bench, arm: str, values: dict[str, Any], rounds: int) -> tuple[float, float, float, float]:
    """(CPU seconds of a step, FLOP/s of a matrix product, state over parameters, the larger share of two owners).

    Steps and products take turns, since the rate of a shared machine drifts.
    """
    model = bench.model()
    optimizer: Any = optim_core.build(arm.split(",")[0], model, lr=1e-4, **values)
    bench.closure(model)()
    kept = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}

    def closure() -> Tensor:
        for p, g in kept.items():
            p.grad = g
        return torch.zeros(())

    turns = [(bench.seconds(lambda: optimizer.step(closure)), flops_per_second(bench, torch.device("cpu")))
             for _ in range(rounds + 2)][2:]  # fmt: skip
    sizes = {p: sum(v.numel() * v.element_size() for v in s.values() if isinstance(v, Tensor))
             for p, s in optimizer.state.items()}  # fmt: skip
    whole = sum(p.numel() * p.element_size() for p in model.parameters())
    loads, shares = [0, 0], [0, 0]
    for p in sorted(sizes, key=lambda p: -p.numel()):
        owner = loads.index(min(loads))
        loads[owner] += p.numel()
        shares[owner] += sizes[p]
    step, rate = (statistics.median(column) for column in zip(*turns, strict=True))
    return step, rate, sum(sizes.values()) / whole, max(shares) / whole


def rival_seconds(bench: Bench, package: str, rounds: int) -> float | None:
    """CPU seconds of a step of somebody else's SOAP between refreshes; None where it is not installed."""
    try:
        module = __import__(package)
    except ImportError:
        return None
    kind = getattr(module, "SOAP", None) or module.ForeachSOAP
    model = bench.model()
    optimizer = kind(model.parameters(), lr=1e-4, precondition_frequency=NEVER)
    bench.closure(model)()
    kept = {p: p.grad.clone() for p in model.parameters() if p.grad is not None}

    def step() -> None:
        for p, g in kept.items():
            p.grad = g  # heavyball takes it away
        optimizer.step()

    return statistics.median([bench.seconds(step) for _ in range(rounds + 2)][2:])


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="1 M parameters instead of 10 M")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(*((128, 5) if options.small else (320, 8)), torch.device("cpu"))
    gradient, sgd = bench.torch_arm(torch.optim.SGD, lr=1e-3, momentum=0.9, fused=True)

    def measured(step: Any) -> float:
        return statistics.median([bench.seconds(step) for _ in range(options.iterations + 1)][1:])

    base_gradient = measured(gradient)
    base = base_gradient + measured(sgd)
    rate = flops_per_second(bench, torch.device("cpu"))
    print(f"{datetime.date.today()}, torch {torch.__version__}, CPU, 1 thread, load {os.getloadavg()[0]:.1f}")
    parameters = sum(p.numel() for p in bench.model().parameters())
    print(f"{parameters / 1e6:.2f} M parameters, 512 tokens, float32, medians of {options.iterations} steps")
    print(f"matrix product {rate / 1e9:.0f} GFLOP/s, gradient {base_gradient:.4f} s\n")
    print(f"{'':28}{'step s':>10}{'bound s':>10}{'ratio':>8}{'iteration':>11}{'state':>8}{'of two':>8}")
    model = bench.model()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    hidden = [p for p in hidden_matrices(model) if p.ndim == 2]
    for arm, values in ARMS.items():
        step, rate, state, share = seconds_of(bench, arm, values, options.iterations)
        moved = hidden if issubclass(optim_core.lookup(arm.split(",")[0]), HiddenMatrices) else matrices
        bound = sum(flops(arm, *p.shape) for p in moved) / rate
        whole = (base_gradient + step) / base
        print(f"{arm:28}{step:10.4f}{bound:10.4f}{step / bound:8.2f}{whole:11.2f}{state:8.2f}{share:8.2f}", flush=True)
        if arm == "soap":  # beside it, at the same time
            for package in ("pytorch_optimizer", "heavyball"):
                taken = rival_seconds(bench, package, options.iterations)
                said = "not installed" if taken is None else f"{taken:10.4f}{bound:10.4f}{taken / bound:8.2f}"
                print(f"{package + ' SOAP':28}{said}", flush=True)


if __name__ == "__main__":
    main()
