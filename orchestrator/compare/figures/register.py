"""The figure registry. Each module of this package adds functions with `@figure`; a report runs all of them.

A function takes the `Evidence` of a sweep and yields the figures it can draw, or nothing if the sweep has nothing to
show. A figure for one task checks `evidence.task` first.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import orchestrator.compare.figures as package
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures.style import SETTINGS, fit_names

SECTIONS = {
    "answer": "Verdict",
    "noise": "Where the noise comes from",
    "curves": "Learning curves",
    "sensitivity": "Sensitivity",
    "tuning": "Tuning",
    "geometry": "Geometry",
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure of a report."""

    name: str
    """File name without suffix: lower case, digits and dashes."""
    section: str
    """A key of SECTIONS."""
    caption: str
    """What is drawn, with units, and what to look for."""
    figure: Figure


Draw = Callable[[Evidence], Iterable[Drawn]]
_REGISTER: list[Draw] = []


def figure(draw: Draw) -> Draw:
    """Decorator that adds a function to every report."""
    _REGISTER.append(draw)
    return draw


def all_figures(evidence: Evidence) -> Iterator[Drawn]:
    """Every figure that the sweep supports, in the order of the sections."""
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    with rc_context(SETTINGS):
        found = [drawn for draw in _REGISTER for drawn in draw(evidence)]
        for drawn in found:
            fit_names(drawn.figure)
    yield from sorted(found, key=lambda d: list(SECTIONS).index(d.section))


def png(figure: Figure) -> bytes:
    """The figure as PNG, drawn once: `savefig` draws twice when there is a layout."""
    out = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}  # the same figure gives the same bytes
    engine, canvas = figure.get_layout_engine(), FigureCanvasAgg(figure)  # layout and drawing share what they measure
    with rc_context(SETTINGS):
        _leave_absent_labels(figure)
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine("none")
        canvas.print_png(out, metadata=metadata)  # type: ignore[no-untyped-call]
        figure.set_layout_engine(engine)
    return out.getvalue()


def _leave_absent_labels(figure: Figure) -> None:
    """Give axes without a label a place for it; else it is looked for beside all tick labels, which are measured again.

    An absent label takes no room, so nothing moves.
    """
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0.5, 0.5)
