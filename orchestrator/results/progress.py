"""How far a sweep is: its trials by state, what they spent, why the others wait, and what went wrong."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.definition.counts import Counts, total
from orchestrator.definition.resolved import Resolved
from orchestrator.definition.states import Stage, State, SweepState
from orchestrator.protocol import seal
from orchestrator.storage import ending, waiting
from orchestrator.storage.documents import read_json
from orchestrator.storage.ending import Ending
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.storage.waiting import Waiting
from orchestrator.trial import noticed
from orchestrator.trial.counted import counted
from orchestrator.trial.record import TrialRecord, counted_grad_evals, read_job, read_result


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """How many studies of an arm are confirmed: all their confirm trials have ended."""

    confirmed: int
    planned: int

    def __str__(self) -> str:
        return f"{self.confirmed}/{self.planned}"


@dataclass(frozen=True, kw_only=True)
class Status:
    """A sweep as it is now."""

    sweep_id: str
    state: SweepState
    """running, done, stopped (continue it with `geosweep run`), budget, failed."""
    arms: Mapping[str, Counts]
    studies: Mapping[str, Confirmed] = field(default_factory=dict)
    """Empty for one study per arm."""
    script: str = ""
    """The program that its trials run; empty: none."""
    grad_evals: float
    """Spent by the trials that ended; of a script, as far as they were counted."""
    seconds: float
    """Wall clock of its drivers."""
    imported: str = ""
    """For results that others trained: how they are paired."""
    suggestions: str
    """A digest of the search."""
    waiting_reason: str
    """Why trials wait, or why none does any more."""
    ending: Ending | None = None
    """How the last command ended; None: it runs."""
    reused: Mapping[str, int] = field(default_factory=dict)
    """Arm -> trials whose result is that of an earlier sweep."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Failed trial -> its traceback."""
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Arm -> what its trials changed in their process."""
    last_lines: Mapping[str, str] = field(default_factory=dict)
    """Failed trial -> what it printed last."""
    exploratory: Sequence[str] = ()

    @property
    def total(self) -> Counts:
        """Trials of all arms."""
        return total(self.arms.values())

    @property
    def spent(self) -> str:
        """The gradient evaluations in words; empty where they were not counted."""
        unknown = self.imported or (self.script and not self.grad_evals)
        return "" if unknown else f"{self.grad_evals:,.0f} gradient evaluations"

    def document(self) -> dict[str, Any]:
        """As JSON; what there is nothing to say about is left out."""
        found = {"schema": "geosweep/status/1", **asdict(self)}
        found["ending"] = self.ending and self.ending.document()
        return {name: value for name, value in found.items() if value or name not in SOMETIMES}


SOMETIMES = {"studies", "script", "imported", "ending", "reused", "changed"}
"""Fields of a status that its document has only where they are not empty."""


def status(folder: SweepFolder, *, held: bool | None = None) -> Status:
    """The status of a sweep. `held`: whether a driver is at work, for a caller who knows; checking takes a moment."""
    resolved = folder.resolved()
    held = folder.is_held() if held is None else held
    names = {s: "done" if s is State.COMPLETE else s.lower() for s in State}
    trials: dict[str, Counter[str]] = {arm: Counter() for arm in resolved.plan.arms}
    grad_evals, ended = 0.0, list[TrialRecord]()
    errors: dict[str, str] = {}
    changed: dict[str, dict[str, None]] = {}
    last_lines: dict[str, str] = {}
    confirmed: Counter[tuple[str, int]] = Counter()
    for path in sorted((folder.path / "trials").glob("*/trial.json")):
        job, result = read_job(path.parent), read_result(path.parent)
        if job is None:
            continue
        if result is None:
            trials[job.arm]["running"] += held
            continue
        ended.append(TrialRecord(job=job, result=result))
        grad_evals += counted_grad_evals(ended[-1]) or 0.0
        if result.error:
            errors[job.trial_id] = result.error
        if result.last_lines:
            last_lines[job.trial_id] = result.last_lines
        if result.changed:
            changed.setdefault(job.arm, {}).update(dict.fromkeys(result.changed))
    for one in counted(ended):
        trials[one.job.arm][names[one.result.state]] += 1
        confirmed[one.job.arm, one.study] += one.job.stage is Stage.CONFIRM
    outcome = SweepOutcome.read(folder)
    noted = waiting.read(folder) if held or outcome else None
    state = SweepState.RUNNING if held else outcome.state if outcome else SweepState.STOPPED
    ended_as = None if held else ending.read(folder)
    return Status(
        sweep_id=folder.sweep_id,
        state=state,
        arms={arm: _counts(arm, found, resolved.plan.arms[arm].trials, noted) for arm, found in trials.items()},
        studies=_studies_done(resolved, confirmed),
        script=resolved.plan.script,
        grad_evals=grad_evals,
        seconds=folder.seconds(),
        imported=resolved.imported.pairing if resolved.imported else "",
        suggestions=suggestions_digest(folder),
        waiting_reason=_reason(folder, state, noted, ended_as),
        ending=ended_as,
        reused=noticed.reused(ended),
        errors=errors,
        changed={arm: list(names) for arm, names in changed.items()},
        last_lines=last_lines,
        exploratory=seal.stamps(folder),
    )


def _counts(arm: str, trials: Mapping[str, int], planned: int, noted: Mapping[str, Waiting] | None) -> Counts:
    """The counts of an arm, given what its trials' files show; `noted`: what the driver says of those that wait."""
    waits = (noted or {}).get(arm, Waiting())
    found = Counts(**{**trials, "running": max(0, trials.get("running", 0) - waits.paused)})
    return replace(found, waiting=max(0, planned - found.planned) if noted is None else waits.trials)


def _reason(
    folder: SweepFolder, state: SweepState, noted: Mapping[str, Waiting] | None, ended_as: Ending | None
) -> str:
    """Why trials wait, or why none does any more."""
    refused = (read_json(folder.path / "refused.json") or {}).get("message")
    said = ended_as.reason if ended_as is not None and not ended_as.is_meant else ""
    if state is SweepState.RUNNING:
        return "; ".join(f"{arm}: {one.reason}" for arm, one in (noted or {}).items()) or "starting workers"
    if state is SweepState.DONE:
        return said or "will not be trained: every configuration of the arm failed"
    if state is SweepState.FAILED:
        return refused or said or "the driver crashed; run it again"
    return said or f"sweep is {state}; continue it with: {folder.command('run', str(folder.path / 'sweep.yaml'))}"


def _studies_done(resolved: Resolved, confirmed: Mapping[tuple[str, int], int]) -> dict[str, Confirmed]:
    """Arm -> its studies, from the confirm trials that ended; empty for one study per arm."""
    seeds, planned = resolved.definition["seeds"], resolved.studies
    if planned == 1:
        return {}
    each = len(seeds["confirm"]) // planned
    done = Counter(arm for (arm, _), count in confirmed.items() if count >= each)
    return {arm: Confirmed(confirmed=done[arm], planned=planned) for arm in resolved.plan.arms}


def suggestions_digest(folder: SweepFolder) -> str:
    """A digest of the search: every configuration of every arm in the order of asking."""
    rows: dict[str, dict[int, Any]] = {}
    studies = folder.resolved().studies
    for path in (folder.path / "trials").glob("*/trial.json"):
        if (job := read_job(path.parent)) is not None:
            key = job.arm if studies == 1 else f"{job.arm}@{job.study}"
            rows.setdefault(key, {})[job.configuration] = job.values
    ordered = {arm: [found[n] for n in sorted(found)] for arm, found in sorted(rows.items())}
    return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()[:16]
