"""What Tune is given: trials by and by, decisions on running ones, and the experiment itself."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.callback import Callback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.executors.base import Conductor
from orchestrator.executors.ray_faults import Attempts, every_system_error_is_a_death, kept_error
from orchestrator.executors.ray_forget import forget_ended
from orchestrator.executors.ray_grow import next_waiting
from orchestrator.executors.ray_ready import keep_free_workers, take_ready_workers
from orchestrator.executors.ray_trial import Trainable
from orchestrator.trial.job import Job, Report

CALM = 10
"""Trials that end after a memory kill before one more runs at a time again."""


class _Source(Searcher):  # type: ignore[misc]
    """Hands the conductor's jobs to Tune: as many as there are actors, while the next one is already decided.

    A worker that becomes free gets that one without waiting for the search. Tune itself would ask Ray for an actor for
    a trial in waiting, and take that back when the next worker is free.
    """

    def __init__(self, conductor: Conductor, actors: int, barrier: str, gpu: float, attempts: Attempts) -> None:
        super().__init__()
        self._gpu = gpu
        self._conductor, self._actors, self._barrier = conductor, actors, barrier
        self._most = actors
        self._open: dict[str, Job] = {}
        self._again: deque[Job] = deque()
        self._ahead: Job | None = None
        self._handed_out = False
        self._attempts = attempts
        self._memory_kill, self._calm = "", 0
        self.ends: deque[Report] = deque()
        """Last reports that the conductor has not been told yet: the worker's next trial goes first."""
        self.errors: dict[str, Exception | str | None] = {}
        """Tune's trial id -> why it failed, put here before `on_trial_complete`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its experiment to restore it; we never do

    def suggest(self, trial_id: str) -> Any:
        full = len(self._open) >= self._most
        if full and self._handed_out:
            self._handed_out = False  # that one starts first
            return None
        if full or self._ahead is None:
            self._decide()
        if full:
            return None
        job, self._ahead = self._ahead, None
        if job is None:
            return Searcher.FINISHED if self._conductor.exhausted else None
        self._open[trial_id], self._handed_out = job, True
        return {"job": job, "actors": self._actors, "barrier": self._barrier, "gpu": self._gpu}

    def _decide(self) -> None:
        """Take in how trials ended, and see to it that the next one is known."""
        while self.ends:
            self._conductor.on_report(self.ends.popleft())
        self._ahead = self._ahead or (self._again.popleft() if self._again else self._conductor.next_job())

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        ours = self._open.pop(trial_id, None)
        if ours is None:
            return
        if not error:
            self._calm += 1
            if self._calm % CALM == 0:
                self._most = min(self._actors, self._most + 1)
            return
        fault, why = self._attempts.give_up(ours, self.errors.pop(trial_id, None))
        if fault.kind == "memory" and fault.says.splitlines()[0] != self._memory_kill:  # one event may take several
            self._memory_kill, self._calm = fault.says.splitlines()[0], 0
            self._most = max(1, self._most - 1)
        if why:
            self._conductor.on_lost(ours.trial_id, why)
        else:
            self._again.append(ours)

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        return None


class _Ends(Callback):  # type: ignore[misc]
    """Passes on a trial's last report, of which Tune's schedulers do not hear."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        report = result.get("report")
        if isinstance(report, Report) and report.done:
            self._source.ends.append(report)


class _Progress(FIFOScheduler):  # type: ignore[misc]
    """Passes on what running trials report, stops the ones that are not to go on, and notes why others failed."""

    def __init__(self, conductor: Conductor, source: _Source, *, local: bool, keep: int) -> None:
        super().__init__()
        self._conductor, self._source, self._local, self._keep = conductor, source, local, keep

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        controller = tune_controller._tune_controller
        forget_ended(controller)
        trial = next_waiting(controller)
        if trial is not None and self._local:
            take_ready_workers(controller, trial.get_trainable_cls())
        if trial is not None and self._keep:
            keep_free_workers(controller, trial.placement_group_factory, self._keep)
            self._keep = 0
        return trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report = result.get("report")
        stop = isinstance(report, Report) and not report.done and not self._conductor.on_report(report)
        return str(FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._source.errors[trial.trial_id] = kept_error(trial)


def fit(conductor: Conductor, bundles: list[dict[str, float]], *, scratch: Path, barrier: str, grows: bool) -> None:
    """Run the conductor's trials on as many workers as it has, each in a placement group of `bundles`.

    On a cluster that `grows` a free worker is given back, and its machine with it.
    """
    actors = conductor.workers
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(actors)
    sys.setswitchinterval(5e-4)  # the MLflow sender shares this process; a free worker must not wait for it
    source = _Source(conductor, actors, barrier, bundles[0].get("GPU", 0.0), Attempts(scratch))
    tuner = tune.Tuner(
        tune.with_resources(Trainable, tune.PlacementGroupFactory(bundles)),
        tune_config=tune.TuneConfig(
            scheduler=_Progress(conductor, source, local=bool(barrier), keep=0 if grows else actors),
            search_alg=source,
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=None,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(scratch),
            name="tune",
            verbose=0,
            callbacks=[_Ends(source)],
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
    with every_system_error_is_a_death():
        tuner.fit()
