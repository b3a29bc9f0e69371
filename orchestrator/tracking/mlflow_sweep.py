"""The tracker for a sweep's definition and folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.definition.model import Spec
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.mlflow import NONE, MlflowTracker
from orchestrator.tracking.mlflow_view import Shown


def tracker_of(
    spec: Spec,
    folder: SweepFolder,
    facts: Mapping[str, str] = NONE,
    uri: str | None = None,
    say: Callable[[str], object] | None = None,
) -> MlflowTracker:
    """Tracks the sweep in the store named by its definition, or else in the one at `uri`, or else in its root's own.

    `say` is told once of a store that fails while the sweep runs.
    """
    return MlflowTracker(
        uri=spec.tracking.mlflow or uri,
        root=folder.root,
        sweep_id=folder.sweep_id,
        name=spec.name,
        description=spec.description,
        facts=facts,
        studies=spec.seeds.studies,
        shown=Shown.of(spec, folder.sweep_id),
        say=say,
    )
