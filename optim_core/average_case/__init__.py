"""Average-case optimal methods for quadratics, and their theory. Public names only."""

from optim_core.average_case.conjugate_gradient import ConjugateGradient
from optim_core.average_case.methods import (
    Chebyshev,
    GeneralizedChebyshev,
    GradientDescent,
    Laguerre,
    MarchenkoPastur,
    Nesterov,
    Polyak,
)
from optim_core.average_case.optimizer import ScheduleFollower
from optim_core.average_case.theory import Asymptotics, Problem, residual

__all__ = [
    "Asymptotics",
    "Chebyshev",
    "ConjugateGradient",
    "GeneralizedChebyshev",
    "GradientDescent",
    "Laguerre",
    "MarchenkoPastur",
    "Nesterov",
    "Polyak",
    "Problem",
    "ScheduleFollower",
    "residual",
]
