"""Population based training: equal compute, one outcome at any speed, heirs that can be trained again from nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator import results
from orchestrator.definition import sweep_file
from orchestrator.definition.space import Parameter, movable
from orchestrator.definition.stopping_rule import Rule, rungs
from orchestrator.scheduling.population import Population, Space
from orchestrator.scheduling.studies import open_arms
from orchestrator.search.base import Configuration
from orchestrator.storage.folder import SweepFolder, find, read_json
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.job import Job
from orchestrator.trial.lineage import told
from orchestrator.trial.session import TrialSession
from tests.orchestrator.command import check_mlflow
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_search import run, study
from tests.verbs import Called

PBT = {"type": "pbt", "eta": 3, "min_budget": "25%"}
MEMBERS, WHOLE = 6, 40
WIDE = {"distribution": "log_uniform_values", "min": 0.01, "max": 30.0}
SPACE = Space(
    parameters=(
        Parameter(name="lr", kind="float", low=0.01, high=0.3, log=True),
        Parameter(name="steps", kind="int", low=2, high=21, step=2),
        Parameter(name="share", kind="float", low=0.9, high=0.999, one_minus=True),
        Parameter(name="q", kind="float", low=0.0, high=1.0, step=0.1),
        Parameter(name="radius", kind="categorical", values=(0.1, 0.02, 0.05)),
        Parameter(name="rotation", kind="categorical", values=("svd", "global")),
        Parameter(name="fixed", kind="constant", values=(1.0,)),
    ),
    changeable=frozenset({"lr", "steps", "share", "q", "radius", "rotation", "fixed"}),
    constraints=("lr * steps <= 1.5",),
    facts=lambda configuration: {},
)


def evolve(root: Path, executor: Any = None, **top: Any) -> SweepFolder:
    return run(
        root, executor, method={"name": "random"}, budget={"trials_per_arm": MEMBERS}, early_terminate=PBT, **top
    )


def outcome(folder: SweepFolder) -> list[tuple[Any, ...]]:
    """Everything that has to be the same however a sweep was run."""
    keys = ("trial_id", "state", "value", "grad_evals", "parameters", "lineage", "stopped")
    return [tuple(t[k] for k in keys) for t in results.ended_trials(folder)]


def configurations(folder: SweepFolder) -> list[Configuration]:
    loaded = sweep_file.loads((folder.path / "sweep.yaml").read_text())
    return [c for arm in open_arms(loaded, folder).values() for c in arm.study.configurations()]


class DiesAtAnEnd:
    """A listener that raises when the n-th trial gives way."""

    def __init__(self, at: int) -> None:
        self._left = at

    def began(self, job: Job) -> None:
        pass

    def moved(self, job: Job, report: Any) -> None:
        pass

    def recovered(self, job: Job, result: Any) -> None:
        pass

    def ended(self, job: Job, result: Any) -> None:
        self._left -= result["state"] == "PRUNED"
        if not self._left:
            raise Dies


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
        found.add(str(outcome(folder)))
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
    changed = {arm: row for arm, row in best.items() if "lineage" in row}
    assert changed
    for row in changed.values():
        assert ", then " in told(row["parameters"], row["lineage"])["lr"]
    assert "lineage" in results.tables(folder)["trials"].column_names


def test_whoever_diverges_gives_way_and_keeps_its_state(tmp_path: Path) -> None:
    folder = evolve(tmp_path, task={"name": "tests.tasks:Fit"}, arms={"sgd": {"parameters": {"lr": WIDE}}})
    diverged = [t for t in tuned(folder) if t["state"] == "DIVERGED"]
    replaced = {c.replaces for c in configurations(folder)}
    early = {t["configuration"] for t in diverged if t["inherited"] + t["grad_evals"] <= 30}
    assert early
    assert early <= replaced
    done = [t for t in tuned(folder) if t["state"] == "COMPLETE"]
    assert all(t["inherited"] + t["grad_evals"] == WHOLE for t in done)
    assert len(done) >= MEMBERS - sum(t["configuration"] not in replaced for t in diverged)


def test_a_budget_of_time_ends_between_rungs_and_the_rest_goes_on(call: Callable[..., Called], tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    clocks, text = iter((", wall_clock: 1s", ", wall_clock: 60s")), "early_terminate: {type: pbt, min_budget: 25%}\n"
    pause = {"trials": MEMBERS, "method": "random", "pause_s": 0.01}
    file.write_text(sweep_text(wall_clock=next(clocks), **pause) + text)
    cut = call("run", str(file), "--executor", "debug")
    assert cut.code == 5
    assert "mended" not in cut.err, "paused trials are not left as if they were running"
    file.write_text(sweep_text(wall_clock=next(clocks), **pause) + text)
    assert call("run", str(file), "--executor", "debug").code == 0
    folder = find(tmp_path / "runs", "@last")
    assert sum(t["grad_evals"] for t in tuned(folder)) == 2 * MEMBERS * WHOLE
    check_mlflow(folder, states={t["trial_id"]: t["state"] for t in results.ended_trials(folder)})


def test_a_driver_that_dies_between_two_places_is_continued(tmp_path: Path) -> None:
    """Killed while it ends those who give way: its successor decides the same and adds what is missing."""
    whole = evolve(tmp_path / "whole")
    for at in range(1, 7):
        place = tmp_path / f"at-{at}"
        with contextlib.suppress(Dies):
            evolve(place, listeners=(DiesAtAnEnd(at),))
        folder = evolve(place)
        assert outcome(folder) == outcome(whole)


def test_exchanges_keep_the_share_and_never_reward_a_worse_one() -> None:
    for count, eta, diverged in ((9, 3, 0), (9, 3, 2), (9, 3, 5), (4, 4, 0), (5, 2, 1), (1, 3, 0), (2, 2, 3)):
        population = Population(Rule(type="pbt", eta=eta, rungs=(1,)), SPACE, seed="s", maximize=False, decided=0)
        values = {n: float((7 * n) % 11) for n in range(count)}
        population.paused = dict(values)
        found = population.exchanges(list(range(100, 100 + diverged)))
        gone = [e.loser for e in found]
        assert len(set(gone)) == len(gone) == max(diverged, (count + diverged) // eta)
        ranked = sorted(values, key=lambda n: values[n])
        best = set(ranked[: max(1, (count + diverged) // eta)])
        assert {e.donor for e in found} <= best
        assert not best & set(gone)
        assert [e.loser for e in found if e.stop is None] == list(range(100, 100 + diverged))


def test_equal_members_all_go_on() -> None:
    population = Population(Rule(type="pbt", eta=2, rungs=(1,)), SPACE, seed="s", maximize=True, decided=0)
    population.paused = dict.fromkeys(range(6), 0.5)
    assert population.exchanges([]) == []


def test_heirs_stay_in_the_space_and_obey() -> None:
    donor = {"lr": 0.1, "steps": 8, "share": 0.99, "q": 0.3, "radius": 0.05, "rotation": "svd", "fixed": 1.0}
    names = {p.name for p in movable(SPACE.parameters, SPACE.changeable)}
    assert names == {"lr", "steps", "share", "q", "radius"}
    seen: dict[str, set[Any]] = {name: set() for name in donor}
    for seed in range(400):
        heir = SPACE.explore(donor, random.Random(seed))
        assert 0.01 <= heir["lr"] <= 0.3
        assert heir["steps"] in range(2, 21, 2)
        assert 0.9 <= heir["share"] <= 0.999
        assert abs(heir["q"] / 0.1 - round(heir["q"] / 0.1)) < 1e-9
        assert heir["radius"] in (0.02, 0.05, 0.1)
        assert heir["lr"] * heir["steps"] <= 1.5
        for name, value in heir.items():
            seen[name].add(value)
    assert len(seen["rotation"]) == len(seen["fixed"]) == 1
    assert all(len(seen[name]) > 2 for name in names)
    assert {0.08, 0.1 * 1.2} <= {round(v, 12) for v in seen["lr"]}


def test_rungs_are_evenly_spread() -> None:
    assert rungs("pbt", eta=3, min_share=0.25, evaluations=8) == (2, 4, 6)
    assert rungs("pbt", eta=3, min_share=0.2, evaluations=8) == (2, 4, 6, 7)
