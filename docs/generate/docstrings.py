"""Docstrings as the site shows them, examples in blocks: an extension of griffe, which reads them for mkdocstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=^\s*$|\Z)", re.DOTALL | re.MULTILINE)


def fenced(text: str) -> str:
    """Text with its doctests in fences, without the comments that only the runner of tests reads."""
    text = re.sub(r"  # doctest: \+\w+$", "", text, flags=re.MULTILINE)
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)


class Examples(griffe.Extension):
    """Puts examples into fences as docstrings are read."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **rest: Any) -> None:
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
