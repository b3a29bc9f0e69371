"""YAML 1.2 with places: `1e-4` is a number, `no` is text, a key given twice is an error, every value knows its line.

PyYAML reads YAML 1.1; only its resolver of plain scalars differs from the 1.2 core schema, so only that is replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
MOST = 100_000
"""Values in a document, including those repeated by aliases."""


class YamlError(ValueError):
    """The text is not YAML, or a key is given twice; with line and column (from 1)."""

    def __init__(self, message: str, line: int, column: int, path: Path = ()) -> None:
        super().__init__(message)
        self.line, self.column, self.path = line, column, path


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar types of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  PyYAML's own class attribute


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `parse` would not read as text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class Document:
    """Plain values, and for each path the (line, column) of its key, or of its item, counted from 1."""

    value: Any
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def place(self, path: Path) -> tuple[int, int]:
        """Where `path` is, or its nearest parent that is in the file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def parse(text: str) -> Document:
    """Read one document. Raises YamlError."""
    places: dict[Path, tuple[int, int]] = {}
    return Document(_plain(compose(text), (), places), places)


def compose(text: str) -> yaml.Node | None:
    """The nodes of one document, each with its place in the text. Raises YamlError."""
    try:
        node: yaml.Node | None = _Loader(text).get_single_node()
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if error.problem == "but found another document":
            raise YamlError("a second document begins with ---; keep one in a file", line, column) from None
        raise YamlError(f"not YAML: {error.problem or error.context}", line, column) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {error}", 1, 1) from None
    except RecursionError:
        raise YamlError("not YAML: nested too deeply", 1, 1) from None


def dump(value: Any) -> str:
    """Plain values as text that `parse` reads as the same values, keys in their order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def _plain(
    node: yaml.Node | None, path: Path, places: dict[Path, tuple[int, int]], within: tuple[yaml.Node, ...] = ()
) -> Any:
    if node is None:
        return None
    here = node.start_mark.line + 1, node.start_mark.column + 1
    places.setdefault(path, here)
    if node in within:
        raise YamlError("contains itself by an alias; write the values out", *here, path)
    if len(places) > MOST:
        raise YamlError(f"more than {MOST:,} values once aliases are written out; shorten the file", *here, path)
    within = (*within, node)
    if isinstance(node, yaml.MappingNode):
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key, str):
                key = str(key_node.value)
            inner = (*path, key)
            if key == "<<":
                raise YamlError("YAML 1.2 has no merge keys; write the keys out here", line, column, path)
            if key in found:
                raise YamlError(
                    f"given twice; the first is in line {places[inner][0]}; remove one", line, column, inner
                )
            places[inner] = (line, column)
            found[key] = _plain(value_node, inner, places, within)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), places, within) for i, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    kind, text = node.tag.rsplit(":", 1)[-1], str(node.value)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        try:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        except ValueError:  # Python does not read numbers of more than 4300 digits
            line, column = node.start_mark.line + 1, node.start_mark.column + 1
            raise YamlError("a number with too many digits", line, column) from None
    if kind == "float":
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan"))
    return text
