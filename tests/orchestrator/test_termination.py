"""A worker that is told to end while its trial trains interrupts the trial: it does not fail, and goes on elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial import termination
from orchestrator.trial.record import read_result
from orchestrator.trial.session import TrialSession
from tests.orchestrator.test_store import a_job, to_the_end


@pytest.fixture
def worker() -> Iterator[None]:
    """This process ends at a SIGTERM as a worker of Ray does: by SystemExit, wherever it is."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(1)

    before = signal.signal(signal.SIGTERM, end)
    termination.heed()
    yield
    signal.signal(signal.SIGTERM, before)
    termination.heed()


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_a_trial_whose_worker_is_told_to_end_goes_on_elsewhere(tmp_path: Path) -> None:
    for name in ("plain", "ended"):
        (tmp_path / name).mkdir()
    plain, job = (a_job(SweepFolder(tmp_path, name), pause_s=0.02) for name in ("plain", "ended"))
    to_the_end(TrialSession(plain))
    first = TrialSession(job)
    assert not first.advance().done
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(SystemExit):
        to_the_end(first)
    assert read_result(Path(job.folder)) is None
    first.close()
    termination.heed()
    to_the_end(TrialSession(job))
    logs = [MetricLog(Path(one.folder) / "metrics.jsonl").points() for one in (plain, job)]
    assert [p.metrics["loss/val"] for p in logs[0]] == [p.metrics["loss/val"] for p in logs[1]]
