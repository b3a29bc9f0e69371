"""The roles of the columns in foreign results: named by the user, or guessed and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optim_core
from orchestrator.definition.columns import is_fact
from orchestrator.definition.errors import nearest
from orchestrator.definition.states import Goal
from orchestrator.storage.foreign_runs import ForeignRuns, UnusableError, listed, number_of

ARMS = ("arm", "optimizer", "optim", "opt", "method", "algorithm", "algo", "model", "variant")
SEEDS = ("seed", "random_seed", "rng_seed", "manual_seed", "random_state", "rep", "repeat", "replicate", "fold")
STUDIES = ("study", "study_name", "search", "sweep", "sweep_id")
STEPS = ("step", "_step", "global_step", "epoch", "iteration", "iter")
SECONDS = ("seconds", "runtime", "_runtime", "duration", "duration_s", "time_s")
STATES = ("state", "status")
NO_PARAMETERS = {"name", "id", "run", "run_id", "run_name", "notes", "user", "tags", "created", "number", "timestamp"}
NO_PARAMETERS |= {"_timestamp", "hostname", "path", "output_dir", "log_dir", "date", "index", "unnamed: 0"}
UP = ("acc", "accuracy", "auc", "f1", "score", "reward", "return", "r2", "bleu", "map", "iou", "precision", "recall")
DOWN = ("loss", "error", "err", "perplexity", "ppl", "rmse", "mse", "mae", "nll", "bpb", "wer", "cer", "regret")
PREFIXES = ("params.", "param.", "metrics.", "tags.", "attrs.", "study_attrs.", "config.", "summary.")


@dataclass(frozen=True, kw_only=True)
class Question:
    """The user's choices; an empty one is guessed, or not used."""

    arm: Sequence[str] = ()
    """Columns whose values together name the arm."""
    seed: str = ""
    study: str = ""
    metrics: Sequence[str] = ()
    """NAME or NAME:maximize, the tuned one first."""
    report: str = ""
    """The metric to compare by, where it is not the first."""
    parameters: Sequence[str] | None = None
    budget: str = ""
    """Column with what a run spent."""
    step: str = ""
    where: Sequence[str] = ()
    """COLUMN=VALUE: only these rows."""
    select: str = "last"
    """last or best: which point of a curve is a run's value."""
    worst: float | None = None
    """What a run without a finite value counts for."""
    drop_missing: bool = False
    unpaired: bool = False
    tune_seeds: Sequence[str] = ()
    """Where an arm has several configurations: the seeds that choose among them; others compare."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Columns by role; an empty name means none."""

    arm: Sequence[str]
    seed: str
    study: str
    metrics: Mapping[str, Goal]
    """Column -> direction, the tuned one first."""
    report: str
    further: Sequence[str]
    """Numbers without a direction: kept, but not compared."""
    parameters: Sequence[str]
    budget: str
    step: str
    seconds: str
    state: str
    guessed: Sequence[str] = field(default_factory=tuple)
    """Sentences that say what was guessed."""


def bare(column: str) -> str:
    """The column's name without its source prefix."""
    return next((column[len(p) :] for p in PREFIXES if column.startswith(p)), column)


def roles(table: ForeignRuns, question: Question) -> Roles:
    """The columns' roles. Raises UnusableError, with the columns that there are, where one is missing or unclear."""
    found, guessed = _Finder(table), list[str]()

    def one(given: str, words: Sequence[str], what: str, taken: Iterable[str] = ()) -> str:
        if given:
            return "" if given == "none" else found.named(given)
        column = found.like(words, taken)
        if column:
            guessed.append(f"{what} from column {column!r}")
        return column

    metrics = _metrics(table, question, found, guessed)
    study = one(question.study, STUDIES, "study", metrics)
    arm = [found.named(name) for name in question.arm]
    if not arm:
        guess = found.like(ARMS, metrics)
        if not guess:
            raise UnusableError(
                f"which column names the arms to compare? give --arm COLUMN; available: {found.there()}"
            )
        arm = [guess]
        guessed.append(f"arms from column {guess!r}")
    seed = one(question.seed, SEEDS, "seeds", [*arm, *metrics])
    step = one(question.step, STEPS, "steps of a curve", [*arm, *metrics, seed]) if table.kind in FLAT else ""
    if step and not question.step and not _is_curve(table, step, [*arm, seed, study]):
        guessed.pop()
        step = ""
    budget = found.named(question.budget) if question.budget else ""
    seconds = found.like(SECONDS, [*arm, *metrics, budget])
    state = found.like(STATES, [*arm, *metrics])
    taken = {*arm, seed, study, *metrics, budget, step, seconds, state}
    parameters, why = _parameters(table, question, found, taken, arm)
    guessed += why
    report = found.named(question.report) if question.report else next(iter(metrics))
    if named_like_ours := next((name for name in metrics if is_fact(bare(name))), ""):
        raise UnusableError(
            f"metric {named_like_ours!r}: a column of every table of trials has this name; rename it in the source"
        )
    if report not in metrics:
        raise UnusableError(f"--report {question.report}: name its direction too: --metric {question.report}:maximize")
    return Roles(
        arm=arm,
        seed=seed,
        study=study,
        metrics=metrics,
        report=report,
        further=[
            c for c in (table.metrics or table.columns) if _is_number(table, c) and c not in {*taken, *parameters}
        ],
        parameters=parameters,
        budget=budget,
        step=step,
        seconds=seconds,
        state=state,
        guessed=guessed,
    )


