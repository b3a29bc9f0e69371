"""Trials on Ray Tune: a class trainable on reused actors. Ray is imported in this folder only.

What keeps Tune's cost for a trial near 10 ms of CPU instead of seconds:

- actors are reused (`reset_config`), so that a trial pays neither a process start nor an import;
- Tune has one trial for each worker, not for each trial of the sweep, so that it holds 2 of them and not 10 000, keeps
  the workers it has, and takes none back that is starting up;
- the next trial is decided while others run, and is handed over before anything else is done with the end of the last
  one (`dispatcher`);
- Tune's own loggers, snapshots and checkpoints are off: the truth is in the study and the trial folders.

A worker that dies fails its trial in Tune at once; the same job is then handed out again (how often: `ray_faults`) and
goes on from its newest checkpoint. Tune's own retries give up a trial whose worker dies before its first step. After a
memory kill one trial fewer runs at a time for a while, so that trials which do not fit side by side still end.
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
from orchestrator.executors.ray_nodes import blind, lacking, make_environment
from orchestrator.remote import Parcel
from orchestrator.storage.errors import Unreachable
from orchestrator.trial.workspace import NotShared

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable of the driver of a submitted job, whose environment its workers have."""


class RayExecutor:
    """Ray Tune on a private local cluster, or on the cluster at `address`, to which `parcel` and `requirements` go.

    Inside a job that was submitted with them they are there already.

    `cpu` is for each of a trial's `processes`, `gpu` for all of them together. `carried` are tasks and optimizers that
    workers cannot import (`by_value`). `cluster`: a private one that was started ahead; it
    is ended where it is not the one that is asked for.
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
        self._grows = bool(address and max_concurrent)  # workers of an autoscaling cluster come when they are asked for
        self._made = False
        if cluster is not None and (address or not cluster.fits(self._cpu, max_concurrent)):
            cluster.close()
            cluster = None
        self._cluster = cluster or RayCluster(
            cpu=self._cpu, max_concurrent=max_concurrent, address=address, sent=self._sent
        )

    def run(self, conductor: Conductor) -> None:
        """Run all trials; Ray is shut down afterwards, whatever happens."""
        conductor.on_workers(0)
        try:
            from orchestrator.executors.ray_tune import fit  # half a second, while Ray starts

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
        """Return once Ray answers. Raises Unreachable when it does not start."""
        self._cluster.ready()

    def look_for(self, folder: Path) -> None:
        """Raises NotShared when a machine of the cluster has no such sweep folder. Later ones say so themselves."""
        self._make_environment()
        if self._address and (machines := blind(folder / "resolved.json")):
            self.close()
            raise NotShared.of(folder, ", ".join(machines))

    def look_for_parts(self, modules: Sequence[str], files: Sequence[str]) -> None:
        """Raises NotShared, before anything has started, for what a machine's workers do not find."""
        self._make_environment()
        if not self._address or not (modules or files):
            return
        with self._environment_made():
            found = lacking(modules, files)
        if found:
            self.close()
            parts = "; ".join(f"{name} on {', '.join(sorted(set(where)))}" for name, where in sorted(found.items()))
            raise NotShared(
                f"workers would miss {parts}: list a package in environment.requirements, or install it there; "
                "put a file beside the sweep file, or on a folder that every machine mounts"
            )

    def _make_environment(self) -> None:
        """Have every machine install the requirements, before anything has started. Raises Unreachable."""
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
            raise Unreachable(f"the cluster cannot make the environment of the trials: {_why(error)}") from None

    def close(self) -> None:
        """End Ray (see `RayCluster.close`)."""
        self._cluster.close()

    def _actors(self, conductor: Conductor) -> int:
        """How many workers the cluster has room, and the sweep has trials, for."""
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
    """What pip says, or the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = dict.fromkeys(line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
    return "; ".join(said) or lines[-1]


def _own_sigterm() -> None:
    """Put the caller's handler of SIGTERM back in the place of Ray's, whose alarm aborts the process 3 s after it."""
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
