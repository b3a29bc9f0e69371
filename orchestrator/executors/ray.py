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

import atexit
import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RuntimeEnvSetupError

from orchestrator.definition.errors import UsageError
from orchestrator.executors.base import Conductor
from orchestrator.executors.ray_environment import runtime_env
from orchestrator.executors.ray_nodes import blind, lacking, make_environment
from orchestrator.executors.ray_private import OwnPlaces, private_cluster
from orchestrator.executors.ray_start import begin, token
from orchestrator.remote import Parcel
from orchestrator.storage.errors import Unreachable
from orchestrator.storage.processors import usable
from orchestrator.trial.workspace import NotShared

PREFIX = "gs-"
SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable of the driver of a submitted job, whose environment its workers have."""


class RayExecutor:
    """Ray Tune on a private local cluster, or on the cluster at `address`, to which `parcel` and `requirements` go.

    Inside a job that was submitted with them they are there already.

    `cpu` is for each of a trial's `processes`, `gpu` for all of them together. `carried` are tasks and optimizers that
    workers cannot import (`by_value`).
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
    ) -> None:
        if ray.is_initialized():
            raise UsageError(
                "this process is connected to a Ray cluster already; end that with ray.shutdown(), or run with "
                "executor debug"
            )
        self._sent: dict[str, Any] = runtime_env(parcel, () if SUBMITTED in os.environ else requirements)
        self._carried = carried
        self._bundles: list[dict[str, float]]
        self._bundles = [{"CPU": cpu, "GPU": gpu / processes} if gpu else {"CPU": cpu}] * processes
        self._cpu, self._gpu, self._max, self._address = cpu * processes, gpu, max_concurrent, address
        self._grows = bool(address and max_concurrent)  # workers of an autoscaling cluster come when they are asked for
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
        self._error: BaseException | None = None
        self._left = self._made = False
        self._ready, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._start, daemon=True).start()

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
                scratch=self._scratch,
                local=not self._address,
                grows=self._grows,
                places=places,
                carried=self._carried,
            )
        finally:
            self.close()

    def ready(self) -> None:
        """Return once Ray answers. Raises Unreachable when it does not start."""
        self._ready.wait()
        if self._error is not None:
            raise Unreachable(f"Ray did not start: {self._error}") from self._error

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
        """End Ray and remove its scratch folder.

        Nobody who pressed Ctrl-C waits for a Ray that is still starting; it ends with its thread, or this process.
        """
        if self._left or (isinstance(sys.exc_info()[1], KeyboardInterrupt) and not self._ready.is_set()):
            self._left = True
            atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
            self._over.set()
            return
        self._ready.wait()
        _shut_down()
        self._over.set()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> None:
        """Start Ray while the caller reads and imports. The thread lives on: Ray's processes die with it."""
        _sweep_scratch()
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGHUP}
        )  # a closed terminal drains; Ray's processes inherit this
        local = {
            "num_cpus": self._slots() * self._cpu,
            "include_dashboard": False,
            "job_config": OwnPlaces(),
            **private_cluster(self._scratch),
        }
        given = {"runtime_env": self._sent} if self._address and self._sent else {} if self._address else local

        def start() -> None:
            ray.init(address=self._address or "local", logging_level="ERROR", log_to_driver=False, **given)

        with nullcontext() if self._address else token(self._scratch):
            try:
                begin(start, _shut_down, wanted=lambda: not self._address and not self._over.is_set())
            except BaseException as error:
                self._error = error
            self._ready.set()
            self._over.wait()
        if self._left:
            _shut_down()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _slots(self) -> int:
        free = max(1, usable() // self._cpu)
        return min(free, self._max) if self._max else free

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


def _shut_down() -> None:
    """Another thread that collects a forgotten reference of Ray's while the driver leaves it would end the process."""
    gc.disable()
    with contextlib.suppress(Exception):
        ray.shutdown()
    gc.enable()


def _why(error: Exception) -> str:
    """What pip says, or the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = dict.fromkeys(line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
    return "; ".join(said) or lines[-1]


def _own_sigterm() -> None:
    """Put the caller's handler of SIGTERM back in the place of Ray's, whose alarm aborts the process 3 s after it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _sweep_scratch() -> None:
    """Remove scratch folders of drivers that were killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*-*"):
        pid = folder.name[len(PREFIX) :].split("-")[0]
        if not pid.isdigit():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            continue


def probe() -> str:
    """Start a private Ray cluster of one CPU, run one task, end it. For `geosweep doctor`."""
    executor = RayExecutor(max_concurrent=1)
    try:
        executor.ready()
        answer: int = ray.get(ray.remote(num_cpus=1)(lambda: 41 + 1).remote(), timeout=60)
        return f"a local cluster ran a task and answered {answer}"
    finally:
        executor.close()
