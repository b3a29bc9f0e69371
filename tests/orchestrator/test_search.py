"""Search, stopping and budgets in this process: exact states, one digest under strict replay, reserves kept."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from orchestrator import results
from orchestrator.definition import sweep_file
from orchestrator.definition.states import Goal, State
from orchestrator.definition.stopping_rule import Rule, rungs
from orchestrator.imported.make import make
from orchestrator.imported.roles import Question
from orchestrator.scheduling.budget import Ledger
from orchestrator.scheduling.stopping import Stopper
from orchestrator.search.optuna import SOURCE
from orchestrator.search.optuna_storage import storage
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.foreign_runs import of_csv
from orchestrator.storage.waiting import Waiting
from orchestrator.trial.job import Result
from tests.orchestrator.interleaved import Dies, Interleaved
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

ASHA = {"type": "asha", "eta": 3, "min_budget": "25%"}
STEPS = 8


def run(
    root: Path, executor: Any = None, method: Any = None, budget: Any = None, callbacks: Any = (), **top: Any
) -> SweepFolder:
    definition = yaml.safe_load(sweep_text())
    definition["method"].update(method or {})
    definition["budget"].update({"per_trial": STEPS, **(budget or {})})
    text = yaml.safe_dump({**definition, "cache": False, **top})
    return swept(text, root, executor or Interleaved(1), callbacks)


def study(folder: SweepFolder, arm: str = "sgd") -> optuna.Study:
    return optuna.load_study(study_name=f"{folder.sweep_id}/{arm}", storage=storage(folder.journal))


@pytest.mark.parametrize(
    "kind, share, evaluations, expected",
    [
        ("asha", 0.25, 8, (2, 6)),
        ("asha", 0.05, 8, (1, 3)),
        ("median", 0.5, 8, (4, 5, 6, 7)),
        ("asha", 0.9, 8, ()),
    ],
)
def test_rungs_are_evaluations_before_the_last(kind: str, share: float, evaluations: int, expected: Any) -> None:
    assert rungs(kind, eta=3, min_share=share, evaluations=evaluations) == expected


def test_asha_lets_the_best_third_go_on() -> None:
    """Where each newcomer is the best so far nobody is stopped; in the reverse order the late ones are."""
    for order, stops in ((range(9, 0, -1), 0), (range(1, 10), 7)):
        stopper = Stopper(Rule(type="asha", eta=3, rungs=(1,)), goal=Goal.MINIMIZE, strict=False)
        stopped = []
        for number, value in enumerate(order):
            stopper.begin(number)
            stopper.record(number, 1, float(value))
            stopped += [s.number for s in stopper.decisions()]
        assert len(stopped) == stops


def test_median_stops_what_is_worse_than_half() -> None:
    stopper = Stopper(Rule(type="median", eta=3, rungs=(1, 2)), goal=Goal.MAXIMIZE, strict=False)
    found = []
    for number, value in enumerate([0.5, 0.6, 0.7, 0.55, 0.65]):
        stopper.begin(number)
        stopper.record(number, 1, value)
        found += [(s.number, s.reason) for s in stopper.decisions()]
    assert found == [(3, "best so far 0.55 vs. a median of 0.6 at evaluation 1")]


def test_hyperband_brackets_begin_at_later_rungs() -> None:
    rule = Rule(type="hyperband", eta=3, rungs=(1, 3, 6))
    assert [rule.rungs_of(n) for n in range(4)] == [(1, 3, 6), (3, 6), (6,), (1, 3, 6)]


def test_strict_decisions_do_not_depend_on_arrival() -> None:
    values = {n: [random.Random(n).random() for _ in range(3)] for n in range(12)}
    outcomes = set()
    for seed in range(20):
        stopper = Stopper(Rule(type="asha", eta=3, rungs=(1, 2, 3)), goal=Goal.MINIMIZE, strict=True)
        for n in values:
            stopper.begin(n)
        left = {n: [1, 2, 3] for n in values}
        draws, stopped = random.Random(seed), {}
        while any(left.values()):
            n = draws.choice([n for n in left if left[n]])
            rung = left[n].pop(0)
            stopper.record(n, rung, values[n][rung - 1])
            if not left[n]:
                stopper.end(n)
            for s in stopper.decisions():
                stopped[s.number] = s.rung
        assert not any(stopper.undecided(n) for n in values)
        outcomes.add(tuple(sorted(stopped.items())))
    assert len(outcomes) == 1
    assert next(iter(outcomes))


@pytest.mark.slow
def test_stopped_trials_are_pruned_everywhere_with_their_reason(tmp_path: Path) -> None:
    folder = run(tmp_path, method={"name": "random"}, budget={"trials_per_arm": 9}, early_terminate=ASHA)
    trials = results.ended_trials(folder)
    stopped = [t for t in trials if t.result.state == "PRUNED"]
    assert stopped
    for t in stopped:
        assert t.result.grad_evals == STEPS / 4 * t.result.stopped.rung < STEPS
        assert "continue" in t.result.stopped.reason
        assert t.result.seconds > 0
        assert t.job.stage == "tune"
    told = {t.number: t for arm in ("sgd",) for t in study(folder, arm).trials}
    for t in trials:
        if t.job.arm != "sgd" or t.job.stage != "tune":
            continue
        kept = told[t.job.configuration]
        assert kept.state.name == ("PRUNED" if t.result.state == "PRUNED" else "COMPLETE")
        last = max(kept.intermediate_values)
        assert kept.value == kept.intermediate_values[last]
        assert last == (t.result.stopped.rung if t.result.state == "PRUNED" else 4)
    counts = results.status(folder).arms
    assert sum(c.pruned for c in counts.values()) == len(stopped)
    assert all(c.waiting == 0 and c.done + c.pruned == 12 for c in counts.values())


def test_gpu_hours_count_what_stopped_trials_trained() -> None:
    """Two halves cost what a whole trial costs, and the next whole one is reckoned at that pace."""
    definition = yaml.safe_load(sweep_text())
    definition |= {"resources": {"gpu": 0.5}}
    definition["budget"] |= {"money": 2.0, "price_per_gpu_hour": 4.0}
    ledger = Ledger(sweep_file.loads(yaml.safe_dump(definition), "test.yaml"))
    whole = Result(state=State.COMPLETE, value=0.5, metrics={}, grad_evals=40.0, seconds=1800.0)
    for share in (0.5, 0.25, 0.25):
        ledger.trained(replace(whole, seconds=share * whole.seconds, grad_evals=share * whole.grad_evals))
    ledger.trained(replace(whole, cached_from="another sweep's trial"))
    spent, needs = ledger.spent(grad_evals=40, seconds=1800), ledger.needs(40, workers=1)
    assert spent["gpu_hours"] == needs["gpu_hours"] == 0.25
    assert spent["money"] == needs["money"] == 1.0
    assert ledger.exceeded(spent, needs) == ""
    assert ledger.exceeded(spent, ledger.needs(80, workers=1)) == "money"


def test_workers_share_the_wall_clock_and_nothing_else() -> None:
    """Four workers need a quarter of the time for what comes, and as many GPU-hours."""
    definition = yaml.safe_load(sweep_text())
    definition |= {"resources": {"gpu": 1}}
    definition["budget"] |= {"wall_clock": "1h", "gpu_hours": 3.0}
    ledger = Ledger(sweep_file.loads(yaml.safe_dump(definition), "test.yaml"))
    ledger.trained(Result(state=State.COMPLETE, value=0.5, metrics={}, grad_evals=40.0, seconds=1800.0))
    alone, four = ledger.needs(160, workers=1), ledger.needs(160, workers=4)
    assert (alone["wall_clock"], four["wall_clock"]) == (7200.0, 1800.0)
    assert alone["gpu_hours"] == four["gpu_hours"] == 2.0
    spent = ledger.spent(grad_evals=40, seconds=1800)
    assert ledger.exceeded(spent, four) == ""
    assert ledger.exceeded(spent, alone) == "wall_clock"


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, 12])
def test_audited_trials_are_finished_and_change_nothing(steps: int, tmp_path: Path) -> None:
    common: dict[str, Any] = {"method": {"name": "tpe"}, "budget": {"trials_per_arm": 9, "per_trial": steps}}
    plain = run(tmp_path / "a", **common, early_terminate=ASHA)
    audited = run(tmp_path / "b", **common, early_terminate={**ASHA, "audit_share": 1.0})
    assert results.suggestions_digest(plain) == results.suggestions_digest(audited)
    stopped = [t for t in results.ended_trials(audited) if t.result.state == "PRUNED"]
    assert {t.trial_id for t in stopped} == {
        t.trial_id for t in results.ended_trials(plain) if t.result.state == "PRUNED"
    }
    assert stopped
    assert all(t.result.stopped.audit_value is not None and t.result.grad_evals == steps for t in stopped)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [{}, {"early_terminate": ASHA}], ids=["whole", "asha"])
def test_strict_replay_gives_one_digest(tmp_path: Path, extra: dict[str, Any]) -> None:
    """1, 4 and 16 workers, any order of arrival, kills and retries: the same suggestions and the same results."""
    budget, method = {"trials_per_arm": 7}, {"name": "tpe", "random_share": 0.3, "replay": "strict", "lag": 3}
    found = {}
    for workers, seed, kills in ((1, 0, False), (16, 2, False), (4, 3, True)):
        place = tmp_path / f"{workers}-{seed}"
        for attempt in range(60):
            try:
                executor = Interleaved(workers, seed + attempt, die_after=9 if kills and attempt < 59 else None)
                folder = run(place, executor, method, budget, seeds={"tune": 1, "confirm": 1}, **extra)
            except Dies:
                continue
            break
        found[workers, kills] = (
            results.suggestions_digest(folder),
            {t.trial_id: (t.result.state, t.result.value) for t in results.ended_trials(folder)},
        )
    assert len({digest for digest, _ in found.values()}) == 1
    first = next(iter(found.values()))[1]
    assert all(outcome == first for _, outcome in found.values())


@pytest.mark.slow
def test_the_search_never_spends_the_reserve_of_the_confirm_stage(tmp_path: Path) -> None:
    """16 whole trials fit; 2 arms x 3 confirm seeds are reserved, so that 10 are left for the search."""
    folder = run(tmp_path, Interleaved(3), {"name": "random"}, {"trials_per_arm": 100, "grad_evals": 16 * STEPS})
    trials = results.ended_trials(folder)
    assert sum(t.result.grad_evals for t in trials) <= 16 * STEPS
    by = {(arm, stage): sum(t.job.arm == arm and t.job.stage == stage for t in trials) for arm in ("sgd", "adamw")
          for stage in ("tune", "confirm")}  # fmt: skip
    assert by == {(a, s): n for a in ("sgd", "adamw") for s, n in (("tune", 5), ("confirm", 3))}


@pytest.mark.slow
def test_a_search_that_ended_at_its_budget_stays_ended(tmp_path: Path) -> None:
    """Its winners are confirmed; a larger budget would choose again after the confirm seeds were seen."""
    folder = run(tmp_path, None, {"name": "random"}, {"trials_per_arm": 6, "grad_evals": 10 * STEPS})
    assert results.status(folder).state == "budget"
    before = {t.trial_id for t in results.ended_trials(folder)}
    assert sum("s100" in name for name in before) == 6
    again = run(tmp_path, None, {"name": "random"}, {"trials_per_arm": 6, "grad_evals": 100 * STEPS})
    assert again.sweep_id == folder.sweep_id
    assert {t.trial_id for t in results.ended_trials(again)} == before


def last_median(root: Path, method: str) -> float:
    """The median of the last eight of sixteen trials."""
    space = {"lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.2}}
    common = {"arms": {"sgd": {"parameters": space}}, "seeds": {"tune": 1, "confirm": 0}}
    found = run(root, None, {"name": method, "random_share": 0.25}, {"trials_per_arm": 16, "per_trial": 40}, **common)
    return statistics.median([t.value for t in study(found).trials if t.state.name == "COMPLETE"][-8:])


@pytest.fixture(scope="module")
def of_chance(tmp_path_factory: pytest.TempPathFactory) -> float:
    return last_median(tmp_path_factory.mktemp("random"), "random")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gp", "cmaes", "tpe"])
def test_samplers_learn(name: str, of_chance: float, tmp_path: Path) -> None:
    """The model's last proposals are better in the median than as many random ones."""
    assert last_median(tmp_path, name) < of_chance


