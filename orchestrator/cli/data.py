"""`data convert` and `data check`: commands for data sets."""

from __future__ import annotations

import enum
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.app import Exit, Json, app, emit, fail, next_steps, talk
from orchestrator.cli.app import data as out

data = typer.Typer(help="Convert data sets to the canonical Parquet layout, and check them.", no_args_is_help=True)
app.add_typer(data, name="data")
PLAIN_EVERY_S = 10.0


class Kind(enum.StrEnum):
    """What a source is."""

    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    IMAGEFOLDER = "imagefolder"
    TOKENS_BIN = "tokens-bin"
    TEXT = "text"
    HF_PARQUET = "hf-parquet"
    WEBDATASET = "webdataset"


@data.command()
def convert(
    kind: Annotated[Kind, typer.Argument(help="The kind of SRC.")],
    src: Annotated[Path, typer.Argument(help="Archive, file or folder to read.")],
    dst: Annotated[Path, typer.Argument(help="Folder to create.")],
    vocabulary: Annotated[int | None, typer.Option(help="tokens-bin, text, hf-parquet: number of token ids.")] = None,
    dtype: Annotated[str | None, typer.Option(help="tokens-bin: uint16, int32 or uint32.")] = None,
    block: Annotated[int | None, typer.Option(help="tokens-bin, text: tokens per row.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="text: bytes or words. tokens-bin: what produced the ids, for the record.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="hf-parquet: column of images.")] = None,
    label_column: Annotated[str | None, typer.Option(help="hf-parquet: column of labels.")] = None,
    tokens_column: Annotated[str | None, typer.Option(help="hf-parquet: column of token ids.")] = None,
    as_json: Json = False,
) -> None:
    """Convert SRC to a data set at DST: Parquet shards and dataset.json. DST appears only once it is complete.

    Example: geosweep data convert cifar100 cifar-100-python.tar.gz data/cifar100
    """
    from trainables.data import DataError
    from trainables.data.convert import convert as run
    from trainables.data.convert import options_of

    options: dict[str, Any] = {
        "vocabulary": vocabulary, "dtype": dtype, "block": block, "tokenizer": tokenizer,
        "image_column": image_column, "label_column": label_column, "tokens_column": tokens_column,
    }  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    known = options_of(kind.value)
    for key in given:
        if key not in known:
            there = ", ".join(f"--{k.replace('_', '-')}" for k in known) or "none"
            fail(f"{kind.value} has no option --{key.replace('_', '-')}; it has: {there}", Exit.USAGE)
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given:
            fail(f"{kind.value} needs --{key.replace('_', '-')}", Exit.USAGE)
    if not src.exists():
        fail(f"{src}: no such file or folder", Exit.NOT_FOUND)
    try:
        with _progress(kind.value) as progress:
            done = run(kind.value, src, dst, progress=progress, **given)
    except DataError as error:
        fail(f"{error}\nnothing was written to {dst}", Exit.INVALID_FILE)
    document = {
        "schema": "geosweep/data-convert/1",
        "kind": kind.value,
        "path": str(dst),
        "seconds": round(done.seconds, 3),
        "notes": list(done.notes),
        **_described(done.dataset),
    }
    if as_json:
        emit(document)
        return
    for note in done.notes:
        talk.print(note, highlight=False, markup=False)
    rows = ", ".join(f"{split} {n:,}" for split, n in document["rows"].items())
    out.print(f"{dst}: {rows} rows, {document['bytes'] / 2**20:.1f} MiB, {done.seconds:.1f} s", highlight=False)
    next_steps(shlex.join(["geosweep", "data", "check", str(dst)]))


@data.command()
def check(dst: Annotated[Path, typer.Argument(help="Folder of a data set.")], as_json: Json = False) -> None:
    """Check hashes, columns, every label, token and image. Exit code 6, with file, row group and field, if one is bad.

    Example: geosweep data check data/cifar100
    """
    from trainables.data.check import check as run

    if not dst.exists():
        fail(f"{dst}: no such folder", Exit.NOT_FOUND)
    with _progress("check") as progress:
        dataset, problems = run(dst, progress)
    if as_json:
        described = _described(dataset) if dataset else {}
        found = [p.document() for p in problems]
        emit({"schema": "geosweep/data-check/1", "path": str(dst), "ok": not problems, "problems": found, **described})
    elif not problems:
        assert dataset
        rows = ", ".join(f"{split} {part.rows:,}" for split, part in dataset.splits.items())
        out.print(f"{dst}: {dataset.kind}, {rows} rows, all valid", highlight=False)
    if problems:
        for problem in problems if not as_json else ():
            talk.print(str(problem), style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(int(Exit.CHECK_FAILED))


def _described(dataset: Any) -> dict[str, Any]:
    parts = dataset.splits
    return {
        "dataset": dataset.kind,
        "fingerprint": dataset.fingerprint,
        "rows": {split: part.rows for split, part in parts.items()},
        "bytes": sum(shard.bytes for part in parts.values() for shard in part.shards),
    }


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal, occasional lines elsewhere."""
    if not talk.is_terminal:
        said = time.monotonic()

        def line(what: str, done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= PLAIN_EVERY_S:
                said = time.monotonic()
                talk.print(f"{title}: {what}, {done:,} of {total:,}", highlight=False, markup=False)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True) as bar:
        shown = bar.add_task(title, total=None)
        yield lambda what, done, total: bar.update(
            shown, description=f"{title}: {what}", completed=done, total=total or None
        )
