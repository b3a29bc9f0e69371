"""A sweep in an object store from another machine: what its trials printed, made larger, listed, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.orchestrator.sweep_files import sweep_text
from tests.services import Postgres, postgres_server, s3_server
from tests.verbs import Called, called

pytestmark = pytest.mark.slow


@pytest.fixture
def services() -> Iterator[Postgres]:
    with s3_server("bucket"), postgres_server() as server:
        yield server


def keys() -> list[str]:
    return [o["Key"] for o in boto3.client("s3").list_objects_v2(Bucket="bucket", Prefix="runs/").get("Contents", [])]


def test_a_sweep_in_a_store_from_other_machines(
    services: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(machine: str, *words: str) -> Called:
        monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / machine))
        return called(monkeypatch, capfd, *words, "--root", "s3://bucket/runs")

    place = ("--storage", services.url)
    train = (*place, "--executor", "debug", "--no-tracking")
    text = sweep_text(name="talks", per_trial=8, trials=1, confirm=2, fail_seed=1001, max_failed=9, method="random")
    (tmp_path / "talks.yaml").write_text(text.replace("tests.tasks:Fit", "tests.tasks:Talks"))
    with pytest.warns(UserWarning, match="warning"):
        done = call("one", "run", str(tmp_path / "talks.yaml"), *train)
    assert done.code == 0, done.err
    said = call("two", "logs", "@last", "sgd-0000-s1001")
    assert (said.code, "subprocess 1001" in said.out, "on fire" in said.err) == (0, True, True), said.err
    assert "record 1001" in call("two", "logs", "@last", "sgd-0000-s1001", "--stderr", "--follow").out
    assert "python 1001" in call("two", "status").out
    assert not list((tmp_path / "two").rglob("*.log")), "read where they are, not brought here"
    with pytest.warns(UserWarning, match="warning"):
        larger = call("two", "extend", "@last", "--seeds", "+1", *train, "--json")
    assert larger.code == 0, larger.err
    assert larger.document["look"]["seen"] == ["run", "status"]
    [row] = call("three", "list", "--json").document["sweeps"]
    assert (row["state"], row["trials"]["ended"]) == ("done", 2 * 4)
    assert call("three", "verify").code == 0
    assert call("three", "watch").code == 0
    gone = call("three", "delete", "talks", "--yes", "--no-tracking", *place, "--json")
    assert (gone.code, gone.document["trials"]) == (0, 8), gone.err
    assert not [key for key in keys() if "trials/" in key or key.endswith(".json")], keys()
    assert call("two", "status", "talks").code == 4
