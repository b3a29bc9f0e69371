"""Outage bench: a sweep whose MLflow server answers, and the same sweep with the server down throughout.

    python -m tests.bench.outage [--trials 40] [--seconds 0.5]

Both run in turn, twice, in one call, against a real `mlflow server`. Throughput counts from the first end of a trial to
the last. Afterwards the server comes back, `geosweep reconcile` runs, and every run and point is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.scale import YAML, divided
from tests.services import MlflowServer

COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
EVALUATIONS = 100


def sweep(place: Path, uri: str, trials: int, seconds: float) -> float:
    """Trials a second of one sweep that logs to `uri`."""
    file, out = place / "outage.yaml", place / "facts.json"
    file.write_text(
        YAML.format(
            **divided(trials, 1), method="random", random_share=0.5, seconds=seconds, steps=EVALUATIONS,
            evaluations=EVALUATIONS, tracking=json.dumps(uri),
        )
    )  # fmt: skip
    child = [sys.executable, "-m", "tests.bench.scale", "--drive", str(file), str(place / "runs"), "1", str(out), ""]
    subprocess.run(child, check=True, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    facts: dict[str, Any] = json.loads(out.read_text())
    return float((facts["trials"] - 1) / (facts["last_end_s"] - facts["first_end_s"]))


def arrived(uri: str) -> tuple[int, int, set[str]]:
    """(runs of trials, points, their states) that the server at `uri` has."""
    from mlflow.tracking import MlflowClient

    from orchestrator.tracking.mlflow import TRIAL

    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = [r for r in client.search_runs(experiments, max_results=5000) if TRIAL in r.data.tags]
    points = sum(len(client.get_metric_history(r.info.run_id, "loss/val")) for r in runs)
    return len(runs), points, {r.info.status for r in runs}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=2)
    o = parser.parse_args()
    os.environ["PYTHONPATH"] = os.getcwd()
    print(f"{o.trials} trials of {o.seconds} s and {EVALUATIONS} points, 2 workers, load {os.getloadavg()[0]:.1f}")
    for _ in range(o.rounds):
        with tempfile.TemporaryDirectory() as up, tempfile.TemporaryDirectory() as down:
            first, second = MlflowServer(Path(up)), MlflowServer(Path(down))
            with first.running():
                normal = sweep(Path(up), first.uri, o.trials, o.seconds)
            away = sweep(Path(down), second.uri, o.trials, o.seconds)
            with second.running() as uri:
                again = [*COMMAND, "reconcile", "@last", "--root", f"{down}/runs"]
                subprocess.run(again, check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                runs, points, states = arrived(uri)
        print(
            f"  trials/s: server up {normal:.3f}, server down {away:.3f}, ratio {away / normal:.3f}; afterwards {runs} "
            f"runs {sorted(states)}, {points} of {o.trials * EVALUATIONS} points", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
