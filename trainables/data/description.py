"""`dataset.json`: the description of a data set on disk, with hashes of its content.

One folder is one data set: `train-00000.parquet`, ..., `val-...`, `test-...`, and `dataset.json` with the schema
version, the kind (images or tokens), shapes, classes, mean and standard deviation, and for each shard its rows, bytes
and SHA-256. `dataset.json` is written last: a folder without it is not a data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainables.data.errors import DataError

SCHEMA_VERSION = 1
FILE = "dataset.json"
ROOT_VARIABLE = "GEOSWEEP_DATA"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(_Part):
    """One Parquet file."""

    file: str
    """Path, relative to the folder of `dataset.json` or absolute."""
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Split(_Part):
    """The shards of `train`, `val` or `test`, in order."""

    rows: int = Field(ge=0)
    shards: tuple[Shard, ...]


class Images(_Part):
    """Column `image` (and `label`, an integer below the number of classes).

    Raw: fixed_size_binary(C*H*W), uint8 in CHW order. Encoded: struct{bytes: binary, path: string} with JPEG or PNG
    inside, the storage of Hugging Face's Image feature.
    """

    encoding: Literal["raw", "encoded"]
    shape: tuple[int, int, int]
    """(C, H, W); H and W are 0 for encoded images, which may differ in size."""
    classes: tuple[str, ...] = Field(min_length=1)
    mean: tuple[float, ...]
    """Per channel, of the training images scaled to [0, 1]."""
    std: tuple[float, ...]
    statistics_rows: int
    """Training images used for mean and std (all, or an even sample of encoded ones)."""
    image_column: str = "image"
    label_column: str = "label"


class Tokens(_Part):
    """Column `tokens`: fixed_size_list of uint16 or int32; rows are consecutive blocks of one long text.

    With a column `mask` (the same width, 1 where a token is to be predicted) each row is a separate sequence.
    """

    vocabulary: int = Field(ge=2)
    dtype: Literal["uint16", "int32"]
    block: int = Field(ge=0)
    """Tokens per row; 0 if rows differ."""
    tokenizer: str
    """`bytes`, `words`, or the tokenizer that made the ids, for example `gpt2`."""
    masked: bool = False
    tokens_column: str = "tokens"


class DataSet(_Part):
    """The content of `dataset.json`."""

    schema_version: Literal[1]
    name: str
    images: Images | None = None
    tokens: Tokens | None = None
    splits: dict[str, Split]
    folder: Path = Field(default=Path(), exclude=True)
    """The folder of the file; not part of it."""

    @property
    def kind(self) -> str:
        """`images` or `tokens`."""
        return "images" if self.images else "tokens"

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of the content: equal for equal data, wherever it is stored and whatever its files are
        called.
        """
        content = self.model_dump(mode="json", exclude={"name"})
        for split in content["splits"].values():
            for shard in split["shards"]:
                del shard["file"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def path(self, shard: Shard) -> Path:
        """The path of a shard."""
        return self.folder / shard.file

    def write(self, folder: Path) -> None:
        """Write `dataset.json` into `folder`, atomically."""
        temporary = folder / f".{FILE}.{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as out:
            out.write(self.model_dump_json(indent=1, exclude_none=True) + "\n")
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(folder / FILE)


def locate(path: str | Path) -> Path:
    """The folder that `path` names: as given, or below $GEOSWEEP_DATA if that is set and `path` is relative."""
    found, root = Path(path).expanduser(), os.environ.get(ROOT_VARIABLE)
    return Path(root) / found if root and not found.is_absolute() else found


def load(folder: Path) -> DataSet:
    """Read and check `dataset.json`. Raises DataError naming the file and the field."""
    file = folder / FILE
    if not file.is_file():
        where = f"there is no {FILE}" if folder.is_dir() else "there is no such folder"
        raise DataError(folder, f"not a data set: {where}; make one with: geosweep data convert KIND SRC {folder}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(file, f"not JSON: {error}") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(file, f"is {version!r}; this version reads {SCHEMA_VERSION}", field="schema_version")
    try:
        found = DataSet.model_validate({**content, "folder": folder})
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(file, first["msg"], field=".".join(str(part) for part in first["loc"])) from None
    if (found.images is None) == (found.tokens is None):
        raise DataError(file, "must describe either `images` or `tokens`", field="images")
    if "train" not in found.splits:
        raise DataError(file, "there is no split `train`", field="splits")
    for name, split in found.splits.items():
        if split.rows != sum(s.rows for s in split.shards):
            raise DataError(file, "is not the sum of its shards' rows", field=f"splits.{name}.rows")
    return found
