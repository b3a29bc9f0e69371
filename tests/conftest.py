"""What holds for all tests: one thread of arithmetic in a process, because the processes share the cores."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # read by torch, NumPy and SciPy when they are imported, here and in subprocesses
