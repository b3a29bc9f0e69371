"""The other workers of a trial that several processes train: who starts them and what they do.

Worker 0 is the trial's session itself; a crew starts workers 1, 2, ... which follow it. An executor brings a crew that
knows its machines; `LocalCrew` starts processes on this one.
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from typing import IO, Any, Protocol

from orchestrator.trial.job import Job
from orchestrator.trial.training import build_training
from orchestrator.trial.watchdog import Watchdog
from orchestrator.trial.workspace import TrialPlace
from trainables.loop import Diverged
from trainables.workers import Workers

LAST_WORDS_S = 5.0


class CrewLost(RuntimeError):  # noqa: N818
    """A worker's process died. Not the trial's fault: it goes on from its checkpoint."""


class CrewFailed(RuntimeError):  # noqa: N818
    """A worker raised; the message is its traceback."""


class Crew(Protocol):
    """Workers 1 to size - 1 of one trial."""

    def start(self, job: Job, address: str) -> None:
        """Begin following worker 0, which listens at `address`."""

    def trouble(self) -> None:
        """Wait a moment for bad news of a worker. Raises CrewLost or CrewFailed."""

    def stop(self) -> None:
        """End whoever is still running."""


def free_address(host: str) -> str:
    """A port that nobody uses at the moment, as `host:port`."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{host}:{probe.getsockname()[1]}"


def follow(job: Job, rank: int, address: str) -> str:
    """Train as worker `rank` to the end, to a drain or to divergence. Returns a traceback, empty when all went well."""
    watchdog = Watchdog(
        TrialPlace(job.folder, job.stop_file).folder / f"hang-{rank}.txt", job.step_timeout_s, own_process=True
    )
    workers = None

    def beat() -> bool:
        watchdog.beat()
        return False

    try:
        workers = Workers(rank=rank, size=job.processes, address=address)
        training = build_training(replace(job, diagnostics=()), workers)[0]
        saved = workers.same(None)
        if saved is not None:
            training.load(saved)
        while not training.finished:
            if training.advance(beat) is None and workers.same(None):  # worker 0 says whether it was for good
                break
    except Diverged:
        return ""
    except Exception:
        return traceback.format_exc()
    finally:
        watchdog.stop()
        if workers is not None:
            workers.close()
    return ""


class LocalCrew:
    """Processes on this machine, one for each further worker."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._output: list[IO[bytes]] = []

    def start(self, job: Job, address: str) -> None:
        """Start them; each reads its job from standard input."""
        for rank in range(1, job.processes):
            output = tempfile.TemporaryFile()  # noqa: SIM115  closed by stop()
            command = [sys.executable, "-m", "orchestrator.trial.worker_group"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL)
            assert process.stdin is not None
            process.stdin.write(pickle.dumps((job, rank, address)))
            process.stdin.close()
            self._processes.append(process)
            self._output.append(output)

    def trouble(self) -> None:
        """Raises CrewFailed with a worker's traceback, CrewLost for one that died without a word."""
        deadline = time.monotonic() + LAST_WORDS_S
        for process, output in zip(self._processes, self._output, strict=True):
            try:
                code = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
            output.seek(0)
            said = output.read().decode(errors="replace")
            if code == 0 and said:
                raise CrewFailed(said)
            if code != 0:
                raise CrewLost(f"a worker's process ended with code {code}")

    def stop(self) -> None:
        """Kill whoever is still running."""
        for process, output in zip(self._processes, self._output, strict=True):
            process.kill()
            process.wait()
            output.close()
        self._processes, self._output = [], []


def main() -> None:
    """A worker of a LocalCrew: job, rank and address on standard input, a traceback on standard output."""
    job, rank, address = pickle.load(sys.stdin.buffer)
    import torch

    torch.set_num_threads(job.threads)
    said: Any = follow(job, rank, address)
    print(said, end="")


if __name__ == "__main__":
    main()
