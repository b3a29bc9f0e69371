"""How a trial ended, as the tags of its run."""

from __future__ import annotations

from orchestrator.tracking import mlflow_failed
from orchestrator.trial.job import Report, Result

STATE, ERROR = "geosweep.state", "geosweep.error"
STOPPED, CACHED = "geosweep.stopped", "geosweep.cached_from"


def tags_of(result: Result | Report) -> dict[str, str]:
    """What a run's tags say of how its trial ended."""
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
