"""Parquet files as Hugging Face exports them: `data/train-00000-of-0000N.parquet`, ... They are read in place.

Only `dataset.json` is written: into DST, listing the files by absolute path, or by relative path if DST is SRC itself.
Images are struct{bytes, path} (the Image feature); labels are integers, with names from the ClassLabel feature in the
files' metadata. Token ids are a list column; its name and the vocabulary are required. Files without rows are skipped.
Every value is checked as it will be when training reads it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainables.data import shards
from trainables.data.convert.imagefolder import SAMPLE, describe_encoded
from trainables.data.convert.output import Converted, Output, Progress, describe
from trainables.data.convert.tokens_bin import dtype_for
from trainables.data.convert.webdataset import split_of
from trainables.data.description import DataSet, Images, Shard, Tokens
from trainables.data.errors import DataError

IMAGE_NAMES, LABEL_NAMES = ("image", "img", "jpg", "png"), ("label", "labels", "fine_label", "cls")
TOKEN_NAMES = ("tokens", "input_ids")
MOST_CLASSES = 1_000_000
"""More classes than this, without names, are taken for a mistake: the labels are probably some other number."""
AS_NUMBERS = "labels are class numbers, 0, 1, ..., as integers; the datasets library makes them: class_encode_column"


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
    """SRC: a folder of Parquet shards named by split. Columns are found by their usual names, or given as options."""
    files, empty = _files(source)
    splits = {path: split_of(path.relative_to(source)) for path in files}
    train = [path for path in files if splits[path] == "train"]
    if not train:
        raise DataError(source, "no file with rows names the split `train`")
    schema = _schema(train[0])
    image = image_column or next((n for n in IMAGE_NAMES if n in schema.names), "")
    if image and not tokens_column:
        label = label_column or next((n for n in LABEL_NAMES if n in schema.names), "label")
        found, notes = _images(files, train, image, label)
        converted = Converted(images=found, notes=(*empty, *notes))
    else:
        column = tokens_column or next((n for n in TOKEN_NAMES if n in schema.names), "")
        converted = Converted(tokens=_tokens(files, train[0], column, vocabulary), notes=empty)
    whole = DataSet(
        schema_version=1, name="", images=converted.images, tokens=converted.tokens, splits={}, folder=source
    )
    for done, path in enumerate(files, 1):
        shard = describe(path, str(path.relative_to(source)) if in_place else str(path.absolute()))
        _check(whole, shard)
        output.reference(splits[path], shard)
        progress(path.name, done, len(files))
    return converted


def _files(source: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The Parquet files with rows, and a note about those without. Hidden files are ignored."""
    found = [
        path
        for path in sorted(source.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]
    if not found:
        raise DataError(source, "has no .parquet file")
    empty = [path.relative_to(source) for path in found if not _metadata(path).num_rows]
    if len(empty) == len(found):
        raise DataError(source, "its .parquet files have no rows")
    note = f"left out, without rows: {', '.join(map(str, empty))}"
    return [path for path in found if path.relative_to(source) not in empty], (note,) if empty else ()


def _check(whole: DataSet, shard: Shard) -> None:
    """Read a shard as training does. Raises DataError for the first invalid value."""
    read = 0
    for group in shards.groups(whole, shard):
        read += len(group.columns["tokens"]) if whole.tokens else group.rows
    if not read:
        raise DataError(
            whole.path(shard), "no row holds a token", field=whole.tokens.tokens_column if whole.tokens else None
        )


def _tokens(files: list[Path], first: Path, column: str, vocabulary: int) -> Tokens:
    schema = _schema(first)
    if column not in schema.names:
        there = ", ".join(schema.names) or "none"
        raise DataError(first, f"name the image or token column; available: {there}", field="columns")
    if vocabulary < 2:
        raise DataError(first, "give the size of the vocabulary", field="vocabulary")
    kinds = [_column(path, column).type for path in files]
    blocks = {kind.list_size if pa.types.is_fixed_size_list(kind) else 0 for kind in kinds}
    return Tokens(
        vocabulary=vocabulary,
        dtype=dtype_for(vocabulary),
        block=blocks.pop() if len(blocks) == 1 else 0,
        tokenizer="unknown",
        tokens_column=column,
    )


def _images(files: list[Path], train: list[Path], image: str, label: str) -> tuple[Images, tuple[str, ...]]:
    """The description of the images, and a note about class numbers without a training row."""
    for path in files:
        for name in (image, label):
            _column(path, name)
    labels = {path: _labels(path, label) for path in files}
    trained = set[int]().union(*(labels[path] for path in train))
    names = _class_names(files, label)
    notes: tuple[str, ...] = ()
    if names is None:
        if max(trained) >= MOST_CLASSES:
            path = next(path for path in train if max(trained) in labels[path])
            more = f"{max(trained)} is a label here, which is not a class number; {AS_NUMBERS}"
            raise DataError(path, more, field=label)
        names = [str(i) for i in range(max(trained) + 1)]
        if missing := [i for i in range(len(names)) if i not in trained]:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            notes = (f"{label}: no training row has {len(missing)} of the {len(names)} class numbers: {shown}",)
    found = describe_encoded(_sample(train, image), names)
    if len(names) < 2:
        raise DataError(train[0], "every training row has the label 0; at least two classes are needed", field=label)
    for path, numbers in labels.items():
        if max(numbers) >= len(names):
            more = f"the training split has {len(names)} classes (0 to {len(names) - 1})"
            raise DataError(path, f"{max(numbers)} is a label here; {more}", field=label)
    return found.model_copy(update={"image_column": image, "label_column": label}), notes


def _column(path: Path, name: str) -> Any:
    """A column's field. Raises DataError if there is none, or two."""
    schema = _schema(path)
    if name not in schema.names:
        raise DataError(path, f"no such column; available: {', '.join(schema.names)}", field=name)
    if schema.names.count(name) > 1:
        raise DataError(path, f"there are {schema.names.count(name)} columns of this name", field=name)
    return schema.field(name)


def _labels(path: Path, label: str) -> set[int]:
    """The distinct labels of a shard. Raises DataError for labels that are not class numbers."""
    column = pq.ParquetFile(path).read(columns=[label])[label]
    if not pa.types.is_integer(column.type):
        raise DataError(path, f"is {column.type}; {AS_NUMBERS}", field=label)
    if column.null_count:
        raise DataError(path, f"{column.null_count} of {len(column)} rows have no label; leave them out", field=label)
    found = set(pc.unique(column).to_pylist())
    if min(found) < 0:
        raise DataError(path, f"{min(found)} is not a class number; leave out rows without a label", field=label)
    return found


def _class_names(files: list[Path], label: str) -> list[str] | None:
    """Names of the ClassLabel feature, from the metadata written by the `datasets` library.

    Raises DataError if they are not names, or differ from those of another file.
    """
    first: tuple[Path, list[str]] | None = None
    for path in files:
        if (names := _names(path, label)) is None:
            continue
        if first and first[1] != names:
            more = f"the names of its classes are not those of {first[0].name}: {_short(names)}, {_short(first[1])}"
            raise DataError(path, more, field=label)
        first = first or (path, names)
    return first[1] if first else None


def _names(path: Path, label: str) -> list[str] | None:
    text = (_schema(path).metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"][label]["names"] if text else None
    except (ValueError, KeyError, TypeError):
        return None
    if names is None or names == []:
        return None
    if isinstance(names, dict):  # older exports have numbered names
        names = [names[key] for key in sorted(names, key=lambda k: int(re.sub(r"\D", "", k) or 0))]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        more = f"the metadata's ClassLabel feature has {_short(names)} as names; expected distinct strings in a list"
        raise DataError(path, more, field=label)
    return names


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sample(train: list[Path], column: str) -> list[tuple[str, bytes]]:
    """About SAMPLE images from the first row group with rows of evenly spaced files."""
    share = max(1, SAMPLE // len(train))
    found: list[tuple[str, bytes]] = []
    for path in train[:: max(1, len(train) // SAMPLE)]:
        with pq.ParquetFile(path) as file:
            group = next(i for i in range(file.num_row_groups) if file.metadata.row_group(i).num_rows)
            rows = file.read_row_group(group, columns=[column])[column].slice(0, share).to_pylist()
        for row, value in enumerate(rows):
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise DataError(path, f"row {row} holds no bytes of an image", row_group=group, field=column)
            found.append((f"{path}: row group {group}: row {row}", content))
    return found


def _schema(path: Path) -> Any:
    return _metadata(path).schema.to_arrow_schema()


def _metadata(path: Path) -> Any:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"is not a Parquet file: {error}") from None
