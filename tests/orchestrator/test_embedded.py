"""A new root's MLflow store is a copy of one that was made before, and says nothing of where that was."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.tracking import embedded
from trainables.machine_cache import VARIABLE


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the machine, and a process that has made no store."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "new_store", embedded.new_store.__wrapped__)
    return tmp_path / "cache"


def made_in(root: Path) -> bytes:
    root.mkdir()
    embedded.make_store(root)
    return (root / "mlflow.db").read_bytes()


@pytest.mark.slow
def test_a_store_is_made_once_on_a_machine(cache: Path, tmp_path: Path) -> None:
    made_in(tmp_path / "first")
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    made_in(tmp_path / "second")
    assert [path.name for path in cache.iterdir()] == [kept.name], "the second was copied"
    client = MlflowClient(embedded.embedded_uri(tmp_path / "second"))
    place = (tmp_path / "second" / embedded.ARTIFACTS).resolve().as_uri()
    assert [e.artifact_location for e in client.search_experiments()] == [place]
    run = client.create_run(client.create_experiment("one", artifact_location=place))
    client.log_metric(run.info.run_id, "loss", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    assert kept.read_bytes() == whole

    kept.write_bytes(whole[:1000])
    assert len(made_in(tmp_path / "third")) == len(whole), "half a store is no store"
    assert len(list(cache.iterdir())) == 2


@pytest.mark.slow
def test_a_store_is_made_where_nothing_can_be_kept(cache: Path, tmp_path: Path) -> None:
    cache.write_text("a file in the way of the folder")
    assert made_in(tmp_path / "only").startswith(b"SQLite format 3")
