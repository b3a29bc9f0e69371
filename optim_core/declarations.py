"""Declarations of an optimizer, used to plan, check and plot comparisons.

Fairness rules, controls and figures read these from the class (`Counting.LIMITS` and its neighbors) and know no
optimizer by name. The contract suite verifies every declared limit step by step in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

INF = math.inf
SHARE = (0.0, 1.0)
"""Natural bounds of a momentum, a decay or an averaging rate."""
NOT_NEGATIVE = (0.0, INF)
COUNT = (1, INF)
"""Natural bounds of a number of steps, samples or directions."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Control:
    """A limit that a sweep verifies on its own task before training (`controls` in a sweep file)."""

    name: str
    """Its name in sweep files."""
    says: str
    """The claim, as a clause."""
    tolerance: float
    """Largest |w - w'| / |w' - w_0| after a dozen steps, in the precision of the task."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Settings at which an optimizer takes the steps of another one, from the same weights over the same batches.

    Hyperparameters that both have are the same on both sides, unless `other` says otherwise.
    """

    equals: str
    """Name of the other optimizer; `{base}` is replaced by the value of the hyperparameter `base` (sgd if there is
    none).
    """
    at: Mapping[str, Any]
    """Hyperparameter -> its value in the limit."""
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: NOTHING)
    """Hyperparameter -> the values for which the limit holds; others may have any value."""
    other: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """Settings of the other optimizer."""
    probe: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """Settings with which a dozen steps would reveal a difference, such as frequent refreshes."""
    deviation: float = 0.0
    """Largest |w - w'| / |w' - w_0| in float64; 0: bit for bit."""
    nested: bool = True
    """Whether this optimizer extends the other one, so that a fair comparison includes it as an arm. False for a limit
    that is only approached (a large eps) and for limits implied by others.
    """
    control: Control | None = None
    """The control that verifies it, if sweep files may request one."""

    def name_of_other(self, given: Mapping[str, Any]) -> str:
        """The other optimizer's name, for these settings."""
        return self.equals.format_map({"base": "sgd", **given})

    def holds(self, space: Mapping[str, Sequence[Any]]) -> bool:
        """Whether the limit is claimed somewhere in a space: hyperparameter -> its possible values."""
        return all(any(v in values for v in space[key]) for key, values in self.where.items() if key in space)

    def reached(self, space: Mapping[str, Sequence[Any]]) -> bool:
        """Whether the space contains its settings."""
        return self.holds(space) and all(value in space.get(key, ()) for key, value in self.at.items())

    def others(self, space: Mapping[str, Sequence[Any]]) -> set[str]:
        """Possible names of the other optimizer in the space."""
        return {self.name_of_other({"base": base}) for base in space.get("base", ("sgd",))}


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Two hyperparameters whose interaction is worth plotting."""

    across: str
    across_means: str
    """Its meaning, with its unit."""
    up: str
    up_means: str


SGD_UNDER_ROTATION = Control(name="sgd_under_rotation", says="SGD is unmoved by a rotation", tolerance=1e-4)
IDENTITY_ROTATION = Control(
    name="identity_rotation", says="the identity rotation is the plain optimizer", tolerance=1e-4
)
SAM_RADIUS_0 = Control(name="sam_radius_0", says="sam_radius 0 is the base optimizer", tolerance=1e-5)
FROZEN_PRECONDITIONER = Control(
    name="frozen_preconditioner", says="a frozen preconditioner is the base optimizer", tolerance=1e-5
)
CONTROLS = (SGD_UNDER_ROTATION, IDENTITY_ROTATION, SAM_RADIUS_0, FROZEN_PRECONDITIONER)
"""In the order in which they run; those of other optimizers follow."""
