"""Sixty trials under fifty faults: drivers, workers, the tracking server and the database killed in random order. One
search an arm, and three.

The moments are drawn from a seed: after how many ended trials, and how long after. The whole must end as the
undisturbed sweep does, to the last bit, and study, MLflow, Parquet tables and trial folders must agree on it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.reconcile import reconcile
from orchestrator.search.optuna_storage import storage
from orchestrator.storage.documents import read_json
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.tracking.mlflow import MlflowTracker
from tests.faults.services import trials_of
from tests.orchestrator.command import check_mlflow, finish, ray_processes, start, values, workers
from tests.orchestrator.sweep_files import sweep_text
from tests.services import MlflowServer, Postgres, postgres_server

pytestmark = pytest.mark.long
FAULTS = {"worker killed": 18, "database killed": 14, "tracking server killed": 12, "driver killed": 6}
TRIALS = 60
SEED = int(os.environ.get("GEOSWEEP_FAULT_SEED", "0"))


@dataclass
class Loss:
    """What a fault interrupted: trial -> times of the points that it had logged."""

    kind: str
    points: dict[str, list[int]] = field(default_factory=dict)


def draw() -> list[tuple[str, int, float]]:
    """(fault, after how many ended trials, seconds after that or after the fault before), in order."""
    source = random.Random(SEED)
    kinds = [kind for kind, times in FAULTS.items() for _ in range(times)]
    source.shuffle(kinds)
    marks = sorted(source.randrange(0, TRIALS - 8) for _ in kinds)
    return [(kind, mark, source.uniform(0.0, 1.5)) for kind, mark in zip(kinds, marks, strict=True)]


def sweep(pause_s: float, studies: int) -> str:
    """Two arms; of each one search with 27 trials and 3 confirm seeds, or three with 8 and 2."""
    trials, confirm = (27, 3) if studies == 1 else (8, 2)
    text = yaml.safe_load(sweep_text(method="tpe", trials=trials, confirm=confirm, per_trial=40, pause_s=pause_s))
    if studies > 1:
        text["seeds"] = {"studies": studies, "tune": 1, "confirm": confirm}
    text["method"] |= {"replay": "strict", "lag": 4}
    text["resources"] = {"checkpoint_every": "0.3s", "max_concurrent": 2}
    text["evaluations"] = 8
    return str(yaml.safe_dump(text))


class Storm:
    """Runs the command until the sweep is done, and does the drawn faults to it on the way."""

    def __init__(self, file: Path, postgres: Postgres, mlflow: MlflowServer) -> None:
        self.file, self.postgres, self.mlflow = file, postgres, mlflow
        self.trials = file.parent / "runs"
        self.source, self.losses, self.drivers = random.Random(SEED + 1), list[Loss](), 0
        self.codes: Counter[int] = Counter()
        self.seen: dict[Path, bytes] = {}
        self.restarts: list[threading.Thread] = []
        self.said: list[str] = []
        self.killed: list[int] = []

    def run(self, plan: list[tuple[str, int, float]]) -> None:
        left, due_from = list(plan), time.time()
        while True:
            driver = self._start()
            try:
                while driver.poll() is None:
                    self._look()
                    ready = left and len(self.seen) >= left[0][1] and time.time() - due_from >= left[0][2]
                    if ready and self._do(left[0][0], driver):
                        left.pop(0)
                        due_from = time.time()
                    time.sleep(0.05)
                self.said.append(finish(driver, 60))
            finally:
                if driver.poll() is None:
                    os.killpg(driver.pid, signal.SIGKILL)
            self.codes[driver.returncode] += 1
            assert driver.returncode in (0, 75, -signal.SIGKILL), self.said[-1]
            self._look()
            if driver.returncode == 0 and self._tracked():
                break
            for thread in self.restarts:  # whoever starts a driver again sees to the servers first
                thread.join()
        assert not left, f"the sweep ended before {len(left)} of the faults"

    def _start(self) -> subprocess.Popen[str]:
        self.drivers += 1
        return start(self.file, "--storage", self.postgres.url, "--tracking-uri", self.mlflow.uri)

    def _look(self) -> None:
        """A result that was written once never changes."""
        for path in self.trials.glob("*/trials/*/result.json"):
            if path not in self.seen:
                self.seen[path] = path.read_bytes()

    def _do(self, kind: str, driver: subprocess.Popen[str]) -> bool:
        if kind == "worker killed":
            victims = [w for w in workers(driver.pid) if trials_of(w)]
            if not victims:
                return False
            victim = self.source.choice(victims)
            self._lose(kind, trials_of(victim))
            os.kill(victim, signal.SIGKILL)
        elif kind == "driver killed":
            busy = [folder for w in workers(driver.pid) for folder in trials_of(w)]
            if not busy and not self.source.randrange(3):  # some are killed while they start
                return False
            self._lose(kind, busy)
            self.killed.append(driver.pid)
            (os.kill if self.source.randrange(2) else os.killpg)(driver.pid, signal.SIGKILL)
        else:
            server: Any = self.postgres if kind == "database killed" else self.mlflow
            if any(thread.is_alive() for thread in self.restarts):  # one server away at a time
                return False
            self._lose(kind, [])
            server.kill()
            self._later(server.start, self.source.uniform(0.0, 2.0))
        return True

    def _later(self, what: Callable[[], None], seconds: float) -> None:
        thread = threading.Thread(target=lambda: (time.sleep(seconds), what()))
        thread.start()
        self.restarts = [*[t for t in self.restarts if t.is_alive()], thread]

    def _lose(self, kind: str, folders: list[Path]) -> None:
        print(f"{time.strftime('%H:%M:%S')} {len(self.seen)} of {TRIALS} trials ended: {kind}", flush=True)
        logs = {f.name: [p.time for p in MetricLog(f / "metrics.jsonl").points()] for f in folders}
        self.losses.append(Loss(kind, logs))

    def _tracked(self) -> bool:
        return bool((read_json(find(self.trials, "@last").path / "outcome.json") or {}).get("tracked"))


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    with server.running():
        yield server


def undisturbed(place: Path, studies: int) -> SweepFolder:
    text = sweep(0.0, studies)
    definition = sweep_file.loads(text, "fit.yaml")
    folder = runner.open_folder(definition, text, place, {})
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), NoTracker())
    return folder


def told(folder: SweepFolder, url: str | None) -> dict[str, list[Any]]:
    kept = storage(folder.journal, url)
    found = {}
    for name in sorted(optuna.get_all_study_names(kept)):
        trials = optuna.load_study(study_name=name, storage=kept).trials
        found[name.removeprefix(f"{folder.sweep_id}/")] = [
            (t.state.name, t.params, t.value, t.intermediate_values, t.user_attrs) for t in trials
        ]
    return found


def table(folder: SweepFolder, name: str) -> list[dict[str, Any]]:
    """A Parquet table without what differs from run to run: times, and the id, which holds the pause of the task."""
    rows: list[dict[str, Any]] = pq.read_table(folder.results / f"{name}.parquet").to_pylist()
    gone = ("sweep_id", "seconds")
    rows = [{k: v for k, v in row.items() if k not in gone and not k.startswith("time/")} for row in rows]
    return [row for row in rows if not str(row.get("name", "")).startswith("time/")]


def show(storm: Storm, folder: SweepFolder, seconds: float) -> None:
    """The fault table: what was done, how often, what it cost, what the states show afterwards."""
    final = {t: {p.time for p in MetricLog(folder.trial(t) / "metrics.jsonl").points()} for t in values(folder)}
    print(f"\nseed {SEED}: {len(storm.losses)} faults in {seconds:.0f} s, {storm.drivers} drivers, exits {storm.codes}")
    print(f"{'fault':<24}{'times':>6}{'trials hit':>12}{'points logged':>15}{'trained again':>15}")
    for kind in FAULTS:
        mine = [loss for loss in storm.losses if loss.kind == kind]
        hit = [(trial, times) for loss in mine for trial, times in loss.points.items()]
        had = sum(len(times) for _, times in hit)
        lost = sum(len(set(times) - final[trial]) for trial, times in hit)
        print(f"{kind:<24}{len(mine):>6}{len(hit):>12}{had:>15}{lost:>15}")
    states = Counter(t.result.state for t in results.ended_trials(folder))
    print(f"afterwards: trials {dict(states)}; suggestions {results.suggestions_digest(folder)}")


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("studies", [1, 3])
def test_sixty_trials_under_fifty_faults(
    postgres: Postgres, mlflow: MlflowServer, tmp_path: Path, studies: int
) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(sweep(0.04, studies))
    plan = draw()
    assert len(plan) == 50
    storm, began = Storm(file, postgres, mlflow), time.time()
    storm.run(plan)
    seconds = time.time() - began
    mlflow.wait()
    folder, plain = find(tmp_path / "runs", "@last"), undisturbed(tmp_path / "plain", studies)
    show(storm, folder, seconds)
    assert Counter(loss.kind for loss in storm.losses) == FAULTS
    ended = results.ended_trials(folder)
    assert [t.result.state for t in ended] == ["COMPLETE"] * TRIALS
    assert {path: path.read_bytes() for path in storm.seen} == storm.seen
    assert results.suggestions_digest(folder) == results.suggestions_digest(plain)
    assert values(folder) == values(plain)
    study = told(folder, postgres.url)
    assert study == told(plain, None)
    assert len(study) == 2 * studies
    each = {"COMPLETE": 27 if studies == 1 else 8}
    assert all(Counter(t[0] for t in trials) == each for trials in study.values())
    for name in ("trials", "metrics"):
        assert table(folder, name) == table(plain, name)
    deadline = time.time() + 30
    while any(ray_processes(driver) for driver in storm.killed) and time.time() < deadline:
        time.sleep(0.5)
    assert not [words for driver in storm.killed for words in ray_processes(driver)]
    check_mlflow(folder, mlflow.uri)
    tracker = MlflowTracker(
        uri=mlflow.uri, root=folder.root, sweep_id=folder.sweep_id, name="fit", description="", facts={}
    )
    with folder.hold():
        assert reconcile(folder, tracker, postgres.url) == []
    print("study, MLflow, Parquet and trial folders agree; equal to the undisturbed sweep; no run is RUNNING")
    print(json.dumps(Counter(line for said in storm.said for line in said.splitlines() if "logged to MLflow" in line)))
