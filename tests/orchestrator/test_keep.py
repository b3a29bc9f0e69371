"""The sweeps under a root: listed, watched, deleted with all that they left elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.storage.folder import find
from orchestrator.tracking.mlflow import SWEEP, embedded_uri
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called


@pytest.fixture
def runs(call: Callable[..., Called], tmp_path: Path) -> Path:
    """Two sweeps of one name; the second took over what the first had trained, and one trial failed."""
    for number, trials in enumerate((1, 2)):
        text = sweep_text(per_trial=8, trials=trials, confirm=1, method="random", fail_seed=1000, max_failed=9)
        text = text.replace("fail_at: -1", f"fail_at: {5 * number - 1}") + "cache: true\ndescription: which one?\n"
        (tmp_path / "fit.yaml").write_text(text)
        done = call("run", str(tmp_path / "fit.yaml"), "--executor", "debug")
        assert done.code == 0, done.err
    return tmp_path / "runs"


@pytest.mark.slow
def test_listed_watched_and_deleted(
    call: Callable[..., Called], runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = call("list", "--json").document["sweeps"]
    assert (first["state"], first["trials"]) == ("done", {"ended": 4, "planned": 4, "running": 0, "failed": 0})
    assert (second["trials"]["ended"], second["trials"]["failed"], second["description"]) == (6, 2, "which one?")
    assert second["best"]["arm"] in ("sgd", "adamw")
    assert second["sweep_id"] in (text := call("list").out)
    assert "6/6, 2 failed" in text
    for name, content in (("broken-00000000", "{}"), ("broken-00000001", '{"cut')):
        (runs / name).mkdir()
        (runs / name / "resolved.json").write_text(content)
    assert [row["state"] for row in call("list", "--json").document["sweeps"]].count("damaged") == 2
    assert [call("delete", f"broken-0000000{i}", "--yes").code for i in range(2)] == [0, 0]

    watched = call("watch", first["sweep_id"], "--json")
    assert (watched.code, watched.document["state"], watched.document["trials"]) == (0, "done", [])
    assert "adamw 2/2, 0 running, best " in call("watch", first["sweep_id"]).out

    name = second["sweep_id"]
    with find(runs, name).hold():
        refused = call("delete", name, "--yes")
    assert (refused.code, f"geosweep stop {name}" in refused.err) == (75, True)
    for answer, code in (("n\n", 130), ("", 2)):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert call("delete", name).code == code
    assert find(runs, name).path.is_dir()

    def runs_of(sweep: str) -> list[Any]:
        client = MlflowClient(embedded_uri(runs))
        experiment = client.get_experiment_by_name("fit")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], f"tags.`{SWEEP}` = '{sweep}'"))

    entries = {p: p.read_text() for p in (runs / "cache").glob("*/*")}
    mine = {p for p, text in entries.items() if text.startswith(f"{name}/")}
    MlflowClient(embedded_uri(runs)).log_text(runs_of(name)[0].info.run_id, "of this sweep", "kept.txt")
    [artifact] = (runs / "mlartifacts").rglob("kept.txt")
    gone = call("delete", name, "--yes", "--json").document
    assert (gone["trials"], gone["mlflow_runs"], gone["cache_entries"]) == (6, 1 + 6 + 2, len(mine))
    assert gone["bytes"] > 0
    assert mine
    assert not any(p.exists() for p in mine)
    assert all(p.exists() for p in entries.keys() - mine)
    assert (runs_of(name), len(runs_of(first["sweep_id"]))) == ([], 1 + 4 + 2)
    assert not artifact.exists()
    assert not (runs / name).exists()
    assert call("status", name).code == 4
    again = call("run", str(tmp_path / "fit.yaml"), "--executor", "debug")
    assert again.code == 0, again.err
    assert len(runs_of(name)) == 1 + 6 + 2, "as if it had never been there"
