"""Data bench: conversion and load times, reading from the cache, memory of eight processes on one data set.

    python -m tests.bench.data_reading [--rows 10000] [--processes 8]

CIFAR-100 in its original layout is written with random pixels, converted, cached and read; list columns and plain
Parquet reading are measured beside it. Times are the best of several, wall seconds; memory is
/proc/self/smaps_rollup of processes that each hold the mapped training images and have touched every page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.trainables.data import sources
from trainables.data import Columns, DataSet, cache, columns, load
from trainables.data.check import check
from trainables.data.convert import convert
from trainables.data.pixels import Pixels

LIMIT_S = 0.05
READER = """
import sys
from pathlib import Path
from trainables.data import columns, load
how, folder = sys.argv[1], Path(sys.argv[2])
if how == "cache":
    images = columns(load(folder), "train")["image"]
    int(images.sum())
elif how == "copy":
    import numpy as np
    images = np.array(columns(load(folder), "train")["image"])
print("ready", flush=True)
sys.stdin.readline()
rows = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
print(rows["Rss:"], rows["Pss:"], int(rows["Private_Clean:"]) + int(rows["Private_Dirty:"]), flush=True)
sys.stdin.readline()
"""


def best(call: Callable[[], object], times: int = 7) -> float:
    """Shortest wall seconds of several calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def once(call: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds of one call."""
    began, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - cpu


def memory(how: str, folder: Path, processes: int) -> tuple[float, float, float]:
    """Sums over the processes in MiB: resident, proportional, private."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", READER, how, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(processes)
    ]
    for child in children:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
    rows = []
    for child in children:
        assert child.stdin
        assert child.stdout
        child.stdin.write("\n")
        child.stdin.flush()
        rows.append([int(word) for word in child.stdout.readline().split()])
    for child in children:
        child.communicate("\n", timeout=60)
    resident, shared, private = (sum(column) / 1024 for column in zip(*rows, strict=True))
    return resident, shared, private


def conversions(place: Path, rows: int) -> DataSet:
    """Convert, check and cache; print what each takes."""
    source = sources.tar(place / "cifar-100-python.tar.gz", sources.cifar100_files(rows), zipped=True)
    wall, cpu = once(lambda: convert("cifar100", source, place / "cifar100"))
    print(f"convert cifar100, {2 * rows:,} images of a tar.gz: {wall:.2f} s ({cpu:.2f} CPU s)")
    wall, cpu = once(lambda: check(place / "cifar100", lambda *_: None))
    print(f"check it: {wall:.2f} s ({cpu:.2f} CPU s)")
    ids = np.random.default_rng(0).integers(0, 50257, 4_000_000).astype(np.uint16)
    ids.tofile(place / "train.bin")
    wall, cpu = once(lambda: convert("tokens-bin", place / "train.bin", place / "tokens", vocabulary=50257))
    size = sum(p.stat().st_size for p in (place / "tokens").glob("*.parquet")) / 2**20
    print(f"convert tokens-bin, 4,000,000 tokens: {wall:.2f} s ({cpu:.2f} CPU s), {size:.1f} MiB")
    folder = sources.image_folder(place / "folder", {"train": 100}, tuple(f"class{i}" for i in range(10)))
    wall, cpu = once(lambda: convert("imagefolder", folder, place / "images"))
    print(f"convert imagefolder, 1,000 small JPEG and PNG: {wall:.2f} s ({cpu:.2f} CPU s)")
    dataset = load(place / "cifar100")
    wall, cpu = once(lambda: columns(dataset, "train"))
    print(f"first use: build the cache of both splits, hashes and values verified: {wall:.2f} s ({cpu:.2f} CPU s)")
    return dataset


def reading(dataset: DataSet, place: Path, rows: int) -> bool:
    """Print reading times; whether the limit holds."""
    parquet = place / "cifar100/train-00000.parquet"
    lists = place / "lists.parquet"
    flat = columns(dataset, "train")["image"].reshape(rows, -1)
    pq.write_table(pa.table({"image": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), 3072)}), lists)
    order = np.random.default_rng(0).permutation(rows)
    assert dataset.images

    def mapped() -> Columns:
        cache._mapped.cache_clear()
        return columns(dataset, "train")

    opened = best(mapped)
    whole = best(lambda: np.array(mapped()["image"]))
    shuffled = best(lambda: mapped()["image"][order])
    pixels = Pixels(columns(dataset, "train"), dataset.images, side=32, crop="padded", flip=True)
    batches = order[: rows // 128 * 128].reshape(-1, 128)
    epochs = np.zeros(128, dtype=np.int64)
    augmented = best(lambda: [pixels.train(b, epochs, 0) for b in batches], 3)
    print(
        f"open the mapped cache: {1000 * opened:.2f} ms, {pa.total_allocated_bytes() / 2**20:.1f} MiB of Arrow memory"
    )
    print(f"read {rows:,} images in order: {whole:.4f} s")
    print(f"read {rows:,} images shuffled: {shuffled:.4f} s")
    print(f"read {rows:,} images shuffled in batches of 128 with crop and flip: {augmented:.3f} s")
    print(f"the same from Parquet, fixed_size_binary: {best(lambda: pq.read_table(parquet), 3):.3f} s")
    print(f"the same from Parquet, list of uint8: {best(lambda: pq.read_table(lists), 3):.3f} s")
    good = max(whole, shuffled) * 10_000 / rows < LIMIT_S
    print(f"10 000 images from the cache under {LIMIT_S} s: {'yes' if good else 'NO'}")
    return good


def sharing(folder: Path, rows: int, processes: int) -> bool:
    """Print the memory of many processes; whether they hold one copy."""
    size = rows * 3072 / 2**20
    print(f"\nmemory of {processes} processes on {size:.0f} MiB of training images, MiB in all")
    print(f"{'':24}{'resident':>10}{'proportional':>14}{'private':>10}{'copies held':>13}")
    base = memory("nothing", folder, processes)
    held = 0.0
    for how, title in (("nothing", "imports alone"), ("cache", "mapped cache"), ("copy", "a copy each")):
        found = base if how == "nothing" else memory(how, folder, processes)
        copies = (found[1] - base[1]) / size
        held = copies if how == "cache" else held
        print(f"{title:24}{found[0]:10.0f}{found[1]:14.0f}{found[2]:10.0f}{copies:13.2f}")
    good = held < 1.2
    print(f"{processes} processes hold one copy: {'yes' if good else 'NO'}")
    return good


def main() -> None:
    """Run all; exit code 1 when a promise does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, pyarrow {pa.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ[cache.VARIABLE] = str(place / "cache")
        dataset = conversions(place, options.rows)
        good = [reading(dataset, place, options.rows), sharing(place / "cifar100", options.rows, options.processes)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
