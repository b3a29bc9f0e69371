"""Scripts do all of this: each way to end, or not to end, that a sweep has to survive and to name."""

import argparse
import os
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--how", required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=8)
given = parser.parse_args()
how = given.how


def told(step: int, loss: float) -> None:
    print(f"step={step} loss={loss}", flush=True)


if how == "silent":
    print("all went well")
    sys.exit(0)
if how == "usage":
    parser.error("unrecognized arguments: --lr")
for step in range(1, given.steps + 1):
    told(step, float("nan") if how == "diverges" and step > 4 else 1.0 / step + 0.01 * given.seed)
    if how == "raises" and step == 3:
        raise ValueError("a rate of nothing")
    if how == "memory" and step == 3:
        raise MemoryError
    if how == "cuda" and step == 3:
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", file=sys.stderr)
        sys.exit(1)
    if how == "code" and step == 3:
        sys.exit(7)
    if how == "killed" and step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault" and step == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if step == 3:
            time.sleep(60)
if how == "forks":  # one that stays in its session, one that leaves it
    marked = [sys.executable, "-c", "import time; time.sleep(600)", "left-by-strange"]
    subprocess.Popen(marked)
    subprocess.Popen(marked, start_new_session=True)
if how == "gigabyte":
    block = "x" * 99 + "\n"
    for _ in range(int(os.environ.get("STRANGE_BLOCKS", "100"))):
        sys.stdout.write(block * 1000)
    told(given.steps, 0.5)
if how == "long-line":
    sys.stdout.write("y" * 1_000_000)
    print(flush=True)
    told(given.steps, 0.25)
if how == "cut":
    sys.stdout.write("step=8 loss=9.")
    sys.stdout.flush()
    os._exit(0)
if how == "half":
    sys.stdout.write("step=9 lo")
    sys.stdout.flush()
