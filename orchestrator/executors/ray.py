"""Trials on Ray Tune: a class trainable on reused actors. Ray is imported only in this folder.

How Tune's cost per trial is kept near 10 ms of CPU instead of seconds:

- actors are reused (`reset_config`), so a trial pays for neither a process start nor imports;
- Tune has one trial for each worker, not for each trial of the sweep: it holds 2 of them, not 10,000, keeps its
  workers, and takes none back that is starting up;
- the next trial is chosen while others run, and is handed over before the result of the last one is processed
  (`dispatcher`);
- Tune's own loggers, snapshots and checkpoints are off: the study and the trial folders are the source of truth.

A worker that dies fails its Tune trial at once; the same job is then handed out again (for the limits see `ray_faults`)
and continues from its newest checkpoint. Tune's own retries give up a trial whose worker dies before its first step.
After a memory kill one trial fewer runs at a time for a while, so that trials that do not fit side by side still
finish.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RuntimeEnvSetupError

from orchestrator.executors.base import Conductor
from orchestrator.executors.ray_cluster import RayCluster
from orchestrator.executors.ray_environment import runtime_env
from orchestrator.executors.ray_nodes import make_environment, missing_parts, without_file
from orchestrator.remote import Parcel
from orchestrator.storage.errors import Unreachable
from orchestrator.trial.workspace import NotShared

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable in the driver of a submitted job, whose environment its workers share."""


class RayExecutor:
    """Ray Tune on a private local cluster, or on the cluster at `address`, which receives `parcel` and `requirements`.

    Inside a job that was submitted with them they are already there.

    `cpu` is per process of a trial (`processes`), `gpu` is for all of them together. `carried` are tasks and optimizers
    that workers cannot import (`by_value`). `cluster` is a private cluster started ahead; it is shut down if it does
    not fit the sweep.
    """

    def __init__(
        self,
        *,
        cpu: int = 1,
        gpu: float = 0.0,
        processes: int = 1,
        max_concurrent: int | None = None,
        address: str | None = None,
        parcel: Parcel | None = None,
        requirements: Sequence[str] = (),
        carried: bytes = b"",
        cluster: RayCluster | None = None,
    ) -> None:
        self._sent: dict[str, Any] = runtime_env(parcel, () if SUBMITTED in os.environ else requirements)
        self._carried = carried
        self._bundles: list[dict[str, float]]
        self._bundles = [{"CPU": cpu, "GPU": gpu / processes} if gpu else {"CPU": cpu}] * processes
        self._cpu, self._gpu, self._max, self._address = cpu * processes, gpu, max_concurrent, address
        self._grows = bool(address and max_concurrent)  # an autoscaling cluster adds workers on request
        self._made = False
        if cluster is not None and (address or not cluster.fits(self._cpu, max_concurrent)):
            cluster.close()
            cluster = None
        self._cluster = cluster or RayCluster(
            cpu=self._cpu, max_concurrent=max_concurrent, address=address, sent=self._sent
        )

    def run(self, conductor: Conductor) -> None:
        """Run all trials; Ray is shut down afterwards in any case."""
        conductor.on_workers(0)
        try:
            from orchestrator.executors.ray_tune import fit  # takes half a second, while Ray starts

            self.ready()
            _own_sigterm()
            conductor.workers = self._actors(conductor)
            places = () if self._address else tuple(sys.path)
            fit(
                conductor,
                self._bundles,
                scratch=self._cluster.scratch,
                local=not self._address,
                grows=self._grows,
                places=places,
                carried=self._carried,
            )
        finally:
            self.close()

    def ready(self) -> None:
        """Return once Ray answers. Raises Unreachable if it does not start."""
        self._cluster.ready()

    def look_for(self, folder: Path) -> None:
        """Raises NotShared if a machine of the cluster does not see the sweep folder. Machines added later report it
        themselves.
        """
        self._make_environment()
        if self._address and (machines := without_file(folder / "resolved.json")):
            self.close()
            raise NotShared.of(folder, ", ".join(machines))

    def look_for_parts(self, modules: Sequence[str], files: Sequence[str]) -> None:
        """Raises NotShared, before anything has started, for what a machine's workers cannot find."""
        self._make_environment()
        if not self._address or not (modules or files):
            return
        with self._environment_made():
            found = missing_parts(modules, files)
        if found:
            self.close()
            parts = "; ".join(f"{name} on {', '.join(sorted(set(where)))}" for name, where in sorted(found.items()))
            raise NotShared(
                f"workers would miss {parts}: list packages in environment.requirements or install them there; put "
                "files next to the sweep file or in a folder that every machine mounts"
            )

    def _make_environment(self) -> None:
        """Let every machine install the requirements before anything starts. Raises Unreachable."""
        self.ready()
        if "pip" in self._sent and self._address and not self._made:
            with self._environment_made():
                make_environment()
            self._made = True

    @contextlib.contextmanager
    def _environment_made(self) -> Iterator[None]:
        try:
            yield
        except RuntimeEnvSetupError as error:
            self.close()
            raise Unreachable(f"the cluster cannot set up the trials' environment: {_why(error)}") from None

    def close(self) -> None:
        """Shut down Ray (see `RayCluster.close`)."""
        self._cluster.close()

    def _actors(self, conductor: Conductor) -> int:
        """How many workers the cluster has room for and the sweep has trials for."""
        cluster = ray.cluster_resources()
        slots = max(1, int(cluster.get("CPU", 1) // self._cpu))
        if self._gpu:
            slots = min(slots, int(cluster.get("GPU", 0) / self._gpu))
            if slots < 1 and not self._grows:
                raise Unreachable(f"a trial needs {self._gpu} GPU; this cluster has {cluster.get('GPU', 0)}")
        if self._grows:
            slots = max(slots, self._max or 1)
        return max(1, min(slots, self._max or slots, conductor.remaining))


def _why(error: Exception) -> str:
    """The error printed by pip, or the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = dict.fromkeys(line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
    return "; ".join(said) or lines[-1]


def _own_sigterm() -> None:
    """Restore the caller's SIGTERM handler in place of Ray's, whose alarm aborts the process 3 s later."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def probe() -> str:
    """Start a private Ray cluster of one CPU, run one task, end it. For `geosweep doctor`."""
    executor = RayExecutor(max_concurrent=1)
    try:
        executor.ready()
        answer: int = ray.get(ray.remote(num_cpus=1)(lambda: 41 + 1).remote(), timeout=60)
        return f"a local cluster ran a task and answered {answer}"
    finally:
        executor.close()
