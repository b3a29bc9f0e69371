"""A population whose trials lie in an object store."""

# ruff: noqa: F401, F811  fixtures

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import parquet, results
from orchestrator.definition import model, sweep_file
from orchestrator.storage import folder as folders
from orchestrator.storage.metric_log import MetricLog
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_store import (
    Machines,
    bucket,
    execute,
    machines,
    objects,
    postgres,
    timeless,
)
from tests.services import Postgres

pytestmark = pytest.mark.slow
PBT = "early_terminate: {type: pbt, eta: 2, min_budget: 50%}\n"


def test_children_go_on_from_what_lies_in_the_store(
    bucket: str,
    postgres: Postgres,
    machines: Machines,
    tmp_path: Path,
) -> None:
    text = sweep_text(name="pbt", method="random", trials=4, confirm=1, per_trial=8) + PBT
    text = "\n".join(line for line in text.splitlines() if "adamw" not in line)
    definition = sweep_file.loads(text, "test.yaml")
    local, _ = execute(definition, text, tmp_path / "local", "")
    execute(definition, text, machines.use(f"{bucket}/pbt"), postgres.url)
    far = folders.find(machines.use(f"{bucket}/pbt"), "@last")
    mine, tchildren = (timeless(parquet.trials_table(f)) for f in (far, local))
    assert mine.equals(tchildren)
    for folder in (far, local):
        children = [t for t in results.ended_trials(folder) if t.job.inherited]
        assert children
        logged = [p.read_text().splitlines() for p in (folder.path / "trials").glob("*/metrics.jsonl")]
        for child in children:
            first = MetricLog(folder.trial(child.trial_id) / "metrics.jsonl").points()[0].time
            assert sum(f'"time": {first},' in lines[0] for lines in logged) > 1, "its first points are its parent's"
    assert not [n for n in objects("pbt") if "checkpoint" in n]
