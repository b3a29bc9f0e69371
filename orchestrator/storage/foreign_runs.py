"""Runs that somebody else trained: what a file or tracker contains, before it is interpreted."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from orchestrator.definition.passwords import without_passwords
from orchestrator.definition.states import State

SAMPLE = 64 * 1024
"""Characters used to detect the separator of a CSV file."""


class UnusableError(ValueError):
    """Results that cannot be imported as requested; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class ForeignRun:
    """One run, or one row."""

    where: str
    """Its name in the source: `row 5`, `run 3f2a9c`."""
    values: Mapping[str, Any]
    """Column -> value, None if missing."""
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Metric -> (step, value), in order."""
    state: State = State.COMPLETE
    """COMPLETE, PRUNED or FAILED."""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ForeignRuns:
    """All runs of a source, with its columns in order."""

    source: str
    """As named by the user."""
    kind: str
    """csv, parquet, mlflow or optuna."""
    runs: Sequence[ForeignRun]
    columns: Sequence[str]
    metrics: Sequence[str] = ()
    """Columns that are metrics, if the source says so."""
    parameters: Sequence[str] = ()
    """Columns that are hyperparameters, if the source says so."""
    goals: Mapping[str, str] = field(default_factory=dict)
    """Metric -> minimize or maximize, if the source says so."""
    notes: Sequence[str] = ()
    """What was left out, and why."""


def of_csv(path: Path) -> ForeignRuns:
    """A table with a header line, separated by commas, semicolons or tabs. Raises UnusableError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UnusableError(f"{path}: no such file") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise UnusableError(f"{path}: not UTF-8 text ({error.__class__.__name__})") from None
    said = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    if not said.strip():
        raise UnusableError(f"{path}: is empty")
    try:
        separator = csv.Sniffer().sniff(said[:SAMPLE], ",;\t|").delimiter
    except csv.Error:
        separator = ","
    reader = csv.reader(text.splitlines(), delimiter=separator)
    lines = [(reader.line_num, row) for row in reader]
    (_, first), *rows = [one for one in lines if any(c.strip() for c in one[1]) and not one[1][0].startswith("#")]
    head = [cell.strip() for cell in first]
    twice = sorted({name for name in head if name and head.count(name) > 1})
    if twice:
        raise UnusableError(f"{path}: two columns are named {twice[0]!r}; rename one")
    for number, row in rows:
        if len(row) > len(head):
            raise UnusableError(f"{path}: row {number} has {len(row)} cells, but there are {len(head)} columns")
    kept = [i for i, name in enumerate(head) if name]
    runs = [
        ForeignRun(where=f"row {number}", values={head[i]: _read(row[i]) if i < len(row) else None for i in kept})
        for number, row in rows
    ]
    return _table(str(path), "csv", [head[i] for i in kept], runs, decimal_comma=separator != ",")


def of_parquet(path: Path) -> ForeignRuns:
    """A Parquet file, or a folder with one data set. Raises UnusableError."""
    try:
        frame = pq.read_table(path).to_pandas()
    except (OSError, ValueError) as error:
        raise UnusableError(f"{path}: {str(error).splitlines()[0]}") from None
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    runs = [
        ForeignRun(where=f"row {i}", values={str(k): _plain(v) for k, v in row.items()})
        for i, row in enumerate(rows, 1)
    ]
    return _table(str(path), "parquet", [str(name) for name in frame.columns], runs)


def _table(
    source: str, kind: str, columns: Sequence[str], runs: list[ForeignRun], *, decimal_comma: bool = False
) -> ForeignRuns:
    if not runs:
        raise UnusableError(f"{source}: has a header but no rows")
    if decimal_comma:
        runs = [ForeignRun(where=run.where, values={k: _with_point(v) for k, v in run.values.items()}) for run in runs]
    return ForeignRuns(source=source, kind=kind, runs=runs, columns=columns)


def _read(cell: str) -> Any:
    """A cell of a CSV file: a number, a boolean, text, or None if it is empty."""
    text = cell.strip()
    if text.lower() in ("", "na", "n/a", "null", "none", "-"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text.replace("_", "x"))
        except ValueError:
            continue
    return text


def _with_point(value: Any) -> Any:
    """Converts a decimal comma, `0,91`, in a file with another separator."""
    if isinstance(value, str) and value.count(",") == 1:
        found = _read(value.replace(",", "."))
        return found if isinstance(found, float) else value
    return value


def _plain(value: Any) -> Any:
    """A value from pandas or numpy as a JSON value."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if hasattr(value, "tolist"):
        value = value.tolist()
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, list | dict) else value


def number_of(value: Any) -> float | None:
    """The number in a cell, including `91.2%` and ` 0.9 `; None if there is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def shown(address: str) -> str:
    """The address of a store without its password."""
    return without_passwords(address)


def check_there(address: str) -> None:
    """Raises UnusableError for a missing file or folder, which reading must not create."""
    scheme, found, rest = address.partition("://")
    if scheme.startswith("sqlite"):
        path = rest.partition("?")[0][1:]
        if path in ("", ":memory:") or path.startswith("file:"):
            return
    elif found and scheme == "file":
        path = rest
    elif found or ":" in address.removeprefix("file:") or address.startswith("databricks"):
        return
    else:
        path = address.removeprefix("file:")
    if not Path(path).exists():
        raise UnusableError(f"{address}: no such file")


def listed(names: Iterable[str], most: int = 40) -> str:
    """Names joined by commas, truncated if there are very many."""
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
