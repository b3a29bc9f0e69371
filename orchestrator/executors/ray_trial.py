"""The class trainable of Ray Tune in which trials run, one after another in a long-lived worker."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

if TYPE_CHECKING:
    from orchestrator.executors.ray_worker_group import RayWorkerGroup
    from orchestrator.trial.job import Job
    from orchestrator.trial.sessions import Session


class Trainable(tune.Trainable):  # type: ignore[misc]
    """Holds one trial's session after another in a long-lived worker; the first step says that it is there."""

    def setup(self, config: dict[str, Any]) -> None:
        """Once in a worker, before its first trial. All that trials need is imported here, torch with it."""
        gc.disable()  # nothing that imports make is garbage; looking for it is a quarter of their time
        from orchestrator.executors.ray_worker_group import RayWorkerGroup, import_from
        from orchestrator.trial import by_value, termination
        from orchestrator.trial.sessions import session_of, warm_up

        termination.heed()  # a lost driver's workers get a SIGTERM, which Ray turns into a SystemExit
        import_from(config["places"])
        by_value.loads(config["carried"])
        with contextlib.suppress(Exception):  # a trial that cannot begin says so itself
            warm_up(config["warm_up"])
        gc.freeze()
        gc.enable()
        self._open, self._gather = session_of, RayWorkerGroup
        self._workers: RayWorkerGroup | None = None
        self._session: Session | None = None
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
        """Turn to the next trial."""
        self._close()
        self._job: Job | None = new_config["job"]
        return True

    def step(self) -> dict[str, Any]:
        """Train a slice and report."""
        if self._job is None:
            return {"report": None, "actor_id": ray.get_runtime_context().get_actor_id()}
        if self._session is None:
            host = ray.util.get_node_ip_address() if self._job.processes > 1 else ""
            self._session = self._open(self._job, own_process=True, group=self._group(self._job), host=host)
        report = self._session.advance()
        if report.done:
            self._close()  # the worker may have no other trial for long, and another one may go on with this one
        return {"report": report}

    def cleanup(self) -> None:
        """Let go of the trial."""
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: trials keep their own."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: trials find their own."""

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
