"""Trials that were already trained anywhere under the root, looked up by everything their result depends on.

An address is a hash of every source file that the trial imports (see `source`), the configuration, the task with what
it reports about its data (`facts`), the budget, the seed, the digests of initial weights and data, and the numeric
environment. Two trials with the same address have the same result, so the second reuses the first one's log and result
instead of training.

A user's task or optimizer may depend on more, so for such tasks the cache is off unless the sweep file says
`cache: true`. Then an entry records the files that were read (`definition.opened`), and counts only while all of them
have that content; where that is not known, nothing is remembered, and an entry without a record does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import trainables
from orchestrator.definition import opened
from orchestrator.storage.documents import write_atomic
from orchestrator.storage.errors import Damaged
from orchestrator.trial import source
from orchestrator.trial.job import Job
from orchestrator.trial.record import read_result

BESIDE_THE_RESULT = frozenset(
    {"trial_id", "arm", "study", "stage", "configuration", "folder", "stop_file", "rungs", "until", "cache", "point",
     "checkpoint_s", "slice_s", "step_timeout_s", "checkpoint_quota", "alone"}
)  # fmt: skip
"""Fields of a job that do not affect its result."""
READ = "read"
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


def find(key: str, job: Job) -> Path | None:
    """The folder of a trial with this address that ended by itself and read what `job` would read now, or None; a
    damaged one is ignored. `key` is empty for a trial without a cache.
    """
    if not key:
        return None
    cache = Path(job.cache)
    known = _file(cache, key)
    if not known.exists():
        return None
    name, _, kept = known.read_text(encoding="utf-8").partition("\n")
    if not _is_known(job) and not _still(kept, cache):
        return None
    folder = cache.parent / name
    try:
        result = read_result(folder)
    except Damaged:
        return None
    return folder if result is not None and result.state.is_trained else None


def remember(key: str, job: Job, folder: Path) -> None:
    """Record that the trial in `folder`, somewhere under the cache's root, has this address (empty: do nothing)."""
    cache = Path(job.cache)
    if not key or not folder.is_relative_to(cache.parent) or find(key, job) is not None:
        return
    lines = [str(folder.relative_to(cache.parent))]
    if not _is_known(job):
        inputs = opened.read(cache.parent) if job.processes == 1 else None
        if inputs is None:
            return
        lines.append(json.dumps({READ: {_within(path, cache): was for path, was in inputs.items()}}, sort_keys=True))
    file = _file(cache, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "\n".join(lines), durable=False)


def _is_known(job: Job) -> bool:
    """Whether task and optimizer belong to this project, so that the address covers everything."""
    return trainables.is_bundled(job.task) and source.all_ours(job.optimizer)


def _still(kept: str, cache: Path) -> bool:
    try:
        recorded: Any = json.loads(kept)[READ]
    except (ValueError, KeyError, TypeError):
        return False
    base = cache.parent.parent
    return opened.unchanged({os.path.normpath(base / path): was for path, was in recorded.items()})


def _within(path: str, cache: Path) -> str:
    """A path that moves with the root, if it lies beside it."""
    base = cache.parent.parent
    return str(Path(path).relative_to(base)) if Path(path).is_relative_to(base) else path


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
