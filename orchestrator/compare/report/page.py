"""Renders the report's page: `templates/report.html` with inline style, for laptop screens, phones and print.

All inserted text is escaped, so arms, values and descriptions may hold any character.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture inside the page."""

    name: str
    caption: str
    base64: str
    """The PNG."""


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A label for the sweep's status: `kind` is good, warn or bad."""

    kind: str
    text: str


def page(context: Mapping[str, Any]) -> str:
    """The whole document. Raises UndefinedError for a name that the template uses and `context` lacks."""
    environment = Environment(
        loader=PackageLoader("orchestrator.compare.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html").render(**context, kind=_kind)


def _kind(key: str, text: str) -> str:
    """The CSS class of a table cell: a verdict, a warning or a number."""
    if key == "A is":
        return text.split()[0]
    if (key == "at an edge" and text != "none") or (key == "survives eta 3" and text != "yes"):
        return "warn"
    return "num" if text[:1] in tuple("+-−0123456789") else ""
