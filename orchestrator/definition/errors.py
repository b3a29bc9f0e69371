"""Errors about a sweep file: what, where, the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class SpecError(ValueError):
    """`FILE:LINE:COLUMN: dotted.key: message`."""

    def __init__(self, file: str, line: int, column: int, path: tuple[str | int, ...], message: str) -> None:
        self.file, self.line, self.column, self.path, self.message = file, line, column, path, message
        self.key = ".".join(str(part) for part in path)
        super().__init__(f"{file}:{line}:{column}: {self.key + ': ' if self.key else ''}{message}")


class UnreadableError(SpecError):
    """`FILE: message`: there is no text to have a place in."""

    def __init__(self, file: Path, message: str) -> None:
        super().__init__(str(file), 1, 1, (), message)
        self.args = (f"{file}: {message}",)


def read(file: Path) -> str:
    """The text of a file that the user named. Raises UnreadableError."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UnreadableError(file, "no such file") from None
    except IsADirectoryError:
        raise UnreadableError(file, "is a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(file, f"is no text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UnreadableError(file, f"cannot be read: {error.strerror}") from None


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or what there is."""
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there is: {', '.join(options)}" if options else ""
