"""Bytecode for benches: an installed package has it, a checkout may not; compiling a command's modules takes 0.2 s."""

from __future__ import annotations

import compileall
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("optim_core", "trainables", "orchestrator", "geosweep", "tests/bench")


def ensure() -> None:
    """Compile our packages, and let processes started from here keep and use the result."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for folder in FOLDERS:
        compileall.compile_dir(ROOT / folder, quiet=2)
