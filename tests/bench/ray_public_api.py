"""Ray's public interface beside its private parts: the same sweeps in two trees, and three ways to a worker, in turn.

    python -m tests.bench.ray_public_api --before OTHER_TREE [--trials 1000] [--rounds 2]

The other tree is a checkout of the commit to compare with. Sweeps: short trials (`scale`), and one second each
(`scheduling`), with Optuna and MLflow on. Workers: Ray and Tune started and ended with two idle trials, where Tune's
actors ask for its environment variables (as it comes), for none (`workers_without_variables`), or where the whole job
has the same variables (the public way); CPU of the process tree, and worker processes that Ray started.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable

from tests.bench.scheduling import measure

WORKERS = """
import glob, sys, tempfile, time
import orchestrator.executors.ray_environment
import ray
from ray import tune
from orchestrator.executors.ray_private import private_cluster, workers_without_variables
from pathlib import Path
way = sys.argv[1]
class T(tune.Trainable):
    def step(self):
        time.sleep(1.0)
        return {"done": True}
    def save_checkpoint(self, d): return {}
    def load_checkpoint(self, c): pass
with tempfile.TemporaryDirectory(prefix="gsb-", dir="/tmp", ignore_cleanup_errors=True) as tmp:
    job = {"env_vars": {"PL_DISABLE_FORK": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}} if way == "job" else None
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
             runtime_env=job, **private_cluster(Path(tmp)))
    run = tune.RunConfig(storage_path=tmp, name="b", verbose=0)
    with workers_without_variables(way == "none"):
        tune.Tuner(tune.with_resources(T, {"cpu": 1}), tune_config=tune.TuneConfig(num_samples=2, reuse_actors=True),
                   run_config=run).fit()
    print("PROCESSES", len(glob.glob(tmp + "/session_2*/logs/python-core-worker-*.log")))
    ray.shutdown()
"""


def scale(tree: str, trials: int) -> dict[str, float]:
    """Figures of `tests.bench.scale` in a tree."""
    _, _, out = measure([sys.executable, "-m", "tests.bench.scale", "--trials", str(trials)], **where(tree))
    found = {
        "CPU s/trial, process tree": re.search(r"process tree ([\d.]+)", out),
        "CPU s/trial, driver": re.search(r"driver ([\d.]+), its", out),
        "CPU s/trial, main thread": re.search(r"main thread ([\d.]+)", out),
        "driver MiB, peak": re.search(r"peak driver memory ([\d.]+)", out),
    }
    first, last = re.search(r"first end after ([\d.]+) s, last after ([\d.]+)", out).groups()  # type: ignore[union-attr]
    figures = {name: float(match[1]) for name, match in found.items() if match}
    return figures | {"first end, s": float(first), "wall ms/trial": 1e3 * (float(last) - float(first)) / trials}


def seconds(tree: str, trials: int) -> dict[str, float]:
    """Figures of `tests.bench.scheduling` in a tree."""
    command = [sys.executable, "-m", "tests.bench.scheduling", "--only", "geosweep", "--trials", str(trials)]
    _, _, out = measure(command, **where(tree))
    row = re.search(r"MLflow\) +([\d.]+) +([\d.]+) +([\d.]+) +(-?[\d.]+)", out)
    first = re.search(r"first training step after ([\d.]+)", out)
    assert row is not None
    assert first is not None
    return {
        "wall s": float(row[1]),
        "efficiency": float(row[2]),
        "efficiency after start": float(row[3]),
        "CPU overhead s/trial": float(row[4]),
        "first training step, s": float(first[1]),
    }


def workers(way: str) -> dict[str, float]:
    """CPU seconds and worker processes of a start with two workers."""
    wall, cpu, out = measure([sys.executable, "-c", WORKERS, way], **where(os.getcwd()))
    processes = re.search(r"PROCESSES (\d+)", out)
    assert processes is not None
    return {"wall s": wall, "CPU s": cpu, "worker processes": float(processes[1])}


def where(tree: str) -> dict[str, object]:
    """Keywords for a child that imports from this tree."""
    return {"cwd": tree, "env": {**os.environ, "PYTHONPATH": tree}}


def show(title: str, rows: Iterable[tuple[str, dict[str, float]]]) -> None:
    """Medians, and the first row's over the others'."""
    seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, figures in rows:
        print(f"  {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
        for key, value in figures.items():
            seen[name][key].append(value)
    print(f"{title}, median of {len(next(iter(next(iter(seen.values())).values())))} (load {os.getloadavg()[0]:.1f})")
    names = list(seen)
    print(f"  {'':28}" + "".join(f"{n:>12}" for n in names) + "".join(f"{names[0] + '/' + n:>16}" for n in names[1:]))
    for key in seen[names[0]]:
        values = [statistics.median(seen[name][key]) for name in names]
        ratios = "".join(f"{values[0] / v:16.3f}" for v in values[1:])
        print(f"  {key:28}" + "".join(f"{v:12.4f}" for v in values) + ratios, flush=True)


def main() -> None:
    """Run all in turn and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", required=True)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    o = parser.parse_args()
    trees = {"after": os.getcwd(), "before": os.path.abspath(o.before)}
    rounds = range(o.rounds)
    show(f"{o.trials} trials of 1 ms", ((n, scale(t, o.trials)) for _ in rounds for n, t in trees.items()))
    show("16 trials of 1 s", ((n, seconds(t, 16)) for _ in rounds for n, t in trees.items()))
    show("Start with two workers", ((way, workers(way)) for _ in rounds for way in ("none", "tune", "job")))


if __name__ == "__main__":
    main()
