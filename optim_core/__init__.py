"""Optimizers that use the geometry of the loss. Public names only."""

from optim_core import average_case as average_case
from optim_core import baselines as baselines
from optim_core import diagnostics as diagnostics
from optim_core import dion as dion
from optim_core import fisher_sam as fisher_sam
from optim_core import games as games
from optim_core import gsam as gsam
from optim_core import kl_shampoo as kl_shampoo
from optim_core import llqr as llqr
from optim_core import llqr_sam as llqr_sam
from optim_core import looksam as looksam
from optim_core import muon as muon
from optim_core import normuon as normuon
from optim_core import psgd_kron as psgd_kron
from optim_core import rotated as rotated
from optim_core import rotated_adamw as rotated_adamw
from optim_core import sam as sam
from optim_core import schedule_free as schedule_free
from optim_core import shampoo as shampoo
from optim_core import soap as soap
from optim_core import spectrum as spectrum
from optim_core import splus as splus
from optim_core.base import Baseline, Counting
from optim_core.declarations import CONTROLS, Control, HeatMap, Limit
from optim_core.registry import (
    adopt,
    build,
    changeable,
    check,
    conflict,
    cost_of_start,
    cost_per_step,
    groupable,
    hyperparameters,
    in_limit,
    learning_rate,
    limits,
    lookup,
    name_of,
    names,
    needs_batches,
    needs_run_seed,
    references,
    register,
    registered,
    steps_within,
    try_out,
)

__all__ = [
    "CONTROLS",
    "Baseline",
    "Control",
    "Counting",
    "HeatMap",
    "Limit",
    "adopt",
    "average_case",
    "build",
    "changeable",
    "check",
    "conflict",
    "cost_of_start",
    "cost_per_step",
    "diagnostics",
    "games",
    "groupable",
    "hyperparameters",
    "in_limit",
    "learning_rate",
    "limits",
    "lookup",
    "name_of",
    "names",
    "needs_batches",
    "needs_run_seed",
    "references",
    "register",
    "registered",
    "spectrum",
    "steps_within",
    "try_out",
]
