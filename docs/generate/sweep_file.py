"""The sweep-file reference, generated from its JSON Schema: every key with type, default, bounds, and meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.definition import sweep_file
from orchestrator.definition.program_keys import ProgramModel

BOUNDS = {
    "minimum": "≥ {}", "ge": "≥ {}", "exclusiveMinimum": "> {}", "gt": "> {}",
    "maximum": "≤ {}", "le": "≤ {}", "exclusiveMaximum": "< {}", "lt": "< {}",
    "minItems": "at least {}", "minProperties": "at least {}", "minLength": "not empty",
}  # fmt: skip
STRICTER = {
    frozenset({"gt", "exclusiveMinimum"}): ("ge", "minimum"),
    frozenset({"lt", "exclusiveMaximum"}): ("le", "maximum"),
}
TYPES = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
}
TOP = "SweepModel"
NAMES = re.compile(r"(?<!`)(?:docs|sweeps)/\w+\.\w+")
"""File names in a description."""
WRITTEN = {
    "(min|[smhd])": "duration such as `30m`",
    "i?)?B": "size such as `20GB`",
    "%$": "percentage such as `5%`",
    "https?://": "URL",
}
"""Part of a pattern -> description of the strings that match it."""
ENDLESS = 1e300
"""Numbers this large are not bounds."""
TITLES = {
    "ParameterModel": "A hyperparameter",
    "RampModel": "A schedule within a trial",
    "GroupModel": "A group of parameters",
    "ArmModel": "An arm",
    "ObjectiveModel": "An additional objective",
    "ProgramModel": "A script as the task",
}
"""Headings of models that occur in several places or under user-defined names."""
KINDS = {(TOP, "task"): "mapping: [a task](tasks.md) or [a script](#a-script-as-the-task)"}
"""Types of keys that the schema itself does not describe."""
HEAD = """# The sweep file

Every key of the format, generated from its schema; editors can use `sweeps/schema.json`. Keys marked *required* have no
default. Fractions may be written as percentages (`5%`); durations and sizes need a unit (`90s`, `1h30m`, `40GiB`).
An unknown key is an error that suggests the nearest known one. Any key can be overridden on the command line, as in
`budget.per_trial=200`.

To define the search space, see [parameters](../parameters.md) and [search](../search.md). The
[tutorial](../tutorial.md) shows a complete file.
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of the sweep file, including that of a script under `task`."""
    found = sweep_file.json_schema()
    program = ProgramModel.model_json_schema()
    found["$defs"] |= {**program.pop("$defs", {}), "ProgramModel": program}
    return found


def models_in(part: Mapping[str, Any]) -> Iterator[str]:
    """The models that a part of the schema refers to, in order."""
    if "$ref" in part:
        yield part["$ref"].rpartition("/")[2]
    for inner in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from models_in(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            yield from models_in(part[key])


def kind(part: Mapping[str, Any], homes: Mapping[str, str]) -> str:
    """The type in words, with links to the models of mappings."""
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return f"[{homes[name].lower() if name in TITLES else 'mapping'}](#{anchor(homes[name])})"
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if others := (*part.get("anyOf", ()), *part.get("oneOf", ())):
        if {"array", "boolean", "string", "null"} <= {one.get("type") for one in _flat(part)}:
            return f"any value, or {' or '.join(kind({'$ref': f'#/{name}'}, homes) for name in models_in(part))}"
        words: list[str] = []
        for word in (kind(inner, homes) for inner in others):
            if word not in words and not (word == "integer" and any(o.get("type") == "number" for o in others)):
                words.append(word)
        return " or ".join(words)
    if part.get("type") == "array":
        inner = kind(part["items"], homes) if part.get("items") else "values"
        return "list of values" if inner == "values" else f"list: {inner}"
    if part.get("type") == "object" and isinstance(part.get("additionalProperties"), dict):
        inner = part["additionalProperties"]
        named = [homes[name] for name in models_in(inner)]
        return f"mapping: name → {kind(inner, homes) if named or inner.get('type') else 'anything'}"
    pattern = part.get("pattern", "")
    if words := next((words for mark, words in WRITTEN.items() if mark in pattern), ""):
        return words
    return TYPES.get(part.get("type", ""), "text" if pattern else "anything")


def _flat(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a part, recursively."""
    yield part
    for inner in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from _flat(inner)


def bounds(part: Mapping[str, Any]) -> str:
    """The bounds on a value, from the part itself and its alternatives."""
    weaker = {key for strict, keys in STRICTER.items() if strict & set(part) for key in keys}
    given = {key for key in set(part) & set(BOUNDS) - weaker if part[key] is None or abs(part[key]) < ENDLESS}
    found = [form.format(part[key]) for key, form in BOUNDS.items() if key in given]
    for inner in part.get("anyOf", ()):
        found += [one for one in [bounds(inner)] if one and one not in found]
    return ", ".join(found)


def anchor(title: str) -> str:
    """The anchor of a heading, as generated for the table of contents."""
    return re.sub(r"[^a-z0-9_-]+", "-", title.lower().replace("`", "")).strip("-")


def default(key: str, part: Mapping[str, Any], required: bool) -> str:
    """The default in YAML; empty for an optional mapping, whose keys have their own."""
    if required:
        return "*required*"
    if "default" not in part:
        return ""
    value = part["default"]
    return '`""`' if value == "" else f"`{json.dumps(value)}`"


def rows(model: Mapping[str, Any], homes: Mapping[str, str]) -> list[str]:
    """The table of a model's keys."""
    lines = ["| key | meaning | type | default | bounds |", "|---|---|---|---|---|"]
    for key, part in model.get("properties", {}).items():
        inner = next(models_in(part), None)
        says = part.get("description") or (homes["says " + inner] if inner else "")
        cells = (
            f"`{key}`",
            NAMES.sub(r"`\g<0>`", says),
            KINDS.get((model.get("title", ""), key)) or kind(part, homes),
            default(key, part, key in model.get("required", ())),
            bounds(part),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def page() -> str:
    """The page, in Markdown."""
    whole = schema()
    models: dict[str, Mapping[str, Any]] = {**whole["$defs"]}
    homes = {name: TITLES.get(name, "") for name in models}
    for key, part in whole["properties"].items():
        for name in models_in(part):
            homes[name] = homes[name] or f"`{key}`"
    says = {f"says {name}": model.get("description", "").split("\n")[0] for name, model in models.items()}
    lines = [HEAD, "## Top level", "", *rows(whole, {**homes, **says}), ""]
    order = list(dict.fromkeys(name for part in whole["properties"].values() for name in models_in(part)))
    order += [name for name in models if name not in order]
    for name in order:
        model = models[name]
        lines += [f"## {homes[name]}", "", model.get("description", ""), "", *rows(model, {**homes, **says}), ""]
    return "\n".join(lines)
