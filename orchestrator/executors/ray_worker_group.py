"""The additional workers of a trial on Ray: one actor in each bundle of the trial's placement group except the first.

Bundle 0 holds worker 0, the trial's session in Tune's own actor. Like Tune's actor, these stay from trial to trial;
they die with it, since it owns them.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.definition import places
from orchestrator.trial import by_value
from orchestrator.trial.job import Job
from orchestrator.trial.worker_group import WorkerFailed, WorkerLost, follow

LAST_WORDS_S = 10.0


def import_from(folders: Sequence[str]) -> None:
    """Import with the driver's `sys.path`, followed by this process's own additions; empty: leave it unchanged."""
    places.ours_first()
    if folders:
        others = [one for one in sys.path if one not in folders and one != str(places.INSTALLED)]
        sys.path[:] = [*folders, *others]


class _Follower:
    """A worker in its own process."""

    def __init__(self, folders: Sequence[str]) -> None:
        import_from(folders)

    def follow(self, job: Job, rank: int, address: str, carried: bytes) -> str:
        """Returns a traceback, empty on success."""
        try:
            by_value.loads(carried)
            follow(job, rank, address)
        except Exception:
            return traceback.format_exc()
        return ""


class RayWorkerGroup:
    """See `orchestrator.trial.worker_group.WorkerGroup`. `cpu` and `gpu` are per worker."""

    def __init__(self, *, cpu: int, gpu: float, places: Sequence[str] = ()) -> None:
        self._places = places
        self._resources = {"num_cpus": cpu, "num_gpus": gpu, "max_restarts": 0}
        self._actors: list[Any] = []
        self._calls: list[Any] = []

    def start(self, job: Job, address: str) -> None:
        """Let every actor follow worker 0 at `address`; they are created on first use."""
        group = ray.util.get_current_placement_group()
        for rank in range(len(self._actors) + 1, job.processes):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            made = ray.remote(_Follower).options(scheduling_strategy=place, **self._resources).remote(self._places)
            self._actors.append(made)
        carried = by_value.dumps((job.task, job.optimizer))
        self._calls = [a.follow.remote(job, rank, address, carried) for rank, a in enumerate(self._actors, start=1)]

    def trouble(self) -> None:
        """Raises WorkerFailed with a worker's traceback, WorkerLost for one whose process died."""
        ended, _ = (
            ray.wait(self._calls, num_returns=len(self._calls), timeout=LAST_WORDS_S) if self._calls else ([], [])
        )
        try:
            tracebacks = [said for said in ray.get(ended) if said]
        except RayError as error:  # it makes the others raise
            raise WorkerLost(f"a worker's process died: {error}") from None
        if tracebacks:
            raise WorkerFailed(tracebacks[0])

    def stop(self) -> None:
        """Keep actors that are done; end the others."""
        if not self._calls:
            return
        _, late = ray.wait(self._calls, num_returns=len(self._calls), timeout=1.0)
        if late or self._broken():
            for actor in self._actors:
                with contextlib.suppress(Exception):
                    ray.kill(actor)
            self._actors = []
        self._calls = []

    def _broken(self) -> bool:
        try:
            ray.get(self._calls)
        except RayError:
            return True
        return False
