"""The environment that Ray and Tune are given, and the one that they give to drivers and workers on a cluster.

The variables have no argument (Ray 2.60): both read them when they are imported, in drivers and in workers. One that a
user has set is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from orchestrator.remote import CODE, Parcel

SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": ("0", "A sweep reports to nobody."),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": ("1", "Tune would write each report to a CSV and a JSON file of its own."),
    "TUNE_DISABLE_SIGINT_HANDLER": ("1", "Ctrl-C drains the sweep; Tune's handler ends the experiment."),
    "TUNE_GLOBAL_CHECKPOINT_S": ("1000000", "No one restores a snapshot; one that a full disk refuses ends the sweep."),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": ("0", "`geosweep status` shows errors; Tune would print a traceback of each."),
    "RAY_AIR_NEW_OUTPUT": ("0", "Tune would print a table of its own, even at verbosity 0."),
    "RAY_CHDIR_TO_TRIAL_DIR": ("0", "Paths of a task are relative to where the command was given."),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": ("1", "A trial that asks for no GPU sees none."),
}
"""Variable -> (value, what it is for); `tests/orchestrator/test_ray_environment.py` shows what each one does."""


def apply() -> None:
    """Set what is not set."""
    for name, (value, _) in SWITCHES.items():
        os.environ.setdefault(name, value)


def runtime_env(parcel: Parcel | None, requirements: Sequence[str] = ()) -> dict[str, Any]:
    """Ray's runtime environment of whoever imports the parcel's modules: Ray sends the archive to each machine once.

    Processes start in the unpacked folder, which is where paths on PYTHONPATH begin.
    """
    found: dict[str, Any] = {}
    if parcel is not None:
        variables = {CODE: parcel.digest}
        if parcel.paths:
            variables["PYTHONPATH"] = os.pathsep.join(parcel.paths)
        found |= {"working_dir": str(parcel.archive), "env_vars": variables}
    if requirements:
        found["pip"] = list(requirements)
    return found
