"""Style of figures: one palette that is safe for color-blind readers (Okabe and Ito 2008), sizes for a laptop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

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
