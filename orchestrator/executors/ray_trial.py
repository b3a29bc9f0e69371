"""The class trainable of Ray Tune in which trials run, one after another in a long-lived worker."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune

from orchestrator.executors.ray_worker_group import RayWorkerGroup
from orchestrator.trial.job import Job
from orchestrator.trial.session import TrialSession, warm_up

START_BARRIER_S = 60.0


class Trainable(tune.Trainable):  # type: ignore[misc]
    """Holds one `TrialSession` after another in a long-lived worker."""

    def setup(self, config: dict[str, Any]) -> None:
        """Once in a worker, before its first trial."""
        gc.disable()  # nothing that imports make is garbage; looking for it is a quarter of their time
        with contextlib.suppress(Exception):  # a trial that cannot begin says so itself
            warm_up(config["job"])
        gc.freeze()
        gc.enable()
        self._worker_group: RayWorkerGroup | None = None
        self._gpu: float = config["gpu"]
        if config["barrier"]:
            _wait_for_all(Path(config["barrier"]), config["actors"])
        self.reset_config(config)

    def _group(self) -> RayWorkerGroup | None:
        if self._job.processes == 1:
            return None
        if self._worker_group is None:
            self._worker_group = RayWorkerGroup(cpu=self._job.threads, gpu=self._gpu)
        return self._worker_group

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turn to the next trial."""
        self._close()
        self._job: Job = new_config["job"]
        self._session: TrialSession | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train a slice and report."""
        if self._session is None:
            host = ray.util.get_node_ip_address() if self._job.processes > 1 else ""
            self._session = TrialSession(self._job, own_process=True, group=self._group(), host=host)
        report = self._session.advance()
        return {"report": report, "done": report.done}

    def cleanup(self) -> None:
        """Let go of the trial."""
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: trials keep their own."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: trials find their own."""

    def _close(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None:
            session.close()


def _wait_for_all(barrier: Path, actors: int) -> None:
    """Return once all actors of a local start are up (or after START_BARRIER_S)."""
    (barrier / str(os.getpid())).touch()
    deadline = time.monotonic() + START_BARRIER_S
    while len(os.listdir(barrier)) < actors and time.monotonic() < deadline:
        time.sleep(0.02)
