"""Figures of average-case methods: spectra with fitted edges, and suboptimality against iteration with theory's slopes.

Plain numbers in, matplotlib figures out; nothing here computes a rate. Colours are Okabe and Ito's, which readers with
any colour vision tell apart, and every line also differs in its dashes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.compare.figures_games import DASHES, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Density:
    """A spectrum and the Beta density fitted to it."""

    name: str
    """Shown above the panel."""
    eigenvalues: Numbers
    """[n], not negative; zeros are left out."""
    left_exponent: float
    """xi: the density is like lambda^xi near 0."""
    right_exponent: float
    """tau: like (L - lambda)^tau near L."""
    smoothness: float
    """L."""
    weights: Numbers | None = None
    """[n], sum 1; None for equal ones."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """The objective of one run, beside the exponent that theory gives it."""

    method: str
    iterations: Numbers
    """Rising, the first above 0."""
    objective: Numbers
    """(f - f*) over its first value."""
    exponent: float | None = None
    """r of t^-r by theory; None where there is none."""
    measured: float | None = None
    """The fitted exponent."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """One trial: exponent of the spectrum, exponent of the objective measured, and by theory."""

    method: str
    left_exponent: float
    measured: float
    theory: float


def spectra_figure(densities: Sequence[Density]) -> Figure:
    """For each spectrum: the density over [0, L], and its two edges in log-log with lines of the fitted exponents."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(densities), 3, figsize=(10.5, 2.9 * len(densities)), squeeze=False, layout="constrained"
    )
    for row, density in zip(axes, densities, strict=True):
        kept = density.eigenvalues > 0
        values = density.eigenvalues[kept] / density.smoothness
        weights = np.full(len(values), 1.0) if density.weights is None else density.weights[kept]
        weights = weights / weights.sum()
        _draw_density(row[0], density, values, weights)
        _draw_edge(row[1], values, weights, density.left_exponent, "ξ", "λ / L", PALETTE[1])
        _draw_edge(row[2], 1 - values, weights, density.right_exponent, "τ", "1 − λ / L", PALETTE[2])
    for axis in axes[-1]:
        axis.set_xlabel(axis.get_xlabel(), fontsize=9)
    figure.suptitle(
        "Spectrum of the Hessian and its edges. Bars and points: eigenvalues. Lines: the fitted density "
        "λ$^ξ$ (L − λ)$^τ$.",
        fontsize=10,
    )
    return figure


def courses_figure(courses: Sequence[Course], title: str = "") -> Figure:
    """Suboptimality against iteration, log-log; thin straight lines have the slope that theory gives the method."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
    for course, colour, dashes in zip(courses, _cycle(PALETTE, courses), _cycle(DASHES, courses), strict=True):
        words = course.method
        if course.measured is not None:
            words += f": t$^{{-{course.measured:.2f}}}$"
        if course.exponent is not None:
            words += f" (theory {course.exponent:.2f})"
        axis.plot(course.iterations, course.objective, color=colour, linestyle=dashes, linewidth=1.8, label=words)
        if course.exponent is not None:
            last, at = float(course.iterations[-1]), float(course.objective[-1])
            span = np.array([last / 8, last])
            axis.plot(span, 1.6 * at * (span / last) ** -course.exponent, color=colour, linewidth=0.8, alpha=0.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("iteration t")
    axis.set_ylabel("(f − f*) / (f at the start − f*)")
    axis.grid(which="major", color="#dddddd", linewidth=0.6)
    axis.legend(fontsize=8, loc="lower left", title="measured exponent, and by theory (thin lines)", title_fontsize=8)
    if title:
        axis.set_title(title, fontsize=10)
    return figure


def slopes_figure(slopes: Sequence[Slope], title: str = "") -> Figure:
    """Exponents over many spectra: one point for each trial, a line through what theory gives, against xi."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
    methods = list(dict.fromkeys(s.method for s in slopes))
    markers = "osD^vPX*"
    for i, method in enumerate(methods):
        found = sorted((s for s in slopes if s.method == method), key=lambda s: s.left_exponent)
        colour, at = PALETTE[i % len(PALETTE)], [s.left_exponent for s in found]
        axis.plot(at, [s.theory for s in found], color=colour, linestyle=DASHES[i % len(DASHES)], linewidth=1.3)
        axis.plot(
            at, [s.measured for s in found], markers[i % len(markers)], color=colour, markersize=5, label=method
        )  # fmt: skip
    axis.set_xlabel("exponent ξ of the spectrum at 0")
    axis.set_ylabel("exponent r of the objective, f − f* ~ t$^{-r}$")
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.legend(fontsize=8, title="points: measured; lines: theory", title_fontsize=8)
    if title:
        axis.set_title(title, fontsize=10)
    return figure


def _draw_density(axis: Axes, density: Density, values: Numbers, weights: Numbers) -> None:
    xi, tau = density.left_exponent, density.right_exponent
    edges = np.linspace(0, max(1.0, float(values.max())), 41)
    heights = np.histogram(values, bins=edges, weights=weights)[0] / np.diff(edges)
    axis.stairs(heights, edges, fill=True, color="#BBBBBB")
    u = np.linspace(0, 1, 802)[1:-1]
    scale = math.exp(math.lgamma(xi + tau + 2) - math.lgamma(xi + 1) - math.lgamma(tau + 1))
    axis.plot(u, scale * u**xi * (1 - u) ** tau, color=PALETTE[0], linewidth=1.6)
    axis.set_ylim(0, 1.25 * float(heights.max()))
    axis.set_title(f"{density.name}: L = {density.smoothness:.3g}", fontsize=9)
    axis.set_xlabel("λ / L")
    axis.set_ylabel("density")


def _draw_edge(
    axis: Axes, distance: Numbers, weights: Numbers, exponent: float, symbol: str, label: str, colour: str
) -> None:
    """Share of eigenvalues within a distance of the edge, which goes like distance^(exponent + 1)."""
    order = np.argsort(distance)
    near, share = distance[order], np.cumsum(weights[order])
    inside = near > 1e-12
    near, share = near[inside], share[inside]
    axis.plot(near, share, ".", color="#888888", markersize=3)
    anchor = int(np.searchsorted(share, 0.05))
    span = np.array([near[min(1, len(near) - 1)], min(near[-1], 4 * near[anchor])])
    axis.plot(span, share[anchor] * (span / near[anchor]) ** (exponent + 1), color=colour, linewidth=1.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(label)
    axis.set_ylabel("share within this distance")
    axis.set_title(f"fitted {symbol} = {exponent:.2f}: slope {symbol} + 1 = {exponent + 1:.2f}", fontsize=9)
    axis.grid(color="#dddddd", linewidth=0.6)


def _cycle(choices: Sequence[Any], items: Sequence[Any]) -> list[Any]:
    return [choices[i % len(choices)] for i in range(len(items))]
