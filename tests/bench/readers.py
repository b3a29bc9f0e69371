"""Readers bench: what reading ahead is worth, against the time of a step, in threads and in processes.

    python -m tests.bench.readers [--seconds 3] [--rate 5000]

Data are made: CIFAR-sized raw images (crop, flip, cutout), small JPEG and PNG files cut and scaled to 32 pixels, text.
First table: batches made as fast as it goes, by the step itself, by threads, and by processes that send them back (a
fork for each, batches pickled). Second table: a step that is elsewhere for as long as a batch takes at `--rate` images
a second (the CPU is free meanwhile, as with a GPU; the host sleeps), and how much of the time it waits for its batch.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import trainables
from tests.trainables.data import canonical, sources
from trainables import Task
from trainables.data import cache
from trainables.data.convert import convert

COUNTS = (0, 1, 2, 4)
BATCH = 128
_task: Task | None = None


def tasks(place: Path) -> dict[str, Task]:
    """The three kinds."""
    canonical.raw_images(place / "raw", {"train": 10_000, "val": 16}, classes=100, shape=(3, 32, 32))
    folder = sources.image_folder(place / "src", {"train": 100, "val": 2}, tuple(f"class{i}" for i in range(10)))
    convert("imagefolder", folder, place / "encoded")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, (1_000_000,), generator=generator).numpy()
    canonical.tokens(place / "text", {"train": ids, "val": ids[:50_000]}, vocabulary=1000, block=500)
    images: dict[str, Any] = {"model": "resnet18", "batch_size": BATCH, "device": "cpu", "flip": True}
    return {
        "raw images": trainables.build("images", data=str(place / "raw"), cutout=8, crop="padded", **images),
        "JPEG images": trainables.build("images", data=str(place / "encoded"), size=32, crop="resized", **images),
        "tokens": trainables.build(
            "tokens", data=str(place / "text"), model="gpt_nano", context=1024, batch_size=8, device="cpu"
        ),
    }


def in_process(index: int) -> Any:
    """A batch made in a process of the pool."""
    assert _task is not None
    return _task.batch(0, index)


@contextmanager
def source(task: Task, how: str, count: int) -> Iterator[Callable[[int], Any]]:
    """`get(index)` by so many readers of a kind."""
    global _task
    if how == "processes":
        _task = task
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("fork")) as pool:
            ready: dict[int, Future[Any]] = {}

            def get(index: int) -> Any:
                for i in range(index, index + 2 * count):
                    if i not in ready:
                        ready[i] = pool.submit(in_process, i)
                return ready.pop(index).result()

            yield get
            for future in ready.values():
                future.cancel()
        return
    task.read_ahead(count)
    try:
        yield lambda index: task.batch(0, index)
    finally:
        task.read_ahead(0)


def measure(get: Callable[[int], Any], step: Callable[[Any], None], seconds: float) -> tuple[float, float]:
    """(batches a second, share of the time spent waiting for one), after three to warm up."""
    began = waited = 0.0
    index = 0
    while index < 5 or time.perf_counter() - began < seconds:
        if index == 3:
            began, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = get(index)
        waited += time.perf_counter() - asked
        step(batch)
        index += 1
    taken = time.perf_counter() - began
    return (index - 3) / taken, waited / taken


def nothing(batch: Any) -> None:
    """A step that takes no time."""


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=5000.0, help="images a second of the step that is elsewhere")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as name:
        os.environ[cache.VARIABLE] = str(Path(name) / "cache")
        found = tasks(Path(name))
        print(f"\nbatches a second ({BATCH} images, 8 windows of 1024 tokens)")
        print(f"{'':14}{'in the step':>12}{'1 thread':>10}{'2 threads':>11}{'2 processes':>13}")
        ways = (("threads", 0), ("threads", 1), ("threads", 2), ("processes", 2))
        for kind, task in found.items():
            rates = []
            for how, count in ways:
                with source(task, how, count) as get:
                    rates.append(measure(get, nothing, options.seconds)[0])
            print(f"{kind:14}{rates[0]:12.1f}{rates[1]:10.1f}{rates[2]:11.1f}{rates[3]:13.1f}", flush=True)
        away = BATCH / options.rate
        print(f"\na step that is elsewhere for {1000 * away:.1f} ms: share of the time without a batch, by readers")
        print(f"{'':14}" + "".join(f"{count:>9}" for count in COUNTS))
        for kind, task in found.items():
            shares = [waiting(task, count, lambda batch: time.sleep(away), options.seconds)[1] for count in COUNTS]
            print(f"{kind:14}" + "".join(f"{100 * share:8.2f}%" for share in shares), flush=True)


def waiting(task: Task, count: int, step: Callable[[Any], None], seconds: float) -> tuple[float, float]:
    """As `measure`, by threads."""
    with source(task, "threads", count) as get:
        return measure(get, step, seconds)


if __name__ == "__main__":
    main()
