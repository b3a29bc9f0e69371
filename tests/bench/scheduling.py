"""Scheduling bench: trials of a given CPU time on two cores; ours, stock Tune, joblib/loky, in turn, in one run.

    python -m tests.bench.scheduling [--seconds 1.0] [--trials 64] [--load burn|spin] [--rounds 1] [--where]

Efficiency = ideal / (wall x 2), with and without start-up.
CPU overhead = (CPU of the whole process tree - work) / trials.
First step: seconds from the command to the first training step.
Ours runs with Optuna and MLflow on; stock Tune has neither.
A trial is 100 steps of torch that also spin for 1/100 of the seconds each: in all runners (`burn`), or in ours alone,
while the others only spin (`spin`; their trials then have no steps, which ours have on top of the seconds).
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
from dataclasses import dataclass
from pathlib import Path

from tests.bench import bytecode

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
from tests.bench import burn as loads
seconds, trials, reuse = float(sys.argv[1]), int(sys.argv[2]), sys.argv[4] == "reuse"
load = getattr(loads, sys.argv[3])
class T(tune.Trainable):
    def setup(self, config): pass
    def reset_config(self, config): return True
    def step(self):
        began, loss = load(seconds)
        return {"loss": loss, "began": began, "done": True}
    def save_checkpoint(self, d): return {}
    def load_checkpoint(self, c): pass
def f(config):
    began, loss = load(seconds)
    tune.report({"loss": loss, "began": began})
tmp = tempfile.mkdtemp(prefix="gsb", dir="/tmp")
quiet = dict(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
ray.init(address="local", num_cpus=2, _temp_dir=tmp, **quiet)
start = time.time()
run = tune.RunConfig(storage_path=tmp, name="b", verbose=0,
    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False) if reuse else None)
found = tune.Tuner(tune.with_resources(T if reuse else f, {"cpu": 1}), param_space={"x": tune.uniform(0, 1)},
    tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=reuse), run_config=run).fit()
print("RUNNING", time.time() - start, min(one.metrics["began"] for one in found))
ray.shutdown()
"""

LOKY = """
import sys, time
from joblib import Parallel, delayed
from tests.bench import burn as loads
seconds, trials, load = float(sys.argv[1]), int(sys.argv[2]), getattr(loads, sys.argv[3])
start = time.time()
found = Parallel(n_jobs=2)(delayed(load)(seconds) for _ in range(trials))
print("RUNNING", time.time() - start, min(began for began, _ in found))
"""


@dataclass(frozen=True)
class Figures:
    """What a runner took, in seconds."""

    wall: float
    running: float
    """Wall after start-up."""
    cpu: float
    first: float
    """To the first training step."""


WHERE: dict[str, float] = {}
"""Kind of process -> CPU seconds of the newest measurement."""
KINDS = {
    "site-packages/ray/": "Ray's daemons",
    "default_worker": "workers",
    "loky": "workers",
    "ray::": "workers",
    "ray::DashboardAgent": "Ray's daemons",
    "ray::RuntimeEnvAgent": "Ray's daemons",
}
"""Words of a command line -> kind of process, the last that fits; others are the driver and what it starts."""


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
    WHERE.clear()
    WHERE.update(meter.kinds())
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return wall, cpu, done.stdout + done.stderr


class TreeMeter:
    """CPU seconds of all descendants of this process, sampled, because Ray's daemons reap their own children."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, str], int] = {}
        self._names: dict[tuple[int, str], str] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """CPU seconds seen."""
        self._done.set()
        self._thread.join()
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def kinds(self) -> dict[str, float]:
        """Kind of process -> CPU seconds seen."""
        found: dict[str, float] = {}
        for process, ticks in self._ticks.items():
            name = self._names.get(process, "")
            kind = ([kind for words, kind in KINDS.items() if words in name] or ["driver"])[-1]
            found[kind] = found.get(kind, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
        return found

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
                    with contextlib.suppress(OSError):
                        name = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                        self._names[pid, born] = name or self._names.get((pid, born), "")


def ours(seconds: float, trials: int) -> Figures:
    """Of `geosweep run` with Optuna and MLflow on."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "bench.yaml"
        file.write_text(YAML.format(seconds=seconds, trials=trials))
        code = "from orchestrator.cli import command; command()"
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
        return Figures(wall, max(points) - first_point, cpu, first_point - began)


def stock(script: str, *words: str) -> Figures:
    """Of another runner."""
    began = time.time()
    wall, cpu, out = measure([sys.executable, "-c", script, *words], env={**os.environ, "PYTHONPATH": os.getcwd()})
    found = re.search(r"RUNNING ([\d.]+) ([\d.]+)", out)
    assert found is not None, out
    return Figures(wall, float(found[1]), cpu, float(found[2]) - began)


def main() -> None:
    """Run all in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--load", choices=("burn", "spin"), default="burn")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--where", action="store_true", help="also the CPU seconds of each kind of process")
    parser.add_argument("--only", default="", help="words of runners, separated by commas")
    options = parser.parse_args()
    s, n = str(options.seconds), str(options.trials)
    os.environ["PYTHONPATH"] = os.getcwd()
    bytecode.ensure()
    runners = {
        "geosweep (Tune, Optuna, MLflow)": lambda: ours(options.seconds, options.trials),
        "joblib/loky": lambda: stock(LOKY, s, n, options.load),
        "Ray Tune, reused class trainable": lambda: stock(TUNE, s, n, options.load, "reuse"),
        "Ray Tune, default": lambda: stock(TUNE, s, n, options.load, "fresh"),
    }
    ideal = options.seconds * options.trials / 2
    print(
        f"{options.trials} trials of {options.seconds} CPU s on 2 cores, ideal {ideal:.1f} s, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    head = f"{'wall s':>8} {'efficiency':>11} {'after start':>12} {'CPU overhead s/trial':>21} {'first step s':>13}"
    print(f"{'runner':34} {head}")
    wanted = [name for name in runners if any(word in name for word in options.only.split(","))]
    for name in wanted * options.rounds:
        f = runners[name]()
        overhead = (f.cpu - options.seconds * options.trials) / options.trials
        row = f"{f.wall:8.1f} {ideal / f.wall:11.3f} {ideal / f.running:12.3f} {overhead:21.3f} {f.first:13.1f}"
        print(f"{name:34} {row}", flush=True)
        if options.where:
            print("  " + ", ".join(f"{kind} {cpu:.2f}" for kind, cpu in sorted(WHERE.items())), flush=True)


if __name__ == "__main__":
    main()
