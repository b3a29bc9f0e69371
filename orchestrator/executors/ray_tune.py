"""The Tune side: one Tune trial per worker process, which takes one trial, or pack, of the sweep after another.

Tune starts the workers in their placement groups, runs their steps, detects dead ones and starts others. What a worker
trains is decided by the `Dispatcher`. A worker is switched to its next trial in the way population based training does
it: its Tune trial is paused without a checkpoint, given another configuration and chosen to run, and Tune resets the
actor.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.executors.base import Conductor
from orchestrator.executors.dispatcher import Dispatcher
from orchestrator.executors.ray_faults import WorkerLost
from orchestrator.executors.ray_private import every_system_error_is_a_death, workers_without_variables
from orchestrator.executors.ray_trial import Trainable

SWITCH_S = 5e-4
"""Seconds between thread switches: the MLflow sender shares this process, and a free worker must not wait for it."""


class Silent(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of Tune's own, which prints the end of some workers on standard output even at verbosity 0."""

    def _print(self, msg: str) -> None:
        return None


class _Workers(Searcher):  # type: ignore[misc]
    """Requests workers from Tune."""

    def __init__(self, dispatcher: Dispatcher, gpu: float, places: Sequence[str], carried: bytes) -> None:
        super().__init__()
        self._dispatcher, self._gpu, self._given = dispatcher, gpu, {"places": places, "carried": carried}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its experiment so that it can be restored; we never restore it

    def suggest(self, trial_id: str) -> Any:
        job = self._dispatcher.wanted()
        if job is None:
            return Searcher.FINISHED if self._dispatcher.exhausted else None
        self._dispatcher.ask(trial_id)
        return {"jobs": [], "warm_up": job, "gpu": self._gpu, **self._given}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        return None

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        return None


class _Turns(FIFOScheduler):  # type: ignore[misc]
    """Switches free workers to their next trial, forwards trial reports, and records which workers died."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._dispatcher = dispatcher
        self._workers: dict[str, Any] = {}
        self._actors: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._workers[trial.trial_id] = trial

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        found = self._dispatcher.assign()
        if found is None:
            for worker in self._dispatcher.dismiss():
                trial = self._workers.pop(worker)
                trial.init_local_path()  # Tune expects one for every trial at the end, even for those it never started
                tune_controller.stop_trial(trial)
            return None
        worker, jobs = found
        trial = self._workers[worker]
        trial.set_config({**trial.config, "jobs": jobs, "warm_up": jobs[0]})
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["reports"] is None:
            self._actors[trial.trial_id] = result["actor_id"]
            self._dispatcher.arrive(trial.trial_id)
        elif self._dispatcher.hear(trial.trial_id, result["reports"]):
            return str(FIFOScheduler.CONTINUE)
        return str(FIFOScheduler.NOOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        if self._workers.pop(trial.trial_id, None) is None:
            return
        error = _error_of(trial)
        if isinstance(error, WorkerLost):
            error.actor_id = self._actors.pop(trial.trial_id, None)
        self._dispatcher.lose(trial.trial_id, error)


def fit(
    conductor: Conductor,
    bundles: list[dict[str, float]],
    *,
    scratch: Path,
    local: bool,
    grows: bool,
    places: Sequence[str] = (),
    carried: bytes = b"",
) -> None:
    """Run the conductor's trials on as many workers as it has, each in a placement group of `bundles`.

    `places`: additional folders of this machine from which the workers import. `carried`: tasks and optimizers that
    they cannot import (`by_value`). On a cluster that `grows`, an idle worker is released after a while, and its
    machine with it.
    """
    dispatcher = Dispatcher(conductor, scratch, grows=grows)
    tuner = tune.Tuner(
        tune.with_resources(Trainable, tune.PlacementGroupFactory(bundles)),
        tune_config=tune.TuneConfig(
            scheduler=_Turns(dispatcher),
            search_alg=_Workers(dispatcher, bundles[0].get("GPU", 0.0), places, carried),
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=conductor.workers,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(scratch),
            name="tune",
            verbose=0,
            callbacks=[Silent()],
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
    with every_system_error_is_a_death(), workers_without_variables(local), _switching_often():
        tuner.fit()


def _error_of(trial: Any) -> Exception | str | None:
    """Why a worker died. Tune's own accessors look in a place to which the error has not been copied yet."""
    if not trial.pickled_error_file or not Path(trial.pickled_error_file).exists():
        return Path(trial.error_file).read_text(errors="replace") if trial.error_file else None
    error: Exception = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
