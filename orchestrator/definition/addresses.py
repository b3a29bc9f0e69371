"""Addresses in a sweep file that are secrets: where messages go (`notify`), and a password in `tracking.mlflow`.

They are never shown, never stored in a sweep's folder, and never sent to a cluster. A reference to an environment
variable, ${env:NAME}, is replaced by its value and may be stored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.definition.passwords import kept
from orchestrator.definition.yaml12 import YamlError, parse

SECTION = "notify"
EVENTS = ("done", "diverged", "failed", "stuck")
REFERENCE = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)")


def is_address(value: Any) -> bool:
    """Whether `value` is a URL, or becomes one through a variable."""
    return isinstance(value, str) and (is_web(value) or bool(REFERENCE.match(value)))


def is_web(value: str) -> bool:
    """Whether it is a URL by itself."""
    return bool(re.match(r"https?://[^\s/?#]+", value))


def resolved(value: str) -> str:
    """The address with its variables filled in. Raises KeyError with the name of a variable that is not set."""

    def of(found: re.Match[str]) -> str:
        return os.environ[found[1] or found[2]]

    return REFERENCE.sub(of, value)


def is_secret(value: Any) -> bool:
    """Whether it holds more than the name of a variable."""
    return isinstance(value, str) and not REFERENCE.fullmatch(value)


@dataclass(frozen=True, kw_only=True)
class Secret:
    """An address in a sweep file that holds a secret."""

    path: tuple[str, str]
    """Its keys in the file."""
    text: str
    kept: str | None
    """What may be stored in its place."""

    def refusal(self, but: str, set_it: str) -> str:
        """Why the file is not sent to a cluster, and what to write instead: a variable, and where to set it."""
        what = "is an address that only its owner should know" if self.path[0] == SECTION else "holds credentials"
        return f"{'.'.join(self.path)} {what}, but {but}; write ${{env:NAME}} and {set_it}"


def secrets(text: str) -> Iterator[Secret]:
    """The secrets in a sweep file."""
    try:
        document = parse(text).value
    except YamlError:
        return
    if not isinstance(document, dict):
        return
    if isinstance(given := document.get(SECTION), Mapping):
        for key, value in given.items():
            if key in EVENTS and is_secret(value):
                yield Secret(path=(SECTION, key), text=value, kept=None)
    given = document.get("tracking")
    uri = given.get("mlflow") if isinstance(given, Mapping) else None
    if isinstance(uri, str) and kept(uri) != uri:
        yield Secret(path=("tracking", "mlflow"), text=uri, kept=kept(uri))
