"""Addresses that messages go to (`notify`): secrets, never shown and never stored in a sweep's folder.

A reference to an environment variable, ${env:NAME}, is replaced by its value and may be stored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

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


def secrets(text: str) -> Iterator[tuple[str, str]]:
    """(key, address) of the addresses in a sweep file."""
    try:
        document = parse(text).value
    except YamlError:
        return
    given = document.get(SECTION) if isinstance(document, dict) else None
    if isinstance(given, Mapping):
        yield from ((key, value) for key, value in given.items() if key in EVENTS and is_secret(value))
