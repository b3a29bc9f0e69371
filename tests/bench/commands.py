"""Bench of the command: CPU seconds of the verbs that only read, each in a process of its own.

    python -m tests.bench.commands [--root FOLDER [--sweep ID]] [--write]

On a finished sweep of the quickstart's shape: the one that is named, or one that is made small, with five arms, three
studies and few gradient evaluations, on the debug executor. User and system time of the process and its children on
one thread; the least of three.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import bytecode

LIMITS = {"--help": 1.0, "validate": 1.0, "status": 1.0, "best": 1.0, "list": 1.0, "compare": 2.0, "report": 5.0}
"""Verb -> the CPU seconds that it may take."""
SMALL = ("budget.per_trial=60", "budget.trials_per_arm=4", "seeds.studies=3", "seeds.confirm=6")
RESULTS = Path(__file__).parent / "results" / "commands.txt"
TIMES = 3
COMMAND = (sys.executable, "-c", "from orchestrator.cli import command; command()")


def seconds(*words: str) -> float:
    """CPU seconds of a verb. Raises CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def table(root: Path, sweep: str, times: int) -> str:
    """A line for each verb: its limit and what it took."""
    file, at = root / sweep / "sweep.yaml", ("--root", str(root))
    found = {verb: (verb, sweep, *at) for verb in LIMITS} | {
        "--help": ("--help",),
        "validate": ("validate", str(file)),
        "list": ("list", *at),
    }
    lines = [f"{'verb':10} {'CPU s':>6} {'limit':>6}"]
    for verb, words in found.items():
        took = min(seconds(*words) for _ in range(times))
        lines.append(f"{verb:10} {took:6.2f} {LIMITS[verb]:6.1f}" + ("  above" if took > LIMITS[verb] else ""))
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--root", type=Path)
    asked.add_argument("--sweep", default="")
    asked.add_argument("--times", type=int, default=TIMES)
    asked.add_argument("--write", action="store_true", help=f"also into {RESULTS.name}")
    given = asked.parse_args()
    bytecode.ensure()
    with tempfile.TemporaryDirectory() as place:
        root = given.root or Path(place)
        if given.root is None:
            words = ("run", "quickstart", *SMALL, "--executor", "debug", "--root", str(root))
            subprocess.run([*COMMAND, *words], check=True, capture_output=True)
        sweep = given.sweep or max((p.parent for p in root.glob("*/resolved.json")), key=os.path.getmtime).name
        found = table(root, sweep, given.times)
    print(found)
    if given.write:
        RESULTS.write_text(f"{__doc__}\n{sweep}\n{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
