"""Tune lets go of trials that ended, and of none still at work; `tests/bench/scale.py` weighs what that saves."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.callback import CallbackList
from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback

from orchestrator.executors.ray_forget import KEEP, forget_ended

SETS = ("_stopped_trials", "_failed_trials", "_trials_to_cache")


def test_only_the_newest_ended_trials_are_kept() -> None:
    trials = [Trial("__fake", stub=True) for _ in range(3 * KEEP)]
    for number, trial in enumerate(trials):
        trial.status = Trial.RUNNING if number % 10 == 0 else Trial.ERROR if number % 7 == 0 else Trial.TERMINATED
    closing = trials[1]  # ended, and its actor still has to go
    sets = {name: set(trials) for name in SETS}
    progress = TrialProgressCallback()
    for trial in trials:
        progress.log_result(trial, {"done": True, "training_iteration": 1})
    manager = SimpleNamespace(
        _pending_actors_to_enqueued_actor_tasks={"withdrawn": ["stop"], "coming": ["train"]},
        _pending_actors_to_attrs={"coming": ()},
    )
    controller = SimpleNamespace(
        _trials=list(trials),
        _trial_to_actor={closing: "actor"},
        _actor_manager=manager,
        _callbacks=CallbackList([progress]),
        **sets,
    )
    forget_ended(controller)
    at_work = [t for t in trials[:-KEEP] if t.status == Trial.RUNNING or t is closing]
    assert controller._trials == [*at_work, *trials[-KEEP:]]
    assert all(kept == set(controller._trials) for kept in sets.values())
    assert list(manager._pending_actors_to_enqueued_actor_tasks) == ["coming"]
    gone = set(trials[:-KEEP]) - set(at_work)
    kept_by = [name for name, held in vars(progress).items() if isinstance(held, dict | set) and gone & set(held)]
    assert kept_by == []
    before = list(controller._trials)
    forget_ended(controller)
    assert controller._trials == before


def test_tunes_controller_still_has_what_is_trimmed() -> None:
    """Names inside Ray, which no promise covers."""
    source = inspect.getsource(TuneController.__init__)
    for name in ("_trials", "_trial_to_actor", "_actor_manager", "_callbacks", *SETS):
        assert f"self.{name}" in source
    source = inspect.getsource(RayActorManager.__init__)
    for name in ("_pending_actors_to_enqueued_actor_tasks", "_pending_actors_to_attrs"):
        assert f"self.{name}" in source
    assert "self._tune_controller" in inspect.getsource(TrialRunnerWrapper.__init__)
