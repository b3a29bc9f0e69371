"""Optimizers for smooth games and their theory. Public names only."""

from optim_core.games import field, maps, rates, shapes, spectrum, tuner, updates
from optim_core.games.base import GameOptimizer
from optim_core.games.optimizers import (
    GDA,
    AlternatingGDA,
    BilinearOptimal,
    Consensus,
    Extragradient,
    Hamiltonian,
    Optimistic,
)
from optim_core.games.rates import Choice
from optim_core.games.shapes import Shape, classify, recommend
from optim_core.games.trace import DivergenceWarning
from optim_core.games.tuned import TunedGame
from optim_core.games.tuner import tune, tune_game

__all__ = [
    "GDA",
    "AlternatingGDA",
    "BilinearOptimal",
    "Choice",
    "Consensus",
    "DivergenceWarning",
    "Extragradient",
    "GameOptimizer",
    "Hamiltonian",
    "Optimistic",
    "Shape",
    "TunedGame",
    "classify",
    "field",
    "maps",
    "rates",
    "recommend",
    "shapes",
    "spectrum",
    "tune",
    "tune_game",
    "tuner",
    "updates",
]