FLAT = ("csv", "parquet")
"""Kinds of sources whose curves, if any, are rows of the table."""


class _Finder:
    """Columns by name: as written, in other case, or without their prefix."""

    def __init__(self, table: ForeignRuns) -> None:
        self._columns = list(table.columns)

    def there(self) -> str:
        return listed(self._columns)

    def named(self, name: str) -> str:
        """The column that the user means. Raises UnusableError."""
        if name in self._columns:
            return name
        tests: tuple[Callable[[str], bool], ...] = (
            lambda c: bare(c) == name,
            lambda c: c.lower() == name.lower(),
            lambda c: bare(c).lower() == name.lower(),
        )
        for test in tests:
            found = [c for c in self._columns if test(c)]
            if len(found) == 1:
                return found[0]
            if found:
                raise UnusableError(f"{name!r} may be {' or '.join(found)}; give the full name")
        raise UnusableError(f"no column {name!r}{nearest(name, self._columns)}")

    def like(self, words: Sequence[str], taken: Iterable[str]) -> str:
        """The first column whose bare name is one of the words, the likeliest word first; or nothing."""
        left = [c for c in self._columns if c not in set(taken)]
        for word in words:
            found = [c for c in left if bare(c).lower() == word]
            if found:
                return found[0]
        return ""


def _metrics(table: ForeignRuns, question: Question, found: _Finder, guessed: list[str]) -> dict[str, Goal]:
    metrics: dict[str, Goal] = {}
    for text in question.metrics:
        name, colon, word = text.rpartition(":")
        goal = {"max": "maximize", "min": "minimize"}.get(word, word)
        if not colon or goal not in ("minimize", "maximize"):
            name, goal = text, ""
        column = found.named(name)
        if not goal and column in table.goals:
            goal = table.goals[column]
        elif not goal:
            goal = _direction(column)
            if not goal:
                raise UnusableError(
                    f"--metric {text}: is higher better, or lower? write {name}:maximize or {name}:minimize"
                )
            guessed.append(f"{column} is to {goal}")
        metrics[column] = Goal(goal)
    if metrics:
        return metrics
    if table.goals:
        return {name: Goal(goal) for name, goal in table.goals.items()}
    candidates = [c for c in (table.metrics or table.columns) if _direction(c) and _is_number(table, c, 0.5)]
    if len(candidates) != 1:
        several = f"one of {listed(candidates)}" if candidates else f"a column; available: {found.there()}"
        raise UnusableError(f"which metric is to be compared? give --metric NAME:maximize, {several}")
    guessed.append(f"metric {candidates[0]!r}, to {_direction(candidates[0])}")
    return {candidates[0]: Goal(_direction(candidates[0]))}


def _direction(column: str) -> str:
    """The direction that the name of a metric suggests, or an empty string."""
    words = set(bare(column).lower().replace("/", "_").replace("-", "_").replace(".", "_").replace(" ", "_").split("_"))
    up, down = bool(words & set(UP)), bool(words & set(DOWN))
    return "" if up == down else "maximize" if up else "minimize"


def _is_number(table: ForeignRuns, column: str, share: float = 1.0) -> bool:
    """Whether at least this share of the column's values are numbers."""
    values = [run.values.get(column) for run in table.runs]
    there = [value for value in values if value is not None]
    return bool(there) and sum(number_of(value) is not None for value in there) >= share * len(there)


def _is_curve(table: ForeignRuns, step: str, key: Sequence[str]) -> bool:
    """Whether a run has several rows, which differ in their step."""
    seen: dict[Any, set[Any]] = {}
    for run in table.runs:
        seen.setdefault(tuple(str(run.values.get(c)) for c in key if c), set()).add(run.values.get(step))
    return all(len(steps) > 1 for steps in seen.values())


def _parameters(
    table: ForeignRuns, question: Question, found: _Finder, taken: set[str], arm: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The hyperparameters, and what was guessed."""
    if question.parameters is not None:
        return [found.named(name) for name in question.parameters], []
    known = {key for name in optim_core.names() for key in optim_core.hyperparameters(name)}
    kept: list[str] = []
    for column in table.parameters or table.columns:
        values = [repr(run.values.get(column)) for run in table.runs]
        if column in taken or bare(column).lower() in (*NO_PARAMETERS, *SEEDS):
            continue
        ours = column.startswith("param.")
        if len(set(values)) < 2 and bare(column) not in known and not ours:
            continue  # the same for all: no information
        groups: dict[Any, list[str]] = {}
        for run, value in zip(table.runs, values, strict=True):
            groups.setdefault(tuple(str(run.values.get(c)) for c in arm), []).append(value)
        if not table.parameters and _direction(column) and _is_number(table, column):
            continue  # a metric by its name
        repeated = all(2 * len(set(each)) <= len(each) for each in groups.values())
        said = bare(column) in known or ours or column.startswith("config.")
        numbers = _is_number(table, column)
        if repeated or (table.parameters and numbers) or said:
            kept.append(column)
    return kept, [f"hyperparameters from {listed(map(repr, kept))}"] if kept else []
