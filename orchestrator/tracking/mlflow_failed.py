"""A failed trial in MLflow: its last lines as a tag and in the note, its whole output as artifacts."""

from __future__ import annotations

import logging
from typing import Any

from orchestrator.definition.states import State
from orchestrator.trial import log_files
from orchestrator.trial.job import Result

LAST_LINES, NOTE = "geosweep.last_lines", "mlflow.note.content"
FOLDER = "logs"
log = logging.getLogger(__name__)


def tags(result: Result) -> dict[str, str]:
    """Empty for a trial that did not fail."""
    if result.state is not State.FAILED:
        return {}
    note = ["The trial failed:", "```", result.error[-2000:], "```", "```", result.last_lines[-2000:], "```"]
    return {LAST_LINES: result.last_lines[-4000:], NOTE: "\n".join(note)}


def keep_printed(client: Any, run: str, place: str) -> None:
    """Log the output of the trial at `place` to its run. If the server's artifacts are unreachable, the tags must
    do.
    """
    for stream in log_files.STREAMS:
        name = log_files.file_name(stream)
        try:
            if text := log_files.read(place, name):
                client.log_text(run, text.decode(errors="replace"), f"{FOLDER}/{name}")
        except Exception as error:
            log.debug("the output of %s is not in MLflow: %s", place, error)
