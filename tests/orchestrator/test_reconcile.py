"""What a sweep lost is repaired by the next `geosweep run`, which says so once; with real stores and files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from orchestrator import parquet
from orchestrator.cli import main
from orchestrator.protocol import seal
from orchestrator.storage.folder import SweepFolder, sweeps
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.mlflow import TRIAL, embedded_uri
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_tracking import check_complete, children

pytestmark = pytest.mark.slow

Mended = Callable[..., list[str]]


STUDIES = pytest.mark.parametrize(  # of three studies, the run that goes on mends the same
    "geosweep",
    [pytest.param(1, id="one study"), pytest.param(3, id="three studies", marks=pytest.mark.long)],
    indirect=True,
)


@pytest.fixture
def geosweep(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, request: pytest.FixtureRequest
) -> Mended:
    """`geosweep run`; returns what it said to have repaired."""
    file = tmp_path / "fit.yaml"
    text = sweep_text(method="random", trials=3, confirm=2, per_trial=8)
    file.write_text(text.replace("seeds: {", f"seeds: {{studies: {getattr(request, 'param', 3)}, "))

    def run(*words: str) -> list[str]:
        command = ["geosweep", "run", str(file), "--root", str(tmp_path), "--executor", "debug", *words]
        monkeypatch.setattr(sys, "argv", command)
        capfd.readouterr()
        with contextlib.suppress(SystemExit):
            main()
        said = capfd.readouterr().err
        assert "Next: geosweep" in said
        return [" ".join(part.split()) for part in said.split("Next: ")[0].split("repaired: ")[1:]]

    return run


def tear(log: Path) -> None:
    """Leave two lines and a half."""
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:20])


def named(folder: SweepFolder, arm: str, rest: str) -> str:
    """`sgd-0001-s0`, or the trial of that arm, number and seed in whichever study had it."""
    found = [p.name for p in folder.path.glob(f"trials/{arm}*-{rest}")]
    assert len(found) == 1
    return found[0]


def lose_half(folder: SweepFolder) -> dict[str, bytes]:
    """Break all that can break; returns the trial logs as they were."""
    logs = {p.parent.name: p.read_bytes() for p in folder.path.glob("trials/*/metrics.jsonl")}
    for name in ("trials", "metrics"):
        table = pq.read_table(folder.results / f"{name}.parquet")
        pq.write_table(table.slice(0, table.num_rows // 2), folder.results / f"{name}.parquet")
    uri = embedded_uri(folder.root)
    client, runs = MlflowClient(uri), {r.data.tags[TRIAL]: r for r in children(uri)}
    client.update_run(runs[named(folder, "sgd", "0001-s0")].info.run_id, status="RUNNING")
    client.delete_run(runs[named(folder, "sgd", "0002-s0")].info.run_id)
    cut = folder.trial(named(folder, "adamw", "0000-s0")) / "metrics.jsonl"
    tear(cut)
    gone = folder.trial(named(folder, "adamw", "0001-s0")) / "metrics.jsonl"
    gone.write_text("".join(gone.read_text().splitlines(keepends=True)[:1]))  # at a line's end
    return logs


@STUDIES
def test_the_next_run_mends_a_finished_sweep_and_the_one_after_has_nothing_to_say(
    geosweep: Mended, tmp_path: Path
) -> None:
    assert geosweep() == []
    folder = sweeps(tmp_path)[0]
    assert geosweep() == []
    logs = lose_half(folder)
    said = geosweep()
    assert sum("parquet differed" in line for line in said) == 2
    assert sum("restored from the tracker" in line for line in said) == 2
    assert sum("was RUNNING, COMPLETE; should be COMPLETE; sent again" in line for line in said) == 1
    assert sum("had no run; sent again" in line for line in said) == 1
    assert len(said) == 6, said
    assert geosweep() == []
    assert {p.parent.name: p.read_bytes() for p in folder.path.glob("trials/*/metrics.jsonl")} == logs
    assert seal.verify(folder).intact
    check_complete(folder, embedded_uri(tmp_path))
    fresh = parquet.tables(folder)
    assert all(pq.read_table(folder.results / f"{name}.parquet").equals(fresh[name]) for name in fresh)


def test_without_a_tracker_the_table_gives_back_the_values(geosweep: Mended, tmp_path: Path) -> None:
    geosweep("--no-tracking")
    folder = sweeps(tmp_path)[0]
    path = folder.trial(named(folder, "adamw", "0000-s0")) / "metrics.jsonl"
    whole = MetricLog(path).points()
    tear(path)
    said = geosweep("--no-tracking")
    assert len(said) == 1
    assert "2 of 4 points; restored from the table, not byte for byte" in said[0]
    assert [(p.step, p.metrics) for p in MetricLog(path).points()] == [(p.step, p.metrics) for p in whole]


def test_a_run_that_goes_on_mends_what_its_forerunner_left(geosweep: Mended, tmp_path: Path) -> None:
    geosweep()
    folder = sweeps(tmp_path)[0]
    logs = lose_half(folder)
    lost = next(p.name for p in folder.path.glob("trials/sgd*-s1001"))
    (folder.trial(lost) / "result.json").unlink()  # as if this trial had not ended
    said = geosweep()
    assert sum("restored from the tracker" in line for line in said) == 2
    assert sum("sent again" in line for line in said) == 2
    assert sum("parquet differed" in line for line in said) == 2
    assert geosweep() == []
    check_complete_but(folder, lost, logs)


def check_complete_but(folder: SweepFolder, lost: str, logs: dict[str, bytes]) -> None:
    """All is as it was, except for the times in the log of the trial that was trained again."""
    for name, before in logs.items():
        after = (folder.trial(name) / "metrics.jsonl").read_bytes()
        assert (after == before) is (name != lost)
    assert seal.stamps(folder) == [f"{lost} was rerun after its result was known"]
