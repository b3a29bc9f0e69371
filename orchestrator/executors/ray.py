"""Trials on Ray Tune: a class trainable on reused actors. The only place that imports Ray.

Three measures keep Tune's cost for a trial near 10 ms of CPU instead of seconds:

- actors are reused (`reset_config`), so that a trial pays neither a process start nor an import;
- all actors are started before the first trial begins. Otherwise Tune hands each waiting trial to the first free
  actor and withdraws its request for another, and trials shorter than an actor's start run one after another for ever;
- Tune's own loggers, snapshots and checkpoints are off: the truth is in the study and the trial folders.

A worker that dies fails its trial in Tune at once; the same job is then handed out again (how often: `ray_faults`) and
goes on from its newest checkpoint. Tune's own retries give up a trial whose worker dies before its first step. After a
memory kill one trial fewer runs at a time for a while, so that trials which do not fit side by side still end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from orchestrator.executors.base import Conductor, Unreachable
from orchestrator.executors.ray_crew import RayCrew
from orchestrator.executors.ray_faults import Attempts, every_system_error_is_a_death, kept_error
from orchestrator.executors.ray_forget import forget_ended
from orchestrator.executors.ray_grow import next_waiting
from orchestrator.executors.ray_nodes import blind
from orchestrator.job import Job, Report
from orchestrator.place import NotShared
from orchestrator.trial import TrialSession, warm_up

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "30")
os.environ.setdefault("TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S", "1000000")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # `geosweep status` shows them
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial that asks for no GPU sees none

import ray
from ray import tune
from ray.tune.callback import Callback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

START_BARRIER_S = 60.0
LOST_RAY_S = 10
"""A driver whose private Ray was killed ends after so long: no one will start that again."""
CALM = 10
"""Trials that end after a memory kill before one more runs at a time again."""
PREFIX = "gs-"


class _Trainable(tune.Trainable):  # type: ignore[misc]
    """Holds one `TrialSession` after another in a long-lived worker."""

    def setup(self, config: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # a trial that cannot begin says so itself
            warm_up(config["job"])
        self._workers: RayCrew | None = None
        self._gpu: float = config["gpu"]
        if config["barrier"]:
            _wait_for_all(Path(config["barrier"]), config["actors"])
        self.reset_config(config)

    def _crew(self) -> RayCrew | None:
        if self._job.processes == 1:
            return None
        if self._workers is None:
            self._workers = RayCrew(cpu=self._job.threads, gpu=self._gpu)
        return self._workers

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        self._job: Job = new_config["job"]
        self._session: TrialSession | None = None
        return True

    def step(self) -> dict[str, Any]:
        if self._session is None:
            host = ray.util.get_node_ip_address() if self._job.processes > 1 else ""
            self._session = TrialSession(self._job, own_process=True, crew=self._crew(), host=host)
        report = self._session.advance()
        return {"report": report, "done": report.done}

    def cleanup(self) -> None:
        self._close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        return None

    def _close(self) -> None:
        session = getattr(self, "_session", None)
        if session is not None:
            session.close()


class _Source(Searcher):  # type: ignore[misc]
    """Hands the conductor's jobs to Tune: at most one more than there are actors, so that a worker never waits."""

    def __init__(self, conductor: Conductor, actors: int, barrier: str, gpu: float, attempts: Attempts) -> None:
        super().__init__()
        self._gpu = gpu
        self._conductor, self._actors, self._barrier = conductor, actors, barrier
        self._most = actors + 1
        self._open: dict[str, Job] = {}
        self._again: deque[Job] = deque()
        self._attempts = attempts
        self._memory_kill, self._calm = "", 0
        self.errors: dict[str, Exception | str | None] = {}
        """Tune's trial id -> why it failed, put here before `on_trial_complete`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its experiment to restore it; we never do

    def suggest(self, trial_id: str) -> Any:
        if len(self._open) >= self._most:
            return None
        job = self._again.popleft() if self._again else self._conductor.next_job()
        if job is None:
            return Searcher.FINISHED if self._conductor.exhausted else None
        self._open[trial_id] = job
        return {"job": job, "actors": self._actors, "barrier": self._barrier, "gpu": self._gpu}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        ours = self._open.pop(trial_id, None)
        if ours is None:
            return
        if not error:
            self._calm += 1
            if self._calm % CALM == 0:
                self._most = min(self._actors + 1, self._most + 1)
            return
        fault, why = self._attempts.give_up(ours, self.errors.pop(trial_id, None))
        if fault.kind == "memory" and fault.says.splitlines()[0] != self._memory_kill:  # one event may take several
            self._memory_kill, self._calm = fault.says.splitlines()[0], 0
            self._most = max(1, min(self._most, self._actors) - 1)
        if why:
            self._conductor.lost(ours.trial_id, why)
        else:
            self._again.append(ours)

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        return None


class _Ends(Callback):  # type: ignore[misc]
    """Passes on a trial's last report, of which Tune's schedulers do not hear."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        report = result.get("report")
        if isinstance(report, Report) and report.done:
            self._conductor.heard(report)


