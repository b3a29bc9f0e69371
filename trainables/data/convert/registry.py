"""The kinds of source that `geosweep data convert` reads, and the function that runs the converters."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data import description
from trainables.data.convert.cifar import cifar10, cifar100
from trainables.data.convert.hf_parquet import hf_parquet
from trainables.data.convert.imagefolder import imagefolder
from trainables.data.convert.output import Converted, Output, Progress, replacing, silent
from trainables.data.convert.text import text
from trainables.data.convert.tokens_bin import tokens_bin
from trainables.data.convert.webdataset import webdataset
from trainables.data.description import DataSet
from trainables.data.errors import DataError

KINDS: Mapping[str, Callable[..., Converted]] = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagefolder": imagefolder,
    "tokens-bin": tokens_bin,
    "text": text,
    "hf-parquet": hf_parquet,
    "webdataset": webdataset,
}
NOT_OPTIONS = ("source", "output", "progress", "in_place")


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished conversion."""

    dataset: DataSet
    notes: tuple[str, ...]
    seconds: float


def options_of(kind: str) -> Mapping[str, inspect.Parameter]:
    """The options of a kind besides source and destination."""
    found = inspect.signature(KINDS[kind]).parameters
    return {name: p for name, p in found.items() if name not in NOT_OPTIONS}


def convert(kind: str, source: Path, destination: Path, *, progress: Progress = silent, **options: Any) -> Done:
    """Convert `source` into a new data set at `destination`, completely or not at all. Raises DataError."""
    began = time.perf_counter()
    if not source.exists():
        raise DataError(source, "there is no such file or folder")
    reader = KINDS[kind]
    if kind == "hf-parquet" and destination.exists() and destination.samefile(source):
        if (source / description.FILE).exists():
            raise DataError(source / description.FILE, "already exists; remove it first")
        output = Output(source)
        converted = reader(source, output, progress, in_place=True, **options)
        dataset = output.finish(source.absolute().name, converted)
    else:
        with replacing(destination) as output:
            converted = reader(source, output, progress, **options)
            output.finish(destination.absolute().name, converted)
        dataset = description.load(destination)
    return Done(dataset=dataset, notes=converted.notes, seconds=time.perf_counter() - began)
