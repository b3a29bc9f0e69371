"""Tune lets go of trials that ended, and of none still at work; `tests/bench/scale.py` weighs what that saves."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController
from ray.tune.experiment import Trial

from orchestrator.executors.ray_forget import KEEP, forget_ended

SETS = ("_stopped_trials", "_failed_trials", "_trials_to_cache")


def test_only_the_newest_ended_trials_are_kept() -> None:
    trials = [Trial("__fake", stub=True) for _ in range(3 * KEEP)]
    for number, trial in enumerate(trials):
        trial.status = Trial.RUNNING if number % 10 == 0 else Trial.ERROR if number % 7 == 0 else Trial.TERMINATED
    closing = trials[1]  # ended, and its actor still has to go
    sets = {name: set(trials) for name in SETS}
    controller = SimpleNamespace(_trials=list(trials), _trial_to_actor={closing: "actor"}, **sets)
    forget_ended(controller)
    at_work = [t for t in trials[:-KEEP] if t.status == Trial.RUNNING or t is closing]
    assert controller._trials == [*at_work, *trials[-KEEP:]]
    assert all(kept == set(controller._trials) for kept in sets.values())
    before = list(controller._trials)
    forget_ended(controller)
    assert controller._trials == before


def test_tunes_controller_still_has_what_is_trimmed() -> None:
    """Names inside Ray, which no promise covers."""
    source = inspect.getsource(TuneController.__init__)
    for name in ("_trials", "_trial_to_actor", *SETS):
        assert f"self.{name}" in source
    assert "self._tune_controller" in inspect.getsource(TrialRunnerWrapper.__init__)
