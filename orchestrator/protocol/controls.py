"""Controls: limits with a known answer, trained for a few steps before the sweep spends anything.

A control is a limit that an optimizer's class declares under a name (`optim_core.Limit`): settings at which it has to
take the steps of another optimizer. Both run STEPS steps at a constant learning rate from the same weights over the
same batches, everything else at the middle of the arm's space; what is compared is the weights,
deviation = |w_a - w_b| / |w_b - w_0|. They run in this process.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import optim_core
from optim_core import Limit
from orchestrator.definition import built
from orchestrator.definition.control_names import limits
from orchestrator.definition.isolated import isolated
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.parts import Parts, split
from orchestrator.definition.space import from_unit
from orchestrator.protocol.errors import ControlFailed
from orchestrator.storage.documents import read_json, reading, write_atomic
from orchestrator.storage.folder import SweepFolder
from trainables.ramp import Ramp

STEPS, PLAIN = 12, Parts()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run against its twin."""

    general: str
    parameters: Mapping[str, Any]
    twin: str
    twin_parameters: Mapping[str, Any]
    parts: Parts
    """Task and training of both."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How far a control's runs were from their twins."""

    control: str
    arm: str
    says: str
    """What should hold."""
    cases: int
    steps: int
    deviation: float
    """The largest over the cases."""
    tolerance: float
    passed: bool


def cases(arm: ArmSpec, limit: Limit) -> Iterator[Case]:
    """One for each combination of the arm's values of the hyperparameters that the limit holds for some values of."""
    parts = split(from_unit(arm.parameters, [0.5] * len(arm.parameters)))
    middle = _middle(arm, parts)
    listed = {p.name: p.values for p in arm.parameters if p.name in limit.where and p.values}
    for values in itertools.product(*listed.values()):
        given = {**middle, **dict(zip(listed, values, strict=True))}
        if limit.holds({key: (value,) for key, value in given.items()}):
            parameters, twin, twin_parameters = optim_core.in_limit(arm.optimizer, limit, given)
            yield Case(
                general=arm.optimizer, parameters=parameters, twin=twin, twin_parameters=twin_parameters, parts=parts
            )


def check(spec: Spec, folder: SweepFolder) -> None:
    """Run the sweep's controls unless they already ran; keep the outcome in controls.json. Raises ControlFailed."""
    if not spec.controls:
        return
    if {one.control for one in read(folder)} != set(spec.controls):
        rows = [asdict(one) for one in measure(spec)]
        kept = {"schema": "geosweep/controls/1", "sweep_id": folder.sweep_id, "rows": rows}
        write_atomic(folder.path / "controls.json", json.dumps(kept, indent=1))
    bad = failed(folder)
    if bad:
        raise ControlFailed(
            f"{'; '.join(bad)}. Nothing was trained; fix the optimizer, then remove {folder.path / 'controls.json'}"
        )


def failed(folder: SweepFolder) -> list[str]:
    """A sentence for each failed control; empty if all passed or none was requested."""
    return [
        f"control {one.control} failed in arm {one.arm}: {one.says}, but the weights are {one.deviation:.2g} apart "
        f"(allowed {one.tolerance:g})"
        for one in read(folder)
        if not one.passed
    ]


def read(folder: SweepFolder) -> list[Measured]:
    """The controls that ran; none if none was requested. Raises Damaged."""
    path = folder.path / "controls.json"
    with reading(path):
        return [Measured(**row) for row in (read_json(path) or {"rows": []})["rows"]]


def measure(spec: Spec) -> Iterator[Measured]:
    """One for each control and arm."""
    for name in spec.controls:
        for arm in spec.arms.values():
            declared = limits(name, arm.optimizer)
            found = [case for limit in declared for case in cases(arm, limit)]
            if not found or (control := declared[0].control) is None:
                continue
            worst = max(deviation(spec, case) for case in found)
            yield Measured(
                control=name,
                arm=arm.name,
                says=control.says,
                cases=len(found),
                steps=STEPS,
                deviation=worst,
                tolerance=control.tolerance,
                passed=bool(worst <= control.tolerance),
            )


def deviation(spec: Spec, case: Case) -> float:
    """|w_a - w_b| / |w_b - w_0| after STEPS steps; infinite when either loss became non-finite."""
    import torch

    from trainables.loop import Diverged  # 1.0 s of torch, which `failed` need not spend

    try:
        start, a = _weights(spec, case.general, case.parameters, case.parts)
        _, b = _weights(spec, case.twin, case.twin_parameters, case.parts)
    except Diverged:
        return float("inf")
    found = torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b - start).clamp_min(1e-30)
    return float(found) if bool(torch.isfinite(found)) else float("inf")


@isolated()
def _weights(spec: Spec, optimizer: str, parameters: Mapping[str, Any], parts: Parts = PLAIN) -> tuple[Any, Any]:
    """Weights before and after, each one long vector in float64."""
    import torch

    from trainables.loop import Training  # the same

    torch.set_num_threads(spec.resources.cpu)
    seed = spec.seeds.tune[0]
    build = built.optimizer_builder(optimizer, parameters, seed)
    task = built.build(spec.task.name, {**spec.task.parameters, **parts.task})
    chosen = {**parts.training, "schedule": "constant", "warmup": 0.0, "final_lr": 0.0}
    recipe = replace(spec.training.recipe, **chosen)
    training = Training(task, build, budget=1e9, seed=seed, evaluations=1, recipe=recipe)

    def flat() -> Any:
        models = training.model if isinstance(training.model, list) else [training.model]
        return torch.cat([p.detach().double().flatten() for m in models for p in m.parameters()])

    start = flat()
    training.advance(lambda: training.step >= STEPS)
    return start, flat()


def _middle(arm: ArmSpec, parts: Parts) -> dict[str, Any]:
    """The optimizer's arguments in the middle of the arm's space, defaults filled in, schedules at their beginning."""
    import inspect

    known = optim_core.hyperparameters(arm.optimizer)
    defaults = {k: p.default for k, p in known.items() if p.default not in (inspect.Parameter.empty, None)}
    begun = {name: Ramp(**fields).at(0.0) for name, fields in parts.ramps.items()}
    return {**defaults, **parts.optimizer, **begun}
