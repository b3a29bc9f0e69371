"""Write a data set completely or not at all.

Everything goes to `.NAME.partial-PID` next to the destination; `dataset.json` is written last, files are synced, and
the folder is renamed into place. The remains of a killed conversion are not a data set, and the next conversion removes
them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from numpy.typing import NDArray

from trainables.data import shards
from trainables.data.description import DataSet, Images, Shard, Split, Tokens
from trainables.data.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with (what is being read, units done, total units or 0)."""
SHARD_BYTES = 256 * 2**20
GROUP_BYTES, GROUP_ROWS = 8 * 2**20, 2000
LOCK = "lock"


def silent(what: str, done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What a converter found out in addition to the rows."""

    images: Images | None = None
    tokens: Tokens | None = None
    notes: tuple[str, ...] = ()
    """Sentences for the user, for example about leftover tokens."""


class Output:
    """A data set being written. `add` rows, then `finish` with its description."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, _Shard] = {}
        self._splits: dict[str, list[Shard]] = {}

    def add(self, split: str, columns: Mapping[str, Any], *, encoding: Mapping[str, str] | None = None) -> None:
        """Append rows (Arrow arrays of equal length) to a split, in row groups of about 8 MB or 2000 rows."""
        batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        if not batch.num_rows:
            return
        step = int(np.clip(GROUP_BYTES * batch.num_rows // max(1, batch.nbytes), 1, GROUP_ROWS))
        for first in range(0, batch.num_rows, step):
            shard = self._open.get(split)
            if shard is None:
                name = f"{split}-{len(self._splits.setdefault(split, [])):05d}.parquet"
                shard = self._open[split] = _Shard(self.folder / name, batch.schema, encoding)
            piece = batch.slice(first, step)
            shard.write(piece)
            if shard.bytes >= SHARD_BYTES:
                self._splits[split].append(self._open.pop(split).close())

    def rows(self, split: str) -> int:
        """Rows added so far."""
        still = self._open[split].rows if split in self._open else 0
        return sum(s.rows for s in self._splits.get(split, [])) + still

    def reference(self, split: str, shard: Shard) -> None:
        """List a Parquet file that stays where it is."""
        self._splits.setdefault(split, []).append(shard)

    def finish(self, name: str, converted: Converted) -> DataSet:
        """Close the shards and write `dataset.json`."""
        for split, shard in self._open.items():
            self._splits[split].append(shard.close())
        self._open.clear()
        if not self._splits.get("train"):
            raise DataError(name, "there is nothing to train on: no row of a split `train` was found")
        splits = {k: Split(rows=sum(s.rows for s in v), shards=tuple(v)) for k, v in self._splits.items()}
        dataset = DataSet(
            schema_version=1,
            name=name,
            images=converted.images,
            tokens=converted.tokens,
            splits=splits,
            folder=self.folder,
        )
        dataset.write(self.folder)
        return dataset

    def abandon(self) -> None:
        """Close open files."""
        for shard in self._open.values():
            with contextlib.suppress(Exception):
                shard.close()


class _Shard:
    """A Parquet file being written, without statistics and dictionaries, which pixels and tokens do not need."""

    def __init__(self, path: Path, schema: Any, encoding: Mapping[str, str] | None) -> None:
        self._path, self.rows, self.bytes = path, 0, 0
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="none" if encoding is None else "snappy",
            use_dictionary=False,
            write_statistics=False,
            column_encoding=dict(encoding) if encoding else None,
        )

    def write(self, batch: Any) -> None:
        self._writer.write_batch(batch, row_group_size=batch.num_rows)
        self.rows, self.bytes = self.rows + batch.num_rows, self.bytes + batch.nbytes

    def close(self) -> Shard:
        self._writer.close()
        sync(self._path)
        return describe(self._path, self._path.name)


def describe(path: Path, file: str) -> Shard:
    """The entry of a Parquet file in `dataset.json`."""
    rows = pq.read_metadata(path).num_rows
    return Shard(file=file, rows=rows, bytes=path.stat().st_size, sha256=shards.sha256(path))


def sync(path: Path) -> None:
    """Flush the file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(destination: Path) -> Iterator[Output]:
    """An `Output` whose folder becomes `destination` if the block succeeds, and is removed otherwise.

    Raises DataError if the destination exists and is not an empty folder.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(destination, "already exists; remove it or choose another destination")
    destination = destination.absolute()
    parent, prefix = destination.parent, f".{destination.name}.partial-"
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{prefix}*"):
        _remove_if_dead(old)
    folder = parent / f"{prefix}{os.getpid()}"
    folder.mkdir()
    with FileLock(folder / LOCK, timeout=60.0, fallback_to_soft=False):
        output = Output(folder)
        try:
            yield output
            if not (folder / "dataset.json").is_file():
                raise DataError(destination, "the conversion ended without a data set")
            (folder / LOCK).unlink()
            sync(folder)
            folder.replace(destination)
            sync(parent)
        except BaseException:
            output.abandon()
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _remove_if_dead(folder: Path) -> None:
    """Remove the remains of a killed conversion; a living one holds its lock."""
    try:
        with FileLock(folder / LOCK, blocking=False, fallback_to_soft=False):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return


class Statistics:
    """Exact mean and standard deviation of each channel, from histograms of the 256 values."""

    def __init__(self, channels: int) -> None:
        self._counts = np.zeros((channels, 256), np.int64)
        self.rows = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """Count pixels of uint8 [n, C, H, W] (or [n, C, anything])."""
        self.rows += len(images)
        for channel, counts in enumerate(self._counts):
            counts += np.bincount(images[:, channel].ravel(), minlength=256)

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of pixels scaled to [0, 1]; a constant channel gets std 1 / 255."""
        values = np.arange(256) / 255
        total = self._counts.sum(1)
        mean = self._counts @ values / total
        var = self._counts @ values**2 / total - mean**2
        std = np.sqrt(np.maximum(var, 0))
        return tuple(map(float, mean.round(6))), tuple(map(float, np.maximum(std, 1 / 255).round(6)))


def binary(images: NDArray[np.uint8]) -> Any:
    """uint8 [n, C, H, W] as fixed_size_binary(C*H*W)."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    return pa.Array.from_buffers(pa.binary(flat.shape[1]), len(flat), [None, pa.py_buffer(flat)])


def encoded(contents: list[bytes], paths: list[str]) -> Any:
    """Image files as struct{bytes: binary, path: string}."""
    return pa.StructArray.from_arrays(
        [pa.array(contents, pa.binary()), pa.array(paths, pa.string())], ["bytes", "path"]
    )
