"""Spectral shapes: classify a set of eigenvalues, and recommend the method that theory favors.

| kind      | eigenvalues                                    | method                                        |
|-----------|------------------------------------------------|-----------------------------------------------|
| interval  | real, positive                                 | gda, momentum > 0 (Polyak)                    |
| disc      | disc about the positive axis                   | gda, momentum 0                               |
| ellipse   | ellipse about the positive axis                | gda, momentum > 0 if wide, < 0 if tall        |
| vertical  | one real part c > 0                            | extragradient with momentum, or gda, momentum < 0 |
| cross     | an interval and a vertical line at its center  | extragradient with momentum                   |
| imaginary | no real part                                   | bilinear_optimal                              |
| half_disc | real parts >= mu > 0, moduli <= L              | extragradient, unequal steps                  |
| general   | anything else                                  | hamiltonian with momentum                     |

Eigenvalues at 0 (the kernel of a rectangular coupling) do not affect the rate and are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optim_core.games import maps, rates
from optim_core.games.rates import Choice
from optim_core.games.tuner import tune

KINDS = ("interval", "disc", "ellipse", "vertical", "cross", "imaginary", "half_disc", "general")
TOLERANCE = 0.01
TUNED = ("gda", "optimistic", "extragradient")
"""Methods that are also tuned on given eigenvalues, 0.1 to 1 s each."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A spectral shape and its extents, on the scale of J."""

    kind: str
    """One of KINDS."""
    mu: float
    """Smallest real part."""
    L: float
    """Largest real part."""
    nearest: float
    """Smallest imaginary part in modulus; 0 with a real eigenvalue."""
    reach: float
    """Largest imaginary part."""
    smallest: float
    """Smallest singular value above 0; for a normal J the smallest modulus of an eigenvalue."""
    largest: float
    """Largest singular value; for a normal J the largest modulus."""
    modulus: float
    """Largest modulus of an eigenvalue."""

    @property
    def centre(self) -> float:
        """Middle of the real parts."""
        return (self.mu + self.L) / 2


def classify(points: Tensor, singular: tuple[float, float] | None = None, tolerance: float = TOLERANCE) -> Shape:
    """The shape of the eigenvalues `points` [n]; `tolerance` is relative to the largest modulus.

    `singular` gives the smallest (above 0) and the largest singular value of J, if J is not normal. Raises ValueError
    if every eigenvalue is 0 or one is not finite.
    """
    if not bool(torch.isfinite(points.abs()).all()):
        raise ValueError("an eigenvalue is not finite; there is no shape to find")
    z = nonzero(points)
    if not len(z):
        raise ValueError("every eigenvalue is 0; there is no shape to find")
    near = tolerance * float(z.abs().max())
    real, height = z.real, z.imag.abs()
    found = Shape(
        kind="general",
        mu=float(real.min()),
        L=float(real.max()),
        nearest=float(height.min()),
        reach=float(height.max()),
        smallest=singular[0] if singular else float(z.abs().min()),
        largest=singular[1] if singular else float(z.abs().max()),
        modulus=float(z.abs().max()),
    )
    return replace(found, kind=_kind(found, real, height, near))


def _kind(s: Shape, real: Tensor, height: Tensor, near: float) -> str:
    if float(real.abs().max()) <= near:
        return "imaginary"
    if s.mu <= 1e-9 * s.modulus:
        return "general"
    if s.reach <= near:
        return "interval"
    if s.L - s.mu <= near:
        return "vertical"
    if bool(((height <= near) | ((real - s.centre).abs() <= near)).all()):
        return "cross"
    half = (s.L - s.mu) / 2
    if float((((real - s.centre) / half) ** 2 + (height / s.reach) ** 2).max()) <= 1 + 2 * TOLERANCE:
        return "disc" if abs(half - s.reach) <= 0.02 * half else "ellipse"
    return "half_disc"


