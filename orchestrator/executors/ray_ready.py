"""Lets trials begin in worker processes that are there, so that none is started twice. A test counts the processes.

Tune gives its actors environment variables, which a local worker has inherited from the driver anyway. An actor with
variables of its own needs a new process, and another one that makes it: half a second of CPU for each worker. And of
workers that are free while there is no trial for them, as long as strict replay, a population or a race waits for
another trial, Tune keeps one and ends the others. Both reach into Tune's controller.
"""

from __future__ import annotations

from typing import Any

import ray


def take_ready_workers(controller: Any, trainable: type) -> None:
    """Have a `TuneController` make actors of `trainable` that have no variables of their own."""
    made = controller._class_cache._cache
    if trainable not in made:
        made[trainable] = ray.remote(trainable)


def keep_free_workers(controller: Any, resources: Any, count: int) -> None:
    """Have a `TuneController` keep `count` free workers with these resources until it ends."""
    kept = controller._actor_cache
    kept.increase_max(resources, max(0, count - kept._max_num_objects[resources]))
