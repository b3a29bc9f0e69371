"""The Ray Tune class trainable that runs trials, or packs of trials, one after another in a long-lived worker."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray

_collects = gc.isenabled()
gc.disable()  # as in `setup`: this import is the first half of what a worker imports
from ray import tune  # noqa: E402

if _collects:
    gc.enable()

if TYPE_CHECKING:
    from orchestrator.executors.ray_worker_group import RayWorkerGroup
    from orchestrator.trial.job import Job


class Trainable(tune.Trainable):  # type: ignore[misc]
    """Holds the trials of a long-lived worker; the first step reports that it is up."""

    def setup(self, config: dict[str, Any]) -> None:
        """Once per worker, before its first trial. Everything that trials need is imported here, including torch."""
        gc.disable()  # imports create no garbage; collection would take a quarter of their time
        from orchestrator.executors.ray_worker_group import RayWorkerGroup, import_from
        from orchestrator.trial import by_value, termination
        from orchestrator.trial.crew import Crew
        from orchestrator.trial.sessions import warm_up

        termination.heed()  # workers of a lost driver get a SIGTERM, which Ray turns into a SystemExit
        import_from(config["places"])
        by_value.loads(config["carried"])
        with contextlib.suppress(Exception):  # a trial that cannot begin reports it itself
            warm_up(config["warm_up"])
        gc.freeze()
        gc.enable()
        self._gather = RayWorkerGroup
        self._workers: RayWorkerGroup | None = None
        self._crew = Crew(own_process=True)
        self._gpu: float = config["gpu"]
        self._places: Sequence[str] = config["places"]
        self.reset_config(config)

    def _group(self, job: Job) -> RayWorkerGroup | None:
        if job.processes == 1:
            return None
        if self._workers is None:
            self._workers = self._gather(cpu=job.threads, gpu=self._gpu, places=self._places)
        return self._workers

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Switch to other trials; those that it has and keeps continue."""
        self._jobs: list[Job] = new_config["jobs"]
        self._crew.turn_to(self._jobs)
        return True

    def step(self) -> dict[str, Any]:
        """Train a slice and report. Ended trials are released at once: another worker may continue with them."""
        if not self._jobs:
            return {"reports": None, "actor_id": ray.get_runtime_context().get_actor_id()}
        host = ray.util.get_node_ip_address() if self._jobs[0].processes > 1 else ""
        return {"reports": self._crew.advance(group=self._group(self._jobs[0]), host=host)}

    def cleanup(self) -> None:
        """Release the trials."""
        self._crew.close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: trials keep their own."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: trials find their own."""
