"""Orthogonal maps of gradients by name, one file for each family."""

from optim_core.rotations import flat as flat
from optim_core.rotations import identity as identity
from optim_core.rotations import sided as sided
from optim_core.rotations.base import Rotation, kinds, lookup, rotation

__all__ = ["Rotation", "kinds", "lookup", "rotation"]
