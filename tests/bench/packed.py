"""Packed bench: K small trials stepped at once by `torch.vmap`, against the same trials one after another in our loop.

    python -m tests.bench.packed [--models mlp,resnet8] [--optimizers sgd] [--sizes 4,16,64] [--rounds 3] [--only cost]

`cost`: CPU seconds of one thread for a trial of 40 steps and its evaluation (models are built before; state, logs and
processes cost the same either way and are left out), the best of interleaved rounds; `x` is trials an hour and core,
packed against apart. Every trial has its own learning rate, seed, initial weights and batches; under `one seed`, for
the largest K, seed, initial weights and batches are the same, as for trials that tune an arm. `weights apart`: the
largest difference between a packed trial's weights at its end and the same trial's in our loop.
`cores`: what two cores make of 16 trials, models built within it, by the wall clock and in CPU seconds.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import trainables
from tests.bench.gpu_check.setting import TINY, Setting
from tests.bench.pack import COST, apart, together, trained
from trainables import Task
from trainables.data import cache
from trainables.pack import Pack

STEPS = 40
MODELS = {
    "mlp": "digits, 64-256-256-10, batch 64",
    "narrow": "digits_fit, 64-64-64-10, batch 128",
    "resnet8": "digits, batch 64",
    "vit": "digits, batch 64",
    "gpt": "tokens, gpt_nano, 2 windows of 8",
}
ONE = -1
SEPARATE = 4
"""Trials of our loop in a round: they run one after another, so that more of them cost no less each."""


def maker(model: str, setting: Setting) -> Callable[[], Task]:
    """Makes task objects; the data of `gpt` are written on first use."""
    if model == "gpt":
        return lambda: setting.task("tokens")
    if model == "narrow":
        return lambda: trainables.build("digits_fit")
    return lambda: trainables.build("digits", model=model, noise=0.4)


def rate(optimizer: str, k: int) -> float:
    """Trial `k`'s learning rate."""
    return float((1e-3 if optimizer == "adamw" else 0.05) * 2 ** -(k % 8))


def packed(
    make: Callable[[], Task], optimizer: str, count: int, first: int = 0, *, shared: bool = False
) -> tuple[float, Pack]:
    """(CPU seconds of the training, the pack); `shared`: all trials have one seed."""
    trials = range(first, first + count)
    seeds = [first] * count if shared else trials
    pack = together(make, optimizer, [rate(optimizer, k) for k in trials], seeds, STEPS)
    began = time.process_time()
    trained(pack)
    return time.process_time() - began, pack


def separate(make: Callable[[], Task], optimizer: str, count: int, first: int = 0) -> tuple[float, list[Any]]:
    """(CPU seconds of the training, the trials)."""
    runs = [apart(make(), optimizer, rate(optimizer, k), k, STEPS) for k in range(first, first + count)]
    began = time.process_time()
    for run in runs:
        run.advance()
    return time.process_time() - began, runs


def deviation(pack: Pack, runs: list[Any]) -> float:
    """Largest difference of a weight."""
    return max(
        float((run.model.state_dict()[name] - weight).abs().max())
        for run, other in zip(runs, pack.runs, strict=False)
        for name, weight in other.model.state_dict().items()
    )


