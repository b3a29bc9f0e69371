"""Figures of average-case methods: spectra with fitted edges, and suboptimality per iteration with predicted slopes.

Takes plain numbers and returns matplotlib figures; no rates are computed here. Every line has its own color and dash
pattern.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.compare.figures.style import DASHES, MARKERS, PALETTE, colors, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUTERMOST = 100
"""Number of eigenvalues used to fit an edge, as in `optim_core.spectrum.hill`."""
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Density:
    """A spectrum and the Beta density fitted to it."""

    name: str
    """Shown above the panel."""
    eigenvalues: Numbers
    """[n], at least `lower`; those exactly at the edge are left out."""
    left_exponent: float
    """xi: the density behaves like (lambda - lower)^xi near its lower edge."""
    right_exponent: float
    """tau: the density behaves like (L - lambda)^tau near L."""
    smoothness: float
    """L."""
    lower: float = 0.0
    """Lower end of the spectrum, 0 or mu."""
    weights: Numbers | None = None
    """[n], sum 1; None for equal weights."""
    known: tuple[float, float] | None = None
    """(xi, tau) of the density from which the eigenvalues were drawn, if known."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The objective of one run and the exponent predicted by theory."""

    method: str
    iterations: Numbers
    """Increasing, the first above 0."""
    objective: Numbers
    """(f - f*) divided by its first value."""
    exponent: float | None = None
    """r in t^-r by theory (geometric: in exp(-r t)); None if there is none."""
    measured: float | None = None
    """The fitted exponent."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """One trial: exponent of the spectrum, and exponent of the objective as measured and as predicted."""

    method: str
    left_exponent: float
    measured: float
    theory: float


def spectra_figure(densities: Sequence[Density]) -> Figure:
    """For each spectrum: its density, and both edges in log-log scale with lines of the fitted exponents."""
    figure, axes = panels(len(densities), 3, height=2.7)
    for row, density in zip(axes, densities, strict=True):
        kept = density.eigenvalues > density.lower
        values = (density.eigenvalues[kept] - density.lower) / (density.smoothness - density.lower)
        share = "(λ − μ) / (L − μ)" if density.lower else "λ / L"
        weights = np.full(len(values), 1.0) if density.weights is None else density.weights[kept]
        weights = weights / weights.sum()
        xi, tau = density.known or (None, None)
        _draw_density(row[0], density, values, weights, share)
        _draw_edge(row[1], values, weights, density.left_exponent, xi, "ξ", f"lower edge: {share}", PALETTE[1])
        _draw_edge(
            row[2], 1 - values, weights, density.right_exponent, tau, "τ", f"upper edge: 1 − {share}", PALETTE[2]
        )
    return figure


def courses_figure(courses: Sequence[Course], arms: Sequence[str] = (), *, geometric: bool = False) -> Figure:
    """Suboptimality against t; thin black lines show the slope that theory predicts for the method.

    Log-log, where t^-r is straight; with `geometric`, t is linear, where exp(-r t) is straight. `arms` fixes the
    colors.
    """
    figure, axes = panels(1, 1, height=4.6)
    axis, names = axes[0, 0], list(arms) or [c.method for c in courses]
    color = colors(names)
    for course in courses:
        style = DASHES[names.index(course.method) % len(DASHES)]
        axis.plot(course.iterations, course.objective, color=color[course.method], ls=style, label=_label(course))
        if course.exponent is not None:
            last, at = float(course.iterations[-1]), float(course.objective[-1])
            span = np.linspace(last / 2, last, 2) if geometric else np.array([last / 6, last])
            falls = np.exp(course.exponent * (last - span)) if geometric else (span / last) ** -course.exponent
            axis.plot(span, at * falls, color="black", linewidth=0.9, zorder=4)
    if not geometric:
        axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("gradient evaluations t")
    axis.set_ylabel("(f − f*) / (f at the start − f*)")
    rate = "exp(−r t)" if geometric else "t$^{−r}$"
    title = f"r of {rate}: measured (theory);\nblack: slope by theory"
    figure.legend(loc="outside right upper", title=title, title_fontsize=9)
    return figure


def slopes_figure(slopes: Sequence[Slope], arms: Sequence[str] = ()) -> Figure:
    """Exponents over many spectra against xi: one point per trial, and a line through the predicted values."""
    figure, axes = panels(1, 1, height=4.2)
    axis, names = axes[0, 0], list(arms) or list(dict.fromkeys(s.method for s in slopes))
    for i, method in enumerate(names):
        found = sorted((s for s in slopes if s.method == method), key=lambda s: s.left_exponent)
        color, at = colors(names)[method], [s.left_exponent for s in found]
        axis.plot(at, [s.theory for s in found], color=color, linestyle=DASHES[i % len(DASHES)], linewidth=1.3)
        axis.plot(at, [s.measured for s in found], MARKERS[i % len(MARKERS)], color=color, ms=6, label=method)
    axis.set_xlabel("exponent ξ of the spectrum at 0")
    axis.set_ylabel("exponent r of the objective, f − f* ~ t$^{−r}$")
    figure.legend(loc="outside right upper", title="points: measured\nlines: theory", title_fontsize=9)
    return figure


def _label(course: Course) -> str:
    if course.measured is None:
        return course.method
    theory = "no theory" if course.exponent is None else f"{abs(course.exponent):.2f}"
    return f"{course.method}: {course.measured:.2f} ({theory})"


def _draw_density(axis: Axes, density: Density, values: Numbers, weights: Numbers, share: str) -> None:
    xi, tau = density.left_exponent, density.right_exponent
    edges = np.linspace(0, max(1.0, float(values.max())), 41)
    heights = np.histogram(values, bins=edges, weights=weights)[0] / np.diff(edges)
    axis.stairs(heights, edges, fill=True, color="#BBBBBB")
    u = np.linspace(0, 1, 802)[1:-1]
    scale = math.exp(math.lgamma(xi + tau + 2) - math.lgamma(xi + 1) - math.lgamma(tau + 1))
    axis.plot(u, scale * u**xi * (1 - u) ** tau, color=PALETTE[0], linewidth=1.6)
    axis.set_ylim(0, 1.15 * float(heights.max()))
    axis.set_title(density.name)
    axis.set_xlabel(f"{share}   (L = {density.smoothness:.4g})")
    axis.set_ylabel("density")


def _draw_edge(
    axis: Axes,
    distance: Numbers,
    weights: Numbers,
    exponent: float,
    known: float | None,
    symbol: str,
    label: str,
    color: str,
) -> None:
    """Share of eigenvalues within a distance of the edge, which behaves like distance^(exponent + 1)."""
    order = np.argsort(distance)
    near, share = distance[order], np.cumsum(weights[order])
    inside = near > 1e-12
    near, share = near[inside], share[inside]
    axis.plot(near, share, ".", color="#888888", markersize=3)
    anchor = min(OUTERMOST, len(near) // 20)
    span = np.array([near[0], min(near[-1], 10 * near[anchor])])
    axis.plot(span, share[anchor] * (span / near[anchor]) ** (exponent + 1), color=color, linewidth=1.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(label)
    axis.set_ylabel("share within that distance")
    axis.set_title(f"fitted {symbol} = {exponent:.2f}" + ("" if known is None else f" (drawn: {known:.2f})"))
