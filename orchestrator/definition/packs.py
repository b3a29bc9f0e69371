"""Packed trials (`resources: {pack: 16}`): whether the trials of every arm can be stepped together. Checked before all.

Obstacles are reported with their location. Then two trials of each arm take two steps as a pack and alone, on this
machine: what a model does in its forward pass is known by running it alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import optim_core
import trainables
from orchestrator.definition import built
from orchestrator.definition.errors import SpecError
from orchestrator.definition.location import Where
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.parts import TASK, TRAINING, groups_of, in_section, split
from orchestrator.definition.space import Parameter, corners, from_unit
from orchestrator.definition.yaml12 import Path

if TYPE_CHECKING:
    from trainables.loop import Training

PACK: Path = ("resources", "pack")
WAY_OUT = "leave pack out"
ENDLESS = 1e9
MODELS = 16
"""Models that are looked at for each arm."""
Places = Mapping[str, Mapping[str, Path]]


def check(spec: Spec, places: Places, where: Where) -> None:
    """Raises SpecError where the trials of an arm cannot be stepped together. `places`: arm -> parameter -> place."""
    pack = spec.resources.pack
    if pack == 1:
        return
    if why := _why_not(spec):
        raise where.error(PACK, f"{pack}: {why}, or {WAY_OUT}")
    if spec.resources.readers:
        raise where.error(
            ("resources", "readers"), f"{spec.resources.readers}: a pack makes its batches in the step; remove one"
        )
    for arm in spec.arms.values():
        _check_optimizer(spec, arm, places.get(arm.name, {}), where)
    for arm in spec.arms.values():
        _check_models(spec, arm, places.get(arm.name, {}), where)


def _why_not(spec: Spec) -> str:
    """What speaks against packs in the sweep as a whole, and the way out."""
    most = spec.resources.max_concurrent
    if spec.task.is_program:
        return "a script trains one trial; write the task in Python (docs/own_task.md)"
    if spec.resources.processes > 1:
        return f"{spec.resources.processes} processes train one trial; give it one"
    if spec.method.replay == "strict":
        return (
            "rounding in a packed trial depends on the other trials, so no replay could reproduce its bits; write "
            "replay: off"
        )
    if spec.budget.unit == "seconds":
        return "seconds cannot be attributed to a packed trial; count the budget in grad_evals or steps"
    if spec.diagnostics.names:
        return (
            "diagnostics look at an optimizer with its gradients, and trials of a pack have these together; remove them"
        )
    if most is not None and most < spec.resources.pack:
        return f"max_concurrent lets {most} trials run at a time; raise it"
    return ""


def _check_optimizer(spec: Spec, arm: ArmSpec, places: Mapping[str, Path], where: Where) -> None:
    """Its class declares steps of several trials at once, with all settings that the arm searches."""
    kind = optim_core.lookup(arm.optimizer)
    plain = {name: p.default for name, p in optim_core.hyperparameters(arm.optimizer).items()}
    plain |= {p.name: p.values[0] for p in arm.parameters if p.values and p.name in plain}
    able = ", ".join(n for n in optim_core.registered() if "PACKING" in optim_core.lookup(n).__dict__)
    way = f"pack arms of {able}, or {WAY_OUT}"
    for p in (None, *(p for p in arm.parameters if p.name in plain)):
        for value in p.values if p is not None else (None,):
            given = plain if p is None else {**plain, p.name: value}
            if why := optim_core.packed.why_not(kind, given):
                culprit = p is not None and not optim_core.packed.why_not(kind, plain)
                place = places.get(p.name, PACK) if p is not None and culprit else PACK
                raise _error(spec, place, f"optimizer {arm.optimizer} of arm {arm.name} {why}; {way}", where)


def _check_models(spec: Spec, arm: ArmSpec, places: Mapping[str, Path], where: Where) -> None:
    """Every model that the arm may train, with every recipe; then two trials take two steps."""
    names = [p.name for p in arm.parameters]
    searched = [*in_section(TASK, names), *in_section(TRAINING, names)]
    first = from_unit(arm.parameters, [0.5] * len(arm.parameters))
    for config in [first, *corners(arm.parameters, searched)[:MODELS]] if searched else [first]:
        parts = split(config)
        recipe = replace(spec.training.recipe, **parts.training)
        try:
            task = built.build(spec.task.name, {**spec.task.parameters, **parts.task})
            model = task.model(spec.seeds.tune[0])
        except Exception:  # its data are elsewhere, or it is broken: the trial itself will say so
            return
        if why := trainables.packable.unpackable(task, model, recipe):
            culprit = next((p.name for p in arm.parameters if p.name in searched and _is_said(p, why)), "")
            raise _error(spec, places.get(culprit, PACK), f"{why}, so arm {arm.name} has no packs; {WAY_OUT}", where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            why = trainables.disproof.disproved(partial(_runs, spec, arm, first), optim_core.packed.PackedStep)
    except Exception:  # likewise
        return
    if why:
        said = f"two trials of arm {arm.name} cannot be stepped together: {why}; {WAY_OUT}"
        raise _error(spec, PACK, said, where)


def _error(spec: Spec, place: Path, said: str, where: Where) -> SpecError:
    pack = spec.resources.pack
    return where.error(place, f"{pack}: {said}" if place == PACK else f"resources.pack is {pack}, and {said}")


def _is_said(p: Parameter, why: str) -> bool:
    """Whether the reason speaks of a searched key of the recipe."""
    return p.name.partition(".")[2] in why.split()


def _runs(spec: Spec, arm: ArmSpec, config: Mapping[str, Any]) -> list[Training]:
    """Two trials of a configuration, of two seeds."""
    parts = split(config)
    begun = {name: fields["start"] for name, fields in parts.ramps.items()}

    recipe = replace(spec.training.recipe, **parts.training)
    found = []
    for seed in (spec.seeds.tune[0], spec.seeds.tune[0] + 1):
        task = built.build(spec.task.name, {**spec.task.parameters, **parts.task})
        build = built.optimizer_builder(arm.optimizer, {**parts.optimizer, **begun}, seed, groups_of(arm.groups, parts))
        found.append(trainables.loop.Training(task, build, budget=ENDLESS, seed=seed, evaluations=1, recipe=recipe))
    return found
