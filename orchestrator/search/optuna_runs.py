"""Trials of Optuna studies run elsewhere."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from orchestrator.definition.states import State
from orchestrator.storage.foreign_runs import ForeignRun, ForeignRuns, UnusableError, check_there, listed, shown

NUMBERED = re.compile(r"(.+?)[-_./# ]*(\d+)")
STATES = {TrialState.COMPLETE: State.COMPLETE, TrialState.PRUNED: State.PRUNED, TrialState.FAIL: State.FAILED}


def runs(url: str, studies: Sequence[str] = ()) -> ForeignRuns:
    """The trials of the named studies, or of all, with their intermediate values.

    `url`: a database, or the path of a journal file. Raises UnusableError when there is no such study, or no trial.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    named, url = url, shown(url)
    try:
        storage = _storage(named)
        there = sorted(optuna.get_all_study_names(storage))
    except UnusableError:
        raise
    except Exception as error:  # SQLAlchemy has many kinds, and a journal may hold anything
        why = shown(str(error).splitlines()[0]) if str(error) else error.__class__.__name__
        raise UnusableError(f"{url}: is not a readable Optuna storage: {why}") from None
    unknown = [name for name in studies if name not in there]
    if unknown or not there:
        raise UnusableError(f"{url}: no study {listed(unknown) or 'at all'}; available: {listed(there) or 'none'}")
    rows: list[ForeignRun] = []
    goals: dict[str, str] = {}
    left: Counter[str] = Counter()
    for name in studies or there:
        study = optuna.load_study(study_name=name, storage=storage)
        names, trials = _metrics(study), study.get_trials(deepcopy=False)
        if not trials and not studies:  # nothing to import, whatever it was to do
            continue
        for metric, goal in zip(names, study.directions, strict=True):
            if goals.setdefault(metric, goal.name.lower()) != goal.name.lower():
                raise UnusableError(
                    f"study {name} is to {goal.name.lower()} {metric}, an earlier one is not; name those that belong "
                    "together: geosweep import optuna URL STUDY STUDY ..."
                )
        for trial in trials:
            if trial.state in STATES:
                rows.append(_row(name, study, trial, names))
            else:
                left[trial.state.name] += 1
    if not rows:
        raise UnusableError(f"{url}: {listed(studies or there)} has no finished trial")
    rows = _named(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row.values))
    return ForeignRuns(
        source=f"{url} {listed(studies or there, 5)}",
        kind="optuna",
        runs=rows,
        columns=columns,
        metrics=list(goals),
        parameters=[key for key in columns if key.startswith("params.")],
        goals=goals,
        notes=[f"trials still {state} when read, left out: {n}" for state, n in sorted(left.items())],
    )


def _named(rows: Sequence[ForeignRun]) -> list[ForeignRun]:
    """The rows with columns `arm` and `study`: if all studies have names like fast-1, these are fast and 1.

    Otherwise each study is an arm.
    """
    names = {str(row.values["study_name"]) for row in rows}
    parts = {name: NUMBERED.fullmatch(name) for name in names}
    numbered = all(parts.values())
    found = []
    for row in rows:
        name = str(row.values["study_name"])
        match = parts[name]
        said = {"arm": match[1], "study": match[2]} if numbered and match else {"arm": name, "study": "1"}
        found.append(replace(row, values={**said, **row.values}))
    return found


def _storage(url: str) -> Any:
    if "://" in url:
        check_there(url)
        return url
    path = Path(url)
    if not path.exists():
        raise UnusableError(f"{url}: no such file; name a journal file, or a database as sqlite:///FILE")
    if path.read_bytes()[:15] == b"SQLite format 3":
        return f"sqlite:///{path}"
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def _metrics(study: Any) -> list[str]:
    if study.metric_names:
        return list(study.metric_names)
    return ["value"] if len(study.directions) == 1 else [f"values_{i}" for i in range(len(study.directions))]


def _row(name: str, study: Any, trial: Any, metrics: Sequence[str]) -> ForeignRun:
    values: dict[str, Any] = {"study_name": name, "number": trial.number}
    values |= {f"params.{k}": v for k, v in trial.params.items()}
    values |= {f"study_attrs.{k}": v for k, v in study.user_attrs.items()}
    values |= {f"attrs.{k}": v for k, v in trial.user_attrs.items()}
    seen = sorted(trial.intermediate_values.items())
    curve = [(float(step), float(value)) for step, value in seen if not math.isnan(value)]
    if trial.state is TrialState.COMPLETE:
        values |= dict(zip(metrics, trial.values, strict=True))
    elif trial.state is TrialState.PRUNED and curve:
        values[metrics[0]] = curve[-1][1]
    begun, ended = trial.datetime_start, trial.datetime_complete
    return ForeignRun(
        where=f"study {name}, trial {trial.number}",
        values=values,
        curves={metrics[0]: curve} if curve else {},
        state=STATES[trial.state],
        seconds=(ended - begun).total_seconds() if begun and ended else None,
    )
