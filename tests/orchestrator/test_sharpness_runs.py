"""Sharpness from sweep file to metrics, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from orchestrator import results
from orchestrator.trial.session import MetricLog
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

KEYS = {f"geometry/{k}" for k in ("hessian_max", "hessian_max_error", "hessian_trace", "hessian_trace_error")}
KEYS |= {"geometry/sharpness_one_step", "geometry/sharpness_ball"}


def logged(root: Path, **changes: object) -> list[list[dict[str, float]]]:
    text = yaml.safe_dump({**yaml.safe_load(sweep_text(trials=1, confirm=0)), **changes})
    folder = swept(text, root)
    return [
        [p.metrics for p in MetricLog(folder.trial(t.trial_id) / "metrics.jsonl").points()]
        for t in results.ended_trials(folder)
    ]


@pytest.mark.slow
def test_trials_log_sharpness_at_every_second_evaluation_and_train_as_without(tmp_path: Path) -> None:
    runs = logged(tmp_path / "a", diagnostics={"names": ["sharpness"], "every": 2})
    plain = logged(tmp_path / "b")
    assert len(runs) == 2
    for points, twin in zip(runs, plain, strict=True):
        assert [set(p) >= KEYS for p in points] == [False, True, False, True]
        assert [p["loss/val"] for p in points] == [p["loss/val"] for p in twin]
        # the loss is a mean square in 4 outputs: its Hessian does not depend on the weights, only on the batch
        assert points[1]["geometry/hessian_max"] == pytest.approx(points[3]["geometry/hessian_max"], rel=1e-4)
        assert all(0 < p["geometry/sharpness_one_step"] <= p["geometry/sharpness_ball"] for p in points[1::2])
