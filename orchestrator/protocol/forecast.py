"""What a sweep will cost, before it starts: a short calibration, then quantiles of seconds and GPU-hours.

For every arm a few configurations are drawn and trained for a moment each, alone in this process; with r the seconds of
a gradient evaluation (evaluations of the model shared out over the budget),

    log r ~ N(mu_arm, s^2),  s pooled over the arms with f degrees of freedom
    total = sum over trials of budget r;  makespan: trials go to the first free worker, as the executor does it

Future trials are drawn from the predictive distribution: s^2 from f s^2 / chi2_f, mu_arm from N(mean, s^2 / m), then r.
p10 to p90 covers the true value in about 80% of sweeps if trials vary as they did in the calibration. Contention on
the machine, queueing, worker start-up and early stopping are not included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.definition import plan
from orchestrator.definition.model import Spec
from orchestrator.protocol import pace

Array = NDArray[np.float64]
DRAWS, CONFIGURATIONS, SECONDS_EACH = 2000, 3, 0.7


@dataclass(frozen=True, kw_only=True)
class Load:
    """One arm: measured seconds per gradient evaluation of a few configurations, and the planned training."""

    measured: Sequence[float]
    trials: int
    budget: float
    """Gradient evaluations of a trial."""


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Of a predictive distribution."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a sweep will take."""

    seconds: Quantiles
    """Of wall clock."""
    trial_seconds: Quantiles
    """Of all trials together."""
    gpu_hours: Quantiles
    slots: int
    """Workers."""


def forecast(loads: Mapping[str, Load], *, slots: int, gpu: float, seed: int = 0) -> Forecast:
    """What these arms take on `slots` workers, each trial with `gpu` GPUs."""
    rng = np.random.default_rng(seed)
    logs = {arm: np.log(np.asarray(load.measured)) for arm, load in loads.items()}
    freedom = sum(len(x) - 1 for x in logs.values())
    pooled = sum(float(((x - x.mean()) ** 2).sum()) for x in logs.values()) / max(1, freedom)
    spread = np.sqrt(pooled * freedom / rng.chisquare(max(1, freedom), size=DRAWS))
    columns = []
    for arm, load in loads.items():
        center = logs[arm].mean() + spread * rng.normal(size=DRAWS) / np.sqrt(len(logs[arm]))
        noise = rng.normal(size=(load.trials, DRAWS))
        columns.append(load.budget * np.exp(center + spread * noise))
    trials = np.concatenate(columns)
    total = trials.sum(axis=0)
    wall = makespan(_in_turns([load.trials for load in loads.values()], trials), slots)
    return Forecast(
        seconds=quantiles(wall),
        trial_seconds=quantiles(total),
        gpu_hours=quantiles(total * gpu / 3600),
        slots=slots,
    )


def quantiles(values: Array) -> Quantiles:
    """Of draws."""
    p10, p50, p90 = (float(v) for v in np.quantile(values, (0.1, 0.5, 0.9)))
    return Quantiles(p10=p10, p50=p50, p90=p90)


def makespan(durations: Array, slots: int) -> Array:
    """Time until the last of durations [trials, draws] ends, each going to the first free of `slots` workers.
    [draws]
    """
    free = np.zeros((slots, durations.shape[1]))
    columns = np.arange(durations.shape[1])
    for row in durations:
        free[free.argmin(axis=0), columns] += row
    return np.asarray(free.max(axis=0))


def _in_turns(counts: Sequence[int], trials: Array) -> Array:
    """The rows in the order in which the conductor starts them: arms take turns."""
    turn = np.concatenate([np.arange(n) for n in counts])
    return np.asarray(trials[np.argsort(turn, kind="stable")])


def calibrate(spec: Spec) -> dict[str, Load]:
    """Train CONFIGURATIONS of each arm for about SECONDS_EACH seconds; the start of a trial is not in it."""
    found = {}
    for name, arm in spec.arms.items():
        probes = pace.probes(arm, CONFIGURATIONS)
        paces = [pace.measure(spec, arm, config, SECONDS_EACH) for config in probes]
        budgets = [float(plan.grad_evals_of(spec, arm, config)) for config in probes]
        mean = sum(budgets) / len(budgets)
        trials = [b * p.grad_eval + spec.evaluations * p.evaluation for b, p in zip(budgets, paces, strict=True)]
        found[name] = Load(measured=[t / mean for t in trials], trials=plan.trials(spec, arm), budget=mean)
    return found
