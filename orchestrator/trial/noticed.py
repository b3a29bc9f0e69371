"""What a reader should know about the trials of an arm: all diverged, parameters had no effect, some were reused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.definition.program_keys import NAME
from orchestrator.definition.states import Stage, State
from orchestrator.trial.record import TrialRecord

UNMOVED = 2
"""Seeds with equal results of different configurations from which a script's parameters seem to be unread."""


def diverged(trials: Iterable[TrialRecord]) -> dict[str, str]:
    """Arm -> words, for each arm without any value of its own: its confirm trials, or without any its tune trials, all
    diverged.
    """
    found: dict[str, dict[Stage, list[bool]]] = {}
    for one in trials:
        if one.result.state.is_trained:
            stages = found.setdefault(one.job.arm, {})
            stages.setdefault(one.job.stage, []).append(one.result.state is State.DIVERGED)
    words = {}
    for arm, stages in found.items():
        if all(gone for each in stages.values() for gone in each):
            words[arm] = "all its trials diverged"
        elif all(stages.get(Stage.CONFIRM, [False])):
            words[arm] = "all its confirm trials diverged"
    return words


def unread(trials: Sequence[TrialRecord]) -> list[str]:
    """A sentence for each arm that a script was given parameters of which it looked at in no trial, or one if none of
    them changed a result; and one on output that may have been cut off.
    """
    found: dict[str, set[str]] = {}
    for one in trials:
        if one.result.state.is_trained:
            names = {name for name in one.result.facts.get("unread", "").split(", ") if name}
            found[one.job.arm] = found.get(one.job.arm, names) & names
    said = [
        f"the script never looked at {', '.join(sorted(names))} of {arm}: what it is there changes nothing"
        for arm, names in found.items()
        if names
    ]
    return [*(said or _unmoved(trials)), *_unended(trials)]


def _unended(trials: Sequence[TrialRecord]) -> list[str]:
    """A sentence if the last line of a script's output has no line end: if it was cut off there, its value is wrong."""
    found = {one.trial_id: one.result.facts["rest"] for one in trials if one.result.facts.get("rest")}
    if not found:
        return []
    of = next(iter(found)) if len(found) == 1 else f"{len(found)} trials, such as {next(iter(found))},"
    return [f"the output of {of} ends with {next(iter(found.values()))!r} and no line end: is its value cut off?"]


def _unmoved(trials: Sequence[TrialRecord]) -> list[str]:
    """A sentence if no parameter made a difference: all configurations measured the same, to the last digit, on each of
    two or more seeds.
    """
    by_seed: dict[int, list[tuple[str, str]]] = {}
    for one in trials:
        if one.result.state is State.COMPLETE and one.job.task == NAME:
            row = {key: value for key, value in one.result.metrics.items() if not key.startswith(("time/", "cost/"))}
            values = json.dumps(dict(one.job.values), sort_keys=True, default=str)
            by_seed.setdefault(one.job.seed, []).append((values, json.dumps(row, sort_keys=True)))
    told = [rows for rows in by_seed.values() if len({values for values, _ in rows}) > 1]
    if len(told) < UNMOVED or any(len({row for _, row in rows}) > 1 for rows in told):
        return []
    return ["every configuration measured exactly the same: the script seems to read none of its parameters"]


def reused(trials: Iterable[TrialRecord]) -> dict[str, int]:
    """Arm -> how many of its trials were not trained, but have the result of an identical trial of an earlier sweep."""
    return dict(Counter(one.job.arm for one in trials if one.result.cached_from))


def reused_words(counts: Mapping[str, int]) -> list[str]:
    """A sentence on `reused`, or none."""
    arms = ", ".join(f"{arm} {count}" for arm, count in counts.items())
    many = sum(counts.values())
    said = f"{many} trial{'s were' if many > 1 else ' was'} reused from earlier sweeps"
    return [f"{said} ({arms}); --no-cache trains them again"] if many else []
