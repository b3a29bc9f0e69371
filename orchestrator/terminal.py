"""Output for any terminal: tables that fit its width, unbroken commands, symbols that its encoding has.

A table that is too wide is reduced in this order, without losing anything: columns with the same value in every row
move below it, cells break at word ends, intervals go on a second line, and finally each row becomes a paragraph.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from orchestrator.definition.passwords import without_passwords

PLAIN = {"−": "-", "±": "+-", "×": "x", "·": "-", "…": "...", "–": "-", "—": "-", "∞": "inf", "≤": "<=", "≥": ">="}
"""Our symbols, for terminals that lack them."""
PLAIN |= {"→": "->", "²": "^2", "’": "'", "‘": "'", "“": '"', "”": '"', " ": " ", "µ": "u", "┃": "|", "│": "|"}
PIPED = 160
"""Columns for prose written to a file or another program; tables there are as wide as they need."""
_COMMAND = re.compile(r"[ \n]*(?<=:)[ \n]+(?=geosweep [a-z])")
PROSE = (24, 14)
"""Columns below which sentences in a table are hard to read, and very hard to read."""


def asked_width() -> int | None:
    """The width given by COLUMNS, or None; tables written to a file or another program obey it too."""
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else None


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("geosweep", _plain)


def readable(*streams: Any) -> None:
    """Let streams whose encoding lacks a character print the nearest one instead of raising UnicodeEncodeError."""
    for stream in streams or (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="geosweep")


def pieces(text: str) -> list[str]:
    """The lines of a message; a command that ends it after a colon gets its own line, to be copied whole."""
    return _COMMAND.sub("\n  ", text).split("\n")


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a message: prose breaks between words, commands do not, and passwords in URLs are not shown."""
    for line in pieces(without_passwords(text)):
        whole = not console.is_terminal or line.lstrip().startswith("geosweep ")
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=whole)


@dataclass(frozen=True)
class _Column:
    header: str
    cells: tuple[str, ...]
    right: bool
    whole: bool
    """Whether its cells must not break, such as a name or a number with its interval."""

    @property
    def widest(self) -> int:
        return _longest([self.header, *self.cells])

    @property
    def under_its_header(self) -> int:
        """Its width when only the header may break."""
        return max(_longest(self.header.split()), _longest(self.cells))

    def narrowest(self, prose: int) -> int:
        """Its least width; sentences break, but not below `prose` columns."""
        if self.whole:
            return self.under_its_header
        words = _longest([word for text in (self.header, *self.cells) for word in text.split()])
        return max(words, min(prose, _longest(self.cells)))


def _longest(texts: Iterable[str]) -> int:
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def fitted(table: Table, width: int, encoding: str = "utf-8") -> list[Any]:
    """The table as renderables in `width` columns, complete: itself, a narrower one, or a paragraph per row.

    Characters that `encoding` lacks are replaced before anything is measured.
    """
    columns = [_column(one, encoding) for one in table.columns]
    title, caption = _text(table.title, encoding), _text(table.caption, encoding)
    below = [Text(caption, style="dim")] if caption else []
    if _needs(one.under_its_header for one in columns) <= width:
        return [*_table(columns, title, width), *below]
    rows = len(columns[0].cells) if columns else 0
    if same := [one for one in columns[1:] if rows > 1 and len(set(one.cells)) == 1 and one.cells[0]]:
        columns = [one for one in columns if one not in same]
        said = "; ".join(f"{one.header} {one.cells[0]}" for one in same)
        below.insert(0, Text(f"every row: {said}", style="dim"))
    for prose in PROSE:
        for shown in (columns, [_broken(one) for one in columns]):
            if _needs(one.narrowest(prose) for one in shown) <= width:
                return [*_table(shown, title, width, prose), *below]
    return [*_paragraphs(columns, title), *below]


def show(console: Console, shown: Table | Group) -> None:
    """Print a table or a group with tables; to a file or another program at its natural width, or as COLUMNS says."""
    for part in shown.renderables if isinstance(shown, Group) else [shown]:
        if not isinstance(part, Table):
            console.print(part, highlight=False, soft_wrap=not console.is_terminal)
            continue
        usual = console.width
        if not console.is_terminal:
            needed = max(usual, _needs(_column(one, console.encoding).widest for one in part.columns))
            console.width = asked_width() or needed
        for piece in fitted(part, console.width, console.encoding):
            whole = not (console.is_terminal or isinstance(piece, Table))
            console.print(piece, highlight=False, soft_wrap=whole)
        console.width = usual


def _column(column: Any, encoding: str) -> _Column:
    cells = tuple(_text(cell, encoding) for cell in column.cells)
    return _Column(_text(column.header, encoding), cells, column.justify == "right", bool(column.no_wrap))


def _text(shown: Any, encoding: str) -> str:
    if shown is None:
        return ""
    return (shown.plain if isinstance(shown, Text) else str(shown)).encode(encoding, "geosweep").decode(encoding)


def _needs(widths: Iterable[int]) -> int:
    return sum(3 + one for one in widths) + 1


def _broken(column: _Column) -> _Column:
    """The column with its intervals on a second line."""
    return replace(column, cells=tuple(re.sub(r" (?=\[[-+\d])", "\n", cell) for cell in column.cells))


def _table(columns: Sequence[_Column], title: str, width: int, prose: int = PROSE[0]) -> Iterator[Any]:
    """Brackets in cells are text, never markup. Columns get what they need, and then the rest from left to right."""
    widths = [min(one.narrowest(prose), one.under_its_header) for one in columns]
    for wanted in ("under_its_header", "widest"):
        left = width - _needs(widths)
        for i, one in enumerate(columns):
            more = max(0, min(left, getattr(one, wanted) - widths[i]))
            widths[i], left = widths[i] + more, left - more
    inside = cell_len(title) <= _needs(widths)
    if not inside:
        yield Text(title, style="table.title")
    made = Table(title=Text(title) if title and inside else None)
    for one, size in zip(columns, widths, strict=True):
        made.add_column(Text(one.header), justify="right" if one.right else "left", width=size)
    for cells in zip(*(one.cells for one in columns), strict=True):
        made.add_row(*map(Text, cells))
    yield made


def _paragraphs(columns: Sequence[_Column], title: str) -> Iterator[Text]:
    if title:
        yield Text(title, style="italic")
    for cells in zip(*(one.cells for one in columns), strict=True):
        yield Text(f"{columns[0].header} {cells[0]}", style="bold")
        for column, cell in zip(columns[1:], cells[1:], strict=True):
            if cell:
                yield Text(f"  {column.header}: {' '.join(cell.split())}")
