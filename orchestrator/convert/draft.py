"""A sweep file being written: sections with comments that say what was changed and why.

What has no counterpart is named at the top of the file, with its line in the original; nothing is dropped silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.definition.yaml12 import Document, Path, parse

WIDTH = 118
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+%-]*(?: [A-Za-z0-9_./+-]+)*")
RESERVED = {"true", "false", "null", "~"}
Kind = Literal["changed", "left out", "to fill in"]
LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True)
class Note:
    """One thing that a reader of the new file needs to know."""

    kind: Kind
    key: str
    """In the original, with dots."""
    line: int
    """In the original, from 1."""
    text: str


@dataclass
class Section:
    """Keys in order, each with the comments above it."""

    entries: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, list[str]] = field(default_factory=dict)

    def put(self, key: str, value: Any, *why: str) -> None:
        """Set a key: a plain value, which is written in one line, or a Section."""
        self.entries[key] = value
        self.say(key, *why)

    def say(self, key: str, *why: str) -> None:
        """Further comments above a key."""
        self.comments.setdefault(key, []).extend(w for w in why if w)


@dataclass
class Draft:
    """The new file, and notes on the original with their places."""

    system: str
    """The other system's name for people."""
    source: Document
    top: Section = field(default_factory=Section)
    notes: list[Note] = field(default_factory=list)

    def note(self, kind: Kind, path: Path, text: str) -> str:
        """Remember a note on a key of the original; returns the comment for the new file."""
        line = self.source.place(path)[0]
        self.notes.append(Note(kind=kind, key=".".join(map(str, path)), line=line, text=text))
        return f"{'fill in' if kind == 'to fill in' else kind}: {text}"

    def left_out(self, path: Path, why: str) -> None:
        """Note a construct without a counterpart."""
        self.note("left out", path, why)

    def text(self) -> str:
        """The sweep file."""
        head = [f"Converted from {self.system} by `geosweep convert`."]
        gone = sorted((n for n in self.notes if n.kind == "left out"), key=lambda n: n.line)
        if gone:
            head.append("Left out, with the line of the original:")
            head += [f"  {n.line}: {n.key}: {n.text}" for n in gone]
        lines = [line for one in head for line in _comment(one, 0)]
        return "\n".join([*lines, *_lines(self.top, 0)]) + "\n"


def _lines(section: Section, indent: int) -> list[str]:
    found: list[str] = []
    pad = " " * indent
    for key, value in section.entries.items():
        for why in section.comments.get(key, ()):
            found += _comment(why, indent)
        if isinstance(value, Section):
            inner = _lines(value, indent + 2)
            found += [f"{pad}{scalar(key)}:", *inner] if inner else [f"{pad}{scalar(key)}: {{}}"]
        else:
            found.append(f"{pad}{scalar(key)}: {flow(value)}")
    return found


def _comment(text: str, indent: int) -> list[str]:
    """A comment, wrapped; continuation lines are indented by two."""
    lead = re.match(r" *", text)
    assert lead is not None
    pad, inner = f"{' ' * indent}# {lead[0]}", f"{' ' * indent}# {lead[0]}  "
    lines, line = list[str](), pad
    for word in text.split():
        if len(line) + len(word) + 1 > WIDTH and line.strip("# "):
            lines.append(line.rstrip())
            line = inner
        line += word + " "
    return [*lines, line.rstrip()]


def flow(value: Any) -> str:
    """A value in one line of YAML 1.2."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A number, boolean, null, or text; text is quoted if it could be read as something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    text = str(value)
    if PLAIN.fullmatch(text) and text.lower() not in RESERVED and parse(text).value == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def sweep_name(text: str) -> str:
    """The closest name that a sweep may have."""
    found = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:LONGEST_NAME].rstrip("-_")
    return found or "sweep"


def number(value: Any) -> Any:
    """A number written as text, converted to a number; anything else unchanged."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value
