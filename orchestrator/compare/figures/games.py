"""Figures of games: spectral shapes in the complex plane with their image under each method, and convergence.

Takes plain numbers and returns matplotlib figures; no rates are computed here. Every line has its own color and dash
pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.compare.figures.style import DASHES, colors, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4
Complex = np.ndarray[Any, np.dtype[np.complex128]]


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image of a shape under one method."""

    method: str
    """Shown in the title of the panel."""
    roots: Complex
    """Roots z of the method's polynomial over the eigenvalues, any shape."""
    rate: float
    """Largest modulus of the roots: the factor by which the error shrinks per step."""
    per_evaluation: float
    """The same factor per gradient evaluation."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """A shape and its images."""

    name: str
    """For example `cross`."""
    eigenvalues: Complex
    """Eigenvalues of the Jacobian, [n]."""
    images: Sequence[Image]
    """One for each method, in the order of the panels."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The residual of a run and the rate predicted by theory."""

    method: str
    evaluations: Sequence[float]
    """Gradient evaluations spent, increasing."""
    residuals: Sequence[float]
    """|v| / |v at the start|."""
    rate: float
    """Error factor per gradient evaluation, by theory."""


def shapes_figure(spectra: Sequence[Spectrum], arms: Sequence[str] = ()) -> Figure:
    """For each shape, in rows of four: its eigenvalues, then each method's roots with the unit circle.

    `arms` fixes the colors.
    """
    heights = [-(-(1 + len(s.images)) // ACROSS) for s in spectra]
    figure, axes = panels(sum(heights), ACROSS, height=2.75)
    names = list(arms) or list(dict.fromkeys(i.method for s in spectra for i in s.images))
    for axis in axes.flat:
        axis.set_axis_off()
    for spectrum, height in zip(spectra, heights, strict=True):
        rows, axes = axes[:height], axes[height:]
        for axis, image in zip(rows.flat, (None, *spectrum.images), strict=False):
            axis.set_axis_on()
            if image is None:
                _draw_eigenvalues(axis, spectrum)
            else:
                _draw_image(axis, image, colors(names)[image.method])
        for axis in rows[:, 0]:
            axis.set_ylabel("imaginary part")
        for axis in rows[-1]:
            axis.set_xlabel("real part")
    return figure


def convergence_figure(curves: Mapping[str, Sequence[Curve]], arms: Sequence[str] = ()) -> Figure:
    """One panel per game: measured residuals (lines) and the slope predicted by theory (thin, black).

    `arms` fixes the colors.
    """
    figure, axes = panels(1, len(curves), height=4.6, sharey=True)
    names = list(arms) or list(dict.fromkeys(c.method for found in curves.values() for c in found))
    for axis, (name, found) in zip(axes[0], curves.items(), strict=True):
        for curve in found:
            i = names.index(curve.method)
            _draw_curve(axis, curve, colors(names)[curve.method], DASHES[i % len(DASHES)])
        axis.set_yscale("log")
        axis.set_ylim(1e-14, max(10.0, *(min(max(c.residuals), 1e3) for c in found)))
        axis.set_xlabel("gradient evaluations")
        axis.set_title(name)
        axis.legend(
            title="r by theory, per evaluation", loc="upper center", bbox_to_anchor=(0.5, -0.14),
            ncols=3 if len(curves) == 1 else 1,
        )  # fmt: skip
    axes[0, 0].set_ylabel("|v| / |v at the start|")
    return figure


def _draw_eigenvalues(axis: Axes, spectrum: Spectrum) -> None:
    z = spectrum.eigenvalues
    axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.scatter(z.real, z.imag, s=7, color="black", linewidths=0)
    axis.set_title(f"{spectrum.name}:\neigenvalues of J\n", fontsize=9)
    reach = 1.12 * float(np.abs(z).max())
    axis.set_xlim(-0.25 * reach, reach)
    axis.set_ylim(-reach, reach)


def _draw_image(axis: Axes, image: Image, color: str) -> None:
    from matplotlib.patches import Circle

    z = image.roots.ravel()
    axis.add_patch(Circle((0, 0), min(image.rate, 3.0), color=color, alpha=0.12, linewidth=0))
    axis.add_patch(Circle((0, 0), 1.0, fill=False, color="0.35", linestyle="dashed", linewidth=0.9))
    axis.scatter(z.real, z.imag, s=6, color=color, linewidths=0)
    stuck = "diverges" if image.rate > 1 + 1e-6 else "does not converge"
    rate = f"r = {image.rate:.3f} per step"
    verdict = stuck if image.rate > 1 - 1e-6 else f"{image.per_evaluation:.3f} per evaluation"
    axis.set_title(f"{image.method}\n{rate}\n{verdict}", fontsize=9)
    reach = 1.1 * max(1.0, min(image.rate, 3.0))
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")


def _draw_curve(axis: Axes, curve: Curve, color: str, dashes: Any) -> None:
    x, y = np.asarray(curve.evaluations, float), np.asarray(curve.residuals, float)
    axis.plot(x, y, color=color, linestyle=dashes, label=f"{curve.method}: {curve.rate:.4f}")
    middle = np.flatnonzero(y > 1e-11)
    at = middle[len(middle) // 2] if len(middle) else 0
    axis.plot(x, y[at] * curve.rate ** (x - x[at]), color="black", linewidth=0.7, alpha=0.8)
