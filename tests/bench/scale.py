"""Scale bench: thousands of trials of a 1 ms task; a sweep over a cluster of two raylets; Optuna and MLflow on.

    python -m tests.bench.scale [--trials 10000] [--studies 1] [--method random] [--raylets 1] [--profile FILE]

`--raylets 0`: no cluster, all trials in the driver's own process.

Decision time is what the driver spends in the conductor for one trial: hearing its end, telling the study, asking for
the next configuration. It is printed by decile of the sweep beside the wall clock between ends, which holds all else:
Ray, Tune, the trial and its files. CPU is that of the whole process tree.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.scheduling import measure

YAML = """
schema_version: 1
name: scale
task: {{name: "tests.bench.burn:Burn", seconds: {seconds}, steps: {steps}}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{optimizer: sgd}}}}
parameters:
  lr: {{distribution: log_uniform_values, min: 1e-3, max: 1e-2}}
  momentum: {{distribution: uniform, min: 0.0, max: 0.9}}
method: {{name: {method}, random_share: {random_share}, seed: 0}}
budget: {{unit: grad_evals, per_trial: {steps}, trials_per_arm: {trials}}}
seeds: {{{studies}tune: 1, confirm: {confirm}}}
evaluations: {evaluations}
cache: false
tracking: {{mlflow: {tracking}}}
"""
MIB = 2**20


class Watch:
    """Times the conductor's calls and the sender's tasks of this process."""

    def __init__(self) -> None:
        self.decisions: list[float] = []
        self.ends: list[float] = []
        self.rss: list[int] = []
        self.main: list[float] = []
        self.process: list[float] = []
        self.sender_cpu = 0.0
        self._open = 0.0

    def install(self) -> None:
        """Put the stop watches around the methods."""
        from orchestrator.scheduling.conductor import SweepConductor
        from orchestrator.tracking.sender import Sender

        def next_job(conductor: Any, inner: Callable[..., Any] = SweepConductor.next_job) -> Any:
            start = time.thread_time()
            job = inner(conductor)
            self._open += time.thread_time() - start
            return job

        def on_report(conductor: Any, report: Any, inner: Callable[..., Any] = SweepConductor.on_report) -> Any:
            start = time.thread_time()
            goes_on = inner(conductor, report)
            self._open += time.thread_time() - start
            if report.done:
                self.decisions.append(self._open)
                self._open = 0.0
                self.ends.append(time.perf_counter())
                self.main.append(time.thread_time())
                self.process.append(time.process_time())
                self.rss.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
            return goes_on

        def attempt(sender: Any, task: Any, inner: Callable[..., Any] = Sender._try) -> Any:
            start = time.thread_time()
            done = inner(sender, task)
            self.sender_cpu += time.thread_time() - start
            return done

        SweepConductor.next_job = next_job  # type: ignore[method-assign]
        SweepConductor.on_report = on_report  # type: ignore[method-assign]
        Sender._try = attempt  # type: ignore[method-assign]

    def facts(self) -> dict[str, Any]:
        """Means by decile and totals."""
        n = len(self.decisions)
        cuts = [n * i // 10 for i in range(11)]
        pairs = list(itertools.pairwise(cuts))

        def slopes(clock: list[float]) -> list[float]:
            return [1e3 * (clock[b - 1] - clock[a]) / max(1, b - 1 - a) for a, b in pairs]

        return {
            "trials": n,
            "decision_ms": [1e3 * statistics.fmean(self.decisions[a:b]) for a, b in pairs],
            "median_decision_ms": [1e3 * statistics.median(self.decisions[a:b]) for a, b in pairs],
            "wall_ms": slopes(self.ends),
            "main_ms": slopes(self.main),
            "process_ms": slopes(self.process),
            "rss_mib": [self.rss[b - 1] / MIB for _, b in pairs],
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
            "driver_cpu_s": time.process_time(),
            "main_thread_cpu_s": time.thread_time(),
            "sender_cpu_s": self.sender_cpu,
        }


@contextlib.contextmanager
def cluster(raylets: int) -> Iterator[str]:
    """The address of a cluster of so many raylets of one CPU each; of one: none, the driver starts its own; or none."""
    if raylets < 2:
        yield ""
        return
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(raylets - 1):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made.address
    finally:
        made.shutdown()


def drive(file: str, root: str, raylets: int, out: str, profile: str) -> None:
    """`geosweep run` in this process, watched."""
    import cProfile

    from orchestrator.cli import main

    watch = Watch()
    watch.install()
    start = time.perf_counter()
    profiler = cProfile.Profile()
    with cluster(raylets) as address:
        where = ["--executor", "debug"] if not raylets else ["--address", address] if address else []
        sys.argv = ["geosweep", "run", file, "--root", root, *where]
        if profile:
            profiler.enable()
        with contextlib.suppress(SystemExit):
            main()
        if profile:
            profiler.disable()
            profiler.dump_stats(profile)
    facts = {**watch.facts(), "wall_s": time.perf_counter() - start, "first_end_s": watch.ends[0] - start}
    facts["last_end_s"], facts["threads"] = watch.ends[-1] - start, threading.active_count()
    Path(out).write_text(json.dumps(facts))


def divided(trials: int, studies: int) -> dict[str, Any]:
    """Words of YAML for so many trials in all: with several studies one of each is its confirm trial."""
    if studies == 1:
        return {"trials": trials, "studies": "", "confirm": 0}
    return {"trials": trials // studies - 1, "studies": f"studies: {studies}, ", "confirm": 1}


def bench(trials: int, method: str, raylets: int, studies: int = 1, **words: Any) -> dict[str, Any]:
    """Run one sweep in a child; its facts, with the CPU of the process tree and the sizes of its stores."""
    profile = words.pop("profile", "")
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "scale.yaml", f"{place}/facts.json"
        given = {"tracking": "null", "seconds": 0.001, "steps": 10, "evaluations": 1, "random_share": 0.5, **words}
        file.write_text(YAML.format(method=method, **divided(trials, studies), **given))
        child = [str(file), f"{place}/runs", str(raylets), out, profile]
        wall, cpu, _ = measure([sys.executable, "-m", "tests.bench.scale", "--drive", *child], timeout=3000)
        facts: dict[str, Any] = json.loads(Path(out).read_text())
        sizes: dict[str, float] = defaultdict(float)
        for path in (p for p in Path(place, "runs").rglob("*") if p.is_file()):
            name = "trial folders" if "trials" in path.parts else path.name
            sizes[name] += path.stat().st_size / MIB
        kept = ("mlflow.db", "study.journal", "trials.parquet", "metrics.parquet", "witness.jsonl", "trial folders")
        ended = sum(1 for _ in Path(place, "runs").glob("*/trials/*/result.json"))
        return {**facts, "total_wall_s": wall, "cpu_s": cpu, "mib": {k: sizes[k] for k in kept}, "ended": ended}


def show(title: str, facts: dict[str, Any], seconds: float) -> None:
    """Print a run."""

    def row(name: str, values: list[float], digits: int = 2) -> None:
        print(f"  {name:28}" + " ".join(f"{v:8.{digits}f}" for v in values))

    n = facts["trials"]
    print(f"{title}: {facts['ended']} trials ended, {facts['total_wall_s']:.0f} s wall, load {os.getloadavg()[0]:.1f}")
    row("decision, mean ms by decile", facts["decision_ms"])
    row("decision, median ms", facts["median_decision_ms"])
    row("between ends, wall ms", facts["wall_ms"])
    row("main thread, CPU ms", facts["main_ms"])
    row("driver, CPU ms", facts["process_ms"])
    row("driver memory, MiB", facts["rss_mib"], 0)
    print(f"  last decile / first: {facts['decision_ms'][-1] / facts['decision_ms'][0]:.2f} (mean), "
          f"{facts['median_decision_ms'][-1] / facts['median_decision_ms'][0]:.2f} (median); "
          f"peak driver memory {facts['peak_rss_mib']:.0f} MiB")  # fmt: skip
    print(f"  CPU: process tree {facts['cpu_s'] / n:.4f} s a trial with {seconds} s of work; driver "
          f"{facts['driver_cpu_s'] / n:.4f}, its main thread {facts['main_thread_cpu_s'] / n:.4f}, "
          f"MLflow sender {facts['sender_cpu_s'] / n:.4f}; start-up included")  # fmt: skip
    print(f"  first end after {facts['first_end_s']:.1f} s, last after {facts['last_end_s']:.1f} s, "
          f"driver's end after {facts['wall_s']:.1f} s")  # fmt: skip
    print("  MiB: " + ", ".join(f"{k} {v:.2f}" for k, v in facts["mib"].items()), flush=True)


def main() -> None:
    """Run and print."""
    if sys.argv[1:2] == ["--drive"]:
        file, root, raylets, out, profile = sys.argv[2:]
        drive(file, root, int(raylets), out, profile)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--studies", type=int, default=1)
    parser.add_argument("--method", default="random")
    parser.add_argument("--raylets", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.001)
    parser.add_argument("--evaluations", type=int, default=1)
    parser.add_argument("--profile", default="")
    o = parser.parse_args()
    os.environ["PYTHONPATH"] = os.getcwd()
    steps = max(10, o.evaluations)
    words = {"seconds": o.seconds, "steps": steps, "evaluations": o.evaluations, "profile": o.profile}
    facts = bench(o.trials, o.method, o.raylets, o.studies, **words)
    studies = f"{o.studies} studies, " if o.studies > 1 else ""
    show(f"{o.trials} trials of {o.seconds} s, {studies}{o.method}, {o.raylets} raylet(s)", facts, o.seconds)


if __name__ == "__main__":
    main()
