"""A server that does what it was asked and dies before it answers: nothing is asked for twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.storages import InMemoryStorage, JournalStorage
from sqlalchemy.exc import OperationalError

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import ConfigurationState, Goal
from orchestrator.executors.debug import DebugExecutor
from orchestrator.search.base import Configuration
from orchestrator.search.designs import design_for
from orchestrator.search.optuna import OptunaStudy
from orchestrator.tracking.mlflow import TRIAL, MlflowTracker, embedded_uri
from tests.orchestrator.sweep_files import sweep_text


def losing_the_first_answer(method: Any, error: Exception) -> Any:
    """`method`, of which the first call is carried out and raises."""
    calls = []

    def carried_out(*args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        calls.append(answer)
        if len(calls) == 1:
            raise error
        return answer

    return carried_out


@pytest.mark.parametrize(("random_share", "lost"), [(1.0, "create_new_trial"), (0.0, "set_trial_user_attr")])
def test_a_configuration_that_was_stored_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_share: float, lost: str
) -> None:
    """Both ways of asking: a point of the design (one call), and the sampler's (the last of several calls)."""
    text = sweep_text(trials=3, confirm=1).replace("random_share: 0.5", f"random_share: {random_share}")
    definition = sweep_file.loads(text, "test.yaml")
    asked = {}
    for name in ("whole", "lossy"):
        study = runner.open_arms(definition, runner.open_folder(definition, text, tmp_path / name, {}))["sgd"].study
        if name == "lossy":
            away = OperationalError("", {}, Exception("server closed the connection"))
            lossy = losing_the_first_answer(getattr(study._storage, lost), away)
            monkeypatch.setattr(JournalStorage, lost, staticmethod(lossy))
        asked[name] = [study.ask() for _ in range(3)]
    assert asked["lossy"] == asked["whole"]
    assert [c.number for c in asked["lossy"]] == [0, 1, 2]


class Lossy(InMemoryStorage):
    """A database that goes away once: at call `at`, before it did anything or before it answers."""

    def __init__(self, at: int, *, done: bool) -> None:
        super().__init__()
        self.at, self.done, self.calls, self.inside = at, done, 0, False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or self.inside:
            return found

        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            lost = self.calls == self.at
            if lost and not self.done:
                raise OperationalError("", {}, Exception("server closed the connection"))
            self.inside = True
            try:
                answer = found(*args, **kwargs)
            finally:
                self.inside = False
            if lost:
                raise OperationalError("", {}, Exception("server closed the connection"))
            return answer

        return called


def searched(database: Lossy) -> tuple[list[Configuration], list[Any], list[Any]]:
    """A small search from its first lesson to its choice: (asked, trials of the study, what a second driver reads)."""
    definition = sweep_file.loads(sweep_text(), "test.yaml")
    arm = definition.arms["sgd"]

    def opened() -> OptunaStudy:
        return OptunaStudy(
            database,
            name="s/sgd",
            goals=(Goal.MINIMIZE,),
            parameters=arm.parameters,
            constraints=(),
            facts=lambda _: {},
            design=design_for(definition, arm),
            design_size=1,
            seed=1,
        )

    study = opened()
    assert study.learn("earlier", [({"lr": 0.02}, [0.5]), ({"lr": 0.2}, [0.25])]) == 2
    asked = [study.ask() for _ in range(3)]
    for configuration in asked:
        study.report(configuration.number, 1, 2.0)
        study.tell(configuration.number, ConfigurationState.COMPLETE, [configuration.parameters["lr"]])
    study.choose(asked[-1].number)
    read = opened()
    database.inside = True  # what the test itself asks for is answered
    trials = [(t.params, t.state, t.values, t.intermediate_values) for t in database.get_all_trials(0) if t.values]
    return asked, trials, [*read.configurations(), read.chosen()]


@pytest.mark.slow
def test_a_database_may_go_away_at_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of a whole search fails once, before it is carried out and after: nothing is lost, nothing doubled."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    database = Lossy(0, done=False)
    whole = searched(database)
    assert database.calls > 30
    for at in range(1, database.calls + 1):
        for done in (False, True):
            asked, trials, read = searched(Lossy(at, done=done))
            assert asked == whole[0], (at, done)
            assert trials == whole[1], (at, done)
            assert read == whole[2], (at, done)


@pytest.mark.slow
def test_a_run_that_was_made_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer of `create_run` for a trial is lost; `ping` works again at once."""
    text = sweep_text(method="random", trials=1, confirm=1)
    definition = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, tmp_path, {})
    plain = MlflowClient.create_run
    lossy = losing_the_first_answer(plain, MlflowException("connection reset"))

    def create_run(self: MlflowClient, *args: Any, tags: Any = None, **kwargs: Any) -> Any:
        return (lossy if TRIAL in tags else plain)(self, *args, tags=tags, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    tracker = MlflowTracker(uri=None, root=tmp_path, sweep_id=folder.sweep_id, name="fit", description="", facts={})
    with folder.hold():
        outcome = runner.run(definition, folder, DebugExecutor(), tracker)
    assert outcome.repaired == []
    client = MlflowClient(embedded_uri(tmp_path))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    trials = [r.data.tags.get(TRIAL, "") for r in client.search_runs([experiment.experiment_id])]
    assert sorted(t for t in trials if t) == sorted({t for t in trials if t})
    assert len({t for t in trials if t}) == 4
