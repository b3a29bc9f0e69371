"""Everything that only a GPU can tell, in one run of at most six minutes.

    python -m tests.bench.gpu_check [--sections steps,sweeps] [--out FOLDER] [--minutes 6] [--again]
    python -m tests.bench.gpu_check --device cpu       every branch of it at tiny sizes, to see that it runs

Sections, in this order: agreement, resume, memory, steps, precision, syncs, waiting, sweeps, shares, processes, packed,
packs, rivals (what each shows stands in its function). Each has a box of time, wider where few are asked for, and
writes `gpu_<device>_<section>.json` when it ends; the text of all is `gpu_<device>.txt`. A section that is whole there,
of the same code, device and torch, is not run again. One that fails is recorded and the next goes on; then the exit
code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.bench.gpu_check import correct, cost, packed, sharing, waiting
from tests.bench.gpu_check.record import Record, environment, slug, text
from tests.bench.gpu_check.setting import FULL, TINY, Setting
from trainables.data import cache

SECTIONS = {
    "agreement": (correct.agreement, 45),
    "resume": (correct.resume, 25),
    "memory": (cost.memory, 25),
    "steps": (cost.steps, 70),
    "precision": (cost.precision, 50),
    "syncs": (cost.syncs, 15),
    "waiting": (waiting.waiting, 45),
    "sweeps": (sharing.sweeps, 80),
    "shares": (sharing.shares, 30),
    "processes": (sharing.processes, 5),
    "packed": (packed.packed, 50),
    "packs": (sharing.packs, 110),
    "rivals": (cost.rivals, 10),
}
"""Name -> (what it does, its seconds)."""
CPU_FACTOR = 8
"""Boxes are wider on a CPU, where the run only shows that everything works, and the machine may be busy."""


def main(words: list[str] | None = None) -> int:
    """Run what was asked; the exit code."""
    parser = argparse.ArgumentParser(
        "gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--only", default="", help="optimizers, by name; default: all")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--minutes", type=float, default=0.0, help="default: 6 on a GPU, 30 on a CPU")
    parser.add_argument("--again", action="store_true", help="run sections whose results are there, too")
    options = parser.parse_args(words)
    asked = options.sections.split(",")
    if unknown := [name for name in asked if name not in SECTIONS]:
        parser.error(f"no section {', '.join(unknown)}; available: {', '.join(SECTIONS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"no CUDA device (torch {torch.__version__}): nothing was measured; --device cpu runs all of it, tiny")
        return 0
    where = environment(options.device)
    print(" | ".join(f"{key} {value}" for key, value in where.items()), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"gpu_{slug(where['device'])}"
    total = 60 * (options.minutes or (6 if options.device == "cuda" else 30))
    deadline = time.monotonic() + total
    wider = max(1.0, total / sum(SECTIONS[name][1] for name in asked))
    failed = []
    with tempfile.TemporaryDirectory(prefix="gs-check-") as name:
        place = Path(name)
        before = os.environ.get(cache.VARIABLE)
        os.environ[cache.VARIABLE] = str(place / "cache")
        try:
            only = tuple(n for n in options.only.split(",") if n)
            sizes = FULL if options.device == "cuda" else TINY
            setting = Setting(device=options.device, sizes=sizes, place=place, only=only)
            for section in (s for s in SECTIONS if s in asked):
                run, box = SECTIONS[section]
                file = Path(f"{stem}_{section}.json")
                record = None if options.again else Record.whole(file, where)
                if record is not None:
                    print(f"\n{section}: there already, of {record.environment['date']}")
                else:
                    setting.until = min(time.monotonic() + box * (wider if setting.cuda else CPU_FACTOR), deadline)
                    record = Record.of(section, run, setting, where)
                    record.write(file)
                print(record.text(), flush=True)
                failed += [f"{section}: {said}" for said in record.failures]
        finally:
            os.environ.pop(cache.VARIABLE)
            if before is not None:
                os.environ[cache.VARIABLE] = before
    Path(f"{stem}.txt").write_text(text(stem, SECTIONS))
    for said in failed:
        print(f"FAILED {said}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
