"""What a sweep will take, before it starts: a short calibration, then quantiles of seconds and GPU-hours.

For every arm a few configurations are drawn and trained for a moment each, alone in this process; with r the seconds of
a gradient evaluation (evaluations of the model shared out over the budget),

    log r ~ N(mu_arm, s^2),  s pooled over the arms with f degrees of freedom
    total = sum over trials of budget r;  makespan: trials go to the first free worker, as the executor does it

Future trials are drawn from the predictive distribution: s^2 from f s^2 / chi2_f, mu_arm from N(mean, s^2 / m), then r.
p10 to p90 holds the true value in about 80 % of sweeps when trials are as alike as the calibration saw them. Contention
on the machine, queueing, start-up of workers and stopping early are not in it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trainables
from orchestrator.definition import plan
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.space import from_unit
from orchestrator.trial.training import optimizer_builder
from trainables.loop import Diverged, Training

Array = NDArray[np.float64]
DRAWS, CONFIGURATIONS, SECONDS_EACH, QUANTILES = 2000, 3, 0.7, (0.1, 0.5, 0.9)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One arm: measured seconds per gradient evaluation of a few configurations, and what is to be trained."""

    measured: Sequence[float]
    trials: int
    budget: float
    """Gradient evaluations of a trial."""


def forecast(loads: Mapping[str, Load], *, slots: int, gpu: float, seed: int = 0) -> dict[str, Any]:
    """p10, p50 and p90 of wall seconds, trial seconds and GPU-hours on `slots` workers."""
    rng = np.random.default_rng(seed)
    logs = {arm: np.log(np.asarray(load.measured)) for arm, load in loads.items()}
    freedom = sum(len(x) - 1 for x in logs.values())
    pooled = sum(float(((x - x.mean()) ** 2).sum()) for x in logs.values()) / max(1, freedom)
    spread = np.sqrt(pooled * freedom / rng.chisquare(max(1, freedom), size=DRAWS))
    columns = []
    for arm, load in loads.items():
        centre = logs[arm].mean() + spread * rng.normal(size=DRAWS) / np.sqrt(len(logs[arm]))
        noise = rng.normal(size=(load.trials, DRAWS))
        columns.append(load.budget * np.exp(centre + spread * noise))
    trials = np.concatenate(columns)
    total = trials.sum(axis=0)
    wall = makespan(_in_turns([load.trials for load in loads.values()], trials), slots)
    return {
        "seconds": quantiles(wall),
        "trial_seconds": quantiles(total),
        "gpu_hours": quantiles(total * gpu / 3600),
        "slots": slots,
    }


def quantiles(values: Array) -> dict[str, float]:
    """p10, p50, p90."""
    found = np.quantile(values, QUANTILES)
    return {f"p{round(100 * q)}": float(v) for q, v in zip(QUANTILES, found, strict=True)}


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
    """The rows in the order in which the conductor starts them: arms in turn."""
    turn = np.concatenate([np.arange(n) for n in counts])
    return np.asarray(trials[np.argsort(turn, kind="stable")])


def calibrate(spec: Spec) -> dict[str, Load]:
    """Train CONFIGURATIONS of each arm for about SECONDS_EACH seconds."""
    found = {}
    for name, arm in spec.arms.items():
        measured = [_seconds_per_evaluation(spec, arm, config) for config in _probes(arm)]
        found[name] = Load(measured=measured, trials=plan.trials(spec, arm), budget=float(spec.budget.per_trial))
    return found


def _probes(arm: ArmSpec) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(CONFIGURATIONS, len(arm.parameters)))
    return [from_unit(arm.parameters, list(map(float, u))) for u in points]


def _seconds_per_evaluation(spec: Spec, arm: ArmSpec, config: Mapping[str, Any]) -> float:
    """Seconds of a gradient evaluation, the model's evaluations included in proportion. A diverging probe counts
    too.
    """
    import torch

    torch.set_num_threads(spec.resources.cpu)
    task = trainables.build(spec.task.name, **spec.task.parameters)
    budget, seed = float(spec.budget.per_trial), spec.seeds.tune[0]
    build = optimizer_builder(arm.optimizer, config, seed)
    training = Training(task, build, budget=budget, seed=seed, evaluations=1, recipe=spec.training.recipe)
    started = 0.0

    def enough() -> bool:
        nonlocal started
        if training.step == 1:
            started = time.perf_counter()  # the first step warms up
        return training.step > 2 and time.perf_counter() - started > SECONDS_EACH

    with contextlib.suppress(Diverged):
        training.advance(enough)
    spent = max(1.0, training.optimizer.grad_evals * max(1, training.step - 1) / max(1, training.step))
    train = (time.perf_counter() - started) / spent if started else 1e-6
    begun = time.perf_counter()
    models = training.model if isinstance(training.model, list) else [training.model]
    for model in models:
        model.eval()
    task.evaluate(training.model)
    return train + spec.evaluations * (time.perf_counter() - begun) / budget
