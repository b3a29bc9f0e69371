"""Errors about a sweep file: what, where, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecError(ValueError):
    """`FILE:LINE:COLUMN: dotted.key: message`."""

    def __init__(self, file: str, line: int, column: int, path: tuple[str | int, ...], message: str) -> None:
        self.file, self.line, self.column, self.message = file, line, column, message
        self.key = ".".join(str(part) for part in path)
        super().__init__(f"{file}:{line}:{column}: {self.key + ': ' if self.key else ''}{message}")


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or what there is."""
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is: {', '.join(options)}" if options else ""
