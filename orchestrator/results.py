"""The results of a sweep: the trials that ended, the best configuration, the state of each arm.

Read only from the study and the trial folders, so any process can ask at any time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.definition import task_record
from orchestrator.definition.resolved import Resolved
from orchestrator.definition.states import Goal, Stage, State, SweepState
from orchestrator.protocol import feasible, seal
from orchestrator.storage import ending
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder, read_json, reading
from orchestrator.storage.outcome import SweepOutcome
from orchestrator.trial import noticed
from orchestrator.trial.counted import counted
from orchestrator.trial.job import Job
from orchestrator.trial.record import TrialRecord, counted_grad_evals, read_job, read_result


def ended_trials(folder: SweepFolder) -> list[TrialRecord]:
    """Every ended trial, ordered by trial id; its job's folder is the current one even if the sweep was moved."""
    paths = sorted((folder.path / "trials").glob("*/result.json"))
    found = (record for path in paths if (record := TrialRecord.read(path.parent)) is not None)
    return [replace(one, job=replace(one.job, folder=folder.address(one.trial_id))) for one in found]


def arm_values(folder: SweepFolder, metric: str, stage: Stage = Stage.CONFIRM) -> dict[str, list[float]]:
    """Final values of `metric` per arm over the trials of a stage, in the order of their seeds.

    For a sweep with several studies, one value per study, in order: the mean over its seeds.
    """
    found: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for t in counted(ended_trials(folder)):
        if t.job.stage is stage and metric in t.result.metrics and t.result.state.is_trained:
            studies = found.setdefault(t.job.arm, {})
            studies.setdefault(t.job.study, []).append((t.job.seed, t.result.metrics[metric]))
    if folder.resolved().studies == 1:
        return {arm: [value for _, value in sorted(studies[1])] for arm, studies in found.items()}
    return {
        arm: [sum(value for _, value in rows) / len(rows) for _, rows in sorted(studies.items())]
        for arm, studies in found.items()
    }


def reported(folder: SweepFolder, metric: str = "") -> tuple[str, Goal]:
    """(metric, goal) for the given metric, or the sweep's reported one. Raises NotFound if the task does not have
    it.
    """
    resolved = folder.resolved()
    name = metric or resolved.report_metric
    if imported := resolved.imported:
        if name not in imported.metrics:
            raise NotFound(
                f"{folder.sweep_id} was imported with {', '.join(imported.metrics)}; to use {name!r}, import it again "
                f"with --metric {name}:maximize, or :minimize"
            )
        return name, Goal(imported.metrics[name])
    try:
        known = task_record.of_sweep(resolved).metrics
    except KeyError as gone:
        raise NotFound(
            f"{folder.sweep_id} does not say what {name!r} is for, and its task cannot be imported: {gone.args[0]}; "
            "run this in the folder that has it"
        ) from None
    if name not in known:
        raise NotFound(
            f"the task of {folder.sweep_id} has no metric {name!r}; available: {', '.join(known)}{_way(resolved, name)}"
        )
    return name, known[name].goal


def _way(resolved: Resolved, metric: str) -> str:
    """How to add a metric to a script's sweep."""
    if not resolved.is_script:
        return ""
    return (
        "; for a script, the sweep file declares whether a higher or lower metric is better: "
        f"task: {{goals: {{{metric}: maximize}}}}, or minimize, under a new sweep name"
    )


def declared_bounds(folder: SweepFolder, metric: str) -> tuple[float, float] | None:
    """Lowest and highest value of a metric, as its task declares them; None if it does not."""
    resolved = folder.resolved()
    try:
        known = None if resolved.imported else task_record.of_sweep(resolved).metrics.get(metric)
    except KeyError:  # a task that no longer exists
        return None
    return known.bounds if known else None


def tuned(folder: SweepFolder) -> dict[str, str]:
    """The tuned metric of the sweep: name, goal, select."""
    found: dict[str, str] = folder.resolved().definition["metric"]
    return found