@pytest.mark.slow
def test_a_finite_space_is_searched_without_repeats(tmp_path: Path) -> None:
    arms = {"sgd": {"parameters": {"lr": {"values": [0.01, 0.2]}, "momentum": {"values": [0.0, 0.5]}}}}
    folder = run(tmp_path, None, {"name": "tpe", "random_share": 0.2}, {"trials_per_arm": 4}, arms=arms)
    asked = [
        tuple(t.user_attrs["configuration"].items()) for t in study(folder).trials if "configuration" in t.user_attrs
    ]
    assert len(asked) == len(set(asked)) == 4


@pytest.mark.slow
def test_warm_start_begins_with_what_another_sweep_learned(tmp_path: Path) -> None:
    first = run(tmp_path, None, {"name": "random"}, name="first")
    second = run(tmp_path, None, {"name": "tpe", "random_share": 0.0}, name="second", warm_start=[first.sweep_id])
    taken = [t for t in study(second).trials if SOURCE in t.user_attrs]
    assert [t.params for t in taken] == [t.params for t in study(first).trials]
    assert [t.values for t in taken] == [t.values for t in study(first).trials]
    assert sum(t.job.stage == "tune" and t.job.arm == "sgd" for t in results.ended_trials(second)) == 4
    run(tmp_path, None, {"name": "tpe", "random_share": 0.0}, name="second", warm_start=[first.sweep_id])
    assert len(study(second).trials) == 8
    with pytest.raises(NotFound, match="warm_start"):
        run(tmp_path, None, None, name="third", warm_start=["nothing"])


