"""A sweep given as a dict, and changes to one by dotted keys: text of a sweep file, and errors that name the key."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from typing import Any

import optim_core
import trainables
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import KeyedError, SpecError
from orchestrator.definition.model import Spec
from orchestrator.definition.yaml12 import Path, YamlError, dump, parse


def from_dict(given: Mapping[str, Any], overrides: Mapping[str, Any], origin: str = "sweep") -> tuple[Spec, str]:
    """The sweep in a dict, and the text of its file. Raises KeyedError, which begins with `origin`."""
    text = dump(_changed(plain(given, (), origin), overrides))
    try:
        return sweep_file.loads(text, origin), text
    except SpecError as error:
        raise _keyed(error, overrides, origin) from None


def from_text(text: str, file: str, overrides: Mapping[str, Any]) -> tuple[Spec, str]:
    """The sweep in the text of a file, and the text with the overrides in it. Raises SpecError."""
    if not overrides:
        return sweep_file.loads(text, file), text
    try:
        document = parse(text)
    except YamlError as error:
        raise SpecError(file, error.line, error.column, error.path, str(error)) from None
    if not isinstance(document.value, dict):
        sweep_file.loads(text, file)  # reports what is wrong
    changed = dump(_changed(document.value, overrides))
    try:
        return sweep_file.loads(changed, file), changed
    except SpecError as error:
        if (keyed := _keyed(error, overrides, file)).file != file:
            raise keyed from None
        raise SpecError(file, *document.place(error.path), error.path, error.message) from None


def plain(value: Any, path: Path, origin: str) -> Any:
    """A value that a sweep file can hold. Tuples, paths and NumPy numbers become plain values, classes their names.

    Raises KeyedError for anything else.
    """
    if isinstance(value, enum.Enum):
        return plain(value.value, path, origin)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(part, (*path, str(key)), origin) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | str):
        return [plain(part, (*path, i), origin) for i, part in enumerate(value)]
    if isinstance(value, type):
        return trainables.name_of(value) if issubclass(value, trainables.Task) else optim_core.name_of(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(item := getattr(value, "tolist", None)):  # NumPy numbers and arrays, and tensors
        return plain(item(), path, origin)
    for of in (int, float, str):
        if isinstance(value, of):
            return of(value)
    kind = type(value).__qualname__
    raise KeyedError(origin, path, f"a {kind} cannot be written in a sweep file; use numbers, text, lists, mappings")


def _changed(sweep: Any, overrides: Mapping[str, Any]) -> Any:
    """The sweep with each dotted key at its value. Raises KeyedError for a key that leads into a value."""
    for key, value in overrides.items():
        given, path = plain(value, (), f"override {key}"), _path(sweep, key)
        inner = sweep
        for part in path[:-1]:
            if inner.get(part) is None:
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                raise KeyedError(f"override {key}", (), f"{part} is {inner!r} in the sweep and has no keys")
        inner[path[-1]] = given
    return sweep


def _path(sweep: Any, key: str) -> list[str]:
    """The parts of a dotted key; where the sweep has a key with dots in it, that is one part."""
    parts, found, inner = key.split("."), list[str](), sweep
    while parts:
        known = inner if isinstance(inner, dict) else {}
        count = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known), 1)
        found.append(".".join(parts[:count]))
        inner, parts = known.get(found[-1]), parts[count:]
    return found


def _keyed(error: SpecError, overrides: Mapping[str, Any], origin: str) -> KeyedError:
    """The error by its key: in an override that gave the key its value, else in `origin`."""
    key = ".".join(map(str, error.path))
    for changed in overrides:
        if key == changed or key.startswith(f"{changed}."):
            return KeyedError(f"override {changed}", error.path if key != changed else (), error.message)
    return KeyedError(origin, error.path, error.message)
