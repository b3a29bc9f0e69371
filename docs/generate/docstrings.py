"""A griffe extension for mkdocstrings that puts docstring examples into code blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=^\s*$|\Z)", re.DOTALL | re.MULTILINE)


def fenced(text: str) -> str:
    """Fence the doctests of a text and drop their doctest directives."""
    text = re.sub(r"  # doctest: \+\w+$", "", text, flags=re.MULTILINE)
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


class Examples(griffe.Extension):
    """Fences examples as docstrings are loaded."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **rest: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
