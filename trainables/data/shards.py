"""Read Parquet shards row group by row group, checking everything that `dataset.json` promises.

A group is returned as flat NumPy arrays: raw images `image` uint8 [n * C*H*W]; encoded images `image` uint8 (all files
concatenated) and `image_sizes` int64 [n]; `label` int64 [n]; text `tokens` uint16 or int32 [all tokens], `mask` uint8
of that length.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainables.data.description import DataSet, Images, Shard, Tokens
from trainables.data.errors import DataError

Array = NDArray[Any]
INTEGERS = (
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
)


@dataclass(frozen=True)
class Group:
    """One row group."""

    index: int
    rows: int
    columns: dict[str, Array]


@dataclass(frozen=True)
class Place:
    """Creates errors that include their location."""

    file: Path
    row_group: int | None
    field: str

    def error(self, message: str) -> DataError:
        """The error of this field."""
        return DataError(self.file, message, row_group=self.row_group, field=self.field)


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify(path: Path, shard: Shard) -> None:
    """Raise DataError unless the file has the size and hash given in `dataset.json`."""
    if not path.is_file():
        raise DataError(path, "is missing; dataset.json lists it")
    size = path.stat().st_size
    if size != shard.bytes:
        raise DataError(path, f"has {size} bytes where dataset.json says {shard.bytes}", field="bytes")
    found = sha256(path)
    if found != shard.sha256:
        raise DataError(path, f"is {found[:16]}... where dataset.json says {shard.sha256[:16]}...", field="sha256")


def groups(dataset: DataSet, shard: Shard) -> Iterator[Group]:
    """All row groups of a shard, checked. Raises DataError naming file, row group and field."""
    path = dataset.path(shard)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"is not a Parquet file: {error}") from None
    with file:
        fields = _fields(dataset)
        for name in fields:
            if name not in file.schema_arrow.names:
                there = ", ".join(file.schema_arrow.names)
                raise DataError(path, f"no such column; available: {there}", row_group=0, field=name)
        if file.metadata.num_rows == 0:
            raise DataError(path, "the shard is empty", row_group=0, field=next(iter(fields)))
        if file.metadata.num_rows != shard.rows:
            raise DataError(path, f"is {file.metadata.num_rows} where dataset.json says {shard.rows}", field="rows")
        for index in range(file.num_row_groups):
            try:
                table = file.read_row_group(index, columns=list(fields))
            except (pa.ArrowException, OSError) as error:
                raise DataError(path, f"cannot be read: {error}", row_group=index) from None
            yield Group(index, table.num_rows, _columns(dataset, table, path, index))


def _fields(dataset: DataSet) -> list[str]:
    if dataset.images:
        return [dataset.images.image_column, dataset.images.label_column]
    assert dataset.tokens
    return [dataset.tokens.tokens_column, *(["mask"] if dataset.tokens.masked else [])]


def _columns(dataset: DataSet, table: pa.Table, path: Path, index: int) -> dict[str, Array]:
    def column(name: str) -> tuple[Any, Place]:
        place = Place(path, index, name)
        found = table.column(name).combine_chunks()
        if isinstance(found, pa.ChunkedArray):
            found = pa.concat_arrays(found.chunks)
        if found.null_count:
            raise place.error(f"row {found.is_null().index(True).as_py()} is null")
        return found, place

    if dataset.images:
        images = dataset.images
        read = raw_images if images.encoding == "raw" else encoded_images
        found = read(*column(images.image_column), images)
        return {**found, "label": labels(*column(images.label_column), len(images.classes))}
    tokens = dataset.tokens
    assert tokens
    found = {"tokens": token_ids(*column(tokens.tokens_column), tokens)}
    if tokens.masked:
        mask, place = column("mask")
        found["mask"] = _flat(mask, place, tokens.block, (pa.bool_(), pa.uint8(), pa.int8())).astype(np.uint8)
    return found


def raw_images(array: Any, place: Place, images: Images) -> dict[str, Array]:
    """fixed_size_binary, or a list of uint8, of exactly C*H*W bytes per row."""
    width = math.prod(images.shape)
    kind = array.type
    if pa.types.is_fixed_size_binary(kind):
        if kind.byte_width != width:
            raise place.error(f"is {kind.byte_width} bytes wide; shape {list(images.shape)} needs {width}")
        whole = np.frombuffer(array.buffers()[1], np.uint8)
        return {"image": whole[array.offset * width : (array.offset + len(array)) * width]}
    return {"image": _flat(array, place, width, (pa.uint8(),), f"fixed_size_binary({width})")}


def encoded_images(array: Any, place: Place, images: Images) -> dict[str, Array]:
    """struct{bytes: binary, ...} or plain binary: JPEG or PNG files."""
    if pa.types.is_struct(array.type):
        if array.type.get_field_index("bytes") < 0:
            raise place.error(f"is {array.type}; it needs a field `bytes`")
        array = array.field("bytes")
    if not any(kind(array.type) for kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)):
        raise place.error(f"is {array.type}; encoded images are struct{{bytes: binary, path: string}}")
    if array.null_count:
        raise place.error(f"row {array.is_null().index(True).as_py()} has no bytes (a path alone is not enough)")
    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    sizes = np.diff(offsets)
    if len(sizes) and sizes.min() == 0:
        raise place.error(f"row {int(sizes.argmin())} is empty")
    data = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return {"image": data, "image_sizes": sizes}


def labels(array: Any, place: Place, classes: int) -> Array:
    """Integers in [0, classes)."""
    if not pa.types.is_integer(array.type):
        raise place.error(f"is {array.type}; labels are int64")
    found = np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.int64)
    bad = np.flatnonzero((found < 0) | (found >= classes))
    if len(bad):
        row = int(bad[0])
        raise place.error(f"row {row} is {found[row]}; the data set has {classes} classes (0 to {classes - 1})")
    return found


def token_ids(array: Any, place: Place, tokens: Tokens) -> Array:
    """All tokens concatenated, in [0, vocabulary)."""
    wanted = f"fixed_size_list<{tokens.dtype}>[{tokens.block}]" if tokens.block else "a list of integers"
    found = _flat(array, place, tokens.block, INTEGERS, wanted)
    check_tokens(found, place, tokens.vocabulary, tokens.block)
    return found.astype(tokens.dtype)


def check_tokens(found: Array, place: Place, vocabulary: int, block: int = 0) -> None:
    """Raise DataError for the first token outside [0, vocabulary), with its row if rows have `block` tokens."""
    if not len(found) or (int(found.max()) < vocabulary and int(found.min()) >= 0):
        return
    first = int(np.flatnonzero((found < 0) | (found >= vocabulary))[0])
    where = f"row {first // block}, token {first % block}" if block else f"token {first}"
    raise place.error(f"{where} is {found[first]}; the vocabulary has {vocabulary} (0 to {vocabulary - 1})")


def _flat(array: Any, place: Place, width: int, values: tuple[Any, ...], wanted: str = "") -> Array:
    """The values of a list column, concatenated; every row has `width` of them (any number if width is 0)."""
    kind = array.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or kind.value_type not in values:
        raise place.error(f"is {kind}; it must be {wanted or f'a list of {values[0]}'}")
    if width:
        if pa.types.is_fixed_size_list(kind):
            sizes = np.full(len(array), kind.list_size)
        else:
            offsets = array.offsets.to_numpy(zero_copy_only=False)
            sizes = np.diff(offsets)
        bad = np.flatnonzero(sizes != width)
        if len(bad):
            raise place.error(f"row {int(bad[0])} has {int(sizes[bad[0]])} values; it must have {width}")
    flat = array.flatten()
    if flat.null_count:
        raise place.error(f"value {flat.is_null().index(True).as_py()} is null")
    return np.asarray(flat.to_numpy(zero_copy_only=False))
