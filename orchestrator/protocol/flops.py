"""FLOPs of a trial: the first few steps of an arm's chosen configuration, trained once more and counted.

With f_1 .. f_n the FLOPs of n steps, S the steps of the trial and k the steps between two refreshes,

    n >= k    S x mean f over whole cycles
    n < k     S x median f + ceil(S / k) (max f - median f)         the refresh lies in the first steps

torch counts matrix products, convolutions and attention, 2 m n k for [m, k] x [k, n], of passes forwards and backwards
and of the optimizer's own algebra alike. It does not count SVD, eigendecompositions, QR, matrix-vector products or
anything elementwise. Products that make a batch are included; evaluations and what precedes the first step
are not. A task without matrix products has no count, nor has a game (torch's counter refuses the gradient of one player
alone), nor a model that the driver's machine cannot train for a few steps in a few seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import optim_core
from orchestrator.definition.isolated import isolated
from orchestrator.definition.states import Stage, State
from orchestrator.storage.documents import read_json, write_atomic
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.job import Job
from orchestrator.trial.record import TrialRecord

FILE, MOST_STEPS, LIMIT_S = "flops.json", 32, 5.0
"""Limits on the steps and seconds for counting one configuration."""


def keep(folder: SweepFolder, trials: Sequence[TrialRecord], *, gpu: float) -> None:
    """Count a confirm trial of each study of each arm, once for a sweep, into flops.json.

    Trials on a `gpu` are left to a driver that has one.
    """
    import torch

    if read_json(folder.path / FILE) is not None or (gpu and not torch.cuda.is_available()):
        return
    first: dict[tuple[str, int], TrialRecord] = {}
    for trial in trials:
        if trial.job.stage is Stage.CONFIRM and trial.result.state is State.COMPLETE:
            first.setdefault((trial.job.arm, trial.job.study), trial)
    found: dict[str, list[float]] = {}
    for (arm, _), trial in first.items():
        counted = of_trial(trial)
        if counted is not None:
            found.setdefault(arm, []).append(counted)
    means = {arm: statistics.fmean(counts) for arm, counts in found.items()}
    document = {"schema": "geosweep/flops/1", "sweep_id": folder.sweep_id, "per_trial": means}
    write_atomic(folder.path / FILE, json.dumps(document, indent=1))


def read(folder: SweepFolder) -> dict[str, float]:
    """Arm -> FLOPs of a confirm trial, the mean over its studies; arms that could not be counted are left out."""
    found: dict[str, float] = (read_json(folder.path / FILE) or {}).get("per_trial", {})
    return found


def of_trial(trial: TrialRecord) -> float | None:
    """FLOPs of a trial that was trained to its end, or None where they cannot be counted here."""
    job, result = trial.job, trial.result
    steps = result.metrics.get("cost/steps")
    if not steps or job.processes > 1 or result.seconds > LIMIT_S * steps:
        return None
    try:
        counts, interval = of_steps(job)
    except Exception:  # a task or optimizer that fails under the counter must not cost a finished sweep
        return None
    return total(counts, int(steps), interval) or None


def total(counts: Sequence[float], steps: int, interval: int) -> float:
    """FLOPs of so many steps, of which the first `counts` are known and every `interval`-th refreshes."""
    if not counts:
        return 0.0
    cycles = len(counts) // interval
    if cycles:
        return steps * statistics.fmean(counts[: cycles * interval])
    usual = statistics.median(counts)
    return steps * usual + math.ceil(steps / interval) * (max(counts) - usual)


@isolated()
def of_steps(job: Job) -> tuple[list[float], int]:
    """FLOPs of the first steps of a job, and how many steps lie between two refreshes of its optimizer."""
    from torch.utils.flop_counter import FlopCounterMode

    from orchestrator.trial.training import build_training  # 1.0 s of torch, which `read` and `compare` need not spend
    from trainables.loop import Diverged

    plain = replace(job, training={**job.training, "compile": False}, diagnostics=(), evaluations=1, readers=0)
    training, _ = build_training(plain)
    interval = max(
        1, int(training.optimizer.param_groups[0].get(optim_core.lookup(job.optimizer).REFRESH_INTERVAL) or 1)
    )
    most, began, seen = min(MOST_STEPS, max(2, interval)), time.perf_counter(), list[float]()
    with FlopCounterMode(display=False) as counter, contextlib.suppress(Diverged):

        def enough() -> bool:
            seen.append(float(counter.get_total_flops()))
            return len(seen) > most or time.perf_counter() - began > LIMIT_S

        training.advance(enough)
    return [after - before for before, after in itertools.pairwise(seen)], interval
