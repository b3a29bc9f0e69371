"""The additional workers of a trial with several processes: who starts them and what they do.

Worker 0 is the trial's session itself; a worker group starts workers 1, 2, ... which follow it. An executor provides a
group for its machines; `LocalWorkerGroup` starts processes on this one.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from orchestrator.trial import by_value, gpu_memory, termination
from orchestrator.trial.failure import described
from orchestrator.trial.job import Job
from orchestrator.trial.logs import TrialLogs
from orchestrator.trial.training import build_training
from orchestrator.trial.watchdog import Watchdog
from orchestrator.trial.workspace import TrialPlace
from trainables.loop import Diverged
from trainables.workers import Workers, connect

LAST_WORDS_S = 5.0


class WorkerLost(RuntimeError):  # noqa: N818
    """A worker's process died. Not the trial's fault: it continues from its checkpoint."""


class WorkerFailed(RuntimeError):  # noqa: N818
    """A worker raised; the message is its traceback."""


class WorkerGroup(Protocol):
    """Workers 1 to size - 1 of one trial."""

    def start(self, job: Job, address: str) -> None:
        """Start following worker 0, which listens at `address`."""

    def trouble(self) -> None:
        """Wait briefly for a worker's failure. Raises WorkerLost or WorkerFailed."""

    def stop(self) -> None:
        """End those still running."""


def follow(job: Job, rank: int, address: str) -> None:
    """Train as worker `rank` to the end, to a drain or to divergence.

    Raises WorkerFailed for code of the user's that would end the process.
    """
    import torch

    torch.set_num_threads(job.threads)
    place = TrialPlace(job.folder, job.stop_file)
    printed = TrialLogs(place.folder, worker=rank)
    try:
        with printed.attached(), termination.exits_raise():
            _follow(job, rank, address, place.folder)
    except (SystemExit, GeneratorExit) as ended:
        if termination.told():
            raise
        raise WorkerFailed(described(ended)) from None
    finally:
        printed.close()
        place.upload_printed()


def _follow(job: Job, rank: int, address: str, folder: Path) -> None:
    watchdog = Watchdog(folder / f"hang-{rank}.txt", job.step_timeout_s, own_process=True)
    workers = task = None

    def beat() -> bool:
        watchdog.beat()
        return False

    try:
        workers = Workers(rank=rank, size=job.processes, store=connect(address))
        gpu_memory.claim(job.gpu)
        training, task = build_training(replace(job, diagnostics=()), workers)
        saved = workers.same(None)
        if saved is not None:
            training.load(saved)
        while not training.finished:
            if training.advance(beat) is None and workers.same(None):  # worker 0 says whether it was final
                break
    except Diverged:
        return
    finally:
        watchdog.stop()
        if task is not None:
            task.read_ahead(0)
        if workers is not None:
            workers.close()


class LocalWorkerGroup:
    """Processes on this machine, one per additional worker."""

    def __init__(self) -> None:
        self._started: Any = None

    def start(self, job: Job, address: str) -> None:
        """Start them, each with its own interpreter."""
        from torch.multiprocessing.spawn import start_processes

        carried = by_value.dumps((job.task, job.optimizer))
        self._started = start_processes(  # type: ignore[no-untyped-call]
            _follow_quietly, (job, address, carried), nprocs=job.processes - 1, join=False
        )

    def trouble(self) -> None:
        """Raises WorkerLost for a worker that died silently, otherwise WorkerFailed with a worker's traceback.

        The death of one makes the others raise, so it is checked first.
        """
        from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

        if self._started is None:
            return
        deadline = time.monotonic() + LAST_WORDS_S
        for process in self._started.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in self._started.processes:
            if (process.exitcode or 0) < 0:
                raise WorkerLost(f"a worker's process ended with code {process.exitcode}")
        try:
            self._started.join(timeout=0.0)
        except ProcessRaisedException as raised:
            raise WorkerFailed(raised.msg.strip()) from None
        except ProcessExitedException as ended:
            raise WorkerLost(f"a worker's process ended with code {ended.exit_code}") from None

    def stop(self) -> None:
        """Kill those still running."""
        if self._started is None:
            return
        for process, error in zip(self._started.processes, self._started.error_files, strict=True):
            process.kill()
            process.join()
            Path(error).unlink(missing_ok=True)
        self._started = None


def _follow_quietly(index: int, job: Job, address: str, carried: bytes) -> None:
    """Worker `index` + 1 of a LocalWorkerGroup. Its output duplicates worker 0's; Ctrl-C is handled only by worker 0,
    which says when to stop.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    by_value.loads(carried)
    follow(job, index + 1, address)
