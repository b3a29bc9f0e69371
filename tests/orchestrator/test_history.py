"""What TPE is shown of a long history: the same best trials, never more than the limit, and nothing else up to it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.definition.space import Parameter
from orchestrator.definition.states import ConfigurationState, Goal
from orchestrator.search import history
from orchestrator.search.optuna import CONFIGURATION, OptunaStudy
from orchestrator.search.optuna_storage import storage

SPACE = tuple(Parameter(name=f"x{i}", kind="float", low=1e-3, high=1.0, log=True) for i in range(2))


class Points:
    """Random points by index."""

    def configuration(self, index: int) -> dict[str, Any]:
        rng = random.Random(index)
        return {p.name: 10 ** rng.uniform(-3, 0) for p in SPACE}


def study(kept: Any, *, designed: int = 0, goal: Goal = Goal.MINIMIZE) -> OptunaStudy:
    return OptunaStudy(
        kept, name="s", goals=[goal], parameters=SPACE, constraints=(), facts=lambda p: {},
        design=Points(), design_size=designed, seed=3,
    )  # fmt: skip


def value(parameters: Any) -> float:
    return sum((math.log10(v) + 1.3) ** 2 for v in parameters.values())


@pytest.mark.parametrize("goal", list(Goal))
def test_the_best_are_always_shown_and_never_more_than_the_limit(goal: Goal) -> None:
    rng, kept = random.Random(0), history.History(goal)
    values: dict[int, float] = {}
    for number in range(3 * history.LIMIT):
        kept.began(number)
        if number % 7 == 0:
            kept.failed(number)
        elif number % 5 == 0:
            kept.ended(number, None)
        elif number % 11:  # the others are still running
            values[number] = rng.random()
            kept.ended(number, values[number])
        shown = kept.shown()
        ended = number + 1 - len(kept._running) - (number // 7 + 1)
        assert (shown is None) is (ended <= history.LIMIT)
    assert shown is not None
    assert shown == sorted(set(shown))
    best = sorted(values, key=lambda n: values[n], reverse=goal is Goal.MAXIMIZE)[: history.GOOD]
    assert set(best) <= set(shown)
    assert kept._running <= set(shown)
    assert len(shown) == history.LIMIT + len(kept._running)
    assert not any(number % 7 == 0 for number in shown)
    thirds = [sum(history.LIMIT * i <= n < history.LIMIT * (i + 1) for n in shown) for i in range(3)]
    assert max(thirds) < 1.25 * min(thirds)  # an even sample of the whole history


def test_suggestions_equal_optunas_own_up_to_the_limit(tmp_path: Path) -> None:
    """The same sampler, seeded as ours is, on a study that it sees whole."""
    ours = study(storage(tmp_path / "journal"))
    plain = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    for number in range(12):
        asked = ours.ask()
        plain.sampler = optuna.samplers.TPESampler(
            seed=_seed(number), n_startup_trials=0, multivariate=True, group=True
        )
        twin = plain.ask({p.name: optuna.distributions.FloatDistribution(p.low, p.high, log=True) for p in SPACE})
        assert twin.params == asked.parameters
        ours.tell(asked.number, ConfigurationState.COMPLETE, [value(asked.parameters)])
        plain.tell(twin, value(asked.parameters))


def _seed(number: int) -> int:
    from orchestrator.search.optuna import stable_seed

    return stable_seed(3, number)


def test_a_bounded_history_fits_the_same_density_to_the_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit at 60 of 90 trials: the split that TPE makes has the same good trials as on all of them."""
    split: list[list[int]] = []
    inner = optuna.samplers._tpe.sampler._split_trials

    def watched(*words: Any) -> Any:
        below, above = inner(*words)
        split.append([t.number for t in below])
        return below, above

    ours = study(storage(tmp_path / "journal"), designed=90)
    for _ in range(90):
        asked = ours.ask()
        ours.tell(asked.number, ConfigurationState.COMPLETE, [value(asked.parameters)])
    monkeypatch.setattr(optuna.samplers._tpe.sampler, "_split_trials", watched)
    monkeypatch.setattr(optuna.samplers._tpe.sampler, "default_gamma", lambda n: history.GOOD)
    for limit in (history.LIMIT, 60):
        monkeypatch.setattr(history, "LIMIT", limit)
        ours.ask()
    assert len(split[0]) == history.GOOD
    assert split[0] == split[1]


def test_a_trial_left_half_asked_is_taken_up_with_the_draw_that_it_would_have_had(tmp_path: Path) -> None:
    whole = study(storage(tmp_path / "whole"))
    expected = [whole.ask().parameters for _ in range(4)]
    cut = study(storage(tmp_path / "cut"))
    found = [cut.ask().parameters for _ in range(2)]
    kept = storage(tmp_path / "cut")
    kept.create_new_trial(kept.get_study_id_from_name("s"))  # a driver died before it drew
    again = study(storage(tmp_path / "cut"))
    found += [again.ask().parameters for _ in range(2)]
    assert found == expected
    trials = optuna.load_study(study_name="s", storage=storage(tmp_path / "cut")).trials
    assert len(trials) == 4
    assert all(CONFIGURATION in t.user_attrs for t in trials)