@pytest.mark.slow
def test_warm_start_from_results_that_others_trained(tmp_path: Path) -> None:
    """What lies outside the space is left out; the task is the user's word, for nobody else knows it."""
    rows = [f"{arm},{lr},{seed},{lr + seed}" for arm in ("sgd", "odd") for lr in (0.02, 0.1, 50) for seed in (1, 2)]
    (tmp_path / "r.csv").write_text("\n".join(["arm,lr,seed,loss/val", *rows]) + "\n")
    asked = Question(arm=["arm"], seed="seed", metrics=["loss/val:minimize"], tune_seeds=["1"])
    kept = make(of_csv(tmp_path / "r.csv"), asked, tmp_path, "theirs", {})
    second = run(tmp_path, None, {"name": "tpe", "random_share": 0.0}, name="mine", warm_start=[kept.folder.sweep_id])
    taken = [t for t in study(second).trials if SOURCE in t.user_attrs]
    assert [(t.params["lr"], t.values) for t in taken] == [(0.02, [1.02]), (0.1, [1.1])]
    high = make(of_csv(tmp_path / "r.csv"), replace(asked, metrics=["loss/val:maximize"]), tmp_path, "high", {})
    alien = {"adamw": {"parameters": {"lr": {"values": [0.01, 0.1]}}}}
    with pytest.raises(NotFound, match="has a different metric"):
        run(tmp_path, None, None, name="third", warm_start=[high.folder.sweep_id])
    with pytest.raises(NotFound, match="was imported with arms odd, sgd"):
        run(tmp_path, None, None, name="fourth", arms=alien, warm_start=[kept.folder.sweep_id])


