"""Types of the sweep file's fields: times, sizes, shares, addresses, and words allowed in place of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from orchestrator.definition.addresses import is_address
from orchestrator.definition.parameter_models import as_share

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
TIME, SIZE = r"(\d+(?:\.\d+)?)\s*(min|[smhd])", r"(\d+(?:\.\d+)?)\s*(?:([kKMGT]?)(i?))B"

TIMES = rf"(?:{TIME}\s*)+"


def _seconds(value: Any) -> Any:
    """`90s`, `1.5h`, `1h30m`."""
    if isinstance(value, str) and re.fullmatch(TIMES, value.strip()):
        return sum(float(amount) * UNITS[unit] for amount, unit in re.findall(TIME, value))
    raise ValueError("a time needs a unit, such as 90s, 30m or 1h30m")


def amount(value: Any, info: ValidationInfo) -> Any:
    """An amount of the budget's unit: a number, or a time where the unit is seconds (`90s`, `1h30m`; see `_seconds`).

    A whole number of seconds is an integer, so the sweep is the one that this number defines.
    """
    if not (isinstance(value, str) and re.fullmatch(TIMES, value.strip())):
        return value
    unit, seconds = info.data.get("unit", "seconds"), _seconds(value)
    if unit != "seconds":
        raise ValueError(f"a time, but budget.unit is {unit}; write a number, or unit: seconds")
    return int(seconds) if seconds.is_integer() else seconds


def _bytes(value: Any) -> Any:
    """`500MB`, of 1000s, or `40GiB`, of 1024s."""
    if isinstance(value, str) and (found := re.fullmatch(SIZE, value.strip())):
        return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))
    raise ValueError("a size needs a unit, such as 500MB or 40GiB")


def _warmup(value: Any) -> Any:
    share = as_share(value)
    if isinstance(value, str) and share is not value and share >= 1:
        raise ValueError("a warm-up must be shorter than the budget")
    return share


def number_or_auto(counts: str, least: float, most: float = math.inf) -> Callable[[Any], Any]:
    """Refuses, in one sentence, whatever is neither a number of what it counts nor `auto`."""
    span = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"

    def checked(value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value == "auto" or (number and least <= value <= most):
            return value
        raise ValueError(f"expected a number of {counts}, {span}, or auto")

    return checked


def _address(value: Any) -> Any:
    if value is None or is_address(value):
        return value
    raise ValueError("not a URL; write https://..., or ${env:NAME} for the environment variable that holds it")


def _as_text(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


def _share_of(least: int, percentages: str, **number: float) -> WithJsonSchema:
    """A number, or a percentage."""
    share = {"type": "string", "pattern": rf"^{percentages}\s*%$"}
    return WithJsonSchema({"anyOf": [{"type": "number", "minimum": least, **number}, share]})


BELOW_100, UP_TO_100 = r"\d{1,2}(\.\d+)?", r"(\d{1,2}(\.\d+)?|100(\.0+)?)"
Address = Annotated[
    str | None,
    BeforeValidator(_address),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^https?://[^\s/?#]+|^\$\{(env:)?[A-Za-z_]\w*\}|^\$[A-Za-z_]\w*"},
                {"type": "null"},
            ]
        }
    ),
]
AS_TIME = r"^(?=.*[1-9])\s*(\d+(\.\d+)?\s*(min|[smhd])\s*)+$"
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0), _as_text(AS_TIME)]
Bytes = Annotated[
    int, BeforeValidator(_bytes), Field(gt=0), _as_text(r"^(?=.*[1-9])\s*\d+(\.\d+)?\s*([kKMGT]i?)?B\s*$")
]
Share = Annotated[float, BeforeValidator(as_share), Field(ge=0, le=1), _share_of(0, UP_TO_100, maximum=1)]
Warmup = Annotated[float, BeforeValidator(_warmup), Field(ge=0), _share_of(0, BELOW_100)]
