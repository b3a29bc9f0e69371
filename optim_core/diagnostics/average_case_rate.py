"""`average_case_rate`: the rate of an average-case method on a quadratic, measured and by theory.

For models that record their trajectory: `history()` gives M_0, M_1, M_2 (squared distance, twice the objective above
its minimum, squared gradient) of every iterate [t + 1, 3], `spectrum` what is known about the Hessian, `modes()` its
eigenvalues and the squared components of the start. All for the objective, M_1:

    geometry/rate_measured      slope of log M against log t over the last four fifths; without an upper edge at 0, that
                                is strong_convexity > 0, against t over the last half, in nats per step
    geometry/rate_theory        the same slope of contraction^t t^(-power), see `average_case.theory`
    geometry/rate_gap           measured - theory; theory leaves out logarithms, so ties stay up to 10% apart
    geometry/objective_theory   log10 M(t) / M(0) from the residual polynomial: exact for quadratics
    geometry/objective_gap      measured - theory of it

Rates are positive if M falls. Theory is omitted for optimizers that are not average-case methods, and where none
applies (`ScheduleFollower.asymptotics`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optim_core.average_case.optimizer import ScheduleFollower
from optim_core.diagnostics.registry import Subject, diagnostic

ORDER = 1
FEWEST = 5


@diagnostic("average_case_rate")
def average_case_rate(subject: Subject) -> dict[str, float]:
    """Rates of the optimizer in use. Raises ValueError for a model that does not record its trajectory."""
    model: Any = subject.model
    if not all(hasattr(model, name) for name in ("history", "spectrum", "modes")):
        raise ValueError(
            "average_case_rate needs a model that records its trajectory, like those of the tasks quadratic and "
            "least_squares"
        )
    course: Tensor = model.history()[:, ORDER]
    steps = len(course) - 1
    if steps < FEWEST or not bool(torch.isfinite(course).all()) or float(course.min()) <= 0:
        return {}
    geometric = model.spectrum.get("strong_convexity", 0.0) > 0
    t = torch.arange(steps // 2 if geometric else max(steps // 5, 1), steps + 1, dtype=torch.float64)
    found = {"geometry/rate_measured": fitted_rate(t, course.log()[-len(t) :], geometric)}
    if isinstance(subject.optimizer, ScheduleFollower):
        found.update(_theory(subject.optimizer, model, course, t, geometric))
    return found


def fitted_rate(t: Tensor, log_values: Tensor, geometric: bool) -> float:
    """Minus the least-squares slope of `log_values` [n] against `t` [n], or against log t for power laws."""
    x = t if geometric else t.log()
    x = x - x.mean()
    return -float((x * log_values).sum() / x.square().sum())


def _theory(optimizer: ScheduleFollower, model: Any, course: Tensor, t: Tensor, geometric: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    spectrum: Mapping[str, float] = model.spectrum
    promised = optimizer.asymptotics(spectrum, ORDER)
    if promised is not None and math.isfinite(promised.power):
        curve = t * math.log(max(promised.contraction, 1e-300)) - promised.power * t.log()
        found["geometry/rate_theory"] = fitted_rate(t, curve, geometric)
        measured = fitted_rate(t, course.log()[-len(t) :], geometric)
        found["geometry/rate_gap"] = measured - found["geometry/rate_theory"]
    if optimizer.follows_polynomials():
        eigenvalues, squares = model.modes()
        values = optimizer.residual(eigenvalues, len(course) - 1)[-1]
        weights = squares * eigenvalues**ORDER
        predicted = float((weights * values.square()).sum() / weights.sum())
        if predicted > 0:
            found["geometry/objective_theory"] = math.log10(predicted)
            found["geometry/objective_gap"] = math.log10(float(course[-1] / course[0])) - math.log10(predicted)
    return found
