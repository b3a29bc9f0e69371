"""Cost of a step of rotated AdamW, for each kind, beside torch AdamW and the bound of its matrix products.

    python -m tests.bench.rotation_cost [--width 320] [--depth 2] [--block 768] [--steps 8]

The parameters are those of a transformer without embeddings: per block four width x width and two width x 4 width
matrices, gradients random, one thread, float32. Times are CPU seconds of the process, medians over steps; in every
round all optimizers take one step in turn, so that a ratio compares steps of the same minute.

matmul  FLOPs of the kind (both directions) at the machine's rate for large products, plus a foreach AdamW step
memory  the same, plus what has to move at rates measured in the same minute: gathers through a random order (layer,
        global, block_product, hadamard, dct, givens), a pass over signs and values for every round (hadamard, dct,
        givens), the reflectors twice each way (egop)
*       the bound that applies: memory where products are not the work (hadamard, dct, givens, egop)
faults  page faults of a step: the C library gives freed memory of this size back and the kernel clears it again, which
        a training loop's own allocations prevent; GLIBC_TUNABLES=glibc.malloc.trim_threshold=1073741824:\
        glibc.malloc.mmap_threshold=1073741824 measures without
first   the first step: a basis is learned, maps are cast
peak    largest extra allocation inside a step, per parameter
held    words of four bytes that the rotation holds, beside the column of the specification; an order of coordinates
        is held with its inverse, two words where the column has one
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import optim_core

ROUNDS, RANK, SAMPLES = 2, 64, 32
KINDS = [
    "identity", "output", "input", "both", "layer", "global", "svd", "svd_left", "svd_right", "soap_eig", "galore",
    "egop", "hadamard", "dct", "block_product", "givens",
]  # fmt: skip
MEMORY_BOUND = ("egop", "hadamard", "dct", "givens")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step of a kind takes, both directions, by the catalogue of the specification."""

    flops: float
    column: float
    gathers: float
    moved: float

    def seconds(self, speed: Speed, *, memory: bool) -> float:
        """Beside the step of AdamW."""
        moving = self.gathers * speed.gather + self.moved * speed.move if memory else 0.0
        return self.flops * speed.flop + moving


@dataclass(frozen=True, kw_only=True)
class Speed:
    """CPU seconds of a FLOP in large products, of a coordinate gathered at random, of a byte moved."""

    flop: float
    gather: float
    move: float


@dataclass
class Contender:
    """An optimizer over weights of its own."""

    name: str
    params: list[nn.Parameter]
    optimizer: Any
    work: Work
    times: list[float]
    first: float = 0.0
    faults: int = 0

    def step(self) -> float:
        begun, faults = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.optimizer.step(self._closure)
        self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        return time.process_time() - begun

    def _closure(self) -> Tensor:
        for p in self.params:
            assert p.grad is not None
            p.grad.add_(0)  # a fresh gradient, as the optimizer's contract wants
        return torch.zeros(())


def shapes(width: int, depth: int) -> list[tuple[int, int]]:
    return depth * ([(width, width)] * 4 + [(4 * width, width), (width, 4 * width)])


