"""Pydantic's errors in a sweep file, reworded for the person who wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.definition import foreign
from orchestrator.definition.addresses import EVENTS, SECTION
from orchestrator.definition.errors import SpecError, nearest
from orchestrator.definition.kinds import meant
from orchestrator.definition.location import Where, description_of, fields_at
from orchestrator.definition.parts import SECTIONS
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.yaml12 import Document, Path


def explained(
    error: ValidationError, document: Document, where: Where, root: type[BaseModel] = SweepModel
) -> SpecError:
    """The most telling of pydantic's errors, in our words; `root` is the format."""
    errors = error.errors()
    telling = ("extra_forbidden", "finite_number")
    first = min(errors, key=lambda e: (e["type"] not in telling, -len(_keys(document.value, e["loc"]))))
    path = tuple(part for part in first["loc"] if part in _keys(document.value, first["loc"]))
    value, kind, context = first["input"], first["type"], first.get("ctx", {})
    a_kind = _kind(value)
    if first["loc"][:1] == (SECTION,) and first["loc"][1:2] != ("stuck_after",) and kind != "extra_forbidden":
        value = _NotShown()
    is_a = "is empty" if first["input"] is None else f"{value!r} is {a_kind}"
    if kind == "extra_forbidden":
        if root is SweepModel and (known := foreign.hint(path)):
            return where.error(path, f"unknown; it is {known}")
        beside = _at(document.value, path[:-1])
        fields = fields_at(path, beside, root)
        if path[:-1] == (SECTION,) and "://" in str(path[-1]):
            return where.error(path[:-1], f"an address stands where one of {', '.join(EVENTS)} should be")
        return where.error(path, f"unknown{_way_out(path, beside, fields) or nearest(str(path[-1]), fields)}")
    if kind == "missing":
        return where.error(path, f"{first['loc'][-1]}: missing; {description_of(path, str(first['loc'][-1]), root)}")
    if kind == "literal_error":
        known = foreign.CHOICES.get(value, "") if isinstance(value, str) else ""
        return where.error(path, f"{value!r} is not one of {context['expected']}{f'; it is {known}' if known else ''}")
    if kind == "too_short":
        return where.error(path, f"{value!r} is empty; give at least one")
    if kind == "string_pattern_mismatch":
        return where.error(
            path,
            f"{value!r}: use only letters, digits, dashes and underscores, at most 40, the first and the last a letter "
            "or digit",
        )
    if kind == "finite_number":
        return where.error(path, f"{value} is not a finite number")
    if kind in ("dict_type", "model_type", "dataclass_type"):
        return where.error(path, f"{is_a}; expected keys with values, such as KEY: VALUE")
    if kind == "list_type":
        return where.error(path, f"{is_a}; expected a list, such as [{_written(value)}]")
    if kind == "string_type":
        return where.error(path, f"{is_a}; expected text, put it in quotes")
    if kind in ("int_type", "float_type") and isinstance(value, str) and (number := meant(value)) is not None:
        return where.error(path, f"{is_a}; expected a number, write {number}")
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return where.error(path, f"{value!r} {message}" if message.startswith("should") else f"{value!r}: {message}")


def _written(value: Any) -> str:
    """A value as YAML reads it back inside a list."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./*-]+", value, re.ASCII):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if isinstance(value, bool | dict) or value is None else str(value)


class _NotShown:
    """Stands for the value of a key that is a secret."""

    def __repr__(self) -> str:
        return "(not shown)"


def _keys(value: Any, path: tuple[Any, ...]) -> list[Any]:
    """The parts of a pydantic location that are keys of the file (it also names branches of unions)."""
    found: list[Any] = []
    for part in path:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            found.append(part)
            value = value[part]
    return found


def _way_out(path: Path, beside: Mapping[str, Any], fields: list[str]) -> str:
    """For a mapping in place of a hyperparameter with none of the format's keys."""
    if "values" not in fields or set(beside) & set(fields):
        return ""
    if path[-2] in SECTIONS:
        return f"; write it as {path[-2]}.{path[-1]}: {{...}}"
    return "; write a mapping value as {value: {...}}"


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path of the file."""
    for part in path:
        value = value[part]
    return value


def _kind(value: Any) -> str:
    """The kind of a value of the file, in a word."""
    if isinstance(value, bool):
        return "true or false"
    words = {int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return words.get(type(value), "empty")
