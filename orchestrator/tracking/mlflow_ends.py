"""How a trial ended, as tags of its run; and how a driver ended, on the parent run."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.definition.passwords import whole, without_passwords
from orchestrator.definition.states import State
from orchestrator.storage.ending import DONE
from orchestrator.tracking import mlflow_failed
from orchestrator.tracking.embedded import embedded_uri
from orchestrator.trial.job import Report, Result

ENDING, STAGE, SWEEP = "geosweep.ending", "geosweep.stage", "geosweep.sweep_id"
STATE, ERROR = "geosweep.state", "geosweep.error"
STOPPED, CACHED = "geosweep.stopped", "geosweep.cached_from"
STATUS = {
    State.COMPLETE: "FINISHED",
    State.DIVERGED: "FINISHED",
    State.PRUNED: "FINISHED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
    State.PAUSED: "SCHEDULED",
}
"""Of a trial's run in MLflow."""


def tags_of(result: Result | Report) -> dict[str, str]:
    """Tags of a run that say how its trial ended."""
    if isinstance(result, Report):
        return {STATE: str(result.state), "geosweep.init_digest": "", "geosweep.data_digest": ""}
    tags = {
        STATE: str(result.state),
        "geosweep.init_digest": result.init_digest,
        "geosweep.data_digest": result.data_digest,
    }
    tags |= {f"geosweep.{name}": value for name, value in result.facts.items()} | mlflow_failed.tags(result)
    if result.error:
        tags[ERROR] = result.error[-4000:]
    if result.stopped is not None:
        tags[STOPPED] = result.stopped.reason
    if result.cached_from:
        tags[CACHED] = result.cached_from
    return tags


def tell(*, uri: str | None, root: Path, sweep_id: str, name: str, how: str) -> None:
    """Record on the parent run how the last driver ended, so that it no longer shows as running; no-op without a
    parent.

    Raises ConnectionError if the store does not answer.
    """
    if uri is None and not (root / "mlflow.db").exists():
        return
    for key, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "10")):
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{key}", value)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(whole(uri) if uri else embedded_uri(root))
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return
        mine = f"tags.`{SWEEP}` = '{sweep_id}' and tags.`{STAGE}` = 'sweep'"
        for parent in client.search_runs([experiment.experiment_id], mine):
            client.set_tag(parent.info.run_id, ENDING, how)
            if parent.info.status == "RUNNING":
                client.set_terminated(parent.info.run_id, "FINISHED" if how == DONE else "KILLED")
    except (MlflowException, OSError) as error:
        raise ConnectionError(without_passwords((str(error).splitlines() or ["no answer"])[0])) from None
