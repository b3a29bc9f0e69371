"""CIFAR-10 and CIFAR-100 in the Python version (Krizhevsky 2009): a tar.gz, or the folder in it, of pickled batches.

A batch is a dictionary with bytes keys: `data` uint8 [n, 3072], each row the red, green and blue plane of 32 x 32,
hence already CHW; `labels` or `fine_labels`, a list of integers. CIFAR-10: `data_batch_1` to `_5`, `test_batch`, names
in `batches.meta`. CIFAR-100: `train`, `test`, names in `meta`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainables.data.convert import archives, pickles
from trainables.data.convert.output import Converted, Output, Progress, Statistics, binary
from trainables.data.description import Images
from trainables.data.errors import DataError

SHAPE = (3, 32, 32)
WIDTH = 3072


@dataclass(frozen=True)
class Layout:
    """The names of the files in an archive."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names: bytes
    labels: bytes


LAYOUTS = {
    10: Layout(
        tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), "batches.meta", b"label_names", b"labels"
    ),
    100: Layout(("train",), ("test",), "meta", b"fine_label_names", b"fine_labels"),
}


def cifar10(source: Path, output: Output, progress: Progress) -> Converted:
    """SRC: cifar-10-python.tar.gz, or cifar-10-batches-py/. Splits train and test; a task holds out its own val."""
    return _convert(source, output, progress, LAYOUTS[10])


def cifar100(source: Path, output: Output, progress: Progress) -> Converted:
    """SRC: cifar-100-python.tar.gz, or cifar-100-python/. The 100 fine labels."""
    return _convert(source, output, progress, LAYOUTS[100])


def _convert(source: Path, output: Output, progress: Progress, layout: Layout) -> Converted:
    wanted = [*layout.train, *layout.test]
    splits = {**dict.fromkeys(layout.train, "train"), **dict.fromkeys(layout.test, "test")}
    found: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64], str]] = {}
    classes: tuple[str, ...] | None = None
    for place, name, content in _files(source):
        if name not in splits and name != layout.meta:
            continue
        batch = pickles.load(io.BytesIO(content), place)
        if name == layout.meta:
            classes = tuple(str(_of(batch, layout.names, place)[i], "utf-8") for i in range(len(batch[layout.names])))
        else:
            found[name] = (_images(batch, place), _labels(batch, layout.labels, place), place)
            progress(name, len(found), len(wanted))
    missing = [name for name in [*wanted, layout.meta] if name not in found and not (name == layout.meta and classes)]
    if missing or classes is None:
        raise DataError(source, f"there is no {', '.join(missing)}; truncated, or another data set", field="archive")
    statistics = Statistics(3)
    for name in wanted:
        images, labels, place = found[name]
        bad = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if len(bad):
            label = labels[bad[0]]
            raise DataError(
                place, f"row {bad[0]} is {label}; there are {len(classes)} classes", field=layout.labels.decode()
            )
        output.add(splits[name], {"image": binary(images), "label": pa.array(labels, pa.int64())})
        if splits[name] == "train":
            statistics.add(images)
    mean, std = statistics.result()
    return Converted(
        images=Images(encoding="raw", shape=SHAPE, classes=classes, mean=mean, std=std, statistics_rows=statistics.rows)
    )


def _files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """(place for errors, base name, content)."""
    if source.is_dir():
        inside = [p for p in sorted(source.rglob("*")) if p.is_file()]
        yield from ((str(p), p.name, p.read_bytes()) for p in inside)
    else:
        for name, content in archives.members(source):
            yield f"{source}!{name}", Path(name).name, content


def _of(batch: dict[bytes, Any], key: bytes, place: str) -> Any:
    if key not in batch:
        there = ", ".join(k.decode(errors="replace") for k in batch if isinstance(k, bytes))
        raise DataError(place, f"no such key; available: {there}", field=key.decode())
    return batch[key]


def _images(batch: dict[bytes, Any], place: str) -> NDArray[np.uint8]:
    data = _of(batch, b"data", place)
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == WIDTH):
        what = f"{data.dtype} {list(data.shape)}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(place, f"is {what}; it must be uint8 [n, {WIDTH}]", field="data")
    return data.reshape(-1, *SHAPE)


def _labels(batch: dict[bytes, Any], key: bytes, place: str) -> NDArray[np.int64]:
    labels = _of(batch, key, place)
    if not isinstance(labels, list) or not all(isinstance(v, int) for v in labels):
        raise DataError(place, "is not a list of integers", field=key.decode())
    if len(labels) != len(batch[b"data"]):
        raise DataError(place, f"has {len(labels)} labels for {len(batch[b'data'])} images", field=key.decode())
    return np.asarray(labels, np.int64)
