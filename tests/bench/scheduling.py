"""Scheduling bench: trials of a given CPU time on two cores; ours, stock Tune, joblib/loky, in turn, in one run.

    python -m tests.bench.scheduling [--seconds 1.0] [--trials 64]

Efficiency = ideal / (wall x 2), with and without start-up.
CPU overhead = (CPU of the whole process tree - work) / trials.
Ours runs with Optuna and MLflow on; stock Tune has neither.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36

YAML = """
schema_version: 1
name: bench
task: {{name: "tests.bench.burn:Burn", seconds: {seconds}}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{optimizer: sgd}}}}
parameters: {{lr: {{distribution: log_uniform_values, min: 1e-3, max: 1e-2}}}}
method: {{name: tpe, random_share: 0.5, seed: 0}}
budget: {{unit: grad_evals, per_trial: 100, trials_per_arm: {trials}}}
seeds: {{tune: 1, confirm: 0}}
"""

TUNE = """
import os, sys, tempfile, time
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AIR_NEW_OUTPUT="0", PYTHONWARNINGS="ignore")
import ray
from ray import tune
from tests.bench.burn import burn
seconds, trials, reuse = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "reuse"
class T(tune.Trainable):
    def setup(self, config): pass
    def reset_config(self, config): return True
    def step(self):
        burn(seconds)
        return {"loss": 1.0, "done": True}
    def save_checkpoint(self, d): return {}
    def load_checkpoint(self, c): pass
def f(config):
    burn(seconds)
    tune.report({"loss": 1.0})
tmp = tempfile.mkdtemp(prefix="gsb", dir="/tmp")
quiet = dict(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ray.init(address="local", num_cpus=2, _temp_dir=tmp, **quiet)
start = time.time()
run = tune.RunConfig(storage_path=tmp, name="b", verbose=0,
    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False) if reuse else None)
tune.Tuner(tune.with_resources(T if reuse else f, {"cpu": 1}), param_space={"x": tune.uniform(0, 1)},
    tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=reuse), run_config=run).fit()
print("RUNNING", time.time() - start)
ray.shutdown()
"""

LOKY = """
import sys, time
from joblib import Parallel, delayed
from tests.bench.burn import burn
seconds, trials = float(sys.argv[1]), int(sys.argv[2])
start = time.time()
Parallel(n_jobs=2)(delayed(burn)(seconds) for _ in range(trials))
print("RUNNING", time.time() - start)
"""


def measure(command: list[str], timeout: float = 900, **kwargs: object) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds of the process tree, output) of a command.

    Orphans (Ray's daemons) are inherited and reaped by this process, so that their CPU is counted too.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    meter = TreeMeter()
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, **kwargs)  # type: ignore[call-overload]
    wall = time.time() - start
    with contextlib.suppress(ChildProcessError):
        deadline = time.time() + 20
        while time.time() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.1)
    cpu = meter.stop()
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return wall, cpu, done.stdout + done.stderr


class TreeMeter:
    """CPU seconds of all descendants of this process, sampled, because Ray's daemons reap their own children."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, str], int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """CPU seconds seen."""
        self._done.set()
        self._thread.join()
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            rows = {}
            for path in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    words = path.read_text().rpartition(")")[2].split()
                    rows[int(path.parent.name)] = (int(words[1]), words[19], int(words[11]) + int(words[12]))
            for pid, (_, born, ticks) in rows.items():
                above = pid
                while above in rows and above != os.getpid():
                    above = rows[above][0]
                if above == os.getpid() and pid != above:
                    self._ticks[pid, born] = ticks


def ours(seconds: float, trials: int) -> tuple[float, float, float]:
    """(wall, wall after start-up, CPU) of `geosweep run` with Optuna and MLflow on."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "bench.yaml"
        file.write_text(YAML.format(seconds=seconds, trials=trials))
        code = "from orchestrator.cli import main; main()"
        command = [sys.executable, "-c", code, "run", str(file), "--root", f"{place}/runs"]
        began = time.time()
        wall, cpu, _ = measure(command)
        points = [
            json.loads(line)["time"] / 1000
            for path in Path(place).glob("runs/*/trials/*/metrics.jsonl")
            for line in path.read_text().splitlines()
        ]
        first_point = min(points) - seconds / 8
        print(f"  ours: first training step after {first_point - began:.1f} s, last point {max(points) - began:.1f} s")
        return wall, max(points) - first_point, cpu


def stock(script: str, *words: str) -> tuple[float, float, float]:
    """(wall, wall after start-up, CPU) of another runner."""
    wall, cpu, out = measure([sys.executable, "-c", script, *words], env={**os.environ, "PYTHONPATH": os.getcwd()})
    found = re.search(r"RUNNING ([\d.]+)", out)
    return wall, float(found.group(1)) if found else wall, cpu


def main() -> None:
    """Run all in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    s, n = str(options.seconds), str(options.trials)
    os.environ["PYTHONPATH"] = os.getcwd()
    runners = {
        "geosweep (Tune, Optuna, MLflow)": lambda: ours(options.seconds, options.trials),
        "joblib/loky": lambda: stock(LOKY, s, n),
        "Ray Tune, reused class trainable": lambda: stock(TUNE, s, n, "reuse"),
        "Ray Tune, default": lambda: stock(TUNE, s, n, "fresh"),
    }
    ideal = options.seconds * options.trials / 2
    print(
        f"{options.trials} trials of {options.seconds} CPU s on 2 cores, ideal {ideal:.1f} s, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'runner':34} {'wall s':>8} {'efficiency':>11} {'after start':>12} {'CPU overhead s/trial':>21}")
    for name, runner in runners.items():
        if options.only and options.only not in name:
            continue
        wall, running, cpu = runner()
        overhead = (cpu - options.seconds * options.trials) / options.trials
        print(f"{name:34} {wall:8.1f} {ideal / wall:11.3f} {ideal / running:12.3f} {overhead:21.3f}", flush=True)


if __name__ == "__main__":
    main()
