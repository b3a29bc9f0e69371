"""MLflow: a parent run per sweep, a child run per trial, a summary run per arm. The only import of MLflow.

A summary covers all studies of its arm; with one study, its confirm seeds.

A sender (see `sender.py`) does the communication, so a slow or absent server never delays a trial. It reads a trial's
points from the trial's folder and sends them in one batch once they are final: at a checkpoint, or at the trial's end.
A point carries the time at which it was first logged, and MLflow keeps one row for equal (key, step, time, value); so
sending is idempotent: nothing is lost or duplicated, whatever was killed and when.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.definition.passwords import whole, without_passwords
from orchestrator.definition.states import State, SweepState
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import LoggedPoint, MetricLog
from orchestrator.storage.object_store import near
from orchestrator.tracking import mlflow_answers, mlflow_failed, mlflow_summary, mlflow_view
from orchestrator.tracking.embedded import artifacts_of, make_store
from orchestrator.tracking.embedded import embedded_uri as embedded_uri
from orchestrator.tracking.mlflow_ends import ERROR as ERROR
from orchestrator.tracking.mlflow_ends import STATE, STATUS, tags_of
from orchestrator.tracking.names import accepted, params_of
from orchestrator.tracking.sender import Sender
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.lineage import describe
from orchestrator.trial.record import TrialRecord

SWEEP, TRIAL, ARM = "geosweep.sweep_id", "geosweep.trial_id", "geosweep.arm"
STAGE, SEED, PARENT = "geosweep.stage", "geosweep.seed", "mlflow.parentRunId"
STUDY, UNIT, ENDING = "geosweep.study", "geosweep.unit", "geosweep.ending"
"""A trial's study, if its arm has several (a run without it belongs to the only one). On the sweep and its summaries:
what n counts, `study` or `seed`."""
Rows = Mapping[str, Mapping[str, Any]]
NOTE = mlflow_failed.NOTE
POINTS = "geosweep.points"
RENAMED = "geosweep.renamed"
"""Metrics with names that MLflow does not accept: MLflow's name -> original name, as JSON."""
BATCH, PARAMS = 900, 90
"""Metrics and parameters per batch: MLflow's limits are 1000 and 100."""
SPENT = "cost/grad_evals"
"""A metric that only repeats the step."""
FIRST_S, RECALL_S = 10.0, 20.0
"""Delay before connecting, unless a trial reports earlier, so that trials can start; how long `recall` waits."""
NONE: Mapping[str, Any] = {}
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Otherwise MLflow's page opens on LLM traces instead of training runs."""
log = logging.getLogger(__name__)