def cost(models: list[str], optimizers: list[str], sizes: list[int], rounds: int, setting: Setting) -> None:
    """The first table."""
    columns = "".join(f"{name:>10}{'x':>6}" for name in (*(f"K={k} ms" for k in sizes), "one seed"))
    print(f"CPU ms of a trial of {STEPS} steps\n{'':<16}{'apart ms':>10}{columns}{'weights apart':>15}", flush=True)
    for model in models:
        for optimizer in optimizers:
            make, best, far = maker(model, setting), dict.fromkeys([0, *sizes, ONE], float("inf")), 0.0
            separate(make, optimizer, 1), packed(make, optimizer, 2)
            for _ in range(rounds):
                seconds, runs = separate(make, optimizer, SEPARATE)
                best[0] = min(best[0], seconds / SEPARATE)
                for k in sizes:
                    seconds, pack = packed(make, optimizer, k)
                    best[k], far = min(best[k], seconds / k), max(far, deviation(pack, runs[:k]))
                seconds, pack = packed(make, optimizer, sizes[-1], shared=True)
                best[ONE], far = min(best[ONE], seconds / sizes[-1]), max(far, deviation(pack, runs[:1]))
            cells = "".join(f"{1e3 * best[k]:>10.1f}{best[0] / best[k]:>6.2f}" for k in (*sizes, ONE))
            print(f"{model + ' ' + optimizer:<16}{1e3 * best[0]:>10.1f}{cells}{far:>15.0e}", flush=True)


WAYS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "2 processes, trials apart": (2, 1, separate),
    "1 pack, 1 thread": (1, 1, packed),
    "2 packs, a process each": (2, 1, packed),
    "1 pack, 2 threads": (1, 2, packed),
}
TOGETHER = 16


def cores(models: list[str], optimizers: list[str], rounds: int, setting: Setting) -> None:
    """The second table."""
    print(f"\n{TOGETHER} trials on two cores: trials an hour by the wall clock, and CPU ms of a trial", flush=True)
    for model in models:
        for optimizer in optimizers:
            for way, (processes, threads, run) in WAYS.items():
                found = [_at_once(processes, threads, run, model, optimizer, setting) for _ in range(rounds)]
                wall, cpu = (min(column) for column in zip(*found, strict=True))
                what = f"{model} {optimizer}: {way}"
                print(f"{what:<42}{3600 * TOGETHER / wall:>12,.0f} an hour{1e3 * cpu / TOGETHER:>9.1f} ms", flush=True)


def _at_once(
    processes: int, threads: int, run: Callable[..., Any], model: str, optimizer: str, setting: Setting
) -> tuple[float, float]:
    """(wall, CPU) seconds from when all are ready until all have ended."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(processes), context.Queue()
    each = TOGETHER // processes
    children = [
        context.Process(target=_child, args=(ready, answers, run, model, optimizer, each, i * each, threads, setting))
        for i in range(processes)
    ]
    for child in children:
        child.start()
    found = [answers.get(timeout=300) for _ in children]
    for child in children:
        child.join()
    return max(f[1] for f in found) - min(f[0] for f in found), sum(f[2] for f in found)


def _child(
    ready: Any, answers: Any, run: Callable[..., Any], model: str, optimizer: str, count: int, first: int,
    threads: int, setting: Setting,
) -> None:  # fmt: skip
    torch.set_num_threads(threads)
    make = maker(model, setting)
    run(make, optimizer, 2)
    ready.wait(timeout=300)
    began, cpu = time.time(), time.process_time()
    run(make, optimizer, count, first)
    answers.put((began, time.time(), time.process_time() - cpu))


def _environment() -> Iterator[str]:
    yield datetime.date.today().isoformat()
    yield f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    names = (line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    yield next(names, "unknown CPU").strip()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        "packed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--optimizers", default=",".join(COST))
    parser.add_argument("--sizes", default="4,16,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("cost", "cores"))
    options = parser.parse_args()
    models, optimizers = options.models.split(","), options.optimizers.split(",")
    torch.set_num_threads(1)
    print(", ".join(_environment()))
    print("; ".join(f"{name}: {MODELS[name]}" for name in models) + "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="gs-packed-") as place:
        os.environ[cache.VARIABLE] = f"{place}/cache"
        setting = Setting(device="cpu", sizes=TINY, place=Path(place))
        if options.only != "cores":
            cost(models, optimizers, [int(k) for k in options.sizes.split(",")], options.rounds, setting)
        if options.only != "cost":
            cores(models, optimizers, options.rounds, setting)


if __name__ == "__main__":
    main()
