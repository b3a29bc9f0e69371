"""A sweep folder of an earlier version (see earlier/README.md) under another root: verified, continued, compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator import parquet, results
from orchestrator.definition import model, sweep_file
from orchestrator.protocol import seal
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.mlflow import POINTS, TRIAL, embedded_uri
from tests.orchestrator.test_tracking import runs_of

EARLIER = Path(__file__).with_name("earlier") / "earlier-671cd845"
HALF = "sgd-0000-s1001"
TAGS = {
    *(f"geosweep.{name}" for name in ("sweep_id", "trial_id", "arm", "stage", "seed", "state", "points")),
    "geosweep.init_digest", "geosweep.data_digest", "mlflow.parentRunId",
}  # fmt: skip
"""Of a trial's run, as that version wrote them; its parameters were these four and the hyperparameters."""
PARAMS = {"arm", "optimizer", "seed", "stage"}


@pytest.fixture
def earlier(tmp_path: Path) -> SweepFolder:
    shutil.copytree(EARLIER, tmp_path / "runs" / EARLIER.name)
    return find(tmp_path / "runs", EARLIER.name)


def test_what_it_is_comes_back_byte_for_byte(earlier: SweepFolder) -> None:
    path = earlier.path / "resolved.json"
    before = path.read_bytes()
    earlier.resolve(earlier.resolved())
    assert path.read_bytes() == before


def test_its_file_still_means_the_same_sweep(earlier: SweepFolder, call: Any) -> None:
    assert model.sweep_id(sweep_file.load(earlier.path / "sweep.yaml")) == earlier.sweep_id
    assert call("verify").code == 0
    status = call("status", "--json").document
    assert (status["state"], status["errors"], "studies" in status) == ("stopped", {}, False)
    assert status["arms"]["sgd"] == {"done": 4, "running": 0, "waiting": 5, "pruned": 0, "diverged": 0, "failed": 0}


@pytest.mark.slow
def test_it_is_continued_and_compared(earlier: SweepFolder, call: Any) -> None:
    before = {t.trial_id: t.result for t in results.ended_trials(earlier)}
    half = (earlier.trial(HALF) / "metrics.jsonl").read_bytes()
    done = call("run", str(earlier.path / "sweep.yaml"), "--executor", "debug")
    assert done.code == 0, done.err
    after = {t.trial_id: t.result for t in results.ended_trials(earlier)}
    assert len(after) == 2 * (3 + 6)
    assert {name: after[name] for name in before} == before
    assert (earlier.trial(HALF) / "metrics.jsonl").read_bytes().startswith(half), "it went on from its checkpoint"
    assert [p.step for p in MetricLog(earlier.trial(HALF) / "metrics.jsonl").points()] == [5, 10, 15, 20]

    assert seal.verify(earlier).intact
    assert seal.stamps(earlier) == []
    compared = call("compare", "--json").document
    assert (compared["unit"], compared["units"], compared["baseline"]) == ("seed", 6, "sgd")
    assert set(parquet.trials_table(earlier)["study"].to_pylist()) == {1}
    assert "studies" not in call("best", "--json").document["arms"]["sgd"]

    runs = runs_of(embedded_uri(earlier.root), name="earlier")
    assert len(runs) == 1 + 2 + 18
    for one in (r.data for r in runs if TRIAL in r.data.tags):
        assert one.tags.keys() >= TAGS
        assert PARAMS | {"lr"} == one.params.keys()
    assert {r.data.tags[POINTS] for r in runs if TRIAL in r.data.tags} == {"4"}
    assert call("reconcile", "--json").document["differences"] == []
