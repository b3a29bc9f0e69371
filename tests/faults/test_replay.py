"""Strict replay on real Ray: one sequence of suggestions for 1 to 16 workers, with drivers and workers killed."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from orchestrator import results
from orchestrator.storage.folder import SweepFolder, find
from tests.faults.services import ray_cluster
from tests.orchestrator.command import ended, finish, in_this_process, start, values, wait_for, workers
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.long
TRIALS = 32
LAG = 8  # of each of two arms: 16 workers are all used


def trained(file: Path, number: int, words: tuple[str, ...] = (), of: str = "") -> tuple[dict[str, int], str]:
    """Run the sweep with three workers and one driver killed at drawn moments: (kills, what the last driver said)."""
    source, driver = random.Random(number), start(file, *words)
    kills = {"driver": 0, "worker": 0}
    for mark in (4, 11, 18, 25):
        wait_for(file, mark, driver)
        time.sleep(source.uniform(0, 0.5))
        if mark == 11:
            os.killpg(driver.pid, signal.SIGKILL)
            finish(driver, 60)
            driver = start(file, *words)
            kills["driver"] += 1
        elif victims := workers(of or driver.pid):
            os.kill(source.choice(victims), signal.SIGKILL)
            kills["worker"] += 1
    out = finish(driver, 240)
    assert driver.returncode == 0, out
    return kills, out


def sweep(number: int, pause_s: float) -> str:
    text = yaml.safe_load(sweep_text(method="tpe", trials=14, confirm=2, per_trial=40, pause_s=pause_s))
    text["method"] |= {"replay": "strict", "lag": LAG}
    return str(yaml.safe_dump({**text, "resources": {"max_concurrent": number}}))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    file = tmp_path_factory.mktemp("undisturbed") / "fit.yaml"
    file.write_text(sweep(1, 0.0))
    return in_this_process(file)


@pytest.mark.parametrize("number", [1, 2, 4, 16])
def test_one_digest_for_any_number_of_workers_with_kills(number: int, undisturbed: SweepFolder, tmp_path: Path) -> None:
    """1 and 2 workers on private clusters, more on a cluster that outlives the killed driver."""
    file = tmp_path / "fit.yaml"
    file.write_text(sweep(number, 0.02))
    began = time.time()
    if number < 4:
        kills, out = trained(file, number)
    else:
        with ray_cluster(num_cpus=number) as (cluster, place):
            kills, out = trained(file, number, ("--address", cluster.address), place)
    folder = find(file.parent / "runs", "@last")
    digest, price = results.suggestions_digest(folder), re.search(r"strict replay kept workers idle for .*", out)
    assert price, out
    print(f"\n{number} workers, {kills} killed, digest {digest}, {time.time() - began:.0f} s; last driver: {price[0]}")
    assert ended(file) == TRIALS
    assert digest == results.suggestions_digest(undisturbed)
    assert values(folder) == values(undisturbed)
