"""Diagnostics of a model and its optimizer from the papers: functions on any model, selectable by name in sweeps."""

from optim_core.diagnostics import average_case_rate as average_case_rate
from optim_core.diagnostics import block_mass as block_mass
from optim_core.diagnostics import escape as escape
from optim_core.diagnostics import game_rate as game_rate
from optim_core.diagnostics import hessian_norm as hessian_norm
from optim_core.diagnostics import orthogonality as orthogonality
from optim_core.diagnostics import second_moment as second_moment
from optim_core.diagnostics import sharpness as sharpness
from optim_core.diagnostics.registry import Subject, diagnostic, lookup, measure, names

__all__ = ["Subject", "diagnostic", "lookup", "measure", "names"]
