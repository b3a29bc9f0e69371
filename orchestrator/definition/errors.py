"""Errors about a sweep file: what is wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.definition.model import Spec


class SpecError(ValueError):
    """`FILE:LINE:COLUMN: dotted.key: message`."""

    is_of_form = False
    """Whether types or spelling are wrong, which depends on nothing else in the file."""

    rest: Spec | None = None
    """For all errors of a file: the sweep without its invalid parts, as far as it can be tried."""

    def __init__(self, file: str, line: int, column: int, path: tuple[str | int, ...], message: str) -> None:
        self.file, self.line, self.column, self.path, self.message = file, line, column, path, message
        self.key = ".".join(str(part) for part in path)
        super().__init__(f"{file}:{line}:{column}: {self.key + ': ' if self.key else ''}{message}")


class KeyedError(SpecError):
    """`ORIGIN: dotted.key: message`: the error is not in a line of a file, but in a dict or an override."""

    def __init__(self, origin: str, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(origin, 1, 1, path, message)
        self.args = (f"{origin}: {self.key + ': ' if self.key else ''}{message}",)


class SpecErrors(SpecError):  # noqa: N818
    """Two or more errors, one per line, in the order of the file; the place is that of the first."""

    def __init__(self, errors: Sequence[SpecError]) -> None:
        first = errors[0]
        super().__init__(first.file, first.line, first.column, first.path, first.message)
        self.errors = tuple(errors)
        self.args = ("\n".join(str(one) for one in errors),)


def errors_of(error: SpecError) -> tuple[SpecError, ...]:
    """The single errors."""
    return error.errors if isinstance(error, SpecErrors) else (error,)


class UnreadableError(SpecError):
    """`FILE: message`: there is no text to point into."""

    def __init__(self, file: Path, message: str) -> None:
        super().__init__(str(file), 1, 1, (), message)
        self.args = (f"{file}: {message}",)


class UsageError(ValueError):
    """The request cannot be carried out; the message says why, and what to do instead."""


class TrialsFailed(RuntimeError):  # noqa: N818
    """More trials failed than the sweep allows, or all of them for one reason."""


class BudgetSpent(RuntimeError):  # noqa: N818
    """A limit of the budget ended the sweep before all its trials were done."""


def read(file: Path) -> str:
    """The text of a file that the user named. Raises UnreadableError."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UnreadableError(file, "no such file") from None
    except IsADirectoryError:
        raise UnreadableError(file, "is a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(file, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UnreadableError(file, f"cannot be read: {error.strerror}") from None


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?`, or the options."""
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; available: {', '.join(options)}" if options else ""
