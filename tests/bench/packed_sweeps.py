"""Whole sweeps by the command, packed against unpacked: trials an hour on this machine's cores, with Ray.

    python -m tests.bench.packed_sweeps [--packs 1,16,32] [--trials 64] [--steps 200] [--rounds 3]

Digits mlp with sgd, one seed, 4 evaluations, on as many worker processes as there are cores, in turn. `training`: from
the first trial's beginning to the last one's end, by their files; `whole`: from the command to its end, tracking and
tables included. CPU seconds are those of the whole process tree.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import bytecode
from tests.bench.scheduling import WHERE, measure

YAML = """
schema_version: 1
name: packs
task: {{name: digits, model: mlp, noise: 0.4}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{optimizer: sgd}}}}
parameters: {{lr: {{distribution: log_uniform_values, min: 1e-3, max: 0.1}}}}
method: {{name: random, seed: 0}}
budget: {{unit: grad_evals, per_trial: {steps}, trials_per_arm: {trials}}}
evaluations: 4
seeds: {{tune: 1, confirm: 0}}
resources: {{pack: {pack}}}
"""


def sweep(pack: int, trials: int, steps: int) -> tuple[float, float, float]:
    """(seconds of training, seconds of the whole command, CPU seconds)."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "packs.yaml"
        file.write_text(YAML.format(pack=pack, trials=trials, steps=steps))
        code = "from orchestrator.cli import command; command()"
        wall, cpu, _ = measure([sys.executable, "-c", code, "run", str(file), "--root", f"{place}/runs"])
        folders = list(Path(place).glob("runs/*/trials/*"))
        begun = min((one / "trial.json").stat().st_mtime for one in folders)
        ended = max((one / "result.json").stat().st_mtime for one in folders)
        assert len(folders) == trials
        return ended - begun, wall, cpu


def main() -> None:
    """Print a line for each sweep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--packs", default="1,16,32")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.getcwd()
    bytecode.ensure()
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {options.trials} trials of {options.steps} steps", flush=True)
    for pack in [int(one) for one in options.packs.split(",")] * options.rounds:
        load = os.getloadavg()[0]
        training, whole, cpu = sweep(pack, options.trials, options.steps)
        rates = (
            f"{3600 * options.trials / training:8.0f} an hour in training,{3600 * options.trials / whole:8.0f} whole"
        )
        where = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(WHERE.items()))
        print(f"pack {pack:3} load {load:4.1f}{rates}; CPU s {cpu:6.1f} ({where})", flush=True)


if __name__ == "__main__":
    main()
