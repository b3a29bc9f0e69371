"""Controls: special cases with a known answer, trained for a few steps before the sweep spends anything.

| name | has to hold | why |
|---|---|---|
| `sgd_under_rotation` | SGD in every rotated basis of the arm = SGD | g -> R^T R g: plain descent is equivariant |
| `identity_rotation` | an optimizer in the identity basis = the plain one | R = I |
| `sam_radius_0` | SAM without a climb = its base optimizer, step for step | w + 0 = w |
| `frozen_preconditioner` | LLQR with ema_rate 0 = its base optimizer | U stays the identity |

SGD in a rotated basis is the limit of rotated AdamW for large eps (beta1 = 0, lr = eps lr_sgd), so that it runs through
the very code of the arm. Both runs take STEPS steps at a constant learning rate from the same weights over the same
batches; what is compared is the weights, deviation = |w_a - w_b| / |w_b - w_0|. They run in this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optim_core
import trainables
from orchestrator.definition.control_names import fits
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.space import from_unit
from orchestrator.protocol.errors import ControlFailed
from orchestrator.storage.folder import SweepFolder, read_json, write_atomic
from trainables.loop import Diverged, Training

STEPS, LARGE_EPS, SGD_LR = 12, 1e6, 0.02


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run against its twin."""

    general: str
    parameters: Mapping[str, Any]
    twin: str
    twin_parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A claim about one arm."""

    says: str
    tolerance: float
    """Largest deviation allowed."""
    cases: Callable[[str, dict[str, Any], ArmSpec], Iterator[Case]]


def _rotated_sgd(optimizer: str, given: dict[str, Any], arm: ArmSpec) -> Iterator[Case]:
    values = next((p.values for p in arm.parameters if p.name == "rotation"), (given["rotation"],))
    twin = {"lr": SGD_LR, "momentum": 0.0, "weight_decay": 0.0}
    if optimizer == "rotated(sgd)":
        fixed: dict[str, Any] = twin
    elif "eps" in given and "beta1" in given:
        fixed = {"lr": SGD_LR * LARGE_EPS, "eps": LARGE_EPS, "beta1": 0.0, "weight_decay": 0.0}
    else:
        return
    for rotation in values:
        yield Case(
            general=optimizer, parameters={**given, **fixed, "rotation": rotation}, twin="sgd", twin_parameters=twin
        )


def _identity(optimizer: str, given: dict[str, Any], arm: ArmSpec) -> Iterator[Case]:
    twin = optimizer[len("rotated(") : -1] if optimizer.startswith("rotated(") else "adamw"
    yield Case(
        general=optimizer,
        parameters={**given, "rotation": "identity"},
        twin=twin,
        twin_parameters=_shared(twin, given),
    )


def _no_climb(optimizer: str, given: dict[str, Any], arm: ArmSpec) -> Iterator[Case]:
    twin = str(given.get("base", "sgd"))
    yield Case(
        general=optimizer, parameters={**given, "sam_radius": 0.0}, twin=twin, twin_parameters=_shared(twin, given)
    )


def _frozen(optimizer: str, given: dict[str, Any], arm: ArmSpec) -> Iterator[Case]:
    twin = str(given.get("base", "sgd"))
    parameters = {**given, "ema_rate": 0.0, "refresh_interval": STEPS // 3}
    for name, off in (("sam_radius", 0.0), ("first_refresh_full", False)):
        if name in optim_core.hyperparameters(optimizer):
            parameters[name] = off
    yield Case(general=optimizer, parameters=parameters, twin=twin, twin_parameters=_shared(twin, given))


CONTROLS: dict[str, Control] = {
    "sgd_under_rotation": Control(says="SGD is unmoved by a rotation", tolerance=1e-4, cases=_rotated_sgd),
    "identity_rotation": Control(says="the identity rotation is the plain optimizer", tolerance=1e-4, cases=_identity),
    "sam_radius_0": Control(says="sam_radius 0 is the base optimizer", tolerance=1e-5, cases=_no_climb),
    "frozen_preconditioner": Control(
        says="a frozen preconditioner is the base optimizer", tolerance=1e-5, cases=_frozen
    ),
}


def check(spec: Spec, folder: SweepFolder) -> None:
    """Run the sweep's controls unless they were run; keep the outcome in controls.json. Raises ControlFailed."""
    if not spec.controls:
        return
    kept = read_json(folder.path / "controls.json") or {"rows": []}
    if {row["control"] for row in kept["rows"]} != set(spec.controls):
        kept = {"schema": "geosweep/controls/1", "sweep_id": folder.sweep_id, "rows": list(measure(spec))}
        write_atomic(folder.path / "controls.json", json.dumps(kept, indent=1))
    bad = failed(folder)
    if bad:
        raise ControlFailed(
            f"{'; '.join(bad)}. Nothing was trained; mend the optimizer, then remove {folder.path / 'controls.json'}"
        )


