"""Node-local cache: each split as an uncompressed, memory-mapped Arrow IPC file, shared by all trials on a node.

Parquet pages must be decoded, so every process that reads them holds a copy. The cache holds the decoded columns in one
record batch; mapping it allocates nothing, and all processes share the pages in the operating system's cache.

The key is the data set's fingerprint: equal content is cached once, wherever it came from, and changed content has
another key. The first trial builds the cache under a lock in a temporary folder that is renamed when complete; the
others wait. Building verifies size and SHA-256 of each shard and every value (see `shards.py`); memory stays at about
one row group.

Location: see `machine_cache`. It may be deleted at any time.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from trainables.data import shards
from trainables.data.description import DataSet
from trainables.data.errors import DataError
from trainables.machine_cache import VARIABLE, folder

VERSION = 1
TEMPORARY = ".building-"


@dataclass(frozen=True)
class Columns:
    """A memory-mapped split. Arrays are read-only: copy the batch, not the set.

    Raw images: `image` uint8 [rows, C, H, W]. Encoded: `image` uint8 (flat) and `image_offsets` int64 [rows + 1].
    `label` int64 [rows]. Text: `tokens` [all], `mask` uint8 [all] where the data set has one; rows is then len(tokens).
    """

    rows: int
    arrays: dict[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


def columns(dataset: DataSet, split: str) -> Columns:
    """The columns of a split from this node's cache, which is built if needed. Raises DataError."""
    place = folder() / f"{dataset.fingerprint}-v{VERSION}"
    if not place.is_dir():
        _build(dataset, place)
    shape = dataset.images.shape if dataset.images else ()
    try:
        return _mapped(place / f"{split}.arrow", shape)
    except (OSError, pa.ArrowException):  # truncated by a full disk or by mistake: rebuild from the start
        _build(dataset, place, anew=True)
        return _mapped(place / f"{split}.arrow", shape)


@lru_cache(maxsize=64)
def _mapped(path: Path, shape: tuple[int, ...]) -> Columns:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    found: dict[str, NDArray[Any]] = {}
    for name in batch.schema.names:
        array = batch.column(name)
        buffers = array.buffers()
        if pa.types.is_large_binary(array.type):
            found[f"{name}_offsets"] = np.frombuffer(buffers[1], np.int64)
            found[name] = np.frombuffer(buffers[2], np.uint8)
        elif pa.types.is_fixed_size_binary(array.type):
            found[name] = np.frombuffer(buffers[1], np.uint8).reshape(-1, *shape)
        else:
            found[name] = np.frombuffer(buffers[1], np.dtype(str(array.type)))
    return Columns(batch.num_rows, found)


def _build(dataset: DataSet, place: Path, *, anew: bool = False) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock"), fallback_to_soft=False):
        if place.is_dir() and not (anew and _broken(dataset, place)):
            return
        for stale in place.parent.glob(f"{TEMPORARY}{place.name}*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = place.parent / f"{TEMPORARY}{place.name}-{os.getpid()}"
        try:
            temporary.mkdir()
            for split in dataset.splits:
                _require_space(dataset, split, temporary)
                _write(dataset, split, temporary / f"{split}.arrow")
            shutil.rmtree(place, ignore_errors=True)
            temporary.replace(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _broken(dataset: DataSet, place: Path) -> bool:
    try:
        for split in dataset.splits:
            pa.ipc.open_file(pa.memory_map(str(place / f"{split}.arrow"))).get_batch(0)
    except (OSError, pa.ArrowException):
        return True
    return False


def _require_space(dataset: DataSet, split: str, place: Path) -> None:
    """The columns are spooled, then written: temporarily twice the decoded size."""
    size = sum(s.bytes for s in dataset.splits[split].shards)
    if dataset.images and dataset.images.encoding == "raw":
        size = dataset.splits[split].rows * int(np.prod(dataset.images.shape))
    free = shutil.disk_usage(place).free
    if free < 2 * size:
        raise DataError(
            place.parent,
            f"{free / 2**30:.1f} GiB free, split {split!r} needs {2 * size / 2**30:.1f}; "
            f"set another folder in {VARIABLE}",
        )


class _Spool:
    """A column being collected in a file, to be mapped once it is complete."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self.dtype = path, path.open("wb"), np.dtype(np.uint8)
        self.items = 0

    def add(self, array: NDArray[Any]) -> None:
        np.ascontiguousarray(array).tofile(self._file)
        self.dtype, self.items = array.dtype, self.items + len(array)

    def buffer(self) -> Any:
        self._file.close()
        buffer = pa.memory_map(str(self._path)).read_buffer() if self.items else pa.py_buffer(b"")
        self._path.unlink()
        return buffer


def _write(dataset: DataSet, split: str, path: Path) -> None:
    spools: dict[str, _Spool] = {}
    for shard in dataset.splits[split].shards:
        shards.verify(dataset.path(shard), shard)
        for group in shards.groups(dataset, shard):
            for name, values in group.columns.items():
                if name not in spools:
                    spools[name] = _Spool(path.with_suffix(f".{name}"))
                spools[name].add(values)
    if not spools:
        raise DataError(dataset.folder, "has no rows", field=f"splits.{split}")
    if "image_sizes" in spools:
        sizes = np.frombuffer(spools.pop("image_sizes").buffer(), np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        image = pa.Array.from_buffers(
            pa.large_binary(), len(sizes), [None, pa.py_buffer(offsets), spools.pop("image").buffer()]
        )
        arrays = {"image": image}
    elif "image" in spools:
        assert dataset.images
        width = int(np.prod(dataset.images.shape))
        spool = spools.pop("image")
        arrays = {"image": pa.Array.from_buffers(pa.binary(width), spool.items // width, [None, spool.buffer()])}
    else:
        arrays = {}
    for name, spool in spools.items():
        arrays[name] = pa.Array.from_buffers(pa.from_numpy_dtype(spool.dtype), spool.items, [None, spool.buffer()])
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    with path.open("wb") as out:
        _write_batch(batch, out)
        out.flush()
        os.fsync(out.fileno())


def _write_batch(batch: Any, out: BinaryIO) -> None:
    options = pa.ipc.IpcWriteOptions(allow_64bit=True, compression=None)
    with pa.ipc.new_file(out, batch.schema, options=options) as writer:
        writer.write_batch(batch)
