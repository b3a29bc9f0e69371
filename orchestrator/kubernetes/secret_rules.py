"""Credentials in plain text anywhere in a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from orchestrator.kubernetes.secret_shapes import is_secret_name, secret_of, shape_of


def secret_findings(document: Any) -> Iterator[tuple[str, str]]:
    """Credentials in plain text anywhere in a document, and Secrets, which must be created separately and never
    printed.
    """
    if isinstance(document, dict) and document.get("kind") == "Secret":
        yield "KO207", "holds a Secret; create it separately, with kubectl create secret"
    for path, name, value in _named(document):
        if value is None:
            yield "KO207", f"{path}: {name} comes from a ConfigMap, which many can read; use valueFrom.secretKeyRef"
        elif what := secret_of(name, value):
            yield "KO207", f"{path}: {name} holds {what} in plain text; use valueFrom.secretKeyRef, or a Secret"
    for path, text in _texts(document):
        if what := shape_of(text, assigned=not path.startswith("data.")):
            yield "KO207", f"{path} holds {what} in plain text; put it in a Secret and reference it with secretKeyRef"


def _named(value: Any, path: str = "") -> Iterator[tuple[str, str, str | None]]:
    """(path, name, value) of every variable and named text; value None: it comes from a ConfigMap."""
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from _named(part, f"{path}[{number}]")
    if not isinstance(value, dict):
        return
    name, source = value.get("name"), value.get("valueFrom")
    if isinstance(name, str) and isinstance(value.get("value"), str):
        yield path, name, value["value"]
    if isinstance(name, str) and isinstance(source, dict) and source.get("configMapKeyRef") and is_secret_name(name):
        yield path, name, None
    for key, part in value.items():
        place = f"{path}.{key}" if path else str(key)
        if isinstance(part, str) and "." not in str(key) and path.rpartition(".")[2] in MAPS:
            yield path, str(key), part
        if key == "runtimeEnvYAML":
            yield from _variables(part, place)
        yield from _named(part, place)


MAPS = ("data", "annotations", "metadata")
"""Maps of text under user-chosen names."""


def _variables(text: Any, path: str) -> Iterator[tuple[str, str, str | None]]:
    try:
        found = yaml.safe_load(str(text))
    except yaml.YAMLError:
        return
    given = found.get("env_vars") if isinstance(found, dict) else None
    for name, value in given.items() if isinstance(given, dict) else ():
        yield f"{path}: env_vars", str(name), str(value)


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, f"{path}[{number}]")
