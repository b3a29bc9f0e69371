"""How fast an arm trains on this machine, and what a budget in seconds is worth to it.

Configurations drawn at random are trained briefly, alone in this process, the arms taking turns so that other load on
the machine slows them alike. With a trial's start s, r of a gradient evaluation and e of one of E evaluations
of the model, all in seconds,

    B = floor((T - med s - E med e) / med r)     gradient evaluations in T seconds

is the budget of every trial of the arm, and its schedule's horizon; its error is that of one more configuration beyond
m as fast as these,

    error = max(FLOOR, t_{0.975, m-1} sd(log seconds) sqrt(1 + 1/m))

with m from FEWEST on until no arm's error is above GOOD, or MOST are timed.
It is measured once per sweep and kept with it. Trials that run beside others are slower than this predicts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchestrator.definition import built, plan
from orchestrator.definition.errors import SpecError
from orchestrator.definition.isolated import isolated
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.parts import groups_of, split
from orchestrator.definition.space import from_unit
from orchestrator.storage import calibration
from orchestrator.storage.calibration import Calibrated
from orchestrator.storage.folder import SweepFolder
from trainables.loop import Diverged, Training
from trainables.ramp import Ramp
from trainables.task_class import Task

FEWEST, MOST, SECONDS_EACH, ENDLESS = 5, 15, 0.5, 1e9
FLOOR, GOOD = 0.05, 0.15


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Timings of one configuration, in seconds."""

    start: float
    """Creating data, model and optimizer."""
    grad_eval: float
    evaluation: float
    """Of the model, by the task."""


def calibrated(spec: Spec, folder: SweepFolder) -> Spec:
    """The sweep with the gradient evaluations of its arms filled in, if its budget is in seconds.

    They are measured before the first trial and read from the folder after that. Raises SpecError when too few fit.
    """
    if spec.budget.unit != "seconds" or spec.task.is_program:
        return spec
    found = calibration.read(folder)
    if not found:
        found = measured(spec)
        calibration.write(folder, spec.budget.per_trial, found)
    return filled(spec, found)


def filled(spec: Spec, found: Mapping[str, Calibrated]) -> Spec:
    """The sweep with these figures. Raises SpecError when an arm cannot take a step, or be evaluated often enough."""
    known = replace(spec.budget, calibrated={arm: one.grad_evals for arm, one in found.items()})
    spec = replace(spec, budget=known)
    for name, arm in spec.arms.items():
        if plan.steps_range(spec, arm)[0] < 1 or known.calibrated[name] < spec.evaluations:
            raise SpecError(
                spec.source, 1, 1, ("budget", "per_trial"),
                f"{known.per_trial:g} seconds give arm {name} {known.calibrated[name]:g} gradient evaluations, "
                f"too few for a step and {spec.evaluations} evaluations; raise it",
            )  # fmt: skip
    return spec


def measured(spec: Spec) -> dict[str, Calibrated]:
    """Time every arm; identical arms, such as a twin, share their figures."""
    like: dict[str, str] = {}
    for name, arm in spec.arms.items():
        like[name] = next((known for known in like if replace(spec.arms[known], name=name) == arm), name)
    drawn = {name: probes(spec.arms[name], MOST) for name in dict.fromkeys(like.values())}
    paces: dict[str, list[Pace]] = {name: [] for name in drawn}
    found: dict[str, Calibrated] = {}
    for number in range(MOST):
        for name, configs in drawn.items():
            paces[name].append(measure(spec, spec.arms[name], configs[number], SECONDS_EACH))
        if number + 1 < FEWEST:
            continue
        seconds, looks = spec.budget.per_trial, spec.evaluations
        found = {name: worth(own, seconds=seconds, evaluations=looks) for name, own in paces.items()}
        if all(one.error <= GOOD for one in found.values()):
            break
    return {name: found[known] for name, known in like.items()}


def worth(paces: Sequence[Pace], *, seconds: float, evaluations: int) -> Calibrated:
    """The gradient evaluations in `seconds` for an arm whose configurations have these paces."""
    start, each, looks = (
        float(np.median([getattr(p, key) for p in paces])) for key in ("start", "grad_eval", "evaluation")
    )
    budget = float(max(0, math.floor((seconds - start - evaluations * looks) / each + 1e-9)))
    taken = [p.start + budget * p.grad_eval + evaluations * p.evaluation for p in paces]
    m = len(paces)
    from scipy import special  # which only a budget in seconds needs

    spread = float(special.stdtrit(m - 1, 0.975) * np.std(np.log(taken), ddof=1) * np.sqrt(1 + 1 / m))
    return Calibrated(
        grad_evals=budget, error=max(FLOOR, spread), seconds_per_grad_eval=tuple(p.grad_eval for p in paces)
    )


def probes(arm: ArmSpec, count: int) -> list[dict[str, Any]]:
    """Configurations of the arm drawn at random, always the same."""
    points = np.random.default_rng(0).uniform(size=(count, len(arm.parameters)))
    return [from_unit(arm.parameters, list(map(float, u))) for u in points]


def training_of(spec: Spec, arm: ArmSpec, config: Mapping[str, Any]) -> tuple[Task, Training]:
    """A configuration's run at its beginning, in this process, and its task."""
    import torch

    torch.set_num_threads(spec.resources.cpu)
    budget, seed, parts = plan.grad_evals_of(spec, arm, config), spec.seeds.tune[0], split(config)
    ramps = {name: Ramp(**fields) for name, fields in parts.ramps.items()}
    initial = {**parts.optimizer, **{name: ramp.at(0.0) for name, ramp in ramps.items()}}
    task = built.build(spec.task.name, {**spec.task.parameters, **parts.task})
    training = Training(
        task,
        built.optimizer_builder(arm.optimizer, initial, seed, groups_of(arm.groups, parts)),
        budget=budget if budget == budget else ENDLESS,
        seed=seed,
        evaluations=1,
        recipe=replace(spec.training.recipe, **parts.training),
        ramps=ramps,
    )
    return task, training


@isolated()
def measure(spec: Spec, arm: ArmSpec, config: Mapping[str, Any], seconds: float) -> Pace:
    """Train a configuration for about so many seconds, excluding the first step. A diverging one counts, too."""
    made = time.perf_counter()
    task, training = training_of(spec, arm, config)
    started, start = 0.0, time.perf_counter() - made

    def enough() -> bool:
        nonlocal started
        if training.step == 1:
            started = time.perf_counter()  # the first step warms up
        return training.step > 2 and time.perf_counter() - started > seconds

    with contextlib.suppress(Diverged):
        training.advance(enough)
    spent = max(1.0, training.optimizer.grad_evals * max(1, training.step - 1) / max(1, training.step))
    each = (time.perf_counter() - started) / spent if started else 1e-6
    begun = time.perf_counter()
    for model in training.model if isinstance(training.model, list) else [training.model]:
        model.eval()
    task.evaluate(training.model)
    return Pace(start=start, grad_eval=each, evaluation=time.perf_counter() - begun)
