"""All that is used of Ray beyond its public interface (Ray 2.60); nothing else in this package may.

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
"""Seconds after which a driver whose private Ray was killed ends: no one will start that again."""


def private_cluster(scratch: Path) -> dict[str, Any]:
    """Arguments of `ray.init` for a cluster that is this driver's alone.

    `_temp_dir`: sessions are told apart and removed by their folder. Ray 1.0 took `temp_dir` back and documents this
    (https://github.com/ray-project/ray/issues/11556); the variable RAY_TMPDIR would move what trials start, too.
    `_system_config`: no public argument says how long a driver waits for a Ray that is gone, 60 s by itself; the
    variable of that name would hold for all clusters. (A raylet reads neither in time, which does no harm here:
    https://github.com/ray-project/ray/issues/62074.)
    """
    return {"_temp_dir": str(scratch), "_system_config": {"gcs_rpc_server_reconnect_timeout_s": LOST_RAY_S}}


class OwnPlaces(JobConfig):  # type: ignore[misc]
    """Workers import from where their Python does, and from our installation.

    `ray.init` would have them look in the folder of the script and in the current one before the standard library, so
    that a `statistics.py` there takes its place, or a package called like one of ours. The driver's own places are
    sent with each worker's first trial. Setting PYTHONPATH, which is public, cannot take those two out.
    """

    @property
    def _py_driver_sys_path(self) -> list[str]:
        found = [str(places.INSTALLED)]
        return [] if found[0] in sysconfig.get_paths().values() else found

    @_py_driver_sys_path.setter
    def _py_driver_sys_path(self, value: list[str]) -> None:
        """Nothing: what `ray.init` adds goes into a list that nobody keeps."""


@contextmanager
def every_system_error_is_a_death() -> Iterator[None]:
    """Inside, Tune takes each system error for what it is: the end of one worker.

    Its actor manager knows RayActorError and RayTaskError and ends the whole experiment at anything else, such as the
    OutOfMemoryError of a memory kill: 3 of 3 sweeps ended by one, and restored they end again. The public ways cost
    more: with Ray's memory monitor off the kernel kills what it likes, on Kubernetes the whole Pod; a new experiment
    after each kill takes all other workers with it. We know of no issue at Ray's that tells of it.
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
    """Inside, if `wanted`, Tune's actors ask for no environment variables, which local workers have inherited anyway.

    An actor with variables of its own does not take a worker that Ray has ready: another is started beside it, 4
    processes instead of 2, and 0.8 s more CPU for each worker. Tune has no argument for it
    (https://github.com/ray-project/ray/issues/47215), and giving the whole job the same variables, which is the public
    way, starts as many (`tests/bench/results/ray_public_api.txt`).
    """
    from ray.tune.execution import class_cache

    kept = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    if wanted:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = kept
