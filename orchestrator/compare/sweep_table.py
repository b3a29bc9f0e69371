"""`geosweep table` for a sweep's folder: one row per value of a hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from orchestrator import results
from orchestrator.compare import by_value
from orchestrator.compare.evidence import twin
from orchestrator.compare.value_rows import ByValue
from orchestrator.protocol import feasible, seal
from orchestrator.statistics.intervals import UNBOUNDED, bounds_of
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial import noticed


def table(
    folder: SweepFolder, by: str, *, baseline: str = "", columns: Sequence[str] = (), metric: str = ""
) -> ByValue:
    """The table, given the arguments of `by_value.Question`. Raises Refused, NotFound."""
    reported, _ = results.reported(folder, metric)
    tuned, goal = results.tuned(folder)

    @cache
    def curve_of(trial: str) -> list[tuple[float, float]]:
        points = MetricLog(folder.trial(trial) / "metrics.jsonl").points()
        return [(p.step, p.metrics[by_value.CURVE]) for p in points if by_value.CURVE in p.metrics]

    question = by_value.Question(
        by=by,
        metric=reported,
        tuned=tuned,
        goal=goal,
        baseline=baseline,
        columns=tuple(columns),
    )
    copy, ended = twin(folder), results.ended_trials(folder)
    values = [t.result.metrics[reported] for t in ended if reported in t.result.metrics]
    question = replace(question, bounds=bounds_of(reported, values, results.declared_bounds(folder, reported)))
    question = replace(question, breaking={key: bool(b) for key, b in feasible.breaches(folder, ended).items()})
    found = by_value.table([t for t in ended if t.job.arm != copy], question, curve_of)
    return replace(
        found,
        sweep_id=folder.sweep_id,
        bounds=None if question.bounds == UNBOUNDED else question.bounds,
        reused=noticed.reused(ended),
        exploratory=seal.stamps(folder),
    )
