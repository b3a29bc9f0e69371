"""A figure as SVG and PDF at the text width of a paper.

Figures are laid out for a page on a screen. On paper they shrink more than their font does, so the layout is redone:
text of 6.5 to 8 points stays readable next to the body text.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text

from orchestrator.compare.figures.style import SETTINGS

TEXT_WIDTH = 6.5
"""Inches: LaTeX's article class on letter paper with one-inch margins."""
LETTERS = 0.8
"""Font size relative to the screen."""
FORMATS = ("svg", "pdf")
VECTORS: Any = {"svg.hashsalt": "geosweep", "pdf.fonttype": 42}
"""The same figure gives the same bytes; fonts in PDFs as publishers require (TrueType, no Type 3)."""


def drawn(figure: Figure, path: Path) -> dict[Path, bytes]:
    """The figure, which is modified, as the content of `path` with each of FORMATS as suffix."""
    _shrink(figure)
    found = {}
    for ending in FORMATS:
        out, metadata = io.BytesIO(), {"Date": None} if ending == "svg" else {"CreationDate": None}
        with rc_context({**SETTINGS, **VECTORS}):
            figure.savefig(out, format=ending, metadata=metadata)
        found[path.with_name(f"{path.name}.{ending}")] = out.getvalue()
    return found


def _shrink(figure: Figure) -> None:
    width, height = figure.get_size_inches()
    share = min(1.0, TEXT_WIDTH / width)
    if share < 1:
        for text in figure.findobj(Text):
            text.set_fontsize(float(text.get_fontsize()) * LETTERS)
        figure.set_size_inches(share * width, share * height)
    with rc_context(SETTINGS):
        figure.draw_without_rendering()  # computes the layout
    figure.set_layout_engine("none")
