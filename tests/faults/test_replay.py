"""Strict replay on real Ray: one sequence of suggestions for 1, 2 and 4 workers, with drivers and workers killed."""

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
from orchestrator.folder import find
from tests.faults.services import ray_cluster
from tests.orchestrator.command import ended, finish, in_this_process, start, values, wait_for, workers
from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.long
TRIALS = 24


def trained(file: Path, number: int, words: tuple[str, ...] = (), of: str = "") -> tuple[dict[str, int], str]:
    """Run the sweep with three workers and one driver killed at drawn moments: (kills, what the last driver said)."""
    source, driver = random.Random(number), start(file, *words)
    kills = {"driver": 0, "worker": 0}
    for mark in (4, 9, 14, 19):
        wait_for(file, mark, driver)
        time.sleep(source.uniform(0, 0.5))
        if mark == 9:
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


@pytest.mark.timeout(900)
def test_one_digest_for_1_2_and_4_workers_with_kills(tmp_path: Path) -> None:
    """1 and 2 on private clusters, 4 on a cluster that outlives the killed driver."""
    text = yaml.safe_load(sweep_text(method="tpe", trials=10, confirm=2, per_trial=40, pause_s=0.02))
    text["method"] |= {"replay": "strict", "lag": 3}
    rows, found = [], []
    for number in (1, 2, 4):
        file = tmp_path / str(number) / "fit.yaml"
        file.parent.mkdir()
        file.write_text(yaml.safe_dump({**text, "resources": {"max_concurrent": number}}))
        began = time.time()
        if number < 4:
            kills, out = trained(file, number)
        else:
            with ray_cluster(num_cpus=4) as (cluster, place):
                kills, out = trained(file, number, ("--address", cluster.address), place)
        folder = find(file.parent / "runs", "@last")
        assert ended(file) == TRIALS
        price = re.search(r"strict replay kept workers waiting for .*", out)
        assert price, out
        rows.append((number, kills, results.suggestions_digest(folder), time.time() - began, price[0]))
        found.append(values(folder))
    plain = in_this_process(tmp_path / "1" / "fit.yaml")
    print("\nworkers  kills                        digest            seconds  price in the last driver")
    for number, kills, digest, seconds, price in rows:
        print(f"{number:>7}  {kills!s:<27}  {digest}  {seconds:>7.0f}  {price}")
    assert {row[2] for row in rows} == {results.suggestions_digest(plain)}
    assert all(points == values(plain) for points in found)
