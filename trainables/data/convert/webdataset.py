"""WebDataset: tar shards in which consecutive members with the same key are one sample.

The key is the path up to the first dot of the file's name; the rest is the field: an image (`jpg`, `jpeg`, `png`,
`webp`) and a label (`cls`: digits as text; or `json` with `label` or `cls`). The split is named in the shard's path
(train, val, test, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from trainables.data import decode
from trainables.data.convert import archives
from trainables.data.convert.imagefolder import SAMPLE, describe_encoded
from trainables.data.convert.output import Converted, Output, Progress, encoded
from trainables.data.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp")
WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
CHUNK = 256


def webdataset(source: Path, output: Output, progress: Progress) -> Converted:
    """SRC: a folder of .tar (or .tar.gz) shards, or one shard. Class names are the label numbers."""
    shards = [source] if source.is_file() else sorted(p for p in source.rglob("*.tar*") if p.is_file())
    if not shards:
        raise DataError(source, "has no .tar shard")
    highest, train = 0, _Reservoir()
    for done, shard in enumerate(shards):
        split = split_of(shard.relative_to(source) if shard != source else Path(shard.name))
        progress(shard.name, done, len(shards))
        pending: list[tuple[str, bytes, int]] = []
        for key, image, label in samples(shard):
            highest = max(highest, label)
            if split == "train":
                train.offer(f"{shard}!{key}", image)
            pending.append((key, image, label))
            if len(pending) == CHUNK:
                _add(output, split, pending)
                pending = []
        _add(output, split, pending)
        progress(shard.name, done + 1, len(shards))
    if not train.kept:
        raise DataError(source, "no shard with `train` in its name holds a sample")
    return Converted(images=describe_encoded(train.kept, [str(i) for i in range(highest + 1)]))


def split_of(path: Path) -> str:
    """The split named in a shard's path, nearest word first; `train` if it names none."""
    for word in reversed(re.split(r"[^a-z]+", str(path).lower())):
        if word in WORDS:
            return WORDS[word]
    return "train"


def samples(shard: Path) -> Iterator[tuple[str, bytes, int]]:
    """(key, image file, label) of each sample. Raises DataError for an incomplete sample."""
    current, fields = "", dict[str, bytes]()
    for name, content in archives.members(shard):
        folder, _, base = name.rpartition("/")
        stem, _, field = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if key != current and fields:
            yield _sample(shard, current, fields)
            fields = {}
        current = key
        fields[field.lower()] = content
    if fields:
        yield _sample(shard, current, fields)


def _sample(shard: Path, key: str, fields: dict[str, bytes]) -> tuple[str, bytes, int]:
    place = f"{shard}!{key}"
    image = next((fields[k] for k in IMAGES if k in fields), None)
    if image is None:
        raise DataError(place, f"there is no image in this sample; it has: {', '.join(fields)}", field="image")
    decode.header(image, place)
    if "cls" in fields:
        text: object = fields["cls"].decode(errors="replace").strip()
    elif "json" in fields:
        try:
            content = json.loads(fields["json"])
        except ValueError as error:
            raise DataError(place, f"is not JSON: {error}", field="json") from None
        text = content.get("label", content.get("cls")) if isinstance(content, dict) else None
    else:
        raise DataError(
            place, f"there is no cls and no json in this sample; it has: {', '.join(fields)}", field="label"
        )
    if isinstance(text, bool) or not re.fullmatch(r"\d{1,9}", str(text)):
        raise DataError(place, f"is {text!r}; it must be a class number, 0 or above", field="label")
    return key, image, int(str(text))


def _add(output: Output, split: str, rows: list[tuple[str, bytes, int]]) -> None:
    if rows:
        keys, images, labels = (list(column) for column in zip(*rows, strict=True))
        output.add(split, {"image": encoded(images, keys), "label": pa.array(labels, pa.int64())})


class _Reservoir:
    """About SAMPLE images, evenly spaced over a stream of unknown length: every other one is dropped when it is
    full.
    """

    def __init__(self) -> None:
        self.kept: list[tuple[str, bytes]] = []
        self._seen, self._every = 0, 1

    def offer(self, place: str, image: bytes) -> None:
        if self._seen % self._every == 0:
            self.kept.append((place, image))
            if len(self.kept) >= SAMPLE:
                self.kept, self._every = self.kept[::2], self._every * 2
        self._seen += 1
