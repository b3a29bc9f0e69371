"""One trial: a configuration and a seed trained to the budget. A function of its `Job`, on any executor.

The trial first writes to its own folder: `metrics.jsonl` (one line per evaluation), checkpoints, `result.json`. It is
independent of executor, search and tracker.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import optim_core
from orchestrator.definition import built, opened
from orchestrator.definition.ambient import Ambient
from orchestrator.definition.isolated import imported
from orchestrator.definition.states import State
from orchestrator.storage import disk
from orchestrator.storage.metric_log import LoggedPoint, MetricLog
from orchestrator.storage.object_store import StoreError
from orchestrator.trial import cache, gpu_memory, source, termination
from orchestrator.trial.failure import MetricMissing, described
from orchestrator.trial.held import Held
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.locking import locked
from orchestrator.trial.log_files import last_lines
from orchestrator.trial.logs import TrialLogs
from orchestrator.trial.record import read_job, read_result, write_job, write_result
from orchestrator.trial.termination import exits_raise
from orchestrator.trial.training import build_training
from orchestrator.trial.watchdog import Watchdog, left_behind
from orchestrator.trial.worker_group import LocalWorkerGroup, WorkerFailed, WorkerGroup
from orchestrator.trial.workspace import TrialPlace
from trainables import checkpoint
from trainables.loop import Diverged, Point, Training
from trainables.task_class import Task
from trainables.workers import Workers, listen

CHECKPOINT_SHARE = 0.1
LOOK_S = 0.25
"""Seconds between checks whether to pause."""
opened.watch()  # before the first task is built in this process
R = TypeVar("R", bound=Report | None)


class TrialSession:
    """A trial in progress, advanced in slices by any executor.

    `own_process`: this process belongs to the trial alone and may be ended if a step hangs. `group` starts the other
    workers of a job with several processes; they reach this one at `host`.
    """

    def __init__(
        self, job: Job, *, own_process: bool = False, group: WorkerGroup | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.job = job
        self._group: WorkerGroup = group or LocalWorkerGroup()
        self._host = host
        self._place = TrialPlace(job.folder, job.stop_file)
        self._folder = self._place.folder
        self._watchdog = Watchdog(self._folder / "hang.txt", job.step_timeout_s, own_process=own_process)
        with disk.named(self._folder):
            self._lock = locked(self._folder / "lock")
            self._place.fetch()
            if read_job(self._folder) is None:
                write_job(job, self._folder, durable=False)
                self._place.begun()
        self._log = MetricLog(self._folder / "metrics.jsonl")
        self._printed = TrialLogs(self._folder, tee=not own_process)
        self._seconds, self._since = 0.0, time.perf_counter()
        self._told = self._since
        self.pack: Held | None = None
        """The pack that trains it together with others, if any."""
        self._points: list[LoggedPoint] = []
        self._training: Training | None = None
        self._task: Task | None = None
        self._workers: Workers | None = None
        self._facts: dict[str, str] = {}
        self._address = self._code = ""
        self._last: dict[str, float] = {}
        self._ambient = Ambient()

    def advance(self) -> Report:
        """Train for about a slice. Never raises for the trial's own errors, which give a FAILED result.

        Raises WorkerLost if another worker's process died, DiskFull if the disk is full, StoreError if the object store
        stays unavailable, and what a SIGTERM raised, which is not the trial's error.
        """
        return self._within(lambda: self._begun() or self._slice(), anew=True)

    def begin(self) -> Report | None:
        """Go to where training starts or continues; a report if it has already ended. Raises as `advance`."""
        return self._within(self._begun, anew=True)

    @property
    def training(self) -> Training:
        """Its training run, once it has begun."""
        assert self._training is not None
        return self._training

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of global state that it has changed, restored in between (`ambient`)."""
        return self._ambient.changed

    def hear(self, point: Callable[[], Point] | Diverged, *, measured: bool = False) -> Report | None:
        """Process an evaluation or the end reached in a pack; a report when one is due. Raises as `advance`.

        `measured`: `point` runs no code of the task, so only a checkpoint would need its random states.
        """
        own = not measured or bool(self.job.until) or time.perf_counter() > self._due - 1.0
        act = lambda: self._diverged(point) if isinstance(point, Diverged) else self._heard(point())  # noqa: E731
        return self._within(act, own=own)

    def wants_checkpoint(self, now: float) -> bool:
        """Whether a checkpoint is due, or about to be."""
        return now >= self._due - 0.5 * self._every and not self._place.busy()

    def pause_asked(self) -> bool:
        """Whether to pause: a checkpoint is due, or the sweep drains."""
        return (time.perf_counter() >= self._due and not self._place.busy()) or self.stop_asked()

    def stop_asked(self) -> bool:
        """Whether the sweep drains."""
        return self._place.stop_asked()

    def pause(self) -> Report | None:
        """Write a checkpoint; a report if the sweep drains."""
        return self._within(self._paused)

    def spend(self, seconds: float) -> None:
        """Add its share of a pack's time."""
        self._seconds += seconds

    def _within(self, act: Callable[[], R], *, anew: bool = False, own: bool = True) -> R | Report:
        """Run `act` with this trial's errors and, if `own`, output and global state. `anew`: it may have ended."""
        with disk.named(self._folder), ExitStack() as stack:
            for context in (self._printed.attached(), self._ambient, opened.forks()) if own else ():
                stack.enter_context(context)
            stack.enter_context(exits_raise())
            existing = read_result(self._folder) if anew else None
            if existing is not None:
                return self._ended(existing.state, existing.grad_evals, existing.metrics)
            try:
                return act()
            except (Exception, SystemExit, GeneratorExit) as broken:
                self._watchdog.stop()
                if disk.is_full(broken) or isinstance(broken, StoreError) or termination.told():
                    raise
                error = described(broken)
                try:
                    self._group.trouble()
                except WorkerFailed as failure:
                    error = f"{failure}\n\nand then:\n{error}"
                return self._finish(State.FAILED, error=error)
            finally:
                self._watchdog.stop()

    def _begun(self) -> Report | None:
        self._since = self._told = time.perf_counter()
        if self._training is None:
            if hung := left_behind(self._folder):
                return self._finish(State.FAILED, error=hung)
            self._begin()
            self._ambient.settle()
            if (trained := cache.find(self._address, self.job)) is not None:
                return self._take_over(trained)
        return self._at_rest()

    def close(self) -> None:
        """Release the folder and the other workers."""
        if self._task is not None:
            self._task.read_ahead(0)
        self._group.stop()
        if self._workers is not None:
            self._workers.close()
        self._printed.close()
        self._place.close()
        self._lock.release()

    def _begin(self) -> None:
        import torch

        job = self.job
        self._ambient.note(imported(job.optimizer, lambda: optim_core.lookup(job.optimizer)))
        self._code = source.digest(job.task, job.optimizer)
        torch.set_num_threads(job.threads)
        gpu_memory.claim(job.gpu)
        if job.processes > 1:
            store = listen(self._host)
            self._group.start(job, f"{self._host}:{store.port}")
            self._workers = Workers(size=job.processes, store=store)
        training, task = build_training(job, self._workers)
        self._training, self._task = training, task
        self._task_metrics, self._facts = task.METRICS, dict(task.facts())
        saved = checkpoint.newest(self._folder)
        if saved is not None and not self._log.reaches(float(saved["durable"])):
            warnings.warn(f"{self._folder}: the log ends before its checkpoint; training starts over", stacklevel=2)
            saved = None
        if job.cache:
            self._address = cache.address(job, training.init_digest, training.data_digest, self._facts)
        if self._workers is not None:
            self._workers.same(saved and saved["training"])
        if saved is None:
            self._points = self._log.truncate(-1.0)
        else:
            training.load(saved["training"])
            self._seconds = float(saved["seconds"]) if saved["trial"] == job.trial_id else 0.0  # otherwise inherited
            self._place.durable = float(saved["durable"])
            self._points = self._log.truncate(self._place.durable)
        self._last = dict(self._points[-1].metrics) if self._points else {}
        self._every = self.job.checkpoint_s
        self._due = time.perf_counter() + self._every

    def _take_over(self, trained: Path) -> Report:
        """Finish with the log and the result of an identical trial."""
        self._log.replace(MetricLog(trained / "metrics.jsonl").points())
        theirs = read_result(trained)
        assert theirs is not None
        name = f"{trained.parent.parent.name}/{trained.name}"
        self._write(replace(theirs, stopped=None, cached_from=theirs.cached_from or name))
        return self._ended(theirs.state, theirs.grad_evals, theirs.metrics)

    def _write(self, result: Result) -> None:
        self._place.settle()
        self._log.sync()
        write_result(result, self._folder)
        for old in self._folder.glob("checkpoint*"):
            old.unlink()
        self._place.ended()

    def _slice(self) -> Report:
        looked = self._since

        def pause() -> bool:
            nonlocal looked
            self._watchdog.beat()
            now = time.perf_counter()
            if now - looked < LOOK_S:
                return False
            looked = now
            return self.pause_asked()

        while True:
            try:
                point = self.training.advance(pause)
            except Diverged as end:
                return self._diverged(end)
            report = self._heard(point) if point is not None else self._paused()
            if report is not None:
                return report

    def _at_rest(self) -> Report | None:
        """The report of a trial that does not train now."""
        if self.training.finished:
            return self._finish(State.COMPLETE)
        if not self.job.until or len(self._points) < self.job.until:
            return None
        if self._place.durable < self._points[-1].step:
            self._checkpoint()
            self._place.settle()
        return self._ended(State.PAUSED, self._own(self.training.optimizer.grad_evals), self._last)

    def _diverged(self, end: Diverged) -> Report:
        self._log.append(end.grad_evals, {"cost/grad_evals": end.grad_evals})
        return self._finish(State.DIVERGED, spent=end.grad_evals)

    def _paused(self) -> Report | None:
        stopping = self._place.stop_asked()
        if self._workers is not None:
            stopping = self._workers.same(stopping)
        self._checkpoint()
        if not stopping:
            return None
        self._place.settle()
        return self._ended(State.INTERRUPTED, self._own(self.training.optimizer.grad_evals), self._last)

    def _heard(self, point: Point) -> Report | None:
        """Log the evaluation; a report when one is due."""
        now = time.perf_counter()
        if self.job.metric not in point.metrics:
            raise MetricMissing(self.job, point.metrics)
        point.metrics.update(gpu_memory.peak(self.job.gpu))
        self._points.append(self._log.append(point.grad_evals, point.metrics))
        self._last = point.metrics
        due = now - self._told >= self.job.slice_s or len(self._points) in self.job.rungs
        if not due or self.training.finished:
            return self._at_rest()
        self._count()
        self._told = now
        if now >= self._due and not self._place.busy():
            self._checkpoint()
        if len(self._points) in self.job.rungs:
            self._place.logged()
        return Report(
            trial_id=self.job.trial_id,
            grad_evals=self._own(point.grad_evals),
            metrics=point.metrics,
            seconds=self._seconds,
            evaluation=len(self._points),
            durable=self._place.durable,
            checkpoint_s=self._every,
        )

    def _own(self, grad_evals: float) -> float:
        """The part of `grad_evals` spent by this trial itself."""
        return max(0.0, float(grad_evals) - self.job.inherited)

    def _count(self) -> None:
        """Add the time since the last call to the trial's own; in a pack, the time is added by `spend`."""
        now = time.perf_counter()
        if self.pack is not None:
            self._since = now
            return
        self._seconds, self._since = self._seconds + now - self._since, now

    def _checkpoint(self) -> None:
        self._watchdog.stop()
        self._place.settle()
        self._count()
        durable = self._points[-1].step if self._points else -1.0
        training = self.pack.state() if self.pack is not None else self.training.state()
        saved = {"training": training, "seconds": self._seconds, "durable": durable}
        saved["trial"] = self.job.trial_id
        limit = self.job.checkpoint_quota
        quota = checkpoint.Quota(self._folder.parent, limit) if limit is not None else None
        self._log.sync()
        try:
            if checkpoint.save(saved, self._folder, quota=quota) is not None:
                self._place.saved(durable)
        except checkpoint.Unreadable as unreadable:
            if self.job.until:  # another trial continues from it
                raise
            warnings.warn(
                f"{self.job.trial_id} cannot write checkpoints: {unreadable}; if interrupted, it starts over",
                stacklevel=2,
            )
            self._due = math.inf
            return
        together = self.pack.size if self.pack is not None else 1  # all of them wait while one writes
        interval = max(self.job.checkpoint_s, together * (time.perf_counter() - self._since) / CHECKPOINT_SHARE)
        self._due = self._since + interval
        self._every = max(interval, self._place.upload_s)

    def _finish(self, state: State, *, spent: float | None = None, error: str = "") -> Report:
        self._count()
        training, metrics = self._training, dict(self._last)
        if spent is None:
            spent = training.optimizer.grad_evals if training is not None else 0.0
        self._printed.flush()
        value: float | None = None
        if state is State.DIVERGED:
            metrics.update({name: m.worst for name, m in self._task_metrics.items()})
            value = metrics[self.job.metric]
        elif state is State.COMPLETE:
            values = [p.metrics[self.job.metric] for p in self._points]
            value = self.job.goal.best(values) if self.job.select == "best" else values[-1]
            if not math.isfinite(value):
                return self._finish(State.DIVERGED, spent=spent)
        result = Result(
            state=state,
            value=value,
            metrics=metrics,
            grad_evals=self._own(spent),
            seconds=round(self._seconds, 4),
            init_digest=getattr(training, "init_digest", ""),
            data_digest=getattr(training, "data_digest", ""),
            error=error,
            last_lines=last_lines(str(self._folder)) if state is State.FAILED else "",
            facts=self._facts,
            code=self._code,
            changed=self._ambient.found(),
        )
        self._write(result)
        if self._address and state.is_trained and source.unchanged((self.job.task, self.job.optimizer)):
            cache.remember(self._address, self.job, self._folder)
        return self._ended(state, result.grad_evals, metrics)

    def _ended(self, state: State, grad_evals: float, metrics: dict[str, float]) -> Report:
        self.close()
        return Report(
            trial_id=self.job.trial_id,
            grad_evals=grad_evals,
            metrics=metrics,
            seconds=self._seconds,
            durable=self._place.durable if state.is_resumable else math.inf,
            done=True,
            state=state,
        )


def warm_up(job: Job) -> None:
    """Do once per worker what every trial needs: imports and loading the task's data."""
    built.build(job.task, job.task_parameters).batch(job.seed, 0)
