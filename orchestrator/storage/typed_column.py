"""A Parquet column for values of any kind, with the narrowest type that holds all of them.

| the values are | the column is |
|---|---|
| all true or false | bool |
| all whole numbers of 64 bits | int64 |
| all such whole numbers or floating point | double |
| all text | string |
| all lists, maps or larger whole numbers | string: JSON |
| of several of these kinds | string: text unchanged, everything else as JSON |

None becomes null and has no kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

LARGEST = 2**63


def column(values: Sequence[Any], further: Iterable[Any] = ()) -> pa.Array:
    """The values as a column. The `further` possible values also determine its type."""
    kind = type_of([*values, *further])
    if kind == pa.float64():
        return pa.array([None if value is None else float(value) for value in values], kind)
    if kind != pa.string():
        return pa.array(values, kind)
    return pa.array([_text(value) for value in values], kind)


def type_of(values: Iterable[Any]) -> pa.DataType:
    """The type of a column that holds these values; string if there are none."""
    kinds = {_kind(value) for value in values if value is not None}
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    if kinds and kinds <= {"int", "float"}:
        return pa.float64()
    return pa.string()


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -LARGEST <= value < LARGEST else "other"
    if isinstance(value, float):
        return "float"
    return "text" if isinstance(value, str) else "other"


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    plain = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(plain, sort_keys=True, ensure_ascii=False)
