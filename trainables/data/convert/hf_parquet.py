"""Parquet files as Hugging Face exports them: `data/train-00000-of-0000N.parquet`, ... They are read where they lie.

Only `dataset.json` is written: into DST, listing the files by absolute path, or by relative path when DST is SRC
itself. Images are struct{bytes, path} (the Image feature); labels are integers, their names come from the ClassLabel
feature in the file's metadata. Token ids are a list column; its name and the vocabulary have to be given.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainables.data.convert.imagefolder import SAMPLE, describe_encoded
from trainables.data.convert.output import Converted, Output, Progress, describe
from trainables.data.convert.tokens_bin import dtype_for
from trainables.data.convert.webdataset import split_of
from trainables.data.description import Images, Tokens
from trainables.data.errors import DataError

IMAGE_NAMES, LABEL_NAMES = ("image", "img", "jpg", "png"), ("label", "labels", "fine_label", "cls")
TOKEN_NAMES = ("tokens", "input_ids")


def hf_parquet(
    source: Path,
    output: Output,
    progress: Progress,
    *,
    image_column: str = "",
    label_column: str = "",
    tokens_column: str = "",
    vocabulary: int = 0,
    in_place: bool = False,
) -> Converted:
    """SRC: a folder of Parquet shards named by split. Columns are found by their usual names, or named by you."""
    files = sorted(source.rglob("*.parquet"))
    if not files:
        raise DataError(source, "has no .parquet file")
    schema = _schema(files[0])
    splits = {path: split_of(path.relative_to(source)) for path in files}
    for done, path in enumerate(files, 1):
        _same(schema, _schema(path), path)
        file = str(path.relative_to(source)) if in_place else str(path.absolute())
        output.reference(splits[path], describe(path, file))
        progress(path.name, done, len(files))
    image = image_column or next((n for n in IMAGE_NAMES if n in schema.names), "")
    train = [path for path in files if splits[path] == "train"]
    if not train:
        raise DataError(source, "no file names the split `train`")
    if image and not tokens_column:
        label = label_column or next((n for n in LABEL_NAMES if n in schema.names), "label")
        return Converted(images=_images(schema, files, train, image, label))
    column = tokens_column or next((n for n in TOKEN_NAMES if n in schema.names), "")
    if column not in schema.names:
        raise DataError(
            files[0], f"name the image or token column; there is: {', '.join(schema.names)}", field="columns"
        )
    if vocabulary < 2:
        raise DataError(files[0], "give the size of the vocabulary", field="vocabulary")
    kind = schema.field(column).type
    block = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
    return Converted(
        tokens=Tokens(
            vocabulary=vocabulary, dtype=dtype_for(vocabulary), block=block, tokenizer="unknown", tokens_column=column
        )
    )


def _images(schema: Any, files: list[Path], train: list[Path], image: str, label: str) -> Images:
    for name in (image, label):
        if name not in schema.names:
            raise DataError(train[0], f"there is no such column; there is: {', '.join(schema.names)}", field=name)
    highest = {path: _highest_label(path, label) for path in files}
    names = _class_names(schema, label) or [str(i) for i in range(max(highest[path] for path in train) + 1)]
    for path, number in highest.items():
        if number >= len(names):
            more = f"{number} is a label here; the training split has {len(names)} classes (0 to {len(names) - 1})"
            raise DataError(path, more, field=label)
    found = describe_encoded(_sample(train, image), names)
    return found.model_copy(update={"image_column": image, "label_column": label})


def _highest_label(path: Path, label: str) -> int:
    """The highest label of a shard. Raises DataError for labels that are no class numbers."""
    column = pq.read_table(path, columns=[label])[label]
    if not pa.types.is_integer(column.type):
        raise DataError(path, f"is {column.type}; labels are class numbers, 0, 1, ..., as integers", field=label)
    if column.null_count:
        raise DataError(path, f"{column.null_count} of {len(column)} rows have no label; leave them out", field=label)
    if not len(column):
        return -1
    low, high = (int(pc.min_max(column)[end].as_py()) for end in ("min", "max"))
    if low < 0:
        raise DataError(path, f"{low} is no class number; leave out rows without a label", field=label)
    return high


def _class_names(schema: Any, label: str) -> list[str] | None:
    """Names of a ClassLabel feature, from the metadata that the `datasets` library writes."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"][label]["names"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(names, dict):  # older exports number them
        names = [names[key] for key in sorted(names, key=lambda k: int(re.sub(r"\D", "", k) or 0))]
    return [str(name) for name in names] if names else None


def _sample(train: list[Path], column: str) -> list[tuple[str, bytes]]:
    """About SAMPLE images from the first row group of evenly many files."""
    share = max(1, SAMPLE // len(train))
    found: list[tuple[str, bytes]] = []
    for path in train[:: max(1, len(train) // SAMPLE)]:
        with pq.ParquetFile(path) as file:
            if not file.num_row_groups:
                raise DataError(path, "the shard is empty", row_group=0, field=column)
            rows = file.read_row_group(0, columns=[column])[column].slice(0, share).to_pylist()
        for row, value in enumerate(rows):
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise DataError(path, f"row {row} holds no bytes of an image", row_group=0, field=column)
            found.append((f"{path}: row group 0: row {row}", content))
    return found


def _schema(path: Path) -> Any:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"is no Parquet file: {error}") from None


def _same(first: Any, other: Any, path: Path) -> None:
    if not first.equals(other):
        raise DataError(path, "has other columns than the first file", field="columns")
