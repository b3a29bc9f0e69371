"""A trial whose checkpoints could not be read back has none: it starts over, as if undisturbed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.run import drained
from orchestrator.definition import sweep_file
from orchestrator.definition.states import State
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.session import TrialSession
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_store import a_job, to_the_end


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*cannot write checkpoints.*")
def test_it_starts_over(tmp_path: Path) -> None:
    for name in ("plain", "stopped"):
        (tmp_path / name).mkdir()
    plain, job = (
        replace(a_job(SweepFolder(tmp_path, name), pause_s=0.04), optimizer="tests.tasks.Remembering")
        for name in ("plain", "stopped")
    )
    to_the_end(TrialSession(plain))
    first = TrialSession(job)
    assert not first.advance().done
    stop = Path(job.stop_file)
    stop.touch()
    while not (report := first.advance()).done:
        pass
    stop.unlink()
    assert report.state is State.INTERRUPTED
    assert not list(Path(job.folder).glob("*.pt"))
    folder, spec = SweepFolder(tmp_path, "stopped"), sweep_file.loads(sweep_text())
    assert drained(folder, spec) == f"{job.trial_id} wrote no checkpoint and starts over"
    other = folder.trial("with-one")
    other.mkdir()
    (other / "trial.json").touch()
    (other / "checkpoint-000000-0123456789abcdef.pt").touch()
    assert drained(folder, spec).endswith("starts over; every other running trial wrote one")
    to_the_end(TrialSession(job))
    logs = [MetricLog(Path(one.folder) / "metrics.jsonl").points() for one in (plain, job)]
    assert [p.metrics["loss/val"] for p in logs[0]] == [p.metrics["loss/val"] for p in logs[1]]
