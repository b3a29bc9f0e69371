"""Population based training: equal compute, one outcome at any speed, children that can be retrained from nothing."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import parquet, results
from orchestrator.definition import sweep_file
from orchestrator.definition.space import Parameter, movable
from orchestrator.definition.states import Goal, State
from orchestrator.definition.stopping_rule import Rule, rungs
from orchestrator.scheduling.population import Population, Space
from orchestrator.scheduling.studies import open_arms
from orchestrator.search.base import Configuration
from orchestrator.storage.documents import read_json
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.metric_log import MetricLog
from orchestrator.trial.job import Job
from orchestrator.trial.lineage import describe
from orchestrator.trial.record import TrialRecord, read_job
from orchestrator.trial.session import TrialSession
from orchestrator.trial.trial_id import TrialId
from tests.orchestrator.command import check_mlflow
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_search import STEPS, run, study
from tests.verbs import Called

pytestmark = pytest.mark.slow

PBT = {"type": "pbt", "eta": 3, "min_budget": "25%"}
MEMBERS, WHOLE, CONFIRM = 6, STEPS, 1
WIDE = {"distribution": "log_uniform_values", "min": 0.01, "max": 3e3}
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
        root, executor, method={"name": "random"}, budget={"trials_per_arm": MEMBERS}, early_terminate=PBT,
        seeds={"tune": 1, "confirm": CONFIRM}, **top,
    )  # fmt: skip


def outcome(folder: SweepFolder) -> list[tuple[Any, ...]]:
    """Everything that has to be the same however a sweep was run."""
    return [
        (t.trial_id, t.job.parameters, t.job.lineage, replace(t.result, seconds=0.0, metrics={}))
        for t in results.ended_trials(folder)
    ]


def configurations(folder: SweepFolder) -> list[Configuration]:
    loaded = sweep_file.loads((folder.path / "sweep.yaml").read_text())
    return [c for arm in open_arms(loaded, folder).values() for c in arm.study.configurations()]


class DiesAtAnEnd:
    """A callback that raises when the n-th trial gives way."""

    def __init__(self, at: int) -> None:
        self._left = at

    def on_start(self, job: Job) -> None:
        pass

    def on_report(self, job: Job, report: Any) -> None:
        pass

    def on_recover(self, job: Job, result: Any) -> None:
        pass

    def on_end(self, job: Job, result: Any) -> None:
        self._left -= result.state is State.PRUNED
        if not self._left:
            raise Dies


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """The sweep that nobody disturbed; to be looked at, not to be changed."""
    return evolve(tmp_path_factory.mktemp("evolved"))


def tuned(folder: SweepFolder) -> list[TrialRecord]:
    return [t for t in results.ended_trials(folder) if t.job.stage == "tune"]


def test_a_place_costs_one_budget_whoever_holds_it(evolved: SweepFolder) -> None:
    folder = evolved
    for arm in ("sgd", "adamw"):
        mine = [t for t in tuned(folder) if t.job.arm == arm]
        children = [t for t in mine if t.job.lineage]
        gave_way = [t for t in mine if t.result.state == "PRUNED"]
        assert len(children) == len(gave_way) == len(mine) - MEMBERS > 0
        assert sum(t.result.grad_evals for t in mine) == MEMBERS * WHOLE
        assert all(t.job.inherited + t.result.grad_evals == WHOLE for t in mine if t.result.state == "COMPLETE")
        assert all("child of configuration" in t.result.stopped.reason for t in gave_way)
        told = {t.number: t.state.name for t in study(folder, arm).trials}
        assert told == {t.job.configuration: t.result.state for t in mine}
    counts = results.status(folder).arms
    assert all(c.waiting == c.running == 0 and c.done == MEMBERS + CONFIRM for c in counts.values())


def test_children_take_over_from_the_best_and_only_move_numbers(evolved: SweepFolder) -> None:
    """At every rung those who give way are worse there than whoever their children descend from."""
    folder = evolved
    by_number = {(t.job.arm, t.job.configuration): t for t in tuned(folder)}
    for trial in [t for t in tuned(folder) if t.job.lineage]:
        rung, held = trial.job.lineage[-1]
        parents = [t for (arm, _), t in by_number.items() if arm == trial.job.arm and t.job.parameters == held]
        assert parents
        stops = [t.result.stopped for t in tuned(folder) if t.job.arm == trial.job.arm]
        gone = [stop for stop in stops if stop is not None and stop.rung == rung]
        for parent in parents:
            at = MetricLog(folder.trial(parent.trial_id) / "metrics.jsonl").points()[rung - 1]
            assert all(at.metrics["loss/val"] < stop.value for stop in gone)
        assert set(trial.job.parameters) == set(held)
        assert 0.01 <= trial.job.parameters["lr"] <= 0.3


def test_the_outcome_depends_neither_on_speed_nor_on_crashes(evolved: SweepFolder, tmp_path: Path) -> None:
    """`evolved` had one worker and no crash; many workers, and some of them with a crash every few reports."""
    found = {str(outcome(evolved))}
    for workers, seed, kills in ((16, 2, False), (4, 3, True)):
        place = tmp_path / f"{workers}-{seed}"
        for attempt in range(200):
            try:
                die_after = 11 + attempt % 9 if kills and attempt < 199 else None
                folder = evolve(place, Interleaved(workers, seed + attempt, die_after=die_after))
                break
            except Dies:
                continue
        found.add(str(outcome(folder)))
        assert sum(t.result.grad_evals for t in tuned(folder)) == 2 * MEMBERS * WHOLE
    assert len(found) == 1


def test_an_heir_is_a_function_of_its_lineage_and_seed(evolved: SweepFolder, tmp_path: Path) -> None:
    """Trained from nothing it gives the log, bit for bit, that it gave from the checkpoint it inherited."""
    folder = evolved
    children = [t for t in tuned(folder) if t.job.lineage and t.result.state == "COMPLETE"]
    assert any(len(t.job.lineage) > 1 for t in children)
    for trial in children:
        place = tmp_path / "again" / "trials" / trial.trial_id
        place.parent.mkdir(parents=True, exist_ok=True)
        session = TrialSession(replace(trial.job, folder=str(place), inherited=0.0, until=0))
        while not session.advance().done:
            pass
        inherited = MetricLog(folder.trial(trial.trial_id) / "metrics.jsonl").points()
        anew = MetricLog(place / "metrics.jsonl").points()
        assert [p.metrics["loss/val"] for p in anew] == [p.metrics["loss/val"] for p in inherited]
        assert read_json(place / "result.json")["grad_evals"] == WHOLE


def test_confirm_seeds_train_the_whole_lineage(evolved: SweepFolder) -> None:
    folder = evolved
    for trial in [t for t in results.ended_trials(folder) if t.job.stage == "confirm"]:
        chosen = read_job(folder.trial(str(TrialId(trial.job.arm, trial.job.configuration, 0))))
        assert chosen is not None
        assert trial.job.lineage == chosen.lineage
        assert trial.job.inherited == 0
        assert trial.result.grad_evals == WHOLE
    best = results.best(folder).arms
    changed = {arm: row for arm, row in best.items() if row.lineage}
    assert changed
    for row in changed.values():
        assert ", then " in describe(row.parameters, row.lineage)["lr"]
    assert "lineage" in parquet.tables(folder)["trials"].column_names


def test_whoever_diverges_gives_way_and_keeps_its_state(tmp_path: Path) -> None:
    folder = evolve(tmp_path, task={"name": "tests.tasks:Fit"}, arms={"sgd": {"parameters": {"lr": WIDE}}})
    diverged = [t for t in tuned(folder) if t.result.state == "DIVERGED"]
    replaced = {c.replaces for c in configurations(folder)}
    early = {t.job.configuration for t in diverged if t.job.inherited + t.result.grad_evals <= 0.75 * WHOLE}
    assert early
    assert early <= replaced
    done = [t for t in tuned(folder) if t.result.state == "COMPLETE"]
    assert all(t.job.inherited + t.result.grad_evals == WHOLE for t in done)
    assert len(done) >= MEMBERS - sum(t.job.configuration not in replaced for t in diverged)


def test_a_budget_of_time_ends_between_rungs_and_the_rest_goes_on(call: Callable[..., Called], tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    clocks, text = iter((", wall_clock: 1s", ", wall_clock: 10m")), "early_terminate: {type: pbt, min_budget: 25%}\n"
    pause = {"trials": 4, "method": "random", "per_trial": WHOLE, "confirm": CONFIRM, "pause_s": 0.03}
    file.write_text(sweep_text(wall_clock=next(clocks), **pause) + text)
    cut = call("run", str(file), "--executor", "debug")
    assert cut.code == 5
    assert "repaired" not in cut.err, "paused trials are not left as if they were running"
    file.write_text(sweep_text(wall_clock=next(clocks), **pause) + text)
    assert call("run", str(file), "--executor", "debug").code == 0
    folder = find(tmp_path / "runs", "@last")
    assert sum(t.result.grad_evals for t in tuned(folder)) == 2 * 4 * WHOLE
    check_mlflow(folder, states={t.trial_id: t.result.state for t in results.ended_trials(folder)},
                 arms={"sgd": CONFIRM, "adamw": CONFIRM})  # fmt: skip


def test_a_driver_that_dies_between_two_places_is_continued(evolved: SweepFolder, tmp_path: Path) -> None:
    """Killed while it ends those who give way, two at a rung, after the first of them or the last; its successor
    decides the same and adds what is missing."""
    for at in (1, 4):
        place = tmp_path / f"at-{at}"
        with contextlib.suppress(Dies):
            evolve(place, callbacks=(DiesAtAnEnd(at),))
        folder = evolve(place)
        assert outcome(folder) == outcome(evolved)


def test_exchanges_keep_the_share_and_never_reward_a_worse_one() -> None:
    for count, eta, diverged in ((9, 3, 0), (9, 3, 2), (9, 3, 5), (4, 4, 0), (5, 2, 1), (1, 3, 0), (2, 2, 3)):
        population = Population(Rule(type="pbt", eta=eta, rungs=(1,)), SPACE, seed="s", goal=Goal.MINIMIZE, decided=0)
        values = {n: float((7 * n) % 11) for n in range(count)}
        population.paused = dict(values)
        found = population.exchanges(list(range(100, 100 + diverged)))
        gone = [e.loser for e in found]
        assert len(set(gone)) == len(gone) == max(diverged, (count + diverged) // eta)
        ranked = sorted(values, key=lambda n: values[n])
        best = set(ranked[: max(1, (count + diverged) // eta)])
        assert {e.parent for e in found} <= best
        assert not best & set(gone)
        assert [e.loser for e in found if e.stop is None] == list(range(100, 100 + diverged))


def test_equal_members_all_go_on() -> None:
    population = Population(Rule(type="pbt", eta=2, rungs=(1,)), SPACE, seed="s", goal=Goal.MAXIMIZE, decided=0)
    population.paused = dict.fromkeys(range(6), 0.5)
    assert population.exchanges([]) == []


def test_children_stay_in_the_space_and_obey() -> None:
    parent = {"lr": 0.1, "steps": 8, "share": 0.99, "q": 0.3, "radius": 0.05, "rotation": "svd", "fixed": 1.0}
    names = {p.name for p in movable(SPACE.parameters, SPACE.changeable)}
    assert names == {"lr", "steps", "share", "q", "radius"}
    seen: dict[str, set[Any]] = {name: set() for name in parent}
    for seed in range(400):
        child = SPACE.explore(parent, random.Random(seed))
        assert 0.01 <= child["lr"] <= 0.3
        assert child["steps"] in range(2, 21, 2)
        assert 0.9 <= child["share"] <= 0.999
        assert abs(child["q"] / 0.1 - round(child["q"] / 0.1)) < 1e-9
        assert child["radius"] in (0.02, 0.05, 0.1)
        assert child["lr"] * child["steps"] <= 1.5
        for name, value in child.items():
            seen[name].add(value)
    assert len(seen["rotation"]) == len(seen["fixed"]) == 1
    assert all(len(seen[name]) > 2 for name in names)
    assert {0.08, 0.1 * 1.2} <= {round(v, 12) for v in seen["lr"]}


def test_a_child_lacks_nothing_that_a_move_would_bring_in() -> None:
    space = replace(
        SPACE,
        parameters=[
            Parameter(name="radius", kind="categorical", values=(0.0, 0.1)),
            Parameter(name="steps", kind="int", low=1, high=9, when={"radius": (0.1,)}),
        ],
        constraints=(),
    )
    draws = [random.Random(seed) for seed in range(50)]
    assert all(space.explore({"radius": 0.0}, draw) == {"radius": 0.0} for draw in draws)
    assert {space.explore({"radius": 0.1, "steps": 5}, draw)["steps"] for draw in draws} > {4, 6}


def test_rungs_are_evenly_spread() -> None:
    assert rungs("pbt", eta=3, min_share=0.25, evaluations=8) == (2, 4, 6)
    assert rungs("pbt", eta=3, min_share=0.2, evaluations=8) == (2, 4, 6, 7)
