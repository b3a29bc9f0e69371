"""The views that MLflow's page opens on, as it reads them: an envelope, deflated, within an experiment's tag."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.definition.states import SweepState
from orchestrator.tracking.mlflow import MlflowTracker, embedded_uri
from orchestrator.tracking.mlflow_view import INTERVAL, ROW, VIEW, Shown, views

SHOWN = Shown(sweep_id="fit-1", reported="loss/val", tuned="loss/val", maximize=False, parameters=("lr",))
ARMS = {
    "sgd": {"loss/val/mean": 0.4, "loss/val/n": 3.0, "loss/val/low": 0.3, "loss/val/high": 0.6},
    "low": {"loss/val/mean": 0.2, "loss/val/n": 3.0, "loss/val/low": 0.1, "loss/val/high": 0.3},
}


def state(value: str) -> dict[str, Any]:
    """What MLflow's page makes of a view."""
    envelope = json.loads(value)
    assert isinstance(envelope["name"], str)
    assert isinstance(envelope["createdAt"], int)
    packed = envelope["state"].removeprefix("deflate;")
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return found


@pytest.mark.slow
def test_a_sweep_leaves_views_and_finals_once(tmp_path: Path) -> None:
    """A driver that comes again changes nothing; what it is told anew takes the place of the old."""
    for arms in (ARMS, ARMS, {**ARMS, "sgd": {**ARMS["sgd"], "loss/val/mean": 0.5, "loss/val/high": 0.8}}):
        tracker = MlflowTracker(
            uri=None, root=tmp_path, sweep_id="fit-1", name="fit", description="", facts={}, shown=SHOWN
        )
        tracker.finish(SweepState.DONE, arms, {})
        assert not tracker.trouble
    client = MlflowClient(embedded_uri(tmp_path))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    kept = {key: value for key, value in experiment.tags.items() if key.startswith(VIEW)}
    runs = client.search_runs([experiment.experiment_id])
    parent = next(r for r in runs if r.data.tags["geosweep.stage"] == "sweep")
    assert kept == views(SHOWN, final=True, created_at=parent.info.start_time)
    assert parent.data.metrics["loss/val"] == 0.2
    assert parent.data.tags["geosweep.leads"] == "low"
    assert (parent.data.metrics["loss/val/low"], parent.data.metrics["loss/val/low/low"]) == (0.2, 0.1)
    summaries = {r.data.params["arm"]: r for r in runs if r.data.params.get("stage") == "summary"}
    assert len(runs) == 1 + len(summaries) == 3
    history = client.get_metric_history(summaries["sgd"].info.run_id, f"loss/val/{INTERVAL}")
    assert sorted(m.value for m in history) == [0.3, 0.5, 0.8]
    rows = {arm: {m.value for m in client.get_metric_history(r.info.run_id, ROW)} for arm, r in summaries.items()}
    assert rows == {"sgd": {2.0}, "low": {1.0}}
    assert all("#/experiments/" in r.data.tags["mlflow.note.content"] for r in summaries.values())


def test_the_answer_groups_by_arm_and_every_chart_has_its_section() -> None:
    page = state(views(SHOWN, final=True, created_at=1)[f"{VIEW}{SHOWN.answer}"])
    assert page["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "arm"}]
    assert "fit-1" in page["searchFilter"]
    assert page["orderByAsc"] is True
    sections = {one["uuid"] for one in page["compareRunSections"]}
    assert {card["metricSectionId"] for card in page["compareRunCharts"]} == sections
    assert len({card["uuid"] for card in page["compareRunCharts"]}) == len(page["compareRunCharts"])
