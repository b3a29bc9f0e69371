"""Keys of a sweep file given on the command line: `budget.trials_per_arm=16`, a dotted path and a value in YAML.

They make an effective file: the user's with these values in their places, comments kept, and noted at its end.
This text is checked, run and stored, and running it directly gives the same sweep. Errors name the override, or
the place in the user's own file.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import yaml

from orchestrator.definition.addresses import SECTION, secrets
from orchestrator.definition.errors import SpecError, SpecErrors, errors_of, nearest, read
from orchestrator.definition.location import Where, fields_at
from orchestrator.definition.model import Spec
from orchestrator.definition.passwords import without_passwords
from orchestrator.definition.program_keys import ProgramModel, is_program
from orchestrator.definition.sweep_file import NOTE, loads
from orchestrator.definition.yaml12 import Path, YamlError, compose, parse


class OverrideError(SpecError):
    """`FILE: in the override WORD: dotted.key: message`."""

    def __init__(self, file: str, word: str, path: Path, message: str) -> None:
        super().__init__(file, 1, 1, path, message)
        self.word = shown(word)
        self.args = (f"{file}: in the override {self.word}: {self.key + ': ' if self.key else ''}{message}",)


@dataclass(frozen=True)
class Asked:
    """A sweep file with its overrides."""

    file: str
    own: str
    """The user's text."""
    text: str
    """The effective one."""
    given: Mapping[Path, str]
    """Path -> the word that set it."""

    def load(self) -> Spec:
        """The sweep. Raises SpecError."""
        with self.located():
            return loads(self.text, self.file)

    @contextmanager
    def located(self) -> Iterator[None]:
        """Errors of the effective file inside name the override, or the place in the user's own file."""
        try:
            yield
        except SpecError as error:
            if not self.given or isinstance(error, OverrideError):
                raise
            named = [self._named(one) for one in errors_of(error)]
            for one, before in zip(named, errors_of(error), strict=True):
                one.__cause__ = before.__cause__
            said = named[0] if len(named) == 1 else SpecErrors(named)
            said.rest = error.rest
            raise said from named[0].__cause__

    def line(self, number: int) -> int:
        """The line in the user's own file for a line of the effective one."""
        if not self.given:
            return number
        own, effective = self.own.splitlines(), self.text.splitlines()
        found = 1
        for block in difflib.SequenceMatcher(None, own, effective, autojunk=False).get_matching_blocks():
            if block.b < number <= block.b + block.size:
                return block.a + number - block.b
            if block.b < number and block.size:
                found = block.a + block.size
        return min(found + 1, max(1, len(own)))

    def _named(self, error: SpecError) -> SpecError:
        for path, word in self.given.items():
            if error.path[: len(path)] == path:
                return OverrideError(self.file, word, error.path, error.message)
        beside = error.path[:-1]
        near = [word for path, word in self.given.items() if beside and path[: len(beside)] == beside]
        try:
            loads(self.own, self.file)
        except SpecError as without:
            if not near or (without.path, without.message) == (error.path, error.message):
                line, column = parse(self.own).place(error.path)
                return SpecError(self.file, line, column, error.path, error.message)
        words = " ".join(map(shown, near or self.given.values()))
        return OverrideError(self.file, words, error.path, error.message)


def asked(file: File, words: Sequence[str] = ()) -> Asked:
    """The file with these overrides, later ones on top. Raises SpecError."""
    own = read(file)
    return overridden(own, str(file), words)


def overridden(own: str, file: str, words: Sequence[str]) -> Asked:
    """`asked` of a text; `file` is the name that errors show."""
    text, given = own, dict[Path, str]()
    for word in words:
        path, text = _set(text, file, word)
        given = {p: w for p, w in given.items() if p[: len(path)] != path} | {path: word}
    if given:
        notes = "".join(f"{NOTE}{shown(word)}\n" for word in given.values())
        text = f"{text}{'' if text.endswith(chr(10)) else chr(10)}{notes}"
    return Asked(file, own, text, given)


def is_override(word: str) -> bool:
    """Whether a word of the command line has the form KEY=VALUE."""
    return bool(re.match(r"[^\s=/]+[^\s=]*=", word))


def shown(word: str) -> str:
    """An override for people to read, without notify addresses or passwords in URIs."""
    key, _, value = word.partition("=")
    if key.partition(".")[0] == SECTION:
        return f"{key}=(not shown)"
    return f"{key}={without_passwords(value)}"


def without_secrets(text: str) -> str:
    """A sweep file without the addresses and passwords that are secrets, also in comments; variables stay."""
    for secret in secrets(text):
        wanted = copy.deepcopy(parse(text).value)
        _put(wanted, secret.path, secret.kept)
        found = _edited(text, secret.path, json.dumps(secret.kept))
        text = found if found is not None and _means(found, wanted) else json.dumps(wanted, indent=1) + "\n"
        told = text.replace(secret.text, secret.kept or "(not shown)")
        text = told if _means(told, wanted) else text
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if (told := without_passwords(line)) != line:
            rest = [*lines[:i], told, *lines[i + 1 :]]
            lines = rest if _means("\n".join(rest), parse(text).value) else lines
    return "\n".join(lines)


