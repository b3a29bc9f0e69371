"""Folders of images: ROOT/train/CLASS/*.jpg, ROOT/val/CLASS/*.jpg, ROOT/test/... (torchvision's ImageFolder, ImageNet).

The class of an image is its folder; classes are numbered in the sorted order of the names under `train`. The bytes of
the files are kept as they are. A root with class folders and no split folders becomes one split `train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from trainables.data import decode
from trainables.data.convert.output import Converted, Output, Progress, Statistics, encoded
from trainables.data.description import Images
from trainables.data.errors import DataError

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
SAMPLE, CHUNK = 1000, 256


def imagefolder(source: Path, output: Output, progress: Progress) -> Converted:
    """SRC: a folder with train/, and perhaps val/ and test/, of one folder for each class."""
    roots = _splits(source)
    classes = _classes(roots["train"])
    files = {split: _files(root, classes) for split, root in roots.items()}
    total, done = sum(map(len, files.values())), 0
    for split, rows in files.items():
        for first in range(0, len(rows), CHUNK):
            piece = rows[first : first + CHUNK]
            contents = [_read(path) for path, _ in piece]
            names = [str(path.relative_to(source)) for path, _ in piece]
            labels = pa.array([label for _, label in piece], pa.int64())
            output.add(split, {"image": encoded(contents, names), "label": labels})
            done += len(piece)
            progress(split, done, total)
    train = [path for path, _ in files["train"]]
    return Converted(images=describe_encoded([(str(p), p.read_bytes()) for p in sample(train)], classes))


def describe_encoded(images: Sequence[tuple[str, bytes]], classes: Sequence[str]) -> Images:
    """Channels (1 if all are gray), mean and deviation, from a sample of (place, encoded training image)."""
    channels = 1 if all(decode.header(content, place) == "L" for place, content in images) else 3
    statistics = Statistics(channels)
    for place, content in images:
        pixels = np.asarray(decode.opened(content, channels, place))
        statistics.add(pixels.reshape(1, -1, channels).transpose(0, 2, 1))
    mean, std = statistics.result()
    return Images(
        encoding="encoded",
        shape=(channels, 0, 0),
        classes=tuple(classes),
        mean=mean,
        std=std,
        statistics_rows=len(images),
    )


def sample(rows: Sequence[T], size: int = SAMPLE) -> list[T]:
    """At most `size` of the rows, evenly spaced."""
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(size, len(rows)), dtype=int))]


def _splits(source: Path) -> dict[str, Path]:
    found = {
        split: source / name for split, names in SPLITS.items() for name in reversed(names) if (source / name).is_dir()
    }
    if found and "train" not in found:
        raise DataError(source, f"has {', '.join(sorted(found))} but no folder `train`")
    return found or {"train": source}


def _classes(root: Path) -> list[str]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise DataError(root, f"has {len(names)} class folders; put the images in one folder per class")
    return names


def _files(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    numbers = {name: i for i, name in enumerate(classes)}
    found = []
    for folder in sorted(p for p in root.iterdir() if not p.name.startswith(".")):
        if folder.is_file() and folder.suffix.lower() in SUFFIXES:
            raise DataError(folder, f"is in {root.name}/ itself; move each image to the folder of its class")
        if not folder.is_dir():
            continue
        if folder.name not in numbers:
            raise DataError(folder, f"is not a class of the training images; there are {len(classes)}", field="label")
        inside = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        found += [(path, numbers[folder.name]) for path in inside if not path.name.startswith(".")]
    if not found:
        raise DataError(root, f"has no images; supported suffixes: {', '.join(sorted(SUFFIXES))}", field="image")
    return found


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    decode.header(content, str(path))
    return content
