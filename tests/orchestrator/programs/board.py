"""Scalars for TensorBoard, and a line without an end."""

import sys
from pathlib import Path

from tensorboardX import SummaryWriter

slope = float(next(word for word in sys.argv if word.startswith("--slope=")).removeprefix("--slope="))
out = Path(next(word for word in sys.argv if word.startswith("--logdir=")).removeprefix("--logdir="))
with SummaryWriter(str(out / "events")) as writer:
    for step in range(1, 11):
        writer.add_scalar("loss/train", slope / step, step)
        writer.add_scalar("lr", 0.1, step)
