"""Designs: the configuration at an index, a function of (file, arm, study, index) alone, whoever asks and whenever.

Random points come from a generator seeded by (seed, arm, study, index, attempt); Sobol points are scrambled by (seed,
arm, study). A point that violates a constraint, or repeats an earlier one of a finite space, is replaced by the next
attempt.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from orchestrator.definition import plan
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.space import SpaceError, from_unit, satisfied, size

ATTEMPTS = 20_000


class GridDesign:
    """All points of the grid, in order."""

    def __init__(self, spec: Spec, arm: ArmSpec) -> None:
        self._points = plan.grid_points(spec, arm)

    def configuration(self, index: int) -> dict[str, Any]:
        """Point number `index`."""
        return self._points[index]


class PointDesign:
    """Random or Sobol points of the arm's space."""

    def __init__(self, spec: Spec, arm: ArmSpec, *, sobol: bool, study: int | None = None) -> None:
        self._spec, self._arm, self._sobol = spec, arm, sobol
        self._facts = plan.facts(spec, arm)
        self._key = [spec.method.seed, *arm.name.encode(), *([] if study is None else [0, study])]
        self._made: list[dict[str, Any]] = []
        self._drawn = 0

    @cached_property
    def _finite(self) -> int | None:
        return size(self._arm.parameters)

    @cached_property
    def _engine(self) -> Any:
        from scipy.stats import qmc  # half a second that other designs need not spend

        rng = np.random.default_rng(self._key)
        return qmc.Sobol(max(1, len(self._arm.parameters)), scramble=True, rng=rng)

    def configuration(self, index: int) -> dict[str, Any]:
        """Point number `index`. Raises SpaceError when ATTEMPTS points in a row violate the constraints."""
        while len(self._made) <= index:
            self._made.append(self._next())
        return self._made[index]

    def _next(self) -> dict[str, Any]:
        repeat: dict[str, Any] | None = None
        for _ in range(ATTEMPTS):
            config = from_unit(self._arm.parameters, self._unit())
            if not satisfied(self._spec.constraints, config, **self._facts(config)):
                continue
            if self._finite is None or len(self._made) >= self._finite or config not in self._made:
                return config
            repeat = config
        if repeat is not None:
            return repeat
        raise SpaceError(f"arm {self._arm.name}: {ATTEMPTS} points in a row violate the constraints; loosen them")

    def _unit(self) -> list[float]:
        width, number = len(self._arm.parameters), self._drawn
        self._drawn += 1
        if self._sobol:
            return [min(float(x), 1 - 1e-12) for x in self._engine.random(1)[0][:width]]
        return [float(x) for x in np.random.default_rng([*self._key, number]).random(width)]


def design_for(spec: Spec, arm: ArmSpec, study: int | None = None) -> GridDesign | PointDesign:
    """The design for the sweep's method; the random share of a model-based search is random.

    `study`: which of several, from 1. Their points are independent, but a grid is the same in all of them.
    """
    if spec.method.name == "grid":
        return GridDesign(spec, arm)
    return PointDesign(spec, arm, sobol=spec.method.name == "sobol", study=study)
