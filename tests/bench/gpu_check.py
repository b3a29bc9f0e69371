"""GPU check: every optimizer on resnet18 and gpt2, and many small trials on one device, on synthetic data.

    python -m tests.bench.gpu_check [--steps 100] [--only sgd,sam]
    python -m tests.bench.gpu_check --cpu-smoke        the same script with tiny sizes on the CPU

First table, for each model and optimizer, bf16 autocast: mean, median and longest step (refreshes, four in a run, are
in mean and longest; the first tenth of the steps is left out), peak memory, and the ratio of mean steps to torch's
fused AdamW in the same run. Second table: training steps a second of 1, 4, 8 and 16 processes that train a small trial
each on the same device, as trials with a fractional `gpu` do, against the same trials one after another.

Without a CUDA device it says so and exits with 0. An optimizer that fails in a step makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

import optim_core
import trainables
from trainables.data import cache
from trainables.data.convert.output import Converted, binary, replacing
from trainables.data.convert.tokens_bin import add_blocks, describe_tokens
from trainables.data.description import Images
from trainables.gradient import Gradients
from trainables.recipe import Recipe
from trainables.task_class import Task
from trainables.workers import Workers

BASELINE = "torch AdamW, fused"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    device: str
    steps: int
    side: int
    images: int
    batch: int
    model: str
    vocabulary: int
    tokens: int
    context: int
    sequences: int
    shares: tuple[int, ...]
    small_batch: int
    small_steps: int


FULL = Sizes(
    device="cuda", steps=100, side=32, images=10_000, batch=128, model="gpt2", vocabulary=50257, tokens=4_000_000,
    context=1024, sequences=8, shares=(1, 4, 8, 16), small_batch=32, small_steps=200,
)  # fmt: skip
SMOKE = Sizes(
    device="cpu", steps=3, side=8, images=64, batch=4, model="gpt_nano", vocabulary=64, tokens=4096,
    context=8, sequences=2, shares=(1, 2), small_batch=2, small_steps=2,
)  # fmt: skip


class Fused:
    """torch's own AdamW behind the interface that the loop expects."""

    ascending = False
    grad_evals = 0.0

    def __init__(self, model: nn.Module, fused: bool) -> None:
        self._inner = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)

    def zero_grad(self) -> None:
        self._inner.zero_grad()

    def step(self, closure: Callable[[], Any]) -> Any:
        loss = closure()
        self._inner.step()
        return loss


def write_data(place: Path, sizes: Sizes) -> None:
    """Random images and tokens in the canonical format."""
    generator = np.random.default_rng(0)
    with replacing(place / "images") as output:
        for split, rows in (("train", sizes.images), ("val", 16)):
            pixels = generator.integers(0, 256, (rows, 3, sizes.side, sizes.side), dtype=np.uint8)
            labels = pa.array(generator.integers(0, 100, rows), pa.int64())
            output.add(split, {"image": binary(pixels), "label": labels})
        described = Images(
            encoding="raw",
            shape=(3, sizes.side, sizes.side),
            classes=tuple(map(str, range(100))),
            mean=(0.5,) * 3,
            std=(0.29,) * 3,
            statistics_rows=sizes.images,
        )
        output.finish("images", Converted(images=described))
    with replacing(place / "tokens") as output:
        ids = generator.integers(0, sizes.vocabulary, sizes.tokens)
        block = sizes.context + 1
        for split, part in (("train", ids), ("val", ids[: 4 * block])):
            add_blocks(output, split, part, place / "synthetic", sizes.vocabulary, block, lambda *_: None)
        output.finish("tokens", Converted(tokens=describe_tokens(sizes.vocabulary, block, "none")))


def build_task(name: str, place: Path, sizes: Sizes, batch: int | None = None) -> Task:
    """The image or the language task at the wanted size."""
    common = {"device": sizes.device, "workers": 2 if sizes.device == "cuda" else 0}
    if name == "images":
        return trainables.build(
            "images", data=str(place / "images"), model="resnet18", batch_size=batch or sizes.batch, **common
        )
    return trainables.build(
        "tokens",
        data=str(place / "tokens"),
        model=sizes.model,
        context=sizes.context,
        batch_size=sizes.sequences,
        **common,
    )


