"""Population based training in this process: equal compute, one outcome at any speed, heirs that can be trained again."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results, spec
from orchestrator.folder import SweepFolder, read_json
from orchestrator.job import Job
from orchestrator.metric_log import MetricLog
from orchestrator.population import Population, Space, movable
from orchestrator.space import Parameter
from orchestrator.stopping import Rule, rungs
from orchestrator.trial import TrialSession
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.test_search import run, study

PBT = {"type": "pbt", "eta": 3, "min_budget": "25%"}
MEMBERS, WHOLE = 6, 40


def evolve(root: Path, executor: Any = None, **top: Any) -> SweepFolder:
    return run(
        root, executor, method={"name": "random"}, budget={"trials_per_arm": MEMBERS}, early_terminate=PBT, **top
    )


def tuned(folder: SweepFolder) -> list[dict[str, Any]]:
    return [t for t in results.ended_trials(folder) if t["stage"] == "tune"]


def job_of(trial: dict[str, Any], **changes: Any) -> Job:
    fields = {f.name for f in dataclasses.fields(Job)}
    return Job(**{**{k: v for k, v in trial.items() if k in fields}, **changes})


def test_a_place_costs_one_budget_whoever_holds_it(tmp_path: Path) -> None:
    folder = evolve(tmp_path)
    for arm in ("sgd", "adamw"):
        mine = [t for t in tuned(folder) if t["arm"] == arm]
        heirs = [t for t in mine if t["lineage"]]
        gave_way = [t for t in mine if t["state"] == "PRUNED"]
        assert len(heirs) == len(gave_way) == len(mine) - MEMBERS > 0
        assert sum(t["grad_evals"] for t in mine) == MEMBERS * WHOLE
        assert all(t["inherited"] + t["grad_evals"] == WHOLE for t in mine if t["state"] == "COMPLETE")
        assert all("heir of configuration" in t["stopped"]["reason"] for t in gave_way)
        told = {t.number: t.state.name for t in study(folder, arm).trials}
        assert told == {t["configuration"]: t["state"] for t in mine}
    counts = results.status(folder)["arms"]
    assert all(c["waiting"] == c["running"] == 0 and c["done"] == MEMBERS + 3 for c in counts.values())


def test_heirs_take_over_from_the_best_and_only_move_numbers(tmp_path: Path) -> None:
    """At every rung those who give way are worse there than whoever their heirs descend from."""
    folder = evolve(tmp_path)
    by_number = {(t["arm"], t["configuration"]): t for t in tuned(folder)}
    for trial in [t for t in tuned(folder) if t["lineage"]]:
        rung, held = trial["lineage"][-1]
        donors = [t for (arm, _), t in by_number.items() if arm == trial["arm"] and t["parameters"] == held]
        assert donors
        gone = [t for t in tuned(folder) if t["arm"] == trial["arm"] and t["stopped"].get("rung") == rung]
        for donor in donors:
            at = MetricLog(folder.trial(donor["trial_id"]) / "metrics.jsonl").points()[rung - 1]
            assert all(at["metrics"]["loss/val"] < t["stopped"]["value"] for t in gone)
        assert set(trial["parameters"]) == set(held)
        assert 0.01 <= trial["parameters"]["lr"] <= 0.3


def test_the_outcome_depends_neither_on_speed_nor_on_crashes(tmp_path: Path) -> None:
    found = set()
    for workers, seed, kills in ((1, 0, False), (4, 1, False), (16, 2, False), (4, 3, True), (1, 4, True)):
        place = tmp_path / f"{workers}-{seed}"
        for attempt in range(200):
            try:
                die_after = 3 + attempt % 9 if kills and attempt < 199 else None
                folder = evolve(place, Interleaved(workers, seed + attempt, die_after=die_after))
                break
            except Dies:
                continue
        trials = results.ended_trials(folder)
        found.add(tuple((t["trial_id"], t["state"], t["value"], t["grad_evals"], str(t["parameters"])) for t in trials))
        assert sum(t["grad_evals"] for t in tuned(folder)) == 2 * MEMBERS * WHOLE
    assert len(found) == 1


def test_an_heir_is_a_function_of_its_lineage_and_seed(tmp_path: Path) -> None:
    """Trained from nothing it gives the log, bit for bit, that it gave from the checkpoint it inherited."""
    folder = evolve(tmp_path / "a")
    heirs = [t for t in tuned(folder) if t["lineage"] and t["state"] == "COMPLETE"]
    assert any(len(t["lineage"]) > 1 for t in heirs)
    for trial in heirs:
        place = tmp_path / "again" / "trials" / trial["trial_id"]
        place.parent.mkdir(parents=True, exist_ok=True)
        session = TrialSession(job_of(trial, folder=str(place), inherited=0.0, until=0))
        while not session.advance().done:
            pass
        inherited = MetricLog(folder.trial(trial["trial_id"]) / "metrics.jsonl").points()
        anew = MetricLog(place / "metrics.jsonl").points()
        assert [p["metrics"]["loss/val"] for p in anew] == [p["metrics"]["loss/val"] for p in inherited]
        assert read_json(place / "result.json")["grad_evals"] == WHOLE


def test_confirm_seeds_train_the_whole_lineage(tmp_path: Path) -> None:
    folder = evolve(tmp_path)
    for trial in [t for t in results.ended_trials(folder) if t["stage"] == "confirm"]:
        chosen = read_json(folder.trial(f"{trial['arm']}-{trial['configuration']:04d}-s0") / "trial.json")
        assert trial["lineage"] == chosen["lineage"]
        assert trial["inherited"] == 0
        assert trial["grad_evals"] == WHOLE
    best = results.best(folder)["arms"]
    assert any(row["lineage"] for row in best.values())