def best(folder: SweepFolder) -> dict[str, Any]:
    """The `best` document: each arm's best configuration, with the mean over confirm seeds once there are any.

    `diverged` counts the trials of a row that did, if any; where all did, its value is None.

    Over several studies, `studies` has the result of each; the arm's value is their mean, and its configuration is from
    the study with the best search result, not from the one with the best confirm trials.
    """
    asked = folder.resolved().definition["metric"]
    metric, goal = asked["name"], Goal(asked["goal"])
    rows: dict[tuple[str, int, Stage, int], list[tuple[Job, float, bool]]] = {}
    ended = counted(ended_trials(folder))
    broke = feasible.breaches(folder, ended)
    trained = [(t, t.result.value) for t in ended if t.result.value is not None]
    gone = [t.result.state is State.DIVERGED for t, _ in trained]
    judged = goal.demoted([value for _, value in trained], gone)
    for (t, _), value, lost in zip(trained, judged, gone, strict=True):
        rows.setdefault((t.job.arm, t.job.study, t.job.stage, t.job.configuration), []).append((t.job, value, lost))
    studies: dict[str, dict[int, dict[str, Any]]] = {}
    tuned: dict[tuple[str, int], float] = {}
    for (arm, study, stage, _), found in rows.items():
        job, value = found[0][0], sum(value for _, value, _ in found) / len(found)
        diverging = sum(lost for _, _, lost in found)
        if stage is Stage.TUNE and broke.get((arm, study, job.configuration)):
            continue
        if stage is Stage.TUNE:
            tuned[arm, study] = goal.best((tuned.get((arm, study), value), value))
        old = studies.setdefault(arm, {}).get(study)
        if old is None or (stage is Stage.CONFIRM, goal.sign * value) > (
            old["stage"] is Stage.CONFIRM,
            goal.sign * old["value"],
        ):
            studies[arm][study] = {
                "value": value,
                "parameters": dict(job.values),
                **({"lineage": job.lineage} if job.lineage else {}),
                "trial_id": job.trial_id,
                "stage": stage,
                "seeds": len(found),
                **({"diverged": diverging} if diverging else {}),
            }
    several = folder.resolved().studies > 1
    arms = {arm: _over_studies(arm, found, tuned, goal) if several else found[1] for arm, found in studies.items()}
    return {
        "schema": "geosweep/best/1",
        "sweep_id": folder.sweep_id,
        "metric": metric,
        "goal": goal,
        "arms": {arm: _as_found(row) for arm, row in arms.items()},
        **({"outcome_constraints": feasible.summary(folder, ended)} if broke else {}),
        "exploratory": seal.stamps(folder),
    }


def _as_found(row: Mapping[str, Any]) -> dict[str, Any]:
    """The entry, without a value where every trial behind it diverged."""
    studies = [_as_found(one) for one in row.get("studies", ())]
    of = [one for one in studies if one["stage"] == row["stage"]]
    gone = all(one["value"] is None for one in of) if of else row.get("diverged") == row["seeds"]
    lost = sum(one.get("diverged", 0) for one in of) if of else row.get("diverged", 0)
    kept = {key: value for key, value in row.items() if key != "diverged"}
    more = {**({"studies": studies} if studies else {}), **({"diverged": lost} if lost else {})}
    return {**kept, **more, "value": None if gone else row["value"]}


def value_words(value: float | None) -> str:
    """The value of a `best` entry with four digits; `diverged` where there is none."""
    return "diverged" if value is None else f"{value:.4g}"


def infeasible(folder: SweepFolder) -> list[str]:
    """For people: how many configurations violate the outcome constraints, and studies in which all do."""
    return list(feasible.sentences(folder, ended_trials(folder)))


def _over_studies(
    arm: str, studies: Mapping[int, Mapping[str, Any]], tuned: Mapping[tuple[str, int], float], goal: Goal
) -> dict[str, Any]:
    """The `best` entry of an arm with several studies."""
    ended = {i: row for i, row in studies.items() if row["stage"] is Stage.CONFIRM} or studies
    favorite = min(ended, key=lambda i: (goal.loss(tuned[arm, i]), i))
    return {
        **ended[favorite],
        "value": sum(row["value"] for row in ended.values()) / len(ended),
        "study": favorite,
        "studies": [{"study": i, **row} for i, row in sorted(studies.items())],
    }


def told_values(
    folder: SweepFolder, names: Sequence[str], *, every: bool = False
) -> dict[tuple[str, int], list[tuple[Mapping[str, Any], list[float]]]]:
    """(arm, study) -> (parameters, objectives) of the configurations trained to the end, in order.

    Objectives are means over the tune seeds; with `every`, a configuration without tune seeds counts with its other
    seeds, as imported results may. Children in a population are left out: their values do not come from a single
    configuration.
    """
    found: dict[tuple[str, int], list[tuple[Mapping[str, Any], list[float]]]] = {}
    for (arm, study, _), (job, objectives) in _tuned_objectives(folder, names, every=every).items():
        if not job.lineage:
            found.setdefault((arm, study), []).append((job.values, objectives))
    return found


def _tuned_objectives(
    folder: SweepFolder, names: Sequence[str], *, every: bool = False
) -> dict[tuple[str, int, int], tuple[Job, list[float]]]:
    """(arm, study, configuration) -> its first job, and means over its tune seeds of the metrics, the tuned one first.

    Ordered; configurations without a value are left out.
    """
    rows: dict[tuple[str, int, int], list[tuple[Job, list[float]]]] = {}
    for t in ended_trials(folder):
        if (every or t.job.stage is Stage.TUNE) and t.result.value is not None:
            objectives = [t.result.value, *(t.result.metrics.get(name, math.nan) for name in names[1:])]
            rows.setdefault((t.job.arm, t.job.study, t.job.configuration), []).append((t.job, objectives))
    for key, found in rows.items():
        rows[key] = [one for one in found if one[0].stage is Stage.TUNE] or found
    return {
        key: (found[0][0], [sum(column) / len(found) for column in zip(*(each for _, each in found), strict=True)])
        for key, found in sorted(rows.items())
    }


