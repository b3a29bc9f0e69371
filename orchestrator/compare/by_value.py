"""One row per value of a hyperparameter: the best configuration with that value, its metric, slowdown and geometry.

Rows are grouped by optimizer and value, across arms; a twin must be left out. A row's configuration is the one with the
best mean of the tuned metric over the tune seeds; across arms this repeats the choice that each arm made. Its numbers
come from the confirm seeds where it has any: that is so for every row when each value is a separate arm. A row from
the tune stage is marked: it was selected by the very number that it shows, so the number is optimistic, and the row is
not compared with rows from the confirm stage. A configuration that violates an outcome constraint gets a row only if
none with that value satisfies them, and the row says so.

With several studies per arm, each study chooses anew, and a row has one value per study, the mean over its seeds. The
value comes from the confirm seeds only when every study confirmed a configuration with that value: the studies in which
the value won are not a fair sample.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.compare.evidence import numeric
from orchestrator.compare.value_rows import AgainstBaseline, ByValue, Row
from orchestrator.definition.kinds import is_composite
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.statistics.intervals import UNBOUNDED, Summary, span_of, summarize
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.slowdown import Curve, slowdown
from orchestrator.trial.job import Job, Result
from orchestrator.trial.record import TrialRecord

CURVE = "loss/train"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the table shows."""

    by: str
    """The hyperparameter."""
    metric: str
    tuned: str
    goal: Goal
    """Of the tuned metric."""
    baseline: str = ""
    """One of the values; empty: none."""
    columns: tuple[str, ...] = ()
    """Additional final metrics; empty: all geometry/..."""
    bounds: tuple[float, float] = UNBOUNDED
    """Range of the metric; intervals are clipped to it."""
    breaking: Mapping[tuple[str, int, int], bool] = field(default_factory=dict)
    """(arm, study, configuration) -> whether it violates an outcome constraint; empty in a sweep without any."""

    def breaks(self, trial: TrialRecord) -> bool:
        """Whether the trial's configuration violates a constraint."""
        return self.breaking.get((trial.job.arm, trial.job.study, trial.job.configuration), False)


def table(trials: Sequence[TrialRecord], question: Question, curve_of: Callable[[str], Curve]) -> ByValue:
    """The table, without its sweep. `curve_of` gives the training-loss curve of a trial. Raises Refused.

    A bare name stands for the only dotted name that ends in it, if no hyperparameter has that name.
    """
    question = replace(question, by=_full(question.by, trials))
    ended = [t for t in trials if t.result.value is not None and question.by in t.job.values]
    if not ended:
        known = sorted({name for t in trials for name in t.job.values})
        raise Refused(f"no trial has the parameter {question.by!r}; available: {', '.join(known) or 'none'}")
    groups: dict[tuple[str, Any], list[TrialRecord]] = {}
    values: dict[tuple[str, Any], Any] = {}
    for t in ended:
        key = t.job.optimizer, _hashable(t.job.values[question.by])
        groups.setdefault(key, []).append(t)
        values[key] = t.job.values[question.by]
    chosen = {key: _chosen(found, question) for key, found in groups.items()}
    several = len({t.job.study for t in trials}) > 1
    baselines = _baselines(chosen, question)
    columns = question.columns or tuple(
        sorted({m for t in ended for m in t.result.metrics if m.startswith("geometry/")})
    )
    rows = [
        _row(
            (key[0], values[key]),
            chosen[key],
            baselines.get(key[0]),
            question,
            columns,
            len(_configurations(groups[key])),
            curve_of,
            several=several,
        )
        for key in chosen
    ]
    rows.sort(key=lambda r: (r.optimizer, float("inf") if r.mean is None else question.goal.loss(r.mean)))
    return ByValue(
        by=question.by,
        metric=question.metric,
        tuned=question.tuned,
        goal=question.goal,
        baseline=question.baseline or None,
        columns=list(columns),
        unit="study" if several else "seed",
        varied=_varied(ended, question.by),
        rows=rows,
    )