class MlflowTracker:
    """Tracks one sweep (see `tracking.base.Tracker`). `say` is told once, from a thread, of a store that fails."""

    def __init__(
        self,
        *,
        uri: str | None,
        root: Path,
        sweep_id: str,
        name: str,
        description: str,
        facts: Mapping[str, str],
        studies: int = 1,
        shown: mlflow_view.Shown | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._uri = whole(uri) if uri else embedded_uri(root)
        self._root, self._sweep_id, self._name = root, sweep_id, name
        self._description, self._facts = description, dict(facts)
        self._several, self._unit = studies > 1, "study" if studies > 1 else "seed"
        self._shown = shown or mlflow_view.Shown(sweep_id=sweep_id, reported="")
        self._created, self._going = 0, False
        self._runs: dict[str, str] = {}
        self._complete: set[str] = set()
        self._sent: dict[str, float] = {}
        self._client: Any = None
        self.repaired: list[str] = []
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # retrying the creation of a run would create two
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        tell = mlflow_answers.teller(say, self._uri, root, sweep_id)
        self._sender = Sender(self._open, self._ping, "mlflow-sender", wait_s=FIRST_S, tell=tell)
        self._sender.put(lambda: None)  # connect without being asked

    @property
    def trouble(self) -> str:
        """The last problem with the tracking server; empty if none."""
        return self._sender.trouble

    def on_start(self, job: Job) -> None:
        """The run is created together with its first final points; an old verdict is removed with the first trial."""
        if not self._going:
            self._sender.put(lambda: mlflow_summary.go_on(self._client, self._runs[SWEEP], self._description))
        self._going = True

    def on_report(self, job: Job, report: Report) -> None:
        """Send the points that a checkpoint made final."""
        self._sender.begin()
        if report.durable >= 0 and not self._sender.away:  # the end of the trial sends everything
            self._sender.put(lambda: self._ship_some(job, report.durable))

    def on_end(self, job: Job, result: Result | Report) -> None:
        """Send the remaining points and close the run."""
        self._sender.begin()
        self._sender.put(lambda: self._close(job, result))

    def on_recover(self, job: Job, result: Result) -> None:
        """Send a trial that ended under an earlier driver, unless its run is already complete."""
        self._sender.put(lambda: None if job.trial_id in self._complete else self._close(job, result))

    def finish(self, state: SweepState, arms: Rows, parameters: Rows = NONE, ending: str = "") -> None:
        """Write the arms' summaries and close the parent, and wait for the sender."""
        self._ending = ending or str(state)
        self._sender.put(lambda: self._finish(state, arms, parameters))
        self._sender.close()

    def check(self, trials: Callable[[], list[TrialRecord]]) -> None:
        """Queue a comparison with the trials that ended, and repair differences; `repaired` lists them."""
        self._sender.put(lambda: self.repaired.extend(self._audit(trials())))

    def recall(self, trial_id: str) -> list[LoggedPoint]:
        """The points of a trial as stored in MLflow; empty if it has none or does not answer soon."""
        self._sender.begin()
        found: list[LoggedPoint] = []
        over = threading.Event()
        if self._sender.away:
            return found

        def fetch() -> None:
            if trial_id in self._runs:
                found.extend(self._points(self._runs[trial_id]))

        self._sender.put(fetch)
        self._sender.put(over.set)
        over.wait(RECALL_S)
        return found if over.is_set() else []

    def audit(self, trials: list[TrialRecord], state: SweepState) -> list[str]:
        """Repair runs that are missing, duplicated, still running or incomplete; returns what was repaired.

        Raises ConnectionError if the store does not answer.
        """
        found: list[str] = []

        def compare() -> None:
            found.extend(self._audit(trials))
            if state is not SweepState.RUNNING:
                found.extend(self._close_strays(state))
                mlflow_view.keep(self._client, self._experiment, self._shown, state is SweepState.DONE, self._created)

        self._sender.put(compare)
        self._sender.close()
        if self._sender.trouble:
            raise ConnectionError(without_passwords(f"{self._uri}: {self._sender.trouble}"))
        return found

    def _audit(self, trials: list[TrialRecord]) -> list[str]:
        """Compare every run with its trial's folder. The newest intact log wins: sending again duplicates nothing."""
        ended = {t.trial_id: t for t in trials}
        runs: dict[str, list[tuple[str, int, str]]] = {}
        for run in self._search():
            trial = run.data.tags.get(TRIAL, "")
            if trial in ended:
                row = (self._difference(ended[trial], run), run.info.start_time, run.info.run_id)
                runs.setdefault(trial, []).append(row)
        found: list[str] = []
        for name, trial in ended.items():
            mine = sorted(runs.get(name, []), key=lambda row: (bool(row[0]), row[1]))
            for _, _, extra in mine[1:]:
                self._client.delete_run(extra)
                found.append(f"mlflow: {name} had a second run {extra}; deleted")
            self._runs.pop(name, None)
            if mine:
                self._runs[name] = mine[0][2]
            difference = mine[0][0] if mine else "had no run"
            if difference:
                self._sent.pop(name, None)
                self._close(trial.job, trial.result)
                found.append(f"mlflow: {name} {difference}; sent again")
        return found

    def _difference(self, trial: TrialRecord, run: Any) -> str:
        """How a trial's run differs from its folder; empty if it does not."""
        state = trial.result.state
        if run.info.status != STATUS[state] or run.data.tags.get(STATE) != state:
            return f"was {run.info.status}, {run.data.tags.get(STATE, 'no state')}; should be {state}"
        if any(run.data.tags.get(k) != v for k, v in self._study_of(trial.job).items()):
            return f"had study {run.data.tags.get(STUDY, 'unknown')}; should be study {trial.study}"
        points = MetricLog(near(trial.job.folder) / "metrics.jsonl").points()
        if run.data.tags.get(POINTS) != str(len(points)):
            return f"had {run.data.tags.get(POINTS, 'no')} points; should have {len(points)}"
        last = points[-1].metrics if points and state is State.COMPLETE else {}
        names = accepted(last)
        if any(run.data.metrics.get(names[k]) != v for k, v in last.items() if math.isfinite(v)):
            return "had different final values"
        return ""

    def _ping(self) -> None:
        """Raises while the store does not answer."""
        if self._client is None:
            raise ConnectionError("MLflow does not answer")
        self._client.search_experiments(max_results=1)

    def _open(self) -> None:
        """Connect; find this sweep's runs by tag; create the parent if there is none."""
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the sender reports errors in one line
        if self._uri == embedded_uri(self._root):
            make_store(self._root)
        self._client = MlflowClient(self._uri)
        found = self._client.get_experiment_by_name(self._name)
        if found is not None:
            self._experiment = found.experiment_id
        else:
            embedded = self._uri.startswith("sqlite")
            place = artifacts_of(self._root) if embedded else None
            self._experiment = self._client.create_experiment(self._name, artifact_location=place, tags=KIND)
        self._runs.clear()
        self._created = int(1000 * time.time())
        for run in self._search():
            key = run.data.tags.get(TRIAL) or run.data.tags.get(ARM) or SWEEP
            self._runs[key] = run.info.run_id
            self._created = run.info.start_time if key == SWEEP else self._created
            if run.info.status in ("FINISHED", "FAILED"):
                self._complete.add(key)
        if SWEEP not in self._runs:
            tags = {SWEEP: self._sweep_id, STAGE: "sweep", UNIT: self._unit, **self._facts}
            tags[NOTE] = self._description
            made = self._client.create_run(self._experiment, tags=tags, run_name=self._sweep_id)
            self._runs[SWEEP] = made.info.run_id
            self._created = made.info.start_time
        else:
            self._client.update_run(self._runs[SWEEP], status="RUNNING")
        mlflow_view.keep(self._client, self._experiment, self._shown, False, self._created)

    def _search(self, more: str = "") -> Iterator[Any]:
        """The runs of this sweep, page by page."""
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`{SWEEP}` = '{self._sweep_id}'{more}",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _points(self, run: str) -> list[LoggedPoint]:
        """What was logged to a run, point by point, metrics in the order of their first logging."""
        rows: dict[tuple[float, int], dict[str, float]] = {}
        data = self._client.get_run(run).data
        ours = json.loads(data.tags.get(RENAMED, "{}"))
        for key in data.metrics:
            for m in self._client.get_metric_history(run, key):
                if m.timestamp:  # the stand-in value of a diverged trial is not a point of its log
                    rows.setdefault((float(m.step), m.timestamp), {})[ours.get(key, key)] = m.value
        for (step, _), metrics in rows.items():
            metrics.setdefault(SPENT, step)
        return [LoggedPoint(step, metrics, at) for (step, at), metrics in sorted(rows.items())]

    def _run(self, job: Job, more: Mapping[str, str]) -> tuple[str, bool]:
        """(the trial's run, whether it was created now, including `more` tags)."""
        if job.trial_id in self._runs:
            return self._runs[job.trial_id], False
        tags = {SWEEP: self._sweep_id, TRIAL: job.trial_id, ARM: job.arm, STAGE: job.stage, SEED: str(job.seed)}
        tags |= {PARENT: self._runs[SWEEP], NOTE: self._links(), **self._study_of(job), **more}
        made = self._client.create_run(self._experiment, tags=tags, run_name=job.trial_id)
        self._runs[job.trial_id] = made.info.run_id
        return self._runs[job.trial_id], True

    def _study_of(self, job: Job) -> dict[str, str]:
        return {STUDY: str(job.study)} if self._several else {}

    def _ship_some(self, job: Job, durable: float) -> None:
        self._ship(job, MetricLog(near(job.folder) / "metrics.jsonl").points(), durable)

    def _ship(self, job: Job, log: Sequence[LoggedPoint], durable: float, tags: Mapping[str, str] = NONE) -> str:
        """Send the unsent points of its log up to `durable`, with its parameters the first time.

        Every row and every batch costs time: values that only repeat the step are sent with the newest point alone, and
        the tags of a trial that is sent whole are set when its run is created.
        """
        from mlflow.entities import Metric, RunTag

        known = job.trial_id in self._sent
        sent = self._sent.get(job.trial_id, -math.inf)
        points = [p for p in log if sent < p.step <= durable]
        names = accepted(key for p in points for key in p.metrics)
        if renamed := {name: key for key, name in names.items() if name != key}:
            tags = {**tags, RENAMED: json.dumps(renamed)}
        run, made = self._run(job, tags)
        metrics = [
            Metric(names[key], value, p.time, int(p.step))
            for p in points
            for key, value in p.metrics.items()
            if math.isfinite(value) and (key != SPENT or p is points[-1])
        ]
        given = {"arm": job.arm, "optimizer": job.optimizer, "seed": job.seed, "stage": job.stage}
        params = [] if known else params_of(given, describe(job.values, job.lineage))
        for i in range(max(1, math.ceil(len(metrics) / BATCH), math.ceil(len(params) / PARAMS))):
            self._client.log_batch(
                run,
                metrics=metrics[i * BATCH : (i + 1) * BATCH],
                params=params[i * PARAMS : (i + 1) * PARAMS],
                tags=[RunTag(k, v) for k, v in tags.items()] if i == 0 and not made else [],
            )
        if points or not known:
            self._sent[job.trial_id] = max([sent, *(p.step for p in points)])
        return run

    def _close(self, job: Job, result: Result | Report) -> None:
        from mlflow.entities import Metric

        log = MetricLog(near(job.folder) / "metrics.jsonl").points()
        durable = result.durable if isinstance(result, Report) else math.inf
        run = self._ship(job, log, durable, {**tags_of(result), **self._study_of(job), POINTS: str(len(log))})
        if result.state is State.DIVERGED:
            step = int(log[-1].step)
            names = accepted(result.metrics)
            worst = [Metric(names[k], v, 0, step) for k, v in result.metrics.items() if math.isfinite(v)]
            self._client.log_batch(run, metrics=worst)
        self._client.set_terminated(run, STATUS[result.state])
        if result.state is State.FAILED:
            mlflow_failed.keep_printed(self._client, run, job.folder)

    def _finish(
        self, state: SweepState, arms: Mapping[str, Mapping[str, float]], parameters: Mapping[str, Mapping[str, Any]]
    ) -> None:
        from mlflow.entities import RunTag

        for row, (arm, summary) in enumerate(arms.items()):
            points = mlflow_summary.points_of(summary, len(arms) - row)
            self._summarize(arm, points, params_of({"arm": arm, "stage": "summary"}, parameters.get(arm, {})))
        parent = self._runs[SWEEP]
        tags = [RunTag(STATE, str(state)), RunTag(ENDING, self._ending), RunTag(UNIT, self._unit)]
        metrics: list[Any] = []
        if self._shown.reported:
            points, leads = mlflow_summary.of_parent(arms, self._shown.reported, maximize=self._shown.maximize)
            if not mlflow_summary.says(self._client, parent, points):
                metrics, tags = mlflow_summary.metrics(points), [*tags, RunTag(mlflow_summary.LEADS, leads)]
        self._client.log_batch(parent, metrics=metrics, tags=tags)
        self._client.set_terminated(parent, "FINISHED" if state is SweepState.DONE else "KILLED")
        mlflow_view.keep(self._client, self._experiment, self._shown, state is SweepState.DONE, self._created)
        self.repaired += self._close_strays(state)

    def _summarize(self, arm: str, points: Sequence[mlflow_summary.Point], params: list[Any]) -> None:
        """Write the arm's summary run; one with other content is recreated."""
        from mlflow.entities import RunTag

        if arm in self._runs:
            known = self._client.get_run(self._runs[arm]).data
            same = all(known.params.get(param.key, param.value) == param.value for param in params)
            whole = same and mlflow_summary.LAYOUT in known.tags
            if not whole or not mlflow_summary.says(self._client, self._runs[arm], points):
                self._client.delete_run(self._runs.pop(arm))
        if arm not in self._runs:
            over = "studies" if self._several else "seeds"
            tags = {SWEEP: self._sweep_id, ARM: arm, STAGE: "summary", PARENT: self._runs[SWEEP]}
            tags |= {mlflow_summary.LAYOUT: "2", NOTE: self._links()}
            made = self._client.create_run(self._experiment, tags=tags, run_name=f"{arm}: mean over {over}")
            self._runs[arm] = made.info.run_id
            self._client.log_batch(self._runs[arm], metrics=mlflow_summary.metrics(points))
        known = self._client.get_run(self._runs[arm]).data
        params = [param for param in params if param.key not in known.params][:PARAMS]
        self._client.log_batch(self._runs[arm], params=params, tags=[RunTag(UNIT, self._unit)])
        self._client.set_terminated(self._runs[arm])

    def _links(self) -> str:
        command = SweepFolder(self._root, self._sweep_id).command("report", self._sweep_id)
        return mlflow_view.links(self._experiment, self._runs[SWEEP], self._sweep_id, command)

    def _close_strays(self, state: SweepState) -> list[str]:
        """End runs that are RUNNING although no driver works on them; returns which of them were trials."""
        found = []
        for run in list(self._search(" AND attributes.status = 'RUNNING'")):
            trial = run.data.tags.get(TRIAL)
            over = trial is None and state in (SweepState.DONE, SweepState.BUDGET)
            self._client.set_terminated(run.info.run_id, "FINISHED" if over else "KILLED")
            if trial is not None:
                found.append(f"mlflow: {trial} was RUNNING with no driver; ended as KILLED")
        return found
