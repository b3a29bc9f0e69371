"""The part of a long history shown to a model-based sampler, so that the cost of a suggestion is bounded.

TPE fits two densities: one to the best trials (at most GOOD of them, as Optuna's default gamma has it), one to all the
others (Bergstra et al. 2011, section 4). Each suggestion reads every trial, so it takes O(n) time and a search
O(n^2). Beyond LIMIT ended trials the sampler sees the GOOD best, so that the first density is unchanged; for the second
an even sample of the others over the order of telling, LIMIT in all; and whatever is running. Up to LIMIT trials
nothing differs. With several objectives, which have no best, all are shown.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from orchestrator.definition.states import Goal

LIMIT = 500
GOOD = 25


class History:
    """Trial numbers by outcome, updated as trials are told."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._best: list[tuple[float, int]] = []
        self._others: list[int] = []
        self._running: set[int] = set()

    def began(self, number: int) -> None:
        """A trial was asked."""
        self._running.add(number)

    def ended(self, number: int, value: float | None) -> None:
        """A trial was told COMPLETE with its value, or PRUNED (None)."""
        self._running.discard(number)
        if value is None:
            self._others.append(number)
            return
        bisect.insort(self._best, (self._goal.loss(value), number))
        if len(self._best) > GOOD:
            self._others.append(self._best.pop()[1])

    def failed(self, number: int) -> None:
        """A trial was told FAIL; samplers never see it."""
        self._running.discard(number)

    def shown(self) -> list[int] | None:
        """Numbers of the trials to show, ascending, or None while all of them may be shown."""
        if len(self._best) + len(self._others) <= LIMIT:
            return None
        room, rest = LIMIT - len(self._best), self._others
        sample = {rest[i * len(rest) // room] for i in range(room)}
        return sorted({number for _, number in self._best} | sample | self._running)


class BoundedTPE(optuna.samplers.TPESampler):
    """Optuna's TPE on the trials `shown`; None: on all of them."""

    def __init__(self, seed: int, shown: Sequence[FrozenTrial] | None) -> None:
        super().__init__(seed=seed, n_startup_trials=0, multivariate=True, group=True)
        self._shown = shown

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See Optuna's sampler."""
        return super().infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna's sampler."""
        return super().sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See Optuna's sampler."""
        return super().sample_independent(self._view(study), trial, param_name, param_distribution)

    def _view(self, study: optuna.Study) -> Any:
        return study if self._shown is None else _View(study, self._shown)


class _View:
    """A study of which a sampler sees only some trials."""

    def __init__(self, study: optuna.Study, shown: Sequence[FrozenTrial]) -> None:
        self._inner, self._shown = study, shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get_trials(
        self, deepcopy: bool = True, states: Iterable[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        wanted = None if states is None else set(states)
        return [t for t in self._shown if wanted is None or t.state in wanted]

    _get_trials = get_trials
