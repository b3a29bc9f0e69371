"""Lets a worker that is starting up come to its trial, so that a cluster which grows is used as it grows.

Tune gives a free worker to the oldest trial that waits, and gives up the worker that was starting for that trial. Where
trials are shorter than the start of a worker, the first worker of a cluster then trains them all, one after another. It
reaches into Tune's controller; a test watches a cluster grow.
"""

from __future__ import annotations

from typing import Any


def next_waiting(controller: Any) -> Any | None:
    """The oldest waiting trial of a `TuneController` for which no worker is starting up."""
    started = controller._actor_manager._live_actors_to_ray_actors_resources  # or starting: they have their resources
    for trial in controller._trials:
        if trial.status == "PENDING" and controller._trial_to_actor.get(trial) not in started:
            return trial
    return None
