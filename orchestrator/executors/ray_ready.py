"""Lets trials of a local Ray begin in the worker processes that it starts ahead, so that none is started twice.

Tune gives its actors environment variables, which a local worker has inherited from the driver anyway. An actor with
variables of its own needs a new process, and another one that makes it: half a second of CPU for each worker. It
reaches into Tune's controller; a test counts the processes.
"""

from __future__ import annotations

from typing import Any

import ray


def take_ready_workers(controller: Any, trainable: type) -> None:
    """Have a `TuneController` make actors of `trainable` that have no variables of their own."""
    made = controller._class_cache._cache
    if trainable not in made:
        made[trainable] = ray.remote(trainable)