def work(kind: str, sizes: list[tuple[int, int]], block: int) -> Work:
    """By kind, shapes and width of blocks."""
    flops = held = 0.0
    d = float(sum(a * b for a, b in sizes))
    for a, b in sizes:
        p, na, nb = a * b, min(block, a), min(block, b)
        sides = {"output": (0, nb), "input": (na, 0), "both": (na, nb), "svd": (a, b), "svd_left": (a, 0),
                 "svd_right": (0, b), "soap_eig": (a, b), "layer": (0, min(block, p))}  # fmt: skip
        if kind in sides:
            flops += 4 * p * sum(sides[kind])
        if kind == "soap_eig":
            flops += 2 * p * (a + b)  # the running Gram matrices
        rank = min(RANK, a, b)
        flops += {"galore": 4 * p * rank, "egop": 8 * p * min(SAMPLES, p)}.get(kind, 0)
        held += {"svd": a * a + b * b, "soap_eig": 2 * (a * a + b * b), "svd_left": a * a, "svd_right": b * b,
                 "galore": rank * min(a, b), "egop": p * SAMPLES,
                 "output": b, "input": a, "both": a + b}.get(kind, 0)  # fmt: skip
    held += {"output": block**2, "input": block**2, "both": block**2, "layer": block**2 + d, "global": block**2 + d,
             "hadamard": d * (1 + ROUNDS / 4), "dct": d * (1 + ROUNDS / 4), "givens": d,
             "block_product": ROUNDS * (block**2 + d)}.get(kind, 0)  # fmt: skip
    log = block.bit_length() - 1  # hadamard rounds the block down to a power of two
    factors = (1 << log // 2) + (1 << log - log // 2)  # and multiplies by two matrices
    flops += {"global": 4 * block * d, "hadamard": 4 * ROUNDS * d * factors, "dct": 10 * ROUNDS * d * log,
              "block_product": 4 * ROUNDS * block * d, "givens": 12 * d}.get(kind, 0)  # fmt: skip
    gathers = {"layer": 2, "global": 2, "block_product": 2 * ROUNDS, "hadamard": 2 * ROUNDS, "dct": 2 * ROUNDS,
               "givens": 2}.get(kind, 0) * d  # fmt: skip
    passes = {"hadamard": 2 * ROUNDS, "dct": 2 * ROUNDS, "givens": 2}.get(kind, 0)
    return Work(
        flops=flops,
        column=held,
        gathers=gathers,
        moved=passes * 9 * d + (16 * SAMPLES * d if kind == "egop" else 0),
    )


def contender(
    name: str, sizes: list[tuple[int, int]], make: Callable[[nn.Module], Any], kind: str = "identity", block: int = 1
) -> Contender:
    draws = torch.Generator().manual_seed(0)
    model = nn.Module()
    for i, shape in enumerate(sizes):
        parameter = nn.Parameter(torch.randn(shape, generator=draws))
        parameter.grad = torch.randn(shape, generator=draws) / 100
        model.register_parameter(f"w{i}", parameter)
    return Contender(name, list(model.parameters()), make(model), work(kind, sizes, block), [])


def rate(sizes: list[tuple[int, int]]) -> float:
    """FLOPs per CPU second of [a, b] x [b, b] and [a, a] x [a, b] over the shapes, best of five."""
    best = 0.0
    pairs = [(torch.randn(a, a), torch.randn(a, b), torch.randn(b, b)) for a, b in sorted(set(sizes))]
    for _ in range(5):
        begun = time.process_time()
        for left, g, right in pairs:
            for _ in range(3):
                left @ g
                g @ right
        spent = time.process_time() - begun
        best = max(best, sum(6 * g.numel() * (len(left) + len(right)) for left, g, right in pairs) / spent)
    return best


def seconds(action: Callable[[], Any]) -> float:
    """CPU seconds, best of five."""
    found = []
    for _ in range(5):
        begun = time.process_time()
        action()
        found.append(time.process_time() - begun)
    return min(found)


def speed_of(sizes: list[tuple[int, int]], order: Tensor, large: Tensor) -> Speed:
    """Of this minute: products of the shapes, a gather in `order` into memory that is there, a copy of `large`."""
    x, y = torch.randn(len(order)), torch.empty(len(order))
    half = len(large) // 2
    return Speed(
        flop=1 / rate(sizes),
        gather=seconds(lambda: torch.index_select(x, 0, order, out=y)) / len(order),
        move=seconds(lambda: large[:half].copy_(large[half:])) / (8 * half),
    )


def peak(c: Contender) -> float:
    """Largest extra allocation inside one step, in numbers for each parameter, from the profiler's allocator events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        c.step()
    running = largest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            running += event.nbytes()
            largest = max(largest, running)
    return largest / 4 / sum(p.numel() for p in c.params)


def held_by(c: Contender) -> float:
    """Numbers of four bytes that the rotation holds: maps (shared ones once) and learned tensors in the state."""
    seen: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)
        elif hasattr(value, "__dict__") and "rotations" in type(value).__module__:
            visit(vars(value))

    if hasattr(c.optimizer, "_spaces"):
        visit([s.rotation for s in c.optimizer._spaces])
    for p in c.params:
        seen.pop(p.untyped_storage().data_ptr(), None)
    return sum(seen.values()) / 4


def foreach_adamw(model: nn.Module) -> Any:
    return optim_core.build("torch.optim.AdamW", model, lr=1e-3, foreach=True)


def rotated(values: dict[str, Any], model: nn.Module) -> Any:
    return optim_core.build("rotated_adamw", model, **values)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--block", type=int, default=768)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = shapes(args.width, args.depth)
    d = sum(a * b for a, b in sizes)
    contenders = [
        contender("torch AdamW fused", sizes, lambda m: optim_core.build("adamw", m)),
        contender("torch AdamW foreach", sizes, foreach_adamw),
    ]
    options = {
        "rotation_block": args.block,
        "rotation_rounds": ROUNDS,
        "rotation_rank": RANK,
        "rotation_samples": SAMPLES,
    }
    for kind in KINDS:
        values = {"rotation": kind, "rotation_refresh": 10**6, **options}
        contenders.append(contender(kind, sizes, partial(rotated, values), kind, args.block))
    for c in contenders:
        c.first = c.step()
        c.step()
    order, large = torch.randperm(d), torch.zeros(32 << 20)
    speeds = [speed_of(sizes, order, large)]
    for _ in range(args.steps):
        for c in contenders:
            c.times.append(c.step())
        speeds.append(speed_of(sizes, order, large))
    speed = Speed(**{key: statistics.median(getattr(s, key) for s in speeds) for key in ("flop", "gather", "move")})
    show(f"{d / 1e6:.2f} M parameters, width {args.width}, depth {args.depth}, block {args.block}", contenders, speed)


def show(title: str, contenders: list[Contender], speed: Speed) -> None:
    fused, foreach = (statistics.median(c.times) for c in contenders[:2])
    print(
        f"{title}, {1e-9 / speed.flop:.0f} GFLOP/s, {1e-9 / speed.move:.0f} GB/s copied, "
        f"{1e-9 / speed.gather:.2f} G coordinates/s gathered"
    )
    print(f"{'':20} {'step ms':>8} {'x fused':>8} {'x foreach':>9} {'x matmul':>9} {'x memory':>9}", end="")
    print(f" {'first ms':>9} {'faults':>7} {'peak':>6} {'held':>10} {'column':>10}")
    for c in contenders:
        step = statistics.median(c.times)
        matmul, memory = (step / (c.work.seconds(speed, memory=m) + foreach) for m in (False, True))
        first, second = (" ", "*") if c.name in MEMORY_BOUND else ("*", " ")
        print(f"{c.name:20} {step * 1e3:8.2f} {step / fused:8.1f} {step / foreach:9.2f}", end="")
        print(f" {matmul:8.2f}{first} {memory:8.2f}{second} {c.first * 1e3:9.1f} {c.faults:7}", end="")
        print(f" {peak(c):6.2f} {held_by(c):10,.0f} {c.work.column:10,.0f}", flush=True)


if __name__ == "__main__":
    main()
