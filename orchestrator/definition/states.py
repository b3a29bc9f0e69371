"""The words that files, tables and trackers use for states, stages and directions, as types.

Each member is the very text that is stored, so that JSON, Parquet and MLflow hold plain words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum


class State(StrEnum):
    """The state of a trial."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    """Trained to its budget."""
    PRUNED = "PRUNED"
    """Stopped early by the stopping rule."""
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    """Drained with a checkpoint."""
    PAUSED = "PAUSED"
    """Waits with a checkpoint for its population."""

    @property
    def is_trained(self) -> bool:
        """Whether the trial ended on its own and has a value."""
        return self in (State.COMPLETE, State.DIVERGED)

    @property
    def is_resumable(self) -> bool:
        """Whether the trial continues from its checkpoint later."""
        return self in (State.INTERRUPTED, State.PAUSED)


class ConfigurationState(StrEnum):
    """The state of a configuration in its arm's study; the names are Optuna's."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"


class SweepState(StrEnum):
    """The state of a sweep."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """Drained; `geosweep run` continues it."""
    BUDGET = "budget"
    """A limit of its budget ended it."""
    FAILED = "failed"


class AttemptState(StrEnum):
    """The state of an attempt at a sweep on a cluster."""

    WAITING = "waiting"
    SUSPENDED = "suspended"
    """By the cluster's queue, which resumes it."""
    RUNNING = "running"
    DONE = "done"
    BUDGET = "budget"
    """A limit of its budget ended it."""
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    """Its machines are gone."""

    @property
    def is_living(self) -> bool:
        """Whether it has not ended."""
        return self in (AttemptState.WAITING, AttemptState.RUNNING, AttemptState.SUSPENDED)


class Stage(StrEnum):
    """What a trial is for."""

    TUNE = "tune"
    """The search of an arm."""
    CONFIRM = "confirm"
    """The arm's best configuration on fresh seeds."""


class Goal(StrEnum):
    """The direction of a metric."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def sign(self) -> float:
        """1 when larger is better, else -1: `sign * value` is larger the better the value is."""
        return 1.0 if self is Goal.MAXIMIZE else -1.0

    def loss(self, value: float) -> float:
        """The value, with its sign such that smaller is better."""
        return -self.sign * value

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`."""
        return self.loss(a) < self.loss(b)

    def best(self, values: Iterable[float]) -> float:
        """The best of the values, the first of equal ones."""
        return min(values, key=self.loss)

    def demoted(self, values: Sequence[float], diverged: Sequence[bool]) -> list[float]:
        """The values, those of diverged trials no better than the worst of all.

        A diverged trial has no value; what its task declares in its place must beat no trial that trained.
        """
        if not any(diverged):
            return list(values)
        worst = max(values, key=self.loss)
        return [worst if gone else value for value, gone in zip(values, diverged, strict=True)]
