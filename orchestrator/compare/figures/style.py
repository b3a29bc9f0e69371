"""Style of figures: one palette that is safe for color-blind readers (Okabe and Ito 2008), sizes for a laptop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31", "#6A3D9A", "#999999")
GRAY = PALETTE[-1]
MARKERS = "osD^vP*Xph"
DASHES: Any = ("solid", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)), (0, (2, 2)))
VERDICTS = {"better": "#0072B2", "worse": "#D55E00", "equivalent": "#009E73", "inconclusive": "#767676"}
SEQUENTIAL = "cividis"
WIDTH, NARROW, DPI = 9.0, 4.3, 130
"""Inches: the width of a report page and of a paper column (80 mm)."""
SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "axes.formatter.useoffset": False,
}


LONGEST = 24
"""Letters of a name on one line beside an axis or in a legend."""
_PART = re.compile(rf"[^\s_./−-]{{1,{LONGEST}}}[\s_./−-]*|[\s_./−-]+")


def lines_of(text: str) -> str:
    """A name on lines of at most LONGEST letters, which end after a separator if there is one."""
    lines = [""]
    for line in text.split("\n"):
        if len(line) <= LONGEST:
            lines += [line, ""]
            continue
        for part in _PART.findall(line):
            if lines[-1] and len(lines[-1]) + len(part.rstrip()) > LONGEST:
                lines.append("")
            lines[-1] += part
        lines.append("")
    return "\n".join(line.rstrip() for line in lines if line)


def fit_names(figure: Figure) -> None:
    """Break long names beside the axes and in the legends of a figure, so that they leave room for what is drawn."""
    for ax in figure.axes:
        names = [label.get_text() for label in ax.get_yticklabels()] if _is_named(ax) else []
        if any(len(name) > LONGEST for name in names):
            ax.set_yticks(ax.get_yticks(), [lines_of(name) for name in names])
    legends = [*figure.legends, *(legend for ax in figure.axes if (legend := ax.get_legend()))]
    for legend in legends:
        for text in legend.get_texts():
            text.set_text(lines_of(text.get_text()))


def _is_named(ax: Any) -> bool:
    return isinstance(ax.yaxis.get_major_locator(), FixedLocator)


def colors(arms: Sequence[str], twin: str = "") -> dict[str, str]:
    """Arm -> color, the same in every figure of a report; a baseline's twin is gray."""
    return {arm: GRAY if arm == twin else PALETTE[i % len(PALETTE)] for i, arm in enumerate(arms)}


def markers(arms: Sequence[str]) -> dict[str, str]:
    """Arm -> marker, so that arms can be told apart in grayscale."""
    return {arm: MARKERS[i % len(MARKERS)] for i, arm in enumerate(arms)}


def panels(rows: int, columns: int, *, height: float, width: float = WIDTH, **more: Any) -> tuple[Figure, Any]:
    """A figure and its axes [rows, columns], `height` in inches for each row."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height * rows), dpi=DPI, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **more)
    return figure, axes
