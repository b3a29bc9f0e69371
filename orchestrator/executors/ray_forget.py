"""Lets Ray Tune forget trials that ended.

Tune keeps every trial of an experiment, about 30 KB each, writes all of them into a last snapshot that nobody reads
here, and looks for the result files of each: at 10 000 trials 300 MB and minutes. What a trial brought is in its folder
and the study, so only the newest are left to Tune. It reaches into Tune's controller; a test counts what is kept.
"""

from __future__ import annotations

from typing import Any

from ray.tune.progress_reporter import TrialProgressCallback

KEEP = 10


def forget_ended(controller: Any) -> None:
    """Let go of ended trials of a `TuneController`, all but the KEEP newest."""
    trials = controller._trials
    if len(trials) < 2 * KEEP:
        return
    gone = {t for t in trials[:-KEEP] if t.is_finished() and t not in controller._trial_to_actor}
    trials[:] = [t for t in trials if t not in gone]
    for kept in (controller._stopped_trials, controller._failed_trials, controller._trials_to_cache):
        kept -= gone
    for progress in (c for c in controller._callbacks._callbacks if isinstance(c, TrialProgressCallback)):
        for trial in gone:
            for named in (progress._last_print, progress._last_print_iteration, progress._last_result_str):
                named.pop(trial, None)
        progress._completed_trials -= gone
    manager = controller._actor_manager  # it keeps the word to stop that was meant for an actor that never came
    unsaid = manager._pending_actors_to_enqueued_actor_tasks
    for actor in [a for a in unsaid if a not in manager._pending_actors_to_attrs]:
        del unsaid[actor]
