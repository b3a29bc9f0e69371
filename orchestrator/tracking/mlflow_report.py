"""A finished report in MLflow: page and figures on the parent run, curves with intervals on each arm's summary run.

The summary run of an arm has the mean of each metric under the trial's metric names, with `/low` and `/high` next to
it, so that MLflow's compare and chart views show intervals, for which MLflow itself has no support. Sending again
replaces what was sent: artifacts are overwritten, equal points are kept once.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.definition.passwords import bare, whole, without_passwords
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking import mlflow_view
from orchestrator.tracking.embedded import embedded_uri, make_store
from orchestrator.tracking.mlflow import ARM, BATCH, NOTE, STAGE, SWEEP, TRIAL
from orchestrator.tracking.mlflow_summary import LAYOUT, VERDICT

Point = tuple[str, float, int]
EXPLORATORY = "geosweep.exploratory"
REPORT = "geosweep.report"
"""On the parent: the digest of the verdict in its report."""


def shown_at(uri: str, name: str, *, where: str = "", **shown: Any) -> str:
    """Where MLflow's page shows a sweep (see `mlflow_view.Shown`), or the matching runs; creates its views if needed.

    Empty if MLflow has no such experiment. Raises ConnectionError without an answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    known = mlflow_view.Shown(**shown)
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(name)
        if found is None:
            return ""
        if where:
            return mlflow_view.search_of(found.experiment_id, where, known)
        if f"{mlflow_view.VIEW}{known.answer}" not in found.tags:  # from an earlier version
            mlflow_view.keep(client, found.experiment_id, known, True, found.creation_time or 0)
        return mlflow_view.page_of(found.experiment_id, known.answer)
    except (MlflowException, OSError) as error:
        raise ConnectionError(without_passwords(f"{uri}: {(str(error).splitlines() or ['no answer'])[0]}")) from None


def _digest(note: str) -> str:
    return hashlib.sha256(note.encode()).hexdigest()[:16]


class UntrackedError(LookupError):
    """MLflow has no data of the sweep."""


class MlflowReport:
    """Finds the sweep's runs by tag and adds to them. Raises UntrackedError if there is no store."""

    def __init__(self, *, uri: str | None, root: Path, sweep_id: str, name: str) -> None:
        if uri is None and not (root / "mlflow.db").exists():
            raise UntrackedError(f"there is no MLflow store in {root}/; was sweep {sweep_id} tracked?")
        if uri is None:
            make_store(root)
        for key, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "10")):
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{key}", value)
        self._command = SweepFolder(root, sweep_id).command("report", sweep_id)
        self._uri, self._sweep_id, self._name = whole(uri) if uri else embedded_uri(root), sweep_id, name

    def send(self, report: Path | None, arms: Mapping[str, Sequence[Point]], note: str, exploratory: str) -> None:
        """Log the folder `report` and the arms' points; set or remove the `exploratory` tag on the parent and the
        summaries.

        Raises UntrackedError if the sweep was never tracked, PermissionError if its store can only be read.
        """
        store = self._uri.removeprefix("sqlite:///")
        if os.path.exists(store) and not os.access(store, os.W_OK):
            raise PermissionError(f"{store} can only be read")
        from mlflow.entities import Metric, RunTag
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self._uri)
        parent, summaries = self._runs(client)
        stamp, tags = RunTag(EXPLORATORY, exploratory or "no"), [RunTag(VERDICT, _digest(note))]
        if report is not None:
            client.log_artifacts(parent, str(report), "report")
            tags.append(RunTag(REPORT, _digest(note)))
            of_report = _digest(note)
        else:
            of_report = client.get_run(parent).data.tags.get(REPORT, "")
        words = f"{note}\n\n{self._where(of_report, _digest(note))}"
        client.log_batch(parent, tags=[*tags, RunTag(NOTE, words), stamp])
        for arm, points in arms.items():
            if arm not in summaries:
                continue
            client.log_batch(summaries[arm], tags=[stamp])
            metrics = [Metric(k, v, 0, step) for k, v, step in points if math.isfinite(v)]
            for start in range(0, len(metrics), BATCH):
                client.log_batch(summaries[arm], metrics=metrics[start : start + BATCH])
            plain = "".join(c if c.isalnum() else "-" for c in arm.lower())
            own = {f"{kind}-{plain}.png" for kind in ("sensitivity", "parallel")} | {
                "verdict.png",
                "learning-curves.png",
            }
            for path in sorted((report / "figures").glob("*.png")) if report is not None else ():
                if path.name in own or path.name.startswith(f"map-{plain}-"):
                    client.log_artifact(summaries[arm], str(path), "figures")

    def says(self, note: str) -> bool:
        """Whether the parent has this verdict. Raises UntrackedError if the sweep was never tracked."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self._uri)
        known = client.get_run(self._runs(client)[0]).data.tags
        return bool(known.get(VERDICT) == _digest(note) and known.get(NOTE, "").startswith(note))

    def outdated(self) -> list[str]:
        """Arms with a summary from an earlier version, without its interval. Raises UntrackedError like `says`."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self._uri)
        summaries = self._runs(client)[1]
        return [arm for arm, run in summaries.items() if LAYOUT not in client.get_run(run).data.tags]

    def page(self) -> str:
        """The URL of the sweep's charts on its server; empty for a store in the root, which has no fixed one.

        Raises UntrackedError if the sweep was never tracked.
        """
        if not self._uri.startswith(("http://", "https://")):
            return ""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self._uri)
        experiment = client.get_run(self._runs(client)[0]).info.experiment_id
        view = mlflow_view.Shown(sweep_id=self._sweep_id, reported="").answer
        return f"{bare(self._uri).rstrip('/')}/{mlflow_view.page_of(experiment, view)}"

    def _where(self, of_report: str, of_note: str) -> str:
        """Where the full report is; a report of another verdict is identified as such."""
        verb = f"`{self._command}`"
        if not of_report:
            return f"Full report: {verb}."
        if of_report != of_note:
            return f"The artifact `report/report.html` is from an earlier verdict; {verb} updates it."
        return "Full report: artifact `report/report.html`."

    def _runs(self, client: object) -> tuple[str, dict[str, str]]:
        """(parent, arm -> summary run)."""
        from mlflow.tracking import MlflowClient

        assert isinstance(client, MlflowClient)
        experiment = client.get_experiment_by_name(self._name)
        mine = f"tags.`{SWEEP}` = '{self._sweep_id}'"
        found = []
        if experiment is not None:
            summaries = client.search_runs([experiment.experiment_id], f"{mine} AND tags.`{STAGE}` = 'summary'")
            found = client.search_runs([experiment.experiment_id], f"{mine} AND tags.`{STAGE}` = 'sweep'")
            found = found or [
                r
                for r in client.search_runs([experiment.experiment_id], mine, max_results=5000)
                if TRIAL not in r.data.tags and ARM not in r.data.tags
            ]
        if not found:
            raise UntrackedError(f"no run of sweep {self._sweep_id} in experiment {self._name}; was it tracked?")
        return found[0].info.run_id, {r.data.tags[ARM]: r.info.run_id for r in summaries}
