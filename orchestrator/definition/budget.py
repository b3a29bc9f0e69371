"""The budget of a sweep file: a unit that the task can count, integer amounts, limits that leave room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.definition import plan
from orchestrator.definition.currency import COUNTABLE
from orchestrator.definition.location import Where
from orchestrator.definition.model import BudgetSpec, Spec
from orchestrator.definition.program_keys import is_program
from orchestrator.definition.schema import SweepModel

if TYPE_CHECKING:
    from trainables import Task


def resolved(model: SweepModel, task: Task, where: Where) -> BudgetSpec:
    """The budget, with the tokens of a batch where it is counted in tokens."""
    given, script = model.budget, is_program(model.task)
    if given.unit == "epochs" and not script:
        raise where.error(("budget", "unit"), "'epochs' is not one of 'grad_evals', 'steps', 'seconds' or 'tokens'")
    if given.unit in COUNTABLE and given.per_trial != int(given.per_trial):
        raise where.error(
            ("budget", "per_trial"), f"{given.per_trial:g}: a number of {given.unit} is an integer; round it"
        )
    tokens: int | None = None
    if given.unit == "tokens" and not script:
        if not task.COUNTS:
            raise where.error(
                ("budget", "unit"),
                f"'tokens', but task {model.task['name']} does not say how many a batch holds (Task.COUNTS and "
                "tokens_per_batch); use grad_evals",
            )
        tokens = task.tokens_per_batch()
    return BudgetSpec(**given.model_dump(), tokens_per_batch=tokens)


def check(spec: Spec, where: Where) -> None:
    """At least one step of each arm, and an evaluation for each; limits that can be measured and leave room.

    A budget in seconds is checked once it is calibrated.
    """
    _check_seconds(spec, where)
    _check_limits(spec, where)
    _check_population(spec, where)
    if spec.task.is_program or not plan.is_known(spec):
        return
    for arm in spec.arms.values():
        if plan.steps_range(spec, arm)[0] < 1:
            raise where.error(
                ("budget", "per_trial"), f"{spec.budget.per_trial:g} is less than one step of arm {arm.name}; raise it"
            )
    fewest = min(plan.grad_evals_range(spec, arm)[0] for arm in spec.arms.values())
    if spec.evaluations > fewest:
        raise where.error(
            ("evaluations",), f"{spec.evaluations}, but a trial has only {fewest:g} gradient evaluations; lower it"
        )


def _check_seconds(spec: Spec, where: Where) -> None:
    """The driver times the arms, and it is a single process."""
    if spec.budget.unit == "seconds" and spec.resources.processes > 1:
        raise where.error(
            ("budget", "unit"),
            f"'seconds', but {spec.resources.processes} processes train a trial, and arms are timed in one; use "
            "grad_evals",
        )


def _check_limits(spec: Spec, where: Where) -> None:
    """Room for one round of the search besides the confirm stage."""
    budget, seeds, gpu = spec.budget, spec.seeds, spec.resources.gpu
    if budget.money is not None and budget.price_per_gpu_hour is None:
        raise where.error(("budget", "money"), "needs price_per_gpu_hour; add it")
    for key in ("money", "gpu_hours"):
        if getattr(budget, key) is not None and not gpu:
            raise where.error(("budget", key), "counts GPUs, but resources.gpu is 0; remove it, or give trials a GPU")
    if budget.grad_evals is None:
        return
    if not plan.is_known(spec):
        raise where.error(
            ("budget", "grad_evals"),
            "how many gradient evaluations fit into a trial's seconds is unknown; limit wall_clock instead",
        )
    trials = seeds.studies + len(seeds.confirm)
    least = sum(trials * plan.grad_evals_range(spec, arm)[1] for arm in spec.arms.values())
    if budget.grad_evals < least:
        arm = "arm and study" if seeds.studies > 1 else "arm"
        raise where.error(
            ("budget", "grad_evals"),
            f"{budget.grad_evals:g}, but one configuration of each {arm} and the confirm stage take {least:g}; "
            "raise it",
        )


def _check_population(spec: Spec, where: Where) -> None:
    """A child continues from its parent's state, so a population shares one budget in gradient evaluations."""
    if spec.early_terminate.type != "pbt" or spec.budget.unit != "steps":
        return
    for arm in spec.arms.values():
        least, most = plan.grad_evals_range(spec, arm)
        if least != most:
            raise where.error(
                ("budget", "unit"),
                f"'steps', but the cost of a step of arm {arm.name} varies between configurations, and pbt passes "
                "checkpoints from one to another; use grad_evals",
            )