def _set(text: str, file: str, word: str) -> tuple[Path, str]:
    """The path that a word names, and the text with its value there."""
    dotted, _, raw = word.partition("=")
    try:
        document = parse(text)
    except YamlError as error:
        raise SpecError(file, error.line, error.column, error.path, str(error)) from None
    if not isinstance(document.value, dict):
        raise Where(file, document).error((), "is not a sweep: the file must have keys such as name, task, arms")
    try:
        value = parse(raw).value
    except YamlError as error:
        raise OverrideError(file, word, tuple(dotted.split(".")), str(error)) from None
    path = _path(document.value, dotted, file, word)
    wanted = copy.deepcopy(document.value)
    _put(wanted, path, value)
    for rendered in (raw.strip(), json.dumps(value)):
        found = _edited(text, path, rendered)
        if found is not None and _means(found, wanted):
            return path, found
    return path, json.dumps(wanted, indent=1) + "\n"


def _means(text: str, wanted: Any) -> bool:
    try:
        return bool(parse(text).value == wanted)
    except YamlError:
        return False


def _path(file_value: Any, dotted: str, file: str, word: str) -> Path:
    """The path that dots lead to; a key of the file may hold dots itself."""
    at, path, parts = file_value, list[str | int](), dotted.split(".")
    if not all(parts):
        raise OverrideError(file, word, (), f"{dotted!r} is not a key; write KEY.KEY=VALUE")
    while parts:
        here = tuple(path)
        if isinstance(at, list):
            if not parts[0].isdigit() or int(parts[0]) >= len(at):
                raise OverrideError(file, word, (*here, parts[0]), f"no such item; there are {len(at)}, counted from 0")
            index = int(parts.pop(0))
            path.append(index)
            at = at[index]
            continue
        if at is not None and not isinstance(at, dict):
            raise OverrideError(
                file, word, here, f"is {at!r} and has no {parts[0]}; give it as a whole, {_whole(here)}"
            )
        known = at or {}
        count = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known), 0)
        if not count:
            _check_new(known, here, parts, file_value, file, word)
        key = ".".join(parts[: count or 1])
        del parts[: count or 1]
        path.append(key)
        at = known.get(key)
    return tuple(path)


def _whole(path: Path) -> str:
    return f"{'.'.join(map(str, path))}={{...}}"


def _check_new(known: Mapping[str, Any], here: Path, parts: Sequence[str], whole: Any, file: str, word: str) -> None:
    """A key that the file lacks: one of the format, or the last one of the path where names are free."""
    key, fields = parts[0], fields_at((*here, parts[0]))
    if key in fields or (not fields and len(parts) == 1):
        return
    if here[-2:-1] == ("groups",) and len(here) in (2, 4):  # any hyperparameter of an optimizer
        return
    if here == ("task",) and is_program(whole.get("task") or {}):  # its keys are known, though the format has none
        fields = list(ProgramModel.model_fields)
        if key in fields:
            return
    shared = whole.get("parameters") or {}
    if here[:1] == ("arms",) and here[2:] == ("parameters",) and key in shared:
        rest = ".".join(parts)
        raise OverrideError(file, word, (*here, key), f"it is shared by the arms; write parameters.{rest}=...")
    raise OverrideError(file, word, (*here, key), f"unknown{nearest(key, fields or known)}")


def _put(value: Any, path: Path, new: Any) -> None:
    for i, key in enumerate(path[:-1]):
        if isinstance(value, dict) and value.get(str(key)) is None:
            value[key] = {}
        value = value[path[i]]
    value[path[-1]] = new


def _edited(text: str, path: Path, rendered: str) -> str | None:
    """The text with a value at `path`, for the caller to check; None where it cannot be inserted."""
    node, done = compose(text), 0
    if node is None:
        return None
    while done < len(path) and (inner := _child(node, path[done])) is not None:
        node, done = inner, done + 1
    rest = list(map(str, path[done:]))
    for key in reversed(rest[1:] if isinstance(node, yaml.MappingNode) else rest):
        rendered = f"{{{json.dumps(key)}: {rendered}}}"
    if not rest or not isinstance(node, yaml.MappingNode):
        return _replaced(text, node, rendered)
    key = rest[0] if re.fullmatch(r"[A-Za-z_]\w*", rest[0]) else json.dumps(rest[0])
    if node.flow_style:
        at = node.end_mark.index - 1
        return f"{text[:at]}{', ' if node.value else ''}{key}: {rendered}{text[at:]}"
    end = text.find("\n", max(0, _end(node) - (text[: _end(node)][-1:] == "\n")))
    end = len(text) if end < 0 else end
    indent = " " * node.value[0][0].start_mark.column
    return f"{text[:end]}\n{indent}{key}: {rendered}{text[end:]}"


def _replaced(text: str, node: yaml.Node, rendered: str) -> str:
    start, end = node.start_mark.index, _end(node)
    if start == end:  # nothing is there
        return f"{text[:start]} {rendered}{text[start:]}"
    return f"{text[:start]}{rendered}{chr(10) if text[:end].endswith(chr(10)) else ''}{text[end:]}"


def _child(node: yaml.Node, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((inner for name, inner in node.value if str(name.value) == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
        found: yaml.Node = node.value[key]
        return found
    return None


def _end(node: yaml.Node) -> int:
    """Where a node's text ends: of a block, with its last leaf, since what follows are comments and empty lines."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)