@pytest.mark.slow
def test_several_objectives_and_their_front(tmp_path: Path) -> None:
    task = {"name": "digits", "model": "mlp"}
    folder = run(
        tmp_path, None, {"name": "tpe", "random_share": 0.5}, {"trials_per_arm": 6},
        task=task, metric={"name": "accuracy/val", "goal": "maximize"},
        objectives=[{"name": "loss/test", "goal": "minimize"}], seeds={"tune": 1, "confirm": 1},
    )  # fmt: skip
    assert all(len(t.values) == 2 for t in study(folder).trials)
    front = results.pareto(folder).arms["sgd"]
    assert front
    points = [(-t.values[0], t.values[1]) for t in study(folder).trials]
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert {(-row.values["accuracy/val"], row.values["loss/test"]) for row in front} == best


@pytest.mark.slow
def test_status_says_why_trials_wait(tmp_path: Path) -> None:
    """Looked at from inside a strict sweep with many free workers: they wait for an earlier result."""
    seen: list[dict[str, Waiting]] = []

    class Looking(Interleaved):
        def run(self, conductor: Any) -> None:
            on_report = conductor.on_report

            def hearing(report: Any) -> bool:
                seen.append(conductor.waiting())
                return bool(on_report(report))

            conductor.on_report = hearing
            super().run(conductor)

    folder = run(tmp_path, Looking(16), {"name": "tpe", "random_share": 0.0, "replay": "strict", "lag": 2})
    reasons = {row.reason for found in seen for row in found.values()}
    assert "strict replay waits for an earlier result of this arm" in reasons
    assert "confirm trials wait for the last trials of the search" in reasons
    assert results.status(folder).total.waiting == 0