def failed(folder: SweepFolder) -> list[str]:
    """What went wrong, a sentence for each control that failed; empty when all held or none was asked for."""
    rows = (read_json(folder.path / "controls.json") or {"rows": []})["rows"]
    return [
        f"control {r['control']} failed in arm {r['arm']}: {r['says']}, but the weights are {r['deviation']:.2g} apart "
        f"(allowed {r['tolerance']:g})"
        for r in rows
        if not r["passed"]
    ]


def measure(spec: Spec) -> Iterator[dict[str, Any]]:
    """One row for each control and arm: the largest deviation over its cases."""
    for name in spec.controls:
        control = CONTROLS[name]
        for arm in spec.arms.values():
            if not fits(name, arm.optimizer):
                continue
            cases = list(control.cases(arm.optimizer, _middle(arm), arm))
            if not cases:
                continue
            worst = max(deviation(spec, case) for case in cases)
            yield {
                "control": name,
                "arm": arm.name,
                "says": control.says,
                "cases": len(cases),
                "steps": STEPS,
                "deviation": worst,
                "tolerance": control.tolerance,
                "passed": bool(worst <= control.tolerance),
            }


def deviation(spec: Spec, case: Case) -> float:
    """|w_a - w_b| / |w_b - w_0| after STEPS steps; infinite when either ran into a loss that is not finite."""
    import torch

    try:
        start, a = _weights(spec, case.general, case.parameters)
        _, b = _weights(spec, case.twin, case.twin_parameters)
    except Diverged:
        return float("inf")
    found = torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b - start).clamp_min(1e-30)
    return float(found) if bool(torch.isfinite(found)) else float("inf")


def _weights(spec: Spec, optimizer: str, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """Weights before and after, each one long vector in float64."""
    import torch

    torch.set_num_threads(spec.resources.cpu)
    seed = spec.seeds.tune[0]

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        extra = {"loss": loss, "refresh_batches": refresh} if optim_core.needs_batches(optimizer) else {}
        return optim_core.build(optimizer, model, **parameters, **extra)

    task = trainables.build(spec.task.name, **spec.task.parameters)
    recipe = task.recipe(**{**spec.training.recipe(), "schedule": "constant", "warmup": 0.0, "final_lr": 0.0})
    training = Training(task, build, budget=1e9, seed=seed, evaluations=1, recipe=recipe)

    def flat() -> Any:
        models = training.model if isinstance(training.model, list) else [training.model]
        return torch.cat([p.detach().double().flatten() for m in models for p in m.parameters()])

    start = flat()
    training.advance(lambda: training.step >= STEPS)
    return start, flat()


def _middle(arm: ArmSpec) -> dict[str, Any]:
    """The configuration in the middle of the arm's space, defaults filled in."""
    import inspect

    known = optim_core.hyperparameters(arm.optimizer)
    defaults = {k: p.default for k, p in known.items() if p.default not in (inspect.Parameter.empty, None)}
    return {**defaults, **from_unit(arm.parameters, [0.5] * len(arm.parameters))}


def _shared(optimizer: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = optim_core.hyperparameters(optimizer)
    return {k: v for k, v in given.items() if k in known}
