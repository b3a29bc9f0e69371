"""A server that does what it was asked and dies before it answers: nothing is asked for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from optuna.storages import JournalStorage
from sqlalchemy.exc import OperationalError

from orchestrator import runner, spec
from orchestrator.executors.debug import DebugExecutor
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
    definition = spec.loads(text, "test.yaml")
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


def test_a_run_that_was_made_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer of `create_run` for a trial is lost; `ping` works again at once."""
    text = sweep_text(method="random", trials=1, confirm=1)
    definition = spec.loads(text, "test.yaml")
    folder = runner.open_folder(definition, text, tmp_path, {})
    plain = MlflowClient.create_run
    lossy = losing_the_first_answer(plain, MlflowException("connection reset"))

    def create_run(self: MlflowClient, *args: Any, tags: Any = None, **kwargs: Any) -> Any:
        return (lossy if TRIAL in tags else plain)(self, *args, tags=tags, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    tracker = MlflowTracker(uri=None, root=tmp_path, sweep_id=folder.sweep_id, name="fit", description="", facts={})
    with folder.hold():
        outcome = runner.run(definition, folder, DebugExecutor(), tracker)
    assert outcome.mended == []
    client = MlflowClient(embedded_uri(tmp_path))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    trials = [r.data.tags.get(TRIAL, "") for r in client.search_runs([experiment.experiment_id])]
    assert sorted(t for t in trials if t) == sorted({t for t in trials if t})
    assert len({t for t in trials if t}) == 4
