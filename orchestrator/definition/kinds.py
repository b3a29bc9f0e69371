"""Kinds of values: whether one that a file gives is of the kind that a constructor's argument takes."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

NUMBERS = {"int", "float"}
LISTS = {"list", "tuple", "Sequence", "Iterable", "set", "frozenset", "Collection"}
WHOLE = {"int", "bool", "str", "None", "Optional", "Union", "NoneType"}
"""What an annotation says that allows no fraction."""
YES = ("yes", "on", "y")
MAPPINGS = {"dict", "Mapping"}


def misfit(name: str, argument: inspect.Parameter, value: Any) -> str:
    """What is wrong with the kind of a value, as a sentence; empty when nothing is known to be wrong.

    Defaults and annotations say what an argument takes; without either nothing is known.
    """
    words, default = _words(argument.annotation), argument.default
    declared = words
    if isinstance(default, bool):
        words = words or {"bool"}
    elif isinstance(default, int | float):
        words = words | NUMBERS if not words & {*NUMBERS, "str", "bool"} else words
    if not words or value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value) and "int" in declared and declared <= WHOLE:
        way_out = f"; write {value:.0f}" if value.is_integer() else ""
        return f"{value!r} is a fraction, but {name} is a whole number{way_out}"
    truth = words & NUMBERS == set() and "bool" in words
    number = bool(words & NUMBERS) and "bool" not in words
    if isinstance(value, str):
        if "str" in words or not (truth or number or "bool" in words):
            return ""
        share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)
        way_out = ("write true" if value.lower() in YES else "write true or false") if truth else "give one"
        if share and not truth:
            way_out = f"write {float(share[1]) / 100:g}"
        elif _reads_as(value, truth):
            way_out = "write it without quotes"
        return f"{value!r} is text, but {name} is {'true or false' if truth else 'a number'}; {way_out}"
    if isinstance(value, bool):
        return f"{str(value).lower()} is not a number; {name} must be one" if number else ""
    if isinstance(value, list | dict):
        wanted, kind = (LISTS, "list") if isinstance(value, list) else (MAPPINGS, "mapping")
        if words & wanted or not words <= {*NUMBERS, "bool", "str", "None", "Tensor", "Literal"}:
            return ""
        choices = "; write choices as {values: [...]}" if isinstance(value, list) else ""
        return f"{short(value)} is a {kind}, but {name} is {'text' if words & {'str'} else 'a single value'}{choices}"
    return ""


def meant(text: str) -> int | None:
    """The whole number that a text stands for: `10k`, `1.5M`, `1,000`, `1_000`, or one in quotes; None for others."""
    found = re.fullmatch(r"\s*(\d+|\d{1,3}(?:[,_ ]\d{3})+)?(\.\d+)?\s*([kKMG]?)\s*", text)
    if found is None or not (found[1] or found[2]):
        return None
    number = Fraction(re.sub(r"\D", "", found[1] or "0") + (found[2] or "")) * 1000 ** " KMG".index(
        found[3].upper() or " "
    )
    return int(number) if number.denominator == 1 else None


def _reads_as(text: str, truth: bool) -> bool:
    """Whether a text would be a truth value, or a number, without quotes."""
    if truth:
        return text.lower() in ("true", "false")
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def finite(value: Any) -> bool:
    """Whether every number in it is finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, list | tuple) else True


def is_composite(value: Any) -> bool:
    """Whether it is a list or a mapping."""
    return isinstance(value, list | tuple | dict)


def short(value: Any) -> str:
    """A value for people to read: three digits of a fraction, lists and mappings in one line."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {short(inner)}' for key, inner in value.items())}}}"
    return f"[{', '.join(map(short, value))}]" if isinstance(value, list | tuple) else str(value)


def text(value: Any) -> str:
    """A value as text that can be read back: lists and mappings as JSON."""
    return json.dumps(value, sort_keys=True) if is_composite(value) else str(value)


def _words(annotation: Any) -> set[str]:
    """The identifiers in an annotation."""
    if annotation is inspect.Parameter.empty:
        return set()
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "") or repr(annotation)
    if not isinstance(annotation, str | type):
        text = repr(annotation)
    return set(re.findall(r"\w+", text.replace("typing.", "").replace("torch.", "")))