def build_optimizer(name: str, task: Task, model: nn.Module, steps: int) -> Any:
    """By name, refreshing four times in `steps` where it refreshes at all.

    Raises TypeError or ValueError where it is not for one model with a loss (games, known spectra).
    """
    if name == BASELINE:
        return Fused(model, next(model.parameters()).is_cuda)
    extra: dict[str, Any] = {}
    if optim_core.needs_batches(name):
        extra = {"loss": task.loss, "refresh_batches": lambda index: task.refresh_batch(0, index)}
    if "lr" in optim_core.hyperparameters(name):
        extra["lr"] = 1e-4
    if "refresh_interval" in optim_core.hyperparameters(name):
        extra["refresh_interval"] = max(1, steps // 4)
    return optim_core.build(name, model, **extra)


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def step_times(name: str, task: Task, sizes: Sizes) -> tuple[list[float], float]:
    """(seconds of each step after the first tenth, peak memory in MiB)."""
    model = task.model(0)
    assert isinstance(model, nn.Module)
    if sizes.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    optimizer = build_optimizer(name, task, model, sizes.steps)
    gradients = Gradients(task, model, Recipe(precision="bf16"), Workers())
    found = []
    for index in range(sizes.steps):
        began = time.perf_counter()
        optimizer.step(gradients.closure(task.batch(0, index), optimizer, index))
        wait(sizes.device)
        found.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**20 if sizes.device == "cuda" else float("nan")
    return found[max(1, sizes.steps // 10) :], peak


def optimizers_table(place: Path, sizes: Sizes, only: list[str]) -> int:
    """Print the first table; returns how many optimizers failed."""
    failed = 0
    names = [BASELINE, *(n for n in optim_core.names() if not only or n in only)]
    for kind in ("images", "tokens"):
        task = build_task(kind, place, sizes)
        title = f"resnet18, batch {sizes.batch}" if kind == "images" else f"{sizes.model}, {sizes.sequences} windows"
        print(f"\n{title}, {sizes.steps} steps")
        print(f"{'optimizer':24}{'mean ms':>10}{'median ms':>11}{'longest ms':>12}{'peak MiB':>10}{'ratio':>8}")
        baseline = float("nan")
        for name in names:
            try:
                times, peak = step_times(name, task, sizes)
            except torch.OutOfMemoryError:
                print(f"{name:24}out of memory", flush=True)
                continue
            except (TypeError, ValueError) as error:
                print(f"{name:24}not for this task: {str(error).splitlines()[0][:80]}", flush=True)
                continue
            except Exception:
                failed += 1
                print(f"{name:24}FAILED\n{traceback.format_exc()}", flush=True)
                continue
            mean = statistics.mean(times)
            baseline = mean if name == BASELINE else baseline
            row = (1000 * mean, 1000 * statistics.median(times), 1000 * max(times), peak, mean / baseline)
            print(f"{name:24}{row[0]:10.2f}{row[1]:11.2f}{row[2]:12.2f}{row[3]:10.0f}{row[4]:8.2f}", flush=True)
    return failed


def small_trial(place: Path, sizes: Sizes) -> None:
    """A process of the second table: get ready, wait for the word, train, say how long it took."""
    torch.set_num_threads(1)
    task = build_task("images", place, sizes, sizes.small_batch)
    model = task.model(0)
    assert isinstance(model, nn.Module)
    optimizer = build_optimizer("sgd", task, model, sizes.small_steps)
    gradients = Gradients(task, model, Recipe(precision="bf16"), Workers())

    def train(first: int, last: int) -> None:
        for index in range(first, last):
            optimizer.step(gradients.closure(task.batch(0, index), optimizer, index))
        wait(sizes.device)

    train(0, 2)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    train(2, 2 + sizes.small_steps)
    print(time.perf_counter() - began, flush=True)


def sharing_table(place: Path, smoke: bool, sizes: Sizes) -> None:
    """Print the second table."""
    print(f"\nsmall trials (resnet18, batch {sizes.small_batch}, {sizes.small_steps} steps) that share the device")
    print(f"{'at once':>8}{'wall s':>9}{'steps/s':>10}{'against one after another':>28}")
    alone = float("nan")
    for count in sizes.shares:
        command = [sys.executable, "-m", "tests.bench.gpu_check", "--worker", str(place), *["--cpu-smoke"] * smoke]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        children = [subprocess.Popen(command, **pipes) for _ in range(count)]
        if not all(child.stdout and child.stdout.readline() == "ready\n" for child in children):
            print(f"{count:8} a process did not start (out of memory?)", flush=True)
            for child in children:
                child.kill()
            continue
        began = time.perf_counter()
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            assert child.stdout
            child.stdout.readline()
        wall = time.perf_counter() - began
        for child in children:
            child.communicate(timeout=60)
        alone = wall if count == 1 else alone
        print(f"{count:8}{wall:9.2f}{count * sizes.small_steps / wall:10.1f}{count * alone / wall:27.2f}x", flush=True)


def main(words: list[str] | None = None) -> int:
    """Run what was asked; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpu-smoke", action="store_true")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--worker", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    sizes = SMOKE if options.cpu_smoke else FULL
    if options.steps:
        sizes = Sizes(**{**sizes.__dict__, "steps": options.steps})
    if options.worker:
        small_trial(options.worker, sizes)
        return 0
    if not options.cpu_smoke and not torch.cuda.is_available():
        print(
            f"no CUDA device (torch {torch.__version__}): nothing was checked; --cpu-smoke runs this script on the CPU"
        )
        return 0
    where = torch.cuda.get_device_name() if sizes.device == "cuda" else f"CPU smoke run, {os.cpu_count()} cores"
    print(f"{where}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        before = os.environ.get(cache.VARIABLE)
        os.environ[cache.VARIABLE] = str(place / "cache")
        try:
            write_data(place, sizes)
            failed = optimizers_table(place, sizes, [n for n in options.only.split(",") if n])
            sharing_table(place, options.cpu_smoke, sizes)
        finally:
            os.environ.pop(cache.VARIABLE)
            if before is not None:
                os.environ[cache.VARIABLE] = before
    if failed:
        print(f"\n{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
