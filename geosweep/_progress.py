"""Progress of a sweep started from Python: bars in a notebook, the command's output elsewhere, or nothing."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from rich.console import Console

from orchestrator import display
from orchestrator.scheduling.callbacks import Callback
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.storage.periodic import periodic

EVERY_S = 0.5


class Shown(Protocol):
    """A place to show a sweep."""

    callbacks: tuple[Callback, ...]

    def say(self, line: str, *, warns: bool = False) -> None:
        """Show one line."""

    def watch(self, conductor: SweepConductor) -> AbstractContextManager[None]:
        """Show progress while the context lasts."""


def for_this_place(wanted: bool) -> Shown:
    """The display suited to the environment of this process."""
    if not wanted:
        return Silent()
    return Notebook() if in_notebook() else Terminal()


def in_notebook() -> bool:
    """Whether the caller is a notebook cell with a front end that shows HTML."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None else None
    return shell is not None and hasattr(shell, "kernel")


class Silent:
    """Shows nothing."""

    callbacks: tuple[Callback, ...] = ()

    def say(self, line: str, *, warns: bool = False) -> None:
        """Nothing."""

    def watch(self, conductor: SweepConductor) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()


class Terminal:
    """The output of the command, on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self.callbacks: tuple[Callback, ...] = (display.Stretched(self._console),)

    def say(self, line: str, *, warns: bool = False) -> None:
        """Print the line, a warning in yellow."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True, style="yellow" if warns else None)

    def watch(self, conductor: SweepConductor) -> AbstractContextManager[None]:
        """A live table on a terminal, otherwise occasional lines."""
        return display.watching(conductor, self._console)


class Notebook:
    """One output of the cell: the lines, and a bar per arm that grows while the cell runs."""

    callbacks: tuple[Callback, ...] = ()

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bars = ""
        self._handle: Any = None

    def say(self, line: str, *, warns: bool = False) -> None:
        """Add the line, a warning in color."""
        style = ' style="color: #b35900"' if warns else ""
        self._lines.append(f"<div{style}>{html.escape(line)}</div>")
        self._show()

    @contextmanager
    def watch(self, conductor: SweepConductor) -> Iterator[None]:
        """Bars while the context lasts, and their final state."""

        def draw() -> None:
            self._bars = bars(conductor)
            self._show()

        draw()
        try:
            with periodic(EVERY_S, draw, name="notebook"):
                yield
        finally:
            draw()

    def _show(self) -> None:
        from IPython.display import HTML
        from IPython.display import display as put

        page = HTML(f"<div>{''.join(self._lines)}{self._bars}</div>")
        if self._handle is None:
            self._handle = put(page, display_id=True)
        else:
            self._handle.update(page)


def bars(conductor: SweepConductor) -> str:
    """HTML: for each arm a bar of its trials, their number, failures, and the best value so far."""
    rows = []
    for name, row in display.progress(conductor).items():
        ended = row.planned - row.counts.unended
        best = f"best {conductor.spec.metric.name} {row.best_text()}" if row.best is not None else ""
        words = ", ".join(filter(None, [f"{ended} of {row.planned} trials", *row.counts.astray, best]))
        rows.append(
            f"<tr><td>{html.escape(name)}</td><td><progress max={max(1, row.planned)} value={ended}></progress></td>"
            f'<td style="text-align: left">{html.escape(words)}</td></tr>'
        )
    return f"<table>{''.join(rows)}</table><div>{html.escape(display.summary_line(conductor))}</div>"