class _Progress(FIFOScheduler):  # type: ignore[misc]
    """Passes on what running trials report, stops the ones that are not to go on, and notes why others failed."""

    def __init__(self, conductor: Conductor, source: _Source) -> None:
        super().__init__()
        self._conductor, self._source = conductor, source

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        forget_ended(tune_controller._tune_controller)
        return next_waiting(tune_controller._tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report = result.get("report")
        stop = isinstance(report, Report) and not report.done and not self._conductor.heard(report)
        return str(FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._source.errors[trial.trial_id] = kept_error(trial)


class RayExecutor:
    """Ray Tune on a private local cluster, or on the cluster at `address`.

    `cpu` is for each of a trial's `processes`, `gpu` for all of them together.
    """

    def __init__(
        self,
        *,
        cpu: int = 1,
        gpu: float = 0.0,
        processes: int = 1,
        max_concurrent: int | None = None,
        address: str | None = None,
    ) -> None:
        self._bundles = [{"CPU": cpu, "GPU": gpu / processes} if gpu else {"CPU": cpu}] * processes
        self._cpu, self._gpu, self._max, self._address = cpu * processes, gpu, max_concurrent, address
        self._grows = bool(address and max_concurrent)  # workers of an autoscaling cluster come when they are asked for
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
        self._error: BaseException | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._start, daemon=True).start()

    def run(self, conductor: Conductor) -> None:
        """Run all trials; Ray is shut down afterwards, whatever happens."""
        try:
            self.ready()
            _own_sigterm()
            self._fit(conductor)
        finally:
            self.close()

    def ready(self) -> None:
        """Return once Ray answers. Raises Unreachable when it does not start."""
        self._ready.wait()
        if self._error is not None:
            raise Unreachable(f"Ray did not start: {self._error}") from self._error

    def look_for(self, folder: Path) -> None:
        """Raises NotShared when a machine of the cluster has no such sweep folder. Later ones say so themselves."""
        self.ready()
        if self._address and (machines := blind(folder / "resolved.json")):
            self.close()
            raise NotShared.of(folder, ", ".join(machines))

    def close(self) -> None:
        """End Ray and remove its scratch folder."""
        self._ready.wait()
        with contextlib.suppress(Exception):
            ray.shutdown()
        self._over.set()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> None:
        """Start Ray while the caller reads and imports. The thread lives on: Ray's processes die with it."""
        _sweep_scratch()
        local = {
            "num_cpus": self._slots() * self._cpu,
            "include_dashboard": False,
            "_temp_dir": str(self._scratch),
            "_system_config": {"gcs_rpc_server_reconnect_timeout_s": LOST_RAY_S},
        }
        try:
            ray.init(
                address=self._address or "local",
                logging_level="ERROR",
                log_to_driver=False,
                **({} if self._address else local),
            )
        except BaseException as error:
            self._error = error
        self._ready.set()
        self._over.wait()

    def _slots(self) -> int:
        free = max(1, (os.cpu_count() or 1) // self._cpu)
        return min(free, self._max) if self._max else free

    def _fit(self, conductor: Conductor) -> None:
        cluster = ray.cluster_resources()
        slots = max(1, int(cluster.get("CPU", 1) // self._cpu))
        if self._gpu:
            slots = min(slots, int(cluster.get("GPU", 0) / self._gpu))
            if slots < 1 and not self._grows:
                raise Unreachable(f"a trial needs {self._gpu} GPU; this cluster has {cluster.get('GPU', 0)}")
        if self._grows:
            slots = max(slots, self._max or 1)
        actors = max(1, min(slots, self._max or slots, conductor.remaining))
        conductor.workers = actors
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(actors)
        sys.setswitchinterval(5e-4)  # the MLflow sender shares this process; a free worker must not wait for it
        barrier = self._scratch / "actors"
        barrier.mkdir(exist_ok=True)
        source = _Source(
            conductor,
            actors,
            "" if self._address else str(barrier),
            self._bundles[0].get("GPU", 0.0),
            Attempts(self._scratch),
        )
        tuner = tune.Tuner(
            tune.with_resources(_Trainable, tune.PlacementGroupFactory(self._bundles)),
            tune_config=tune.TuneConfig(
                scheduler=_Progress(conductor, source),
                search_alg=source,
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=None,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=str(self._scratch),
                name="tune",
                verbose=0,
                callbacks=[_Ends(conductor)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        with every_system_error_is_a_death():
            tuner.fit()


def _own_sigterm() -> None:
    """Put the caller's handler of SIGTERM back in the place of Ray's, whose alarm aborts the process 3 s after it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _wait_for_all(barrier: Path, actors: int) -> None:
    """Return once all actors of a local start are up (or after START_BARRIER_S)."""
    (barrier / str(os.getpid())).touch()
    deadline = time.monotonic() + START_BARRIER_S
    while len(os.listdir(barrier)) < actors and time.monotonic() < deadline:
        time.sleep(0.02)


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
