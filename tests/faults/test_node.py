"""A node that is lost in the middle of a trial, on a Ray cluster of two: the trial goes on elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import results
from orchestrator.storage.folder import find
from orchestrator.storage.metric_log import MetricLog
from tests.faults.services import ray_cluster, trials_of
from tests.orchestrator.command import check_mlflow, finish, in_this_process, processes, start, values
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.long


@pytest.fixture
def cluster() -> Iterator[Any]:
    with ray_cluster(num_cpus=1) as (found, _):
        yield found


def held_by(raylet: int) -> list[Path]:
    """Folders of the trials that the workers of this raylet hold."""
    return [folder for process, parent, _ in processes() if parent == raylet for folder in trials_of(process)]


def test_a_lost_node_costs_its_trial_no_more_than_the_steps_since_its_checkpoint(cluster: Any, tmp_path: Path) -> None:
    text = yaml.safe_load(sweep_text(method="random", trials=1, confirm=1, per_trial=160, pause_s=0.03))
    text |= {"evaluations": 16, "resources": {"checkpoint_every": "1s"}}
    file = tmp_path / "fit.yaml"
    file.write_text(yaml.safe_dump(text))
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    raylet = other.all_processes["raylet"][0].process.pid
    driver = start(file, "--address", cluster.address)
    deadline, victims = time.time() + 90, []
    while time.time() < deadline and driver.poll() is None:
        victims = [folder for folder in held_by(raylet) if list(folder.glob("checkpoint-*-*.pt"))]
        if victims:
            break
        time.sleep(0.05)
    assert victims, finish(driver)
    checkpoints = {path.name for path in victims[0].glob("checkpoint-*-*.pt")}
    lost_at = time.time()
    cluster.remove_node(other, allow_graceful=False)
    before = {p.step: p.time for p in MetricLog(victims[0] / "metrics.jsonl").points()}
    out = finish(driver, 200)
    assert driver.returncode == 0, out
    folder = find(tmp_path / "runs", "@last")
    again = {p.step: p.time for p in MetricLog(victims[0] / "metrics.jsonl").points()}
    kept = [step for step, when in again.items() if when < lost_at * 1000]
    print(f"{victims[0].name}: node lost after {len(before)} of 16 evaluations; {len(kept)} came from its checkpoint")
    assert checkpoints
    assert kept
    assert len(kept) >= len(before) - 5
    assert all(before[step] == again[step] for step in kept)
    assert [t.result.state for t in results.ended_trials(folder)] == ["COMPLETE"] * 4
    assert values(folder) == values(in_this_process(file))
    check_mlflow(folder, arms={"sgd": 1, "adamw": 1})


def test_a_cluster_that_grows_from_nothing_is_used_as_it_grows(tmp_path: Path) -> None:
    """As an autoscaler does it: no worker at first, then one, then two; the third that was asked for never comes."""
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(method="random", trials=5, confirm=2, per_trial=80, pause_s=0.03))
    with ray_cluster(num_cpus=0) as (cluster, _):
        driver = start(file, "--address", cluster.address, "--max-concurrent", "3")
        trials, deadline = tmp_path / "runs", time.time() + 120
        raylets = []
        for _ in range(2):
            raylets.append(cluster.add_node(num_cpus=1).all_processes["raylet"][0].process.pid)
            while not held_by(raylets[-1]):
                assert driver.poll() is None, finish(driver)
                assert time.time() < deadline, "a worker that came is not used"
                time.sleep(0.05)
        assert len(list(trials.glob("*/trials/*/result.json"))) < 14
        out = finish(driver, 200)
        assert driver.returncode == 0, out
    assert [t.result.state for t in results.ended_trials(find(trials, "@last"))] == ["COMPLETE"] * 14
