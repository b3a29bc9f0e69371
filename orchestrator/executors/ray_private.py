"""Everything that uses non-public parts of Ray (Ray 2.60); nothing else in this package may.

`tests/orchestrator/test_ray_private.py` fails, and says what to do, when Ray changes any of it.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.job_config import JobConfig

from orchestrator.definition import places
from orchestrator.executors.ray_faults import WorkerLost

LOST_RAY_S = 10
"""Seconds before a driver exits once its private Ray was killed: nothing restarts it."""


def private_cluster(scratch: Path) -> dict[str, Any]:
    """Arguments of `ray.init` for a cluster private to this driver.

    `_temp_dir`: sessions are identified and removed by their folder. Ray 1.0 withdrew `temp_dir` and documents this
    (https://github.com/ray-project/ray/issues/11556); the variable RAY_TMPDIR would also move what trials start.
    `_system_config`: no public argument sets how long a driver waits for a Ray that is gone (60 s by default); the
    environment variable would apply to all clusters. (A raylet reads neither in time, which does no harm here:
    https://github.com/ray-project/ray/issues/62074.)
    """
    return {"_temp_dir": str(scratch), "_system_config": {"gcs_rpc_server_reconnect_timeout_s": LOST_RAY_S}}


class OwnPlaces(JobConfig):  # type: ignore[misc]
    """Let workers import from their Python's usual places and from our installation.

    `ray.init` would add the script's folder and the current one before the standard library, so a `statistics.py`
    there, or a package named like one of ours, would shadow it. The driver's own places are sent with each worker's
    first trial. Setting PYTHONPATH, which is public, cannot remove those two folders.
    """

    @property
    def _py_driver_sys_path(self) -> list[str]:
        found = [str(places.INSTALLED)]
        return [] if found[0] in sysconfig.get_paths().values() else found

    @_py_driver_sys_path.setter
    def _py_driver_sys_path(self, value: list[str]) -> None:
        """Ignored: this discards what `ray.init` adds."""


@contextmanager
def every_system_error_is_a_death() -> Iterator[None]:
    """Within this context, Tune treats each system error as the end of one worker.

    Tune's actor manager knows RayActorError and RayTaskError and ends the whole experiment on anything else, such as
    the OutOfMemoryError of a memory kill: 3 of 3 sweeps ended that way, and ended again when restored. The public
    alternatives cost more: with Ray's memory monitor off, the kernel kills arbitrary processes, on Kubernetes the whole
    Pod; a new experiment after each kill restarts all other workers. We know of no Ray issue about this.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    plain: Callable[[Any, Any, Exception], None] = RayActorManager._actor_task_failed

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, (RayActorError, RayTaskError)):
            exception = WorkerLost(error_msg=str(exception))
        plain(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = plain


@contextmanager
def workers_without_variables(wanted: bool = True) -> Iterator[None]:
    """Within this context, if `wanted`, Tune's actors set no environment variables; local workers have inherited them
    anyway.

    An actor with environment variables cannot use a worker that Ray has ready: another one is started next to it, 4
    processes instead of 2, and 0.8 s more CPU per worker. Tune has no argument for it
    (https://github.com/ray-project/ray/issues/47215), and the public way, giving the whole job the same variables,
    starts as many (`tests/bench/results/ray_public_api.txt`).
    """
    from ray.tune.execution import class_cache

    kept = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    if wanted:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = kept
