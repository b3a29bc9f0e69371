"""How many processors this process may use, which may be fewer than the machine has."""

from __future__ import annotations

import os


def usable() -> int:
    """Processors allowed by affinity (taskset, Slurm, Docker's cpusets), a cgroup's quota and SLURM_CPUS_PER_TASK."""
    from joblib import cpu_count  # 0.1 s

    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    found = int(cpu_count())
    return max(1, min(found, int(slurm)) if slurm.isdigit() and int(slurm) else found)
