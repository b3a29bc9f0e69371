"""Environment variables for MLflow, which it reads on import and for which it has no arguments.

They are set before anything trains: set during a trial, they would be attributed to the trial and restored after it.
Variables set by the user are left unchanged.
"""

from __future__ import annotations

import os

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": ("true", "A sweep sends no usage data."),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": ("true", "Standard output is for data."),
    "MLFLOW_LOGGING_LEVEL": ("CRITICAL", "Errors are reported in one line, without MLflow's traceback."),
}
"""Variable -> (value, what it is for)."""


def apply() -> None:
    """Set what is not set."""
    for name, (value, _) in SWITCHES.items():
        os.environ.setdefault(name, value)
