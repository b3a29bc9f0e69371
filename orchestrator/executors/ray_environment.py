"""Environment variables set for Ray and Tune, and those that they pass to drivers and workers on a cluster.

These settings have no argument (Ray 2.60): both read the variables on import, in drivers and in workers. A variable
that a user has set is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from orchestrator.remote import CODE, Parcel

SWITCHES = {
    "RAY_USAGE_STATS_ENABLED": ("0", "A sweep sends no usage statistics."),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": ("1", "Tune would also write each report to a CSV and a JSON file."),
    "TUNE_DISABLE_SIGINT_HANDLER": ("1", "Ctrl-C drains the sweep; Tune's handler ends the experiment."),
    "TUNE_GLOBAL_CHECKPOINT_S": (
        "1000000",
        "Snapshots are never restored; a failed one on a full disk would end the sweep.",
    ),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": ("0", "`geosweep status` shows errors; Tune would print every traceback."),
    "RAY_AIR_NEW_OUTPUT": ("0", "Tune would print its own table, even at verbosity 0."),
    "RAY_CHDIR_TO_TRIAL_DIR": ("0", "Paths of a task are relative to where the command was run."),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": ("1", "A trial that requests no GPU sees none."),
}
"""Variable -> (value, purpose); `tests/orchestrator/test_ray_environment.py` demonstrates the effect of each."""


def apply() -> None:
    """Set the variables that are not set."""
    for name, (value, _) in SWITCHES.items():
        os.environ.setdefault(name, value)


def runtime_env(parcel: Parcel | None, requirements: Sequence[str] = ()) -> dict[str, Any]:
    """Ray's runtime environment for processes that import the parcel's modules: Ray sends the archive to each machine
    once.

    Processes start in the unpacked folder, to which paths on PYTHONPATH are relative.
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
