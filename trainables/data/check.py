"""Check a data set completely: description, hashes, every value, every encoded image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from joblib import cpu_count

from trainables.data import decode, description, shards
from trainables.data.description import DataSet, Shard
from trainables.data.errors import DataError

Progress = Callable[[str, int, int], None]


def check(folder: Path, progress: Progress) -> tuple[DataSet | None, list[DataError]]:
    """The data set (None if `dataset.json` itself is invalid) and its errors, shard by shard."""
    try:
        dataset = description.load(folder)
    except DataError as error:
        return None, [error]
    problems: list[DataError] = []
    listed = [(split, shard) for split, part in dataset.splits.items() for shard in part.shards]
    with ThreadPoolExecutor(cpu_count()) as pool:
        for done, (split, shard) in enumerate(listed, 1):
            problems += _shard(dataset, shard, pool)
            progress(split, done, len(listed))
    named = {dataset.path(shard).name for _, shard in listed}
    strays = [p for p in sorted(folder.glob("*.parquet")) if p.name not in named]
    problems += [DataError(p, f"exists, but {description.FILE} does not list it") for p in strays]
    return dataset, problems


def _shard(dataset: DataSet, shard: Shard, pool: ThreadPoolExecutor) -> Iterator[DataError]:
    path = dataset.path(shard)
    try:
        shards.verify(path, shard)
    except DataError as error:
        yield error
        if not path.is_file():
            return
    try:
        for group in shards.groups(dataset, shard):
            if "image_sizes" in group.columns:
                yield from _images(dataset, path, group, pool)
    except DataError as error:
        yield error


def _images(dataset: DataSet, path: Path, group: shards.Group, pool: ThreadPoolExecutor) -> Iterator[DataError]:
    assert dataset.images
    channels, field = dataset.images.shape[0], dataset.images.image_column
    ends = np.cumsum(group.columns["image_sizes"])
    data = group.columns["image"]

    def damaged(row: int) -> DataError | None:
        content = data[ends[row] - group.columns["image_sizes"][row] : ends[row]]
        try:
            decode.opened(content.tobytes(), channels, f"row {row}")
        except DataError as error:
            return DataError(path, f"row {row} {error.message}", row_group=group.index, field=field)
        return None

    yield from (error for error in pool.map(damaged, range(group.rows)) if error)
