"""What a sweep file declares about its own judgment: the analysis, waived rules, controls. Checked, then sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.definition.control_names import fitting, known, owners
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.model import SeedsSpec
from orchestrator.definition.outcome import OutcomeConstraint, OutcomeError, parsed
from orchestrator.definition.program_keys import is_program
from orchestrator.definition.racing import Racing, look_at
from orchestrator.definition.rule_codes import RULES
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.shares import PERCENT, SHARE, is_share, obeying
from orchestrator.definition.states import Goal
from trainables import Metric

OF_EVERY_TRIAL = ("time/step_s", "cost/grad_evals", "cost/steps")
"""Metrics that tasks need not report."""


def analysis(model: SweepModel, where: Where) -> dict[str, Any]:
    """The declared analysis; its baseline is an arm, and it waives only rules that exist."""
    given = model.analysis
    if given.baseline is not None and given.baseline not in model.arms:
        raise where.error(
            ("analysis", "baseline"), f"{given.baseline!r} is not an arm{nearest(given.baseline, model.arms)}"
        )
    if given.twin and given.baseline is None:
        raise where.error(("analysis", "twin"), "a twin is a copy of the baseline; name one in analysis.baseline")
    if given.looks > 1 and model.racing is not None:
        raise where.error(
            ("analysis", "looks"), "a race plans its looks itself, and is not extended; remove one of them"
        )
    for code, reason in given.waive.items():
        if code not in RULES:
            raise where.error(("analysis", "waive", code), f"no fairness rule has this code{nearest(code, RULES)}")
        if not reason.strip():
            raise where.error(("analysis", "waive", code), "give the reason")
    return {**given.model_dump(), "margin": float(given.margin)}


def outcomes(model: SweepModel, metrics: Mapping[str, Metric], where: Where) -> tuple[OutcomeConstraint, ...]:
    """The outcome constraints, each on a metric that trials have, and none twice."""
    found: list[OutcomeConstraint] = []
    script = is_program(model.task)
    there = {*metrics, *(name for name in OF_EVERY_TRIAL if not script or name.startswith("cost/"))}
    for i, text in enumerate(model.outcome_constraints):
        at = ("outcome_constraints", i)
        try:
            one = parsed(text)
        except OutcomeError as error:
            raise where.error(at, str(error)) from None
        measured = one.metric.startswith("geometry/") and model.diagnostics is not None
        if one.metric not in there and not measured:
            if script:
                goal = Goal.MINIMIZE if one.at_most else Goal.MAXIMIZE
                way_out = f"if yours does, declare it: task: {{goals: {{{one.metric}: {goal}}}}}"
                raise where.error(at, f"no script is known to report {one.metric!r}; {way_out}")
            raise where.error(at, f"{one.metric!r} is not a metric of this task's trials{nearest(one.metric, there)}")
        if one.metric.startswith("time/") and model.method.replay == "strict":
            raise where.error(
                at, f"{one.metric} depends on the machine, so the search could not be replayed; write replay: off"
            )
        if wrong := _undecided(one, metrics.get(one.metric)):
            raise where.error(at, f"{text!r}: {wrong}")
        twin = next((c for c in found if (c.metric, c.at_most) == (one.metric, one.at_most)), None)
        if twin is not None:
            raise where.error(at, f"{text!r}: already limited by {twin}; remove one of them")
        found.append(one)
    if found and model.early_terminate is not None and model.early_terminate.type == "pbt":
        raise where.error(
            ("outcome_constraints",),
            "pbt replaces members by the tuned metric only; remove them, or choose another type of early stopping",
        )
    return tuple(found)


def _undecided(one: OutcomeConstraint, metric: Metric | None) -> str:
    """What is wrong with a limit beyond the metric's range, as in accuracy/val >= 60 for a share; empty for others."""
    bounds = metric.bounds if metric is not None else None
    bounds = bounds or (PERCENT if metric is not None and is_share(one.metric) else None)
    if bounds is None or not (who := obeying(one.at_most, one.limit, bounds)):
        return ""
    share = f"; write {one.limit / 100:g}, or {one.limit:g}%" if bounds == SHARE and 1 < one.limit <= 100 else ""
    return f"{one.metric} lies between {bounds[0]:g} and {bounds[1]:g}, so {who} satisfies this{share}"


def racing(model: SweepModel, seeds: SeedsSpec, where: Where) -> Racing | None:
    """The race of the confirm stage, with arms that can race and enough seeds to decide it."""
    if model.racing is None:
        return None
    found, arms = Racing(level=model.racing.level, looks=model.racing.looks), len(model.arms)
    if arms < 2:
        raise where.error(("racing",), "a race needs two arms; remove it, or add an arm")
    units, words, key = len(seeds.confirm), "confirm seeds", "confirm"
    if seeds.studies > 1:
        units, words, key = seeds.studies, "studies", "studies"
    if not look_at(units, arms, found):
        least = next(n for n in range(2, 10_000) if look_at(n, arms, found))
        raise where.error(
            ("racing",),
            f"{units} {words} cannot decide between {arms} arms at level {found.level:g} and {found.looks} "
            f"looks; set seeds.{key} to {least} or more, lower looks, or remove it",
        )
    return found


def controls(model: SweepModel, optimizers: Sequence[str], where: Where) -> tuple[str, ...]:
    """The controls to run first; each applies to the optimizer of at least one arm."""
    usable, there_are = fitting(optimizers), known(optimizers)
    if model.controls == "auto":
        return usable
    for i, name in enumerate(model.controls):
        if name not in there_are:
            raise where.error(("controls", i), f"{name!r} is not a control{nearest(name, there_are)}")
        if name not in usable:
            others = ", ".join(owners(name))
            raise where.error(("controls", i), f"{name} is a control of {others}, which no arm uses; remove it")
    return tuple(dict.fromkeys(model.controls))
