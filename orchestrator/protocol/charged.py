"""Do steps cost no more gradient evaluations than the optimizer declares? Watched while a sweep is tried.

A trial takes a step if its declared cost fits into what is left of the budget. An optimizer that then takes more, such
as a line search that declares one, gives its arm more than the others, and arms with unequal budgets are not compared.
"""

from __future__ import annotations

from optim_core.base import Counting
from trainables.loop import TOLERANCE, Training

STEPS = 8
"""Steps that are watched at a corner, where they are quick: a line search may accept the first few lengths at once."""


class Charges:
    """What the steps of a training run cost and what they were said to cost."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._step, self._declared, self._before = -1, 0.0, 0.0
        self._worst = (0.0, 0.0)
        """(declared, spent) of the step with the largest excess."""

    def advance(self, steps: int) -> None:
        """Train until so many steps are taken in all, or the budget is spent. Raises Diverged."""

        def pause() -> bool:
            self._look()
            return self._training.step >= steps

        try:
            while self._training.step < steps and not self._training.finished:
                self._training.advance(pause)
        finally:
            self._look()

    def over(self) -> str:
        """How a step cost more than declared, and the way out; empty if none did."""
        declared, spent = self._worst
        if spent <= declared + TOLERANCE:
            return ""
        way = f"GRAD_EVALS = {spent:g}, or more"
        if type(self._training.optimizer).next_cost is not Counting.next_cost:
            way = "next_cost(), and in cost_per_step() what a step takes on average"
        return (
            f"declares {declared:g} gradient evaluation{'' if declared == 1 else 's'} for a step that took {spent:g}, "
            "so its trials would overrun their budget and not be compared; declare the most that a step can take in "
            f"{way}"
        )

    def _look(self) -> None:
        """Between two steps: note what the last one cost, and what the next one is said to cost."""
        optimizer, step = self._training.optimizer, self._training.step
        if step == self._step + 1 > 0:
            spent = optimizer.grad_evals - self._before
            self._worst = max(self._worst, (self._declared, spent), key=lambda one: one[1] - one[0])
        self._step, self._declared, self._before = step, optimizer.next_cost(), optimizer.grad_evals
