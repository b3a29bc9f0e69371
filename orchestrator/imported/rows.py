"""Clean rows: one for each usable run, and what was wrong with the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from orchestrator.definition.states import Goal, State
from orchestrator.imported.roles import Question, Roles, bare
from orchestrator.storage.foreign_runs import ForeignRun, ForeignRuns, UnusableError, listed, number_of

FAILED = {"failed", "fail", "crashed", "killed", "error", "preempted", "cancelled", "canceled"}
UNENDED = {"running", "scheduled", "pending", "queued", "waiting"}
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run."""

    where: str
    arm: str
    study: str
    """Its name in the source; empty without such a column."""
    seed: str
    """Likewise."""
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    state: State = State.COMPLETE
    budget: float | None = None
    seconds: float | None = None


def rows(table: ForeignRuns, role: Roles, question: Question) -> tuple[list[Row], list[str]]:
    """(Rows, notes on the missing ones). Raises UnusableError, which names rows and what to do."""
    notes = list(table.notes)
    runs = _wanted(table, question)
    runs, unwell = _ended(runs, role)
    notes += unwell
    if role.step:
        runs = _folded(runs, role)
    found = [_row(run, role, question) for run in runs]
    if role.seed:
        _all_there(found, "seed", role.seed)
    if role.study:
        _all_there(found, "study", role.study)
    found, missing = _valued(found, role, question)
    notes += missing
    found, twice = _once(found, role, table)
    notes += twice
    _distinct_arms(found)
    return found, notes


def _wanted(table: ForeignRuns, question: Question) -> list[ForeignRun]:
    """The rows that --where keeps."""
    runs = list(table.runs)
    for text in question.where:
        name, found, value = text.partition("=")
        column = next((c for c in table.columns if name in (c, bare(c))), None)
        if not found or column is None:
            raise UnusableError(f"--where {text}: write COLUMN=VALUE; available: {listed(table.columns)}")
        runs = [run for run in runs if _label(run.values.get(column)) == value]
        if not runs:
            there = dict.fromkeys(_label(run.values.get(column)) for run in table.runs)
            raise UnusableError(f"--where {text}: keeps no rows; {column} has: {listed(there, 10)}")
    return runs


def _ended(runs: Sequence[ForeignRun], role: Roles) -> tuple[list[ForeignRun], list[str]]:
    """Runs that ended on their own."""
    kept, failed, unended = list[ForeignRun](), list[ForeignRun](), list[ForeignRun]()
    for run in runs:
        word = str(run.values.get(role.state) or "").lower() if role.state else ""
        if run.state is State.FAILED or word in FAILED:
            failed.append(run)
        elif word in UNENDED:
            unended.append(run)
        else:
            kept.append(run)
    notes = []
    if failed:
        who = listed((f"{_arm(run, role)} ({run.where})" for run in failed), SHOWN)
        notes.append(
            f"{_runs(failed)} failed and {_are(failed)} left out: {who}; if the method caused the failures, this "
            "flatters it"
        )
    if unended:
        notes.append(f"{_runs(unended)} had not ended and {_are(unended)} left out")
    if not kept:
        raise UnusableError(f"no run finished ({'; '.join(notes) or 'there is none'})")
    return kept, notes


def _folded(runs: Sequence[ForeignRun], role: Roles) -> list[ForeignRun]:
    """One run for each curve whose points are rows."""
    key = [*role.arm, role.seed, role.study, *role.parameters]
    groups: dict[tuple[str, ...], list[tuple[float, ForeignRun]]] = {}
    for run in runs:
        step = number_of(run.values.get(role.step))
        if step is None:
            raise UnusableError(f"{run.where}: {role.step} is {run.values.get(role.step)!r}; a step must be a number")
        groups.setdefault(tuple(str(run.values.get(c)) for c in key if c), []).append((step, run))
    found = []
    for points in groups.values():
        points.sort(key=lambda one: one[0])
        steps = [step for step, _ in points]
        again = next((s for s, t in pairwise(steps) if s == t), None)
        if again is not None:
            where = listed((run.where for step, run in points if step == again), SHOWN)
            raise UnusableError(
                f"{role.step} {again:g} appears twice for one run ({where}); name the column that tells its runs "
                "apart with --seed, --study or --parameters"
            )
        curves = {
            name: [(step, v) for step, run in points if (v := number_of(run.values.get(name))) is not None]
            for name in role.metrics
        }
        last = {k: v for _, run in points for k, v in run.values.items() if v is not None}
        found.append(replace(points[-1][1], values={**points[-1][1].values, **last}, curves=curves))
    return found