def _full(by: str, trials: Sequence[TrialRecord]) -> str:
    names = {name for t in trials for name in t.job.values}
    dotted = [name for name in names if name.endswith(f".{by}")]
    return dotted[0] if by not in names and len(dotted) == 1 else by


def _hashable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if is_composite(value) else value


def _configurations(trials: Sequence[TrialRecord]) -> dict[tuple[int, str, int], list[TrialRecord]]:
    """(study, arm, configuration) -> its trials in the search."""
    found: dict[tuple[int, str, int], list[TrialRecord]] = {}
    for t in trials:
        if t.job.stage is Stage.TUNE:
            found.setdefault((t.job.study, t.job.arm, t.job.configuration), []).append(t)
    return found


def _chosen(trials: Sequence[TrialRecord], question: Question) -> list[TrialRecord]:
    """Trials of each study's best configuration, in the order of studies and seeds: from the confirm stage if every
    study has some, otherwise from the search.
    """
    tuned, best = _configurations(trials), dict[int, tuple[int, str, int]]()
    if not tuned:
        return sorted(trials, key=lambda t: (t.job.study, t.job.seed))  # imported: there was no search
    for key in sorted(
        tuned, key=lambda c: (question.breaks(tuned[c][0]), question.goal.loss(_mean_value(tuned[c])), c)
    ):
        best.setdefault(key[0], key)
    confirm: dict[int, list[TrialRecord]] = {}
    for t in trials:
        first = tuned[best[t.job.study]][0].job if t.job.study in best else None
        if t.job.stage is Stage.CONFIRM and first and (t.job.arm, _text(t)) == (first.arm, _text_of(first.values)):
            confirm.setdefault(t.job.study, []).append(t)
    found = confirm if confirm.keys() == best.keys() else {study: tuned[key] for study, key in best.items()}
    return sorted((t for each in found.values() for t in each), key=lambda t: (t.job.study, t.job.seed))


def _text(trial: TrialRecord) -> str:
    return _text_of(trial.job.values)


def _text_of(parameters: Mapping[str, Any]) -> str:
    return json.dumps(parameters, sort_keys=True)


def _mean_value(trials: Sequence[TrialRecord]) -> float:
    return sum(t.result.value for t in trials if t.result.value is not None) / len(trials)


def _baselines(chosen: Mapping[tuple[str, Any], list[TrialRecord]], question: Question) -> dict[str, list[TrialRecord]]:
    """The baseline's trials for each optimizer that has the value."""
    if not question.baseline:
        return {}
    found = {key[0]: trials for key, trials in chosen.items() if _same(key[1], question.baseline)}
    if not found:
        values = ", ".join(str(value) for _, value in chosen)
        raise Refused(f"baseline {question.baseline!r} is not a value of {question.by}; available: {values}")
    return found