def recommend(shape: Shape, points: Tensor | None = None) -> Choice:
    """The method with the best rate per gradient evaluation on the eigenvalues `points` [n], without zeros.

    The shape only gives candidates: closed forms for every kind compatible with its extents and, for given eigenvalues,
    parameters tuned on them. Each is then evaluated by `rate_on`, and that is the predicted rate. Without `points` the
    outline of the shape is used. `hamiltonian` with momentum is always a candidate: it converges on every affine game.
    """
    spectrum = nonzero(boundary(shape) if points is None else points)
    found = _closed_forms(shape)
    if points is not None:
        found += [tune(method, spectrum) for method in TUNED]
    if not found:
        raise ValueError("J has no singular value above 0; no method moves anything")
    rated = [replace(choice, rate=rate_on(choice, shape, spectrum)) for choice in found]
    return min(rated, key=lambda choice: choice.per_evaluation)


def rate_on(choice: Choice, shape: Shape, points: Tensor) -> float:
    """Largest root modulus of the choice on the eigenvalues `points` [n] of J, regardless of its own rate.

    For `hamiltonian`, over the range of singular values of the shape, where it is largest at the ends.
    """
    singular = torch.tensor([shape.smallest, shape.largest], dtype=torch.complex128)
    return maps.polynomial_rate(
        choice.method,
        singular if choice.method == "hamiltonian" else nonzero(points),
        lr=choice.lr,
        extrapolation=choice.extrapolation,
        momentum=choice.momentum,
        consensus=choice.consensus,
    )


def nonzero(points: Tensor) -> Tensor:
    """The eigenvalues [n] above 1e-9 of the largest, complex128: error in the kernel of J never changes."""
    z = points.to(torch.complex128).flatten()
    return z[z.abs() > 1e-9 * z.abs().max()] if len(z) else z


def _closed_forms(shape: Shape) -> list[Choice]:
    """Closed forms from `rates` for every kind of shape compatible with these extents."""
    found = [rates.hamiltonian(shape.smallest, shape.largest)] if shape.smallest > 0 else []
    if shape.reach > 0:
        found.append(rates.bilinear(shape.nearest or min(shape.smallest, shape.reach), shape.reach))
    if shape.mu > 1e-9 * shape.modulus:
        found += [
            rates.interval(shape.mu, shape.L),
            rates.disc(shape.mu, shape.L),
            rates.ellipse((shape.L - shape.mu) / 2, shape.reach, shape.centre),
            rates.cross(shape.mu, shape.L, shape.reach),
            rates.vertical(shape.centre, shape.nearest, shape.reach),
            rates.half_disc(shape.mu, shape.modulus),
        ]
    return found


def boundary(shape: Shape, count: int = 200) -> Tensor:
    """About `count` complex points on the outline of the shape, for tuning and drawing; `general` has a circle."""
    angle = torch.linspace(0, 2 * math.pi, count, dtype=torch.float64)
    line = torch.linspace(0, 1, count // 2, dtype=torch.float64)
    height = shape.nearest + (shape.reach - shape.nearest) * line
    interval = torch.complex(shape.mu + (shape.L - shape.mu) * line, torch.zeros_like(line))
    if shape.kind == "interval":
        return interval
    if shape.kind in ("imaginary", "vertical"):
        upper = torch.complex(torch.full_like(height, 0.0 if shape.kind == "imaginary" else shape.centre), height)
        return torch.cat([upper, upper.conj()])
    if shape.kind == "cross":
        upper = torch.complex(torch.full_like(line, shape.centre), shape.reach * line)
        return torch.cat([interval, upper, upper.conj()])
    if shape.kind in ("disc", "ellipse"):
        half = (shape.L - shape.mu) / 2
        return torch.complex(shape.centre + half * angle.cos(), shape.reach * angle.sin())
    circle = torch.complex(shape.modulus * angle.cos(), shape.modulus * angle.sin())
    if shape.kind == "general":
        return circle
    end = math.sqrt(max(shape.modulus**2 - shape.mu**2, 0.0))
    chord = torch.complex(torch.full_like(line, shape.mu), end * (2 * line - 1))
    return torch.cat([circle[circle.real >= shape.mu], chord])
