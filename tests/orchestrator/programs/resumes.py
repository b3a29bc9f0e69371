"""Counts up, with a checkpoint at every step; --resume goes on from it. --wait: slowly, as training does."""

import argparse
import signal
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--slope", type=float, default=1.0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--wait", type=float, default=0.0)
parser.add_argument("--out", type=Path, default=Path())
parser.add_argument("--resume", type=Path)
parser.add_argument("--deaf", default="False")
given = parser.parse_args()
if given.deaf == "True":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
begin = int(given.resume.read_text()) if given.resume else 0
print(f"from {begin}", flush=True)
for step in range(begin + 1, given.steps + 1):
    time.sleep(given.wait)
    (given.out / "state.txt").write_text(str(step))
    print(f"{step}: loss {given.slope / step}", flush=True)
