"""What every tracker promises (`tracking.base`): it is told everything in any order, and never raises."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator import results, runner
from orchestrator.definition.states import SweepState
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import Tracker
from tests.contracts.executor_contract import open_sweep

Make = Callable[[SweepFolder], Tracker]


def check_a_sweep_is_followed_to_its_end(make: Make, folder: SweepFolder) -> None:
    """Nothing to complain of; another driver's tracker that finds the sweep done has nothing to mend."""
    spec, folder = open_sweep(folder.root)
    first = make(folder)
    with folder.hold():
        assert runner.run(spec, folder, DebugExecutor(), first).state == "done"
    assert (first.trouble, first.repaired) == ("", [])
    second = make(folder)
    second.check(lambda: results.ended_trials(folder))
    second.finish(SweepState.DONE, {}, {})
    assert (second.trouble, second.repaired) == ("", [])


def check_it_takes_what_comes_late_or_twice(make: Make, folder: SweepFolder) -> None:
    """Ends before starts, ends again, a finish before anything: as after a driver that was killed."""
    ended = results.ended_trials(folder)
    tracker = make(folder)
    for trial in (*ended[:2], *ended[:2]):
        tracker.on_recover(trial.job, trial.result)
        tracker.on_end(trial.job, trial.result)
        tracker.on_start(trial.job)
    tracker.check(lambda: ended)
    tracker.finish(SweepState.STOPPED, {"sgd": {"loss/val/mean": 0.5}}, {"sgd": {"lr": 0.1}})
    assert tracker.trouble == ""


def check_it_recalls_points_or_nothing(make: Make, folder: SweepFolder) -> None:
    """Of a trial it never heard of, nothing; of another, what it logged."""
    tracker = make(folder)
    assert tracker.recall("nobody-0000-s0") == []
    steps = [point.step for point in tracker.recall(results.ended_trials(folder)[0].trial_id)]
    assert steps == sorted(steps)
    tracker.finish(SweepState.DONE, {}, {})
