"""Trials that were already trained anywhere under the root, looked up by everything their result depends on.

An address is a hash of every source file that the trial imports (see `source`), the configuration, the task with what
it reports about its data (`facts`), the budget, the seed, the digests of initial weights and data, and the numeric
environment. Two trials with the same address have the same result, so the second reuses the first one's log and result
instead of training. Other inputs of a user's task are unknown here, so for such tasks the cache is off unless the sweep
file says `cache: true`.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from orchestrator.storage.errors import Damaged
from orchestrator.storage.folder import write_atomic
from orchestrator.trial import source
from orchestrator.trial.job import Job
from orchestrator.trial.record import read_result

BESIDE_THE_RESULT = frozenset(
    {"trial_id", "arm", "study", "stage", "configuration", "folder", "stop_file", "rungs", "until", "cache", "point",
     "checkpoint_s", "slice_s", "step_timeout_s", "checkpoint_quota", "alone"}
)  # fmt: skip
"""Fields of a job that do not affect its result."""
NO_FACTS: Mapping[str, str] = {}


def address(job: Job, init_digest: str, data_digest: str, facts: Mapping[str, str] = NO_FACTS) -> str:
    """The address of a job, given the digests of its initial weights and data and the task's `facts` about the data."""
    parts = {
        "job": {k: v for k, v in asdict(job).items() if k not in BESIDE_THE_RESULT},
        "weights": init_digest,
        "data": data_digest,
        "facts": dict(facts),
        "code": source.digest(job.task, job.optimizer),
        "environment": _environment(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def find(cache: Path, key: str) -> Path | None:
    """The folder of a trial with this address that ended by itself, or None; a damaged one is ignored."""
    known = _file(cache, key)
    if not known.exists():
        return None
    folder = cache.parent / known.read_text(encoding="utf-8")
    try:
        result = read_result(folder)
    except Damaged:
        return None
    return folder if result is not None and result.state.is_trained else None


def remember(cache: Path, key: str, folder: Path) -> None:
    """Record that the trial in `folder`, somewhere under the cache's root, has this address."""
    file = _file(cache, key)
    if not file.exists() and folder.is_relative_to(cache.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, str(folder.relative_to(cache.parent)), durable=False)


def entries(cache: Path, sweep_id: str) -> list[Path]:
    """The cache files that point to trials of a sweep."""
    found = (path for path in cache.glob("*/*") if path.is_file())
    return [path for path in found if path.read_text(encoding="utf-8").startswith(f"{sweep_id}/")]


def _file(cache: Path, key: str) -> Path:
    return cache / key[:2] / key


@lru_cache(maxsize=1)
def _environment() -> dict[str, str]:
    import numpy
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": device,
        "python": platform.python_version(),
    }
