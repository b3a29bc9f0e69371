"""The environment that MLflow is given. It reads these variables when it is imported, and has no arguments for them.

They are set before anything trains: within a trial they would be taken for the trial's own doing, and go with it. One
that a user has set is left as it is.
"""

from __future__ import annotations

import os

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": ("true", "A sweep reports to nobody."),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": ("true", "Standard output is for data."),
    "MLFLOW_LOGGING_LEVEL": ("CRITICAL", "What goes wrong is said in one line, without MLflow's traceback."),
}
"""Variable -> (value, what it is for)."""


def apply() -> None:
    """Set what is not set."""
    for name, (value, _) in SWITCHES.items():
        os.environ.setdefault(name, value)
