"""The reference of the sweep file, made of its JSON Schema: every key with type, default, bounds and meaning."""

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
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
}
TOP = "SweepModel"
NAMES = re.compile(r"(?<!`)(?:docs|sweeps)/\w+\.\w+")
"""Names of files in a description."""
WRITTEN = {
    "(min|[smhd])": "time such as `30m`",
    "i?)?B": "size such as `20GB`",
    "%$": "share such as `5%`",
    "https?://": "web address",
}
"""Part of a pattern -> what texts that match it are."""
ENDLESS = 1e300
"""A number this large is no bound."""
TITLES = {
    "ParameterModel": "A hyperparameter",
    "RampModel": "A schedule within a trial",
    "GroupModel": "A group of parameters",
    "ArmModel": "An arm",
    "ObjectiveModel": "A further objective",
    "ProgramModel": "A script as the task",
}
"""Headings of models that stand at several places, or under a name of the user's own."""
KINDS = {(TOP, "task"): "mapping: [a task](tasks.md) or [a script](#a-script-as-the-task)"}
"""What stands there, where the schema leaves it to somebody else."""
HEAD = """# The sweep file

Every key of the format, made of its schema; `sweeps/schema.json` is the same for editors. *required* stands where there
is no default. Shares may be written as percentages (`5%`), times and sizes carry their unit (`90s`, `1h30m`, `40GiB`).
Unknown keys are refused, with the nearest known one. Any key can be changed on the command line, as
`budget.per_trial=200`.

How to say what is searched: [parameters](../parameters.md) and [search](../search.md). A whole file is in the
[tutorial](../tutorial.md).
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of the sweep file, with that of a script under `task`."""
    found = sweep_file.json_schema()
    program = ProgramModel.model_json_schema()
    found["$defs"] |= {**program.pop("$defs", {}), "ProgramModel": program}
    return found


def models_in(part: Mapping[str, Any]) -> Iterator[str]:
    """The models that a part of the schema names, in order."""
    if "$ref" in part:
        yield part["$ref"].rpartition("/")[2]
    for inner in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from models_in(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(part.get(key), dict):
            yield from models_in(part[key])


def kind(part: Mapping[str, Any], homes: Mapping[str, str]) -> str:
    """What may stand there, in words, with links to the models of mappings."""
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
            if word not in words and not (word == "whole number" and any(o.get("type") == "number" for o in others)):
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
    """The alternatives of a part, and theirs."""
    yield part
    for inner in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from _flat(inner)


def bounds(part: Mapping[str, Any]) -> str:
    """What a value has to obey, of the part itself and of what it may be."""
    weaker = {key for strict, keys in STRICTER.items() if strict & set(part) for key in keys}
    given = {key for key in set(part) & set(BOUNDS) - weaker if part[key] is None or abs(part[key]) < ENDLESS}
    found = [form.format(part[key]) for key, form in BOUNDS.items() if key in given]
    for inner in part.get("anyOf", ()):
        found += [one for one in [bounds(inner)] if one and one not in found]
    return ", ".join(found)


def anchor(title: str) -> str:
    """The anchor of a heading, as the table of contents makes it."""
    return re.sub(r"[^a-z0-9_-]+", "-", title.lower().replace("`", "")).strip("-")


def default(key: str, part: Mapping[str, Any], required: bool) -> str:
    """The default as YAML has it; of a mapping that may be left out: its keys' own."""
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
    lines = [HEAD, "## The top of the file", "", *rows(whole, {**homes, **says}), ""]
    order = list(dict.fromkeys(name for part in whole["properties"].values() for name in models_in(part)))
    order += [name for name in models if name not in order]
    for name in order:
        model = models[name]
        lines += [f"## {homes[name]}", "", model.get("description", ""), "", *rows(model, {**homes, **says}), ""]
    return "\n".join(lines)