def pareto(folder: SweepFolder) -> dict[str, Any]:
    """The `best --pareto` document: each arm's configurations that no other dominates.

    Objectives are means over the tune seeds; the tuned metric comes first.
    """
    asked = folder.resolved().definition
    goals = {o["name"]: Goal(o["goal"]) for o in (asked["metric"], *asked.get("objectives", []))}
    arms: dict[str, list[dict[str, Any]]] = {}
    several = folder.resolved().studies > 1
    broke = feasible.breaches(folder, ended_trials(folder))
    for (arm, study, number), (job, objectives) in _tuned_objectives(folder, list(goals)).items():
        if broke.get((arm, study, number)):
            continue
        row = {"configuration": number, "parameters": job.values}
        row |= {"values": dict(zip(goals, objectives, strict=True)), **({"study": study} if several else {})}
        arms.setdefault(arm, []).append(row)

    def beats(a: dict[str, Any], b: dict[str, Any]) -> bool:
        gaps = [goal.loss(a["values"][n] - b["values"][n]) for n, goal in goals.items()]
        return all(gap <= 0 for gap in gaps) and any(gap < 0 for gap in gaps)

    front = {arm: [r for r in found if not any(beats(o, r) for o in found)] for arm, found in arms.items()}
    return {
        "schema": "geosweep/pareto/1",
        "sweep_id": folder.sweep_id,
        "objectives": goals,
        "arms": front,
        "exploratory": seal.stamps(folder),
    }


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


def status(folder: SweepFolder, *, held: bool | None = None) -> dict[str, Any]:
    """The `status` document. State: running, done, stopped (continue it with `geosweep run`).

    With several studies, `studies` says how many of each arm's are confirmed: all their confirm trials have ended.

    `held`: whether a driver is at work, for a caller who knows; checking takes a moment.
    """
    resolved = folder.resolved()
    planned: dict[str, int] = {arm: row["trials"] for arm, row in resolved.plan["arms"].items()}
    held = folder.is_held() if held is None else held
    names = {s: "done" if s is State.COMPLETE else s.lower() for s in State}
    arms = {arm: dict.fromkeys(("done", "running", "waiting", "pruned", "diverged", "failed"), 0) for arm in planned}
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
            arms[job.arm]["running"] += held
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
        arms[one.job.arm][names[one.result.state]] += 1
        confirmed[one.job.arm, one.study] += one.job.stage is Stage.CONFIRM
    outcome = SweepOutcome.read(folder)
    noted = read_json(folder.waiting) if held or outcome else None
    with reading(folder.waiting):
        rows = {arm: (row["trials"], row.get("paused", 0), row["reason"]) for arm, row in (noted or {}).items()}
    for arm, counts in arms.items():
        trials, paused, _ = rows.get(arm, (0, 0, ""))
        counts["running"] = max(0, counts["running"] - paused)
        left = max(0, planned[arm] - sum(counts.values()))
        counts["waiting"] = left if noted is None else trials
    state = SweepState.RUNNING if held else outcome.state if outcome else SweepState.STOPPED
    reasons = "; ".join(f"{arm}: {reason}" for arm, (*_, reason) in rows.items())
    refused = read_json(folder.path / "refused.json") or {}
    ended_as = None if held else ending.read(folder)
    said = ended_as.reason if ended_as is not None and not ended_as.is_meant else ""
    why = {
        SweepState.RUNNING: reasons or "starting workers",
        SweepState.DONE: said or "will not be trained: every configuration of the arm failed",
        SweepState.FAILED: refused.get("message") or said or "the driver crashed; run it again",
    }.get(
        state, said or f"sweep is {state}; continue it with: {folder.command('run', str(folder.path / 'sweep.yaml'))}"
    )
    return {
        "schema": "geosweep/status/1",
        "sweep_id": folder.sweep_id,
        "state": state,
        "arms": arms,
        **_studies_done(resolved, confirmed),
        **({"script": resolved.plan["script"]} if resolved.is_script else {}),
        "grad_evals": grad_evals,
        "seconds": folder.seconds(),
        **({"imported": resolved.imported.pairing} if resolved.imported else {}),
        "suggestions": suggestions_digest(folder),
        "waiting_reason": why,
        **({"ending": ended_as.document()} if ended_as is not None else {}),
        **({"reused": again} if (again := noticed.reused(ended)) else {}),
        "errors": errors,
        **({"changed": {arm: list(names) for arm, names in changed.items()}} if changed else {}),
        "last_lines": last_lines,
        "exploratory": seal.stamps(folder),
    }


def counts_to_show(counts: Iterable[Mapping[str, int]]) -> tuple[str, ...]:
    """The states shown as columns of a table of arms: failures only if there are any."""
    found = list(counts)
    astray = (name for name in ("pruned", "diverged", "failed") if any(one.get(name) for one in found))
    return "done", "running", "waiting", *astray


def _studies_done(resolved: Resolved, confirmed: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    """`studies` of the `status` document, from the confirm trials that ended; empty for one study per arm."""
    seeds, planned = resolved.definition["seeds"], resolved.studies
    if planned == 1:
        return {}
    each = len(seeds["confirm"]) // planned
    done = Counter(arm for (arm, _), count in confirmed.items() if count >= each)
    return {"studies": {arm: {"confirmed": done[arm], "planned": planned} for arm in resolved.plan["arms"]}}