def _label(value: Any) -> str:
    """A cell as a name: 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _arm(run: ForeignRun, role: Roles) -> str:
    return "+".join(_label(run.values.get(column)) for column in role.arm)


def _row(run: ForeignRun, role: Roles, question: Question) -> Row:
    arm = _arm(run, role)
    if not all(_label(run.values.get(column)) for column in role.arm):
        raise UnusableError(
            f"{run.where}: has no {' or '.join(role.arm)}; every run must belong to an arm (--where can exclude it)"
        )
    metrics: dict[str, float] = {}
    for name in (*role.metrics, *role.further):
        value = run.values.get(name)
        number = number_of(value)
        if number is None and value is not None and name in role.metrics:
            raise UnusableError(f"{run.where}: {name} is {value!r}; expected a number")
        curve = run.curves.get(name)
        if curve and name in role.metrics:
            finite = [v for _, v in curve if math.isfinite(v)]
            if question.select == "best" and finite:
                number = role.metrics[name].best(finite)
            elif role.step or number is None:
                number = curve[-1][1]
        if number is not None:
            metrics[name] = number
    return Row(
        where=run.where,
        arm=arm.replace("@", "-").replace("/", "-"),
        study=_label(run.values.get(role.study)) if role.study else "",
        seed=_label(run.values.get(role.seed)) if role.seed else "",
        parameters={bare(c): _value(run.values[c]) for c in role.parameters if run.values.get(c) is not None},
        metrics=metrics,
        curves=run.curves,
        state=run.state,
        budget=_spent(run, role),
        seconds=number_of(run.values.get(role.seconds)) if role.seconds else run.seconds,
    )


def _spent(run: ForeignRun, role: Roles) -> float | None:
    """What a run spent. Raises UnusableError for one that trained to its end if that is no number above 0."""
    if not role.budget:
        return None
    value = run.values.get(role.budget)
    spent = number_of(value)
    if run.state is State.COMPLETE and (spent is None or not 0 < spent < math.inf):
        said = "missing" if value is None else repr(value)
        raise UnusableError(
            f"{run.where}: {bare(role.budget)}, what the run spent, is {said}; expected a number above 0 (without "
            "--budget, equal budgets are not checked)"
        )
    return spent


def _value(value: Any) -> Any:
    """A hyperparameter: a number if it was written as text (trackers store only text)."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def _all_there(found: Sequence[Row], what: str, column: str) -> None:
    lacking = [row.where for row in found if not getattr(row, what)]
    if lacking:
        raise UnusableError(
            f"{listed(lacking, SHOWN)}: no {what} in column {column}; fill it in, or leave it out: --{what} none"
        )


def _valued(found: Sequence[Row], role: Roles, question: Question) -> tuple[list[Row], list[str]]:
    """Rows with finite values of all metrics that have a direction. Raises UnusableError for others by default."""
    bad = [
        row
        for row in found
        if row.state is not State.PRUNED
        and any(not math.isfinite(row.metrics.get(name, math.nan)) for name in role.metrics)
    ]
    if not bad:
        return list(found), []
    who = listed((f"{row.arm} ({row.where})" for row in bad), SHOWN)
    if question.drop_missing:
        kept = [row for row in found if row not in bad]
        if not kept:
            raise UnusableError(f"no run has a finite {' and '.join(role.metrics)}")
        return kept, [
            f"{_runs(bad)} without a finite value {_are(bad)} left out: {who}; which flatters methods that diverge"
        ]
    if question.worst is None:
        lacking = [name for name in role.metrics if any(name not in row.metrics for row in bad)]
        others = sorted({name for row in bad for name in row.metrics} - set(role.metrics))
        also = f" ({listed(map(bare, others), SHOWN)} are available)" if lacking and others else ""
        raise UnusableError(
            f"{_runs(bad)} without a finite {' and '.join(map(bare, role.metrics))}{also}: {who}; say what such runs "
            "count as (--worst VALUE), or leave them out (--drop-missing)"
        )
    worst = question.worst
    fixed = [
        replace(
            row,
            state=State.DIVERGED,
            metrics={
                **row.metrics,
                **{n: worst for n in role.metrics if not math.isfinite(row.metrics.get(n, math.nan))},
            },
        )
        if row in bad
        else row
        for row in found
    ]
    return fixed, [f"{_runs(bad)} without a finite value {'count' if len(bad) > 1 else 'counts'} as {worst:g}: {who}"]


def _once(found: Sequence[Row], role: Roles, table: ForeignRuns) -> tuple[list[Row], list[str]]:
    """Identical rows count once. Raises UnusableError for two results of one run."""
    seen: dict[Any, Row] = {}
    same = 0
    for i, row in enumerate(found):
        own = row.seed if role.seed else i
        key = (row.arm, row.study, own, repr(sorted(row.parameters.items())), row.state is State.PRUNED)
        first = seen.setdefault(key, row)
        if first is row:
            continue
        if first.metrics == row.metrics:
            same += 1
            continue
        name = next(iter(role.metrics))
        values = f"{bare(name)} {first.metrics[name]:g} and {row.metrics[name]:g}"
        raise UnusableError(
            f"arm {row.arm} has {role.seed} {row.seed}{f' of study {row.study}' if row.study else ''} twice, in "
            f"{first.where} and {row.where}: {values}{_difference(first, row, role, table)}"
        )
    notes = [f"{same} rows repeat others and count once"] if same else []
    return list(seen.values()), notes


def _difference(first: Row, second: Row, role: Roles, table: ForeignRuns) -> str:
    """Columns that may tell two rows apart, for the error."""
    a, b = (next(run for run in table.runs if run.where == row.where).values for row in (first, second))
    known = {*role.arm, role.seed, role.study, *role.metrics, *role.further, role.seconds}
    differ = [c for c in table.columns if c not in known and a.get(c) != b.get(c)]
    if differ:
        return f"; they differ in {listed(differ, SHOWN)}: name it in --parameters or --arm, or keep one with --where"
    return "; remove one, or give --seed none to leave runs unpaired"


def _distinct_arms(found: Sequence[Row]) -> None:
    names: dict[str, str] = {}
    for row in found:
        other = names.setdefault(row.arm.casefold(), row.arm)
        if other != row.arm:
            raise UnusableError(f"arms {other} and {row.arm} look alike ({row.where}); use one spelling")
        if len(row.arm) > 100 or not row.arm.isprintable():
            raise UnusableError(
                f"{row.where}: {row.arm[:40]!r}... is not an arm name: use at most 100 printable characters"
            )


def _runs(found: Sequence[Any]) -> str:
    return f"{len(found)} run{'s' if len(found) != 1 else ''}"


def _are(found: Sequence[Any]) -> str:
    return "are" if len(found) != 1 else "is"


def goal_of(role: Roles) -> tuple[str, Goal]:
    """The tuned metric and its direction."""
    return next(iter(role.metrics.items()))
