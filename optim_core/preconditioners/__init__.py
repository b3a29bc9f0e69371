"""Parametrizations of a learned preconditioner U by name, one file per family."""

from optim_core.preconditioners import diagonal as diagonal
from optim_core.preconditioners import eigen as eigen
from optim_core.preconditioners import kronecker as kronecker
from optim_core.preconditioners.base import Factors, Structure, View, block, lookup, structure, structures

__all__ = ["Factors", "Structure", "View", "block", "lookup", "structure", "structures"]
