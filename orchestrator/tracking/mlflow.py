"""MLflow: one parent run for a sweep, one child for a trial, one summary child for an arm. The only import of MLflow.

A sender thread does the talking, so that a slow or absent server never holds up a trial. It reads a trial's points from
the trial's own folder and ships them in one batch when they are final: at a checkpoint, or at the trial's end. A point
carries the time at which it was first logged and MLflow keeps one row for equal (key, step, time, value); together this
makes sending idempotent: nothing is lost, nothing is doubled, whatever was killed when.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.trial import Job, MetricLog, Report

SWEEP, TRIAL, ARM, STATE = "geosweep.sweep_id", "geosweep.trial_id", "geosweep.arm", "geosweep.state"
STAGE, SEED, ERROR, PARENT = "geosweep.stage", "geosweep.seed", "geosweep.error", "mlflow.parentRunId"
STATUS = {"COMPLETE": "FINISHED", "DIVERGED": "FINISHED", "FAILED": "FAILED", "INTERRUPTED": "KILLED"}
BATCH = 900
log = logging.getLogger(__name__)


def embedded_uri(root: Path) -> str:
    """The tracking URI of the store inside the root folder."""
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


class MlflowTracker:
    """Tracks one sweep (see `tracking.base.Tracker`)."""

    def __init__(
        self, *, uri: str | None, root: Path, sweep_id: str, name: str, description: str, facts: Mapping[str, str]
    ) -> None:
        self._uri, self._root, self._sweep_id, self._name = uri or embedded_uri(root), root, sweep_id, name
        self._description, self._facts = description, dict(facts)
        self._runs: dict[str, str] = {}
        self._complete: set[str] = set()
        self._sent: dict[str, float] = {}
        self._trouble = ""
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._queue.put(self._open)
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow-sender")
        self._thread.start()

    @property
    def trouble(self) -> str:
        """What last went wrong with the tracking server, or nothing."""
        return self._trouble

    def began(self, job: Job) -> None:
        """Nothing is sent: the run is made with its first final points, in one go."""

    def moved(self, job: Job, report: Report) -> None:
        """Ship what a checkpoint made final."""
        if report.durable >= 0:
            self._queue.put(lambda: self._ship_some(job, report.durable))

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """Ship the rest and close the run."""
        self._queue.put(lambda: self._close(job, result))

    def recovered(self, job: Job, result: Mapping[str, Any]) -> None:
        """Ship a trial that ended under an earlier driver, unless its run is already complete."""
        self._queue.put(lambda: None if job.trial_id in self._complete else self._close(job, result))

    def finish(self, state: str, arms: Mapping[str, Mapping[str, float]]) -> None:
        """Write the arms' summaries and the parent's end, and wait for the sender."""
        self._queue.put(lambda: self._finish(state, arms))
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        while (task := self._queue.get()) is not None:
            try:
                task()
            except Exception as error:
                self._trouble = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"

    def _open(self) -> None:
        """Connect; find this sweep's runs by tag; make the parent when there is none."""
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._client = MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(self._name)
        if found is not None:
            self._experiment = found.experiment_id
        else:
            embedded = self._uri.startswith("sqlite")
            place = (self._root / "mlartifacts").resolve().as_uri() if embedded else None
            self._experiment = self._client.create_experiment(self._name, artifact_location=place)
        for run in self._search():
            key = run.data.tags.get(TRIAL) or run.data.tags.get(ARM) or "parent"
            self._runs[key] = run.info.run_id
            if run.info.status in ("FINISHED", "FAILED"):
                self._complete.add(key)
        if "parent" not in self._runs:
            tags = {SWEEP: self._sweep_id, "mlflow.note.content": self._description, **self._facts}
            made = self._client.create_run(self._experiment, tags=tags, run_name=self._sweep_id)
            self._runs["parent"] = made.info.run_id
        else:
            self._client.update_run(self._runs["parent"], status="RUNNING")

    def _search(self) -> list[Any]:
        from mlflow.entities import ViewType

        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`{SWEEP}` = '{self._sweep_id}'",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                return found

    def _run(self, job: Job) -> str:
        """The trial's run, made with its parameters when it is not there yet."""
        if job.trial_id not in self._runs:
            tags = {SWEEP: self._sweep_id, TRIAL: job.trial_id, ARM: job.arm, STAGE: job.stage, SEED: str(job.seed)}
            tags[PARENT] = self._runs["parent"]
            made = self._client.create_run(self._experiment, tags=tags, run_name=job.trial_id)
            self._runs[job.trial_id] = made.info.run_id
        return self._runs[job.trial_id]

    def _ship_some(self, job: Job, durable: float) -> None:
        self._ship(job, durable)

    def _ship(self, job: Job, durable: float, tags: Mapping[str, str] | None = None) -> str:
        """Send the trial's points up to `durable` that were not sent yet, with its parameters the first time."""
        from mlflow.entities import Metric, Param, RunTag

        known = job.trial_id in self._sent
        run, sent = self._run(job), self._sent.get(job.trial_id, -math.inf)
        points = [p for p in MetricLog(Path(job.folder) / "metrics.jsonl").points() if sent < p["step"] <= durable]
        metrics = [
            Metric(key, value, p["time"], int(p["step"]))
            for p in points
            for key, value in p["metrics"].items()
            if math.isfinite(value)
        ]
        params = {} if known else {"arm": job.arm, "optimizer": job.optimizer, "seed": job.seed, **job.parameters}
        for start in range(0, max(1, len(metrics)), BATCH):
            first = start == 0
            self._client.log_batch(
                run,
                metrics=metrics[start : start + BATCH],
                params=[Param(k, str(v)) for k, v in params.items()] if first else [],
                tags=[RunTag(k, v) for k, v in (tags or {}).items()] if first else [],
            )
        if points or not known:
            self._sent[job.trial_id] = max([sent, *(p["step"] for p in points)])
        return run

    def _close(self, job: Job, result: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        tags = {STATE: result["state"], "geosweep.init_digest": result.get("init_digest", "")}
        tags["geosweep.data_digest"] = result.get("data_digest", "")
        tags |= {f"geosweep.{name}": value for name, value in result.get("facts", {}).items()}
        if result.get("error"):
            tags[ERROR] = result["error"][-4000:]
        drained = result["state"] == "INTERRUPTED"
        run = self._ship(job, result.get("durable", math.inf) if drained else math.inf, tags)
        if result["state"] == "DIVERGED":
            step = int(result["grad_evals"])
            self._client.log_batch(run, metrics=[Metric(k, v, 0, step) for k, v in result["metrics"].items()])
        self._client.set_terminated(run, STATUS[result["state"]])

    def _finish(self, state: str, arms: Mapping[str, Mapping[str, float]]) -> None:
        from mlflow.entities import Metric, RunTag

        for arm, summary in arms.items():
            if arm not in self._runs:
                tags = {SWEEP: self._sweep_id, ARM: arm, STAGE: "summary", PARENT: self._runs["parent"]}
                made = self._client.create_run(self._experiment, tags=tags, run_name=f"summary {arm}")
                self._runs[arm] = made.info.run_id
            metrics = [Metric(k, v, 0, 0) for k, v in summary.items() if math.isfinite(v)]
            self._client.log_batch(self._runs[arm], metrics=metrics)
            self._client.set_terminated(self._runs[arm])
        parent = self._runs["parent"]
        self._client.log_batch(parent, tags=[RunTag(STATE, state)])
        self._client.set_terminated(parent, "FINISHED" if state == "done" else "KILLED")
        self._close_strays()

    def _close_strays(self) -> None:
        """End runs that a killed driver left RUNNING and that this one did not touch."""
        for run in self._search():
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")


def probe(place: Path) -> str:
    """Make a store in `place`, write a run and read it back. For `geosweep doctor`."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(embedded_uri(place))
    run = client.create_run(client.create_experiment("probe"))
    client.log_metric(run.info.run_id, "loss/train", 0.5)
    return f"an embedded store kept loss/train = {client.get_run(run.info.run_id).data.metrics['loss/train']}"
