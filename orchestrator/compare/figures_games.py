"""Figures of games: spectral shapes in the complex plane with their image under each method, and convergence.

Plain numbers in, matplotlib figures out; nothing here computes a rate. Colours are Okabe and Ito's, which readers with
any colour vision tell apart, and every line also differs in its dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8F8F00")
DASHES = ("solid", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)), (0, (2, 2)), "dashed")
Complex = np.ndarray[Any, np.dtype[np.complex128]]


@dataclass(frozen=True, kw_only=True)
class Image:
    """What a method makes of a shape."""

    method: str
    """Shown in the title of the panel."""
    roots: Complex
    """Roots z of the method's polynomial over the eigenvalues, any shape."""
    rate: float
    """Largest modulus of the roots: factor of the error for one step."""
    per_evaluation: float
    """The same for one gradient evaluation."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """A shape and its images."""

    name: str
    """For instance `cross`."""
    eigenvalues: Complex
    """Eigenvalues of the Jacobian, [n]."""
    images: Sequence[Image]
    """One for each method, in the order of the columns."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The residual of a run beside what theory predicts."""

    method: str
    evaluations: Sequence[float]
    """Gradient evaluations spent, rising."""
    residuals: Sequence[float]
    """|v| / |v at the start|."""
    rate: float
    """Factor of the error for one gradient evaluation by theory."""


def shapes_figure(spectra: Sequence[Spectrum]) -> Figure:
    """A row for each shape: its eigenvalues, then the roots of each method inside or outside the unit circle."""
    from matplotlib import pyplot as plt

    columns = 1 + max(len(s.images) for s in spectra)
    figure, axes = plt.subplots(
        len(spectra), columns, figsize=(2.35 * columns, 2.55 * len(spectra)), squeeze=False, layout="constrained"
    )
    for row, spectrum in zip(axes, spectra, strict=True):
        _draw_eigenvalues(row[0], spectrum)
        for axis, image, colour in zip(row[1:], spectrum.images, PALETTE, strict=False):
            _draw_image(axis, image, colour)
        for axis in row[1 + len(spectrum.images) :]:
            axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("real part", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("imaginary part", fontsize=8)
    figure.suptitle(
        "Left: eigenvalues of the game's Jacobian. Right: roots of each method's polynomial.\n"
        "Dashed: the unit circle. Filled: the disc of radius r, the factor of the error for one step.",
        fontsize=9,
    )
    return figure


def convergence_figure(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """A panel for each game: measured residuals (lines) and the slope that theory gives (thin, from the last point)."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(5.6 * len(curves), 5.4), squeeze=False, layout="constrained")
    methods = list(dict.fromkeys(c.method for found in curves.values() for c in found))
    for axis, (name, found) in zip(axes[0], curves.items(), strict=True):
        for curve in found:
            i = methods.index(curve.method)  # one colour for a method in all panels
            _draw_curve(axis, curve, PALETTE[i % len(PALETTE)], DASHES[i % len(DASHES)])
        axis.set_yscale("log")
        axis.set_ylim(1e-14, max(10.0, *(min(max(c.residuals), 1e3) for c in found)))
        axis.set_xlabel("gradient evaluations")
        axis.set_ylabel("|v| / |v at the start|")
        axis.set_title(name, fontsize=10)
        axis.grid(True, which="major", alpha=0.25)
        axis.legend(
            fontsize=7.5,
            title="thick: measured; thin: slope r of theory for one gradient evaluation",
            title_fontsize=7.5,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.15),
            ncols=2,
        )
    return figure


def _draw_eigenvalues(axis: Axes, spectrum: Spectrum) -> None:
    z = spectrum.eigenvalues
    axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.axvline(0, color="0.85", linewidth=0.8, zorder=0)
    axis.scatter(z.real, z.imag, s=7, color="black", linewidths=0)
    axis.set_title(f"{spectrum.name}: eigenvalues", fontsize=8)
    reach = 1.12 * float(np.abs(z).max())
    axis.set_xlim(-0.25 * reach, reach)
    axis.set_ylim(-reach, reach)
    axis.tick_params(labelsize=7)


def _draw_image(axis: Axes, image: Image, colour: str) -> None:
    from matplotlib.patches import Circle

    z = image.roots.ravel()
    axis.add_patch(Circle((0, 0), min(image.rate, 3.0), color=colour, alpha=0.12, linewidth=0))
    axis.add_patch(Circle((0, 0), 1.0, fill=False, color="0.35", linestyle="dashed", linewidth=0.9))
    axis.scatter(z.real, z.imag, s=6, color=colour, linewidths=0)
    stuck = "diverges" if image.rate > 1 + 1e-6 else "does not converge"
    verdict = stuck if image.rate > 1 - 1e-6 else f"{image.per_evaluation:.3f} (evaluation)"
    axis.set_title(f"{image.method}\nr = {image.rate:.3f} (step), {verdict}", fontsize=8)
    reach = 1.1 * max(1.0, min(image.rate, 3.0))
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect("equal")
    axis.tick_params(labelsize=7)


def _draw_curve(axis: Axes, curve: Curve, colour: str, dashes: Any) -> None:
    x, y = np.asarray(curve.evaluations, float), np.asarray(curve.residuals, float)
    axis.plot(x, y, color=colour, linestyle=dashes, linewidth=1.8, label=f"{curve.method} (r = {curve.rate:.4f})")
    middle = np.flatnonzero(y > 1e-11)
    at = middle[len(middle) // 2] if len(middle) else 0
    axis.plot(x, y[at] * curve.rate ** (x - x[at]), color=colour, linewidth=0.7, alpha=0.8)