def _same(value: Any, text: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace(" ", "") == text.replace(" ", "")
    try:
        return float(text) == float(value)
    except ValueError:
        return False


def _row(
    key: tuple[str, Any],
    trials: list[TrialRecord],
    baseline: list[TrialRecord] | None,
    question: Question,
    columns: Sequence[str],
    tried: int,
    curve_of: Callable[[str], Curve],
    *,
    several: bool,
) -> Row:
    values = _units([(t.job, t.result.metrics.get(question.metric)) for t in trials], several)
    summary = summarize(values, bounds=question.bounds) if values else None
    is_baseline = baseline is not None and baseline[0] is trials[0]
    gone = _diverged(trials)
    summary = None if gone else summary
    parameters = _settings(trials, question.by)
    return Row(
        optimizer=key[0],
        value=key[1],
        arm=trials[0].job.arm,
        stage=trials[0].job.stage,
        configurations=tried,
        feasible=not any(map(question.breaks, trials)) if question.breaking else None,
        parameters={name: found[0] if len(found) == 1 else _range(found) for name, found in parameters.items()},
        differ=[name for name, found in parameters.items() if len(found) > 1],
        n=len(values),
        diverged=sum(t.result.state is State.DIVERGED for t in trials),
        mean=summary.mean if summary else None,
        interval=_ends(summary),
        against_baseline=None
        if baseline is None or is_baseline or gone or _diverged(baseline)
        else _against(trials, baseline, question, curve_of, several=several),
        columns={name: _mean([t.result.metrics[name] for t in trials if name in t.result.metrics]) for name in columns},
    )


def _ends(summary: Summary | None) -> tuple[float, float] | None:
    """The interval; None for a single unit."""
    return None if summary is None or summary.lo is None or summary.hi is None else (summary.lo, summary.hi)


def _diverged(trials: Sequence[TrialRecord]) -> bool:
    """Whether there is no value but what the task declares for diverged trials."""
    return all(t.result.state is State.DIVERGED for t in trials)


def _settings(trials: Sequence[TrialRecord], by: str) -> dict[str, list[Any]]:
    """Hyperparameter besides `by` -> its different values."""
    found: dict[str, list[Any]] = {}
    for t in trials:
        for name, value in t.job.values.items():
            if name != by and value not in found.setdefault(name, []):
                found[name].append(value)
    return found


def _range(values: list[Any]) -> list[Any]:
    return [min(values), max(values)] if numeric(values) else sorted(values, key=str)


def _units(found: Sequence[tuple[Job, float | None]], several: bool) -> list[float]:
    """One value per study (the mean over its seeds) if there are several, otherwise one per seed."""
    units: dict[int, list[float]] = {}
    for job, value in found:
        if value is not None:
            units.setdefault(job.study if several else job.seed, []).append(value)
    return [sum(values) / len(values) for values in units.values()]


def _against(
    trials: list[TrialRecord],
    baseline: list[TrialRecord],
    question: Question,
    curve_of: Callable[[str], Curve],
    *,
    several: bool,
) -> AgainstBaseline | None:
    """Differences on the shared seeds; None when the stages differ or when no seed, initial weights and data are
    shared.
    """
    if trials[0].job.stage != baseline[0].job.stage:
        return None
    there = {t.job.seed: t for t in baseline if question.metric in t.result.metrics}
    pairs = [
        (t, there[t.job.seed])
        for t in trials
        if question.metric in t.result.metrics
        and t.job.seed in there
        and _same_start(t.result, there[t.job.seed].result)
    ]
    if not pairs:
        return None
    differences = [(a.job, a.result.metrics[question.metric] - b.result.metrics[question.metric]) for a, b in pairs]
    difference = summarize(_units(differences, several), bounds=span_of(question.bounds))
    slow = [slowdown(curve_of(a.job.trial_id), curve_of(b.job.trial_id)) for a, b in pairs]
    known = [s for s in slow if s is not None]
    return AgainstBaseline(
        n=difference.n,
        difference=difference.mean,
        interval=_ends(difference),
        ratio=_ratio(
            [a.result.metrics[question.metric] for a, _ in pairs], [b.result.metrics[question.metric] for _, b in pairs]
        ),
        slowdown=_mean(known),
        slowdown_n=len(known),
    )


def _same_start(a: Result, b: Result) -> bool:
    return (a.init_digest, a.data_digest) == (b.init_digest, b.data_digest)


def _ratio(values: list[float], baseline: list[float]) -> float | None:
    """Ratio of the means; None unless the baseline's is above zero."""
    return sum(values) / sum(baseline) if sum(baseline) > 0 else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _varied(trials: Sequence[TrialRecord], by: str) -> list[str]:
    """Parameters other than `by` that take more than one value."""
    seen: dict[str, set[str]] = {}
    for t in trials:
        for name, value in t.job.values.items():
            seen.setdefault(name, set()).add(repr(value))
    return sorted(name for name, values in seen.items() if name != by and len(values) > 1)
