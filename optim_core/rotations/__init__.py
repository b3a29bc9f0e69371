"""Orthogonal maps of gradients by name, one file per family."""

from optim_core.rotations import dense as dense
from optim_core.rotations import egop as egop
from optim_core.rotations import flat as flat
from optim_core.rotations import galore as galore
from optim_core.rotations import givens as givens
from optim_core.rotations import identity as identity
from optim_core.rotations import rounds as rounds
from optim_core.rotations import sided as sided
from optim_core.rotations import soap_eig as soap_eig
from optim_core.rotations import svd as svd
from optim_core.rotations.base import Change, Fitted, Options, Piece, Rotation, kinds, lookup, rotation

__all__ = ["Change", "Fitted", "Options", "Piece", "Rotation", "kinds", "lookup", "rotation"]
