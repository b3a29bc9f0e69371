"""Sweeps in an object store: S3 over HTTP, a real PostgreSQL; every "machine" has a scratch folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pyarrow.parquet as pq
import pytest
import typer.testing

from orchestrator import parquet, results, runner
from orchestrator.cli import app as cli
from orchestrator.definition import model, sweep_file
from orchestrator.definition.states import ConfigurationState, Stage
from orchestrator.executors.debug import DebugExecutor
from orchestrator.protocol import amendments, seal
from orchestrator.scheduling.jobs import job_of
from orchestrator.search.base import Configuration
from orchestrator.storage import folder as folders
from orchestrator.storage import lease, object_store
from orchestrator.storage.errors import Held
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.trial.job import Job
from orchestrator.trial.session import TrialSession
from orchestrator.trial.workspace import NotShared
from tests.orchestrator.sweep_files import sweep_text
from tests.services import Postgres, postgres_server, s3_server
from tests.swept import swept

pytestmark = pytest.mark.slow
ASHA = "early_terminate: {type: asha, eta: 2, min_budget: 25%}\n"
OFTEN = "resources: {checkpoint_every: 0.1s}\n"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("bucket"):
        yield "s3://bucket"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


class Machines:
    """Each has its own disk: `use` goes to another one."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self._place, self._patch, self._count = place, patch, 0

    def use(self, uri: str) -> Path:
        """A fresh machine's near folder of `uri`."""
        self._count += 1
        self._patch.setenv("GEOSWEEP_SCRATCH", str(self._place / f"machine-{self._count}"))
        return object_store.near(uri)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(tmp_path, monkeypatch)


def objects(prefix: str) -> dict[str, int]:
    listed = boto3.client("s3").list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    return {o["Key"][len(prefix) + 1 :]: o["Size"] for o in listed}


def a_job(folder: SweepFolder, pause_s: float = 0.0) -> Job:
    definition = sweep_file.loads(sweep_text(per_trial=40, pause_s=pause_s), "test.yaml")
    configuration = Configuration(number=0, parameters={"lr": 0.1}, state=ConfigurationState.RUNNING)
    job = job_of(definition, folder, definition.arms["adamw"], configuration, 0, Stage.TUNE)
    return replace(job, checkpoint_s=0.0, slice_s=0.0, cache="")


def to_the_end(session: TrialSession) -> None:
    while not (report := session.advance()).done:
        pass
    assert report.state == "COMPLETE"


def points(path: Path) -> list[Any]:
    return [
        (p.step, {k: v for k, v in p.metrics.items() if not k.startswith("time/")}) for p in MetricLog(path).points()
    ]


@pytest.mark.parametrize("loss", ["nothing", "half of the newest checkpoint", "half of both", "half of the log"])
def test_a_trial_goes_on_elsewhere_as_if_nothing_had_been(
    loss: str, bucket: str, machines: Machines, tmp_path: Path
) -> None:
    plain = a_job(SweepFolder(tmp_path, "plain"))
    with pytest.raises(NotShared, match="does not exist on"):
        TrialSession(plain)  # as on another machine, which mounts no such folder
    (tmp_path / "plain").mkdir()
    to_the_end(TrialSession(plain))
    expected = points(Path(plain.folder) / "metrics.jsonl")
    uri = f"{bucket}/{loss.replace(' ', '-')}"
    job = a_job(SweepFolder(machines.use(uri), "s"))
    assert job.folder == f"{uri}/s/trials/adamw-0000-s0"
    first = TrialSession(job)
    reports = []
    for _ in range(2):
        first._due = 0.0  # else it waits until writing takes less than a tenth of the time
        reports.append(first.advance())
        first._place.settle()
    assert first._place.durable == expected[1][0]
    assert reports[-1].durable in (expected[0][0], expected[1][0]), "told once it is there"
    prefix = job.folder.removeprefix("s3://bucket/")
    uploaded = sorted(n for n in objects(prefix) if n.startswith("checkpoint"))
    assert len(uploaded) == 2
    client = boto3.client("s3")
    client.create_multipart_upload(Bucket="bucket", Key=f"{prefix}/checkpoint-000009-0123456789abcdef.pt")  # cut off
    torn = {
        "half of both": uploaded,
        "half of the newest checkpoint": uploaded[-1:],
        "half of the log": ["metrics.jsonl"],
    }
    for name in torn.get(loss, []):
        content = client.get_object(Bucket="bucket", Key=f"{prefix}/{name}")["Body"].read()
        client.put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=content[: len(content) // 2])
    machines.use(uri)
    second = TrialSession(job)
    if loss == "nothing":
        report = second.advance()
    elif loss == "half of the log":
        with pytest.warns(UserWarning, match="log ends before its checkpoint"):
            report = second.advance()
    else:
        with pytest.warns(UserWarning, match="is damaged"):
            report = second.advance()
    assert report.evaluation == {"nothing": 3, "half of the newest checkpoint": 2}.get(loss, 1)
    if not report.done:
        to_the_end(second)
    assert not any(object_store.near(job.folder, "work").parent.iterdir()), "the scratch folder is cleared"
    there = SweepFolder(machines.use(uri), "s")
    there.level()
    assert points(there.trial(job.trial_id) / "metrics.jsonl") == expected
    assert set(objects(prefix)) == {"trial.json", "metrics.jsonl", "result.json"}


def test_a_store_that_is_away_costs_no_trial_and_no_checkpoint_is_told_that_was_not_kept(
    bucket: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket}/away"
    job = a_job(SweepFolder(machines.use(uri), "s"))
    session = TrialSession(job)
    session.advance()
    session._place.settle()
    session._due = 0.0
    real = session._place._far._store
    monkeypatch.setattr(
        session._place._far, "_store", object_store._store("s3://other")[0].__class__(endpoint_url="http://127.0.0.1:9")
    )
    report = session.advance()
    with pytest.warns(UserWarning, match="not uploaded, training continues"):
        session._place.settle()
    assert (report.state, report.durable, report.evaluation) == ("RUNNING", 10.0, 2)
    assert session._place.durable == 10.0
    monkeypatch.setattr(session._place._far, "_store", real)
    to_the_end(session)


def execute(definition: model.Spec, text: str, root: Path, url: str) -> tuple[SweepFolder, runner.Outcome]:
    folder = runner.open_folder(definition, text, root, {})
    with folder.hold(url):
        return folder, runner.run(definition, folder, DebugExecutor(), NoTracker(), storage_url=url or None)


def test_a_sweep_with_stopping_is_the_same_as_on_a_local_disk(
    bucket: str, postgres: Postgres, machines: Machines, tmp_path: Path
) -> None:
    text = sweep_text(name="asha", trials=3, confirm=6, per_trial=8) + ASHA
    definition = sweep_file.loads(text, "test.yaml")
    local, _ = execute(definition, text, tmp_path / "local", "")
    execute(definition, text, machines.use(f"{bucket}/asha"), postgres.url)
    far = folders.find(machines.use(f"{bucket}/asha"), "@last")
    mine, theirs = (timeless(parquet.trials_table(f)) for f in (far, local))
    assert mine.equals(theirs)
    assert "PRUNED" in mine["state"].to_pylist()
    assert results.status(far).state == results.status(local).state == "done"
    assert seal.verify(far).intact
    said = [command("compare", "--json", "--root", root).stdout for root in (f"{bucket}/asha", str(tmp_path / "local"))]
    here, there = (json.loads(text) for text in said)
    for part in (*here["pairs"], *there["pairs"], *here["arms"].values(), *there["arms"].values()):
        part |= {"at_equal_seconds": None, "seconds": None}  # a clock's
    assert here == there
    assert here["pairs"][0]["n"] == 6
    assert not [n for n in objects("asha") if "checkpoint" in n or n.endswith(("lock", "stop"))]


def command(*words: str) -> typer.testing.Result:
    cli.add_verbs()
    return typer.testing.CliRunner().invoke(cli.app, words, catch_exceptions=False)


@pytest.mark.long
def test_killed_stopped_and_finished_on_three_machines(
    bucket: str, postgres: Postgres, machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{bucket}/killed"
    text = sweep_text(name="killed", trials=2, confirm=2, per_trial=40, pause_s=0.05) + OFTEN
    file = tmp_path / "killed.yaml"
    file.write_text(text)
    monkeypatch.setenv("GEOSWEEP_ROOT", uri)
    words = ["run", str(file), "--executor", "debug", "--no-tracking", "--storage", postgres.url]
    driver = [sys.executable, "-c", "from orchestrator.cli import main; main()", *words]

    machines.use(uri)
    first = subprocess.Popen(driver, start_new_session=True, stderr=subprocess.DEVNULL)
    wait(lambda: ended() >= 1)
    machines.use(uri)
    assert json.loads(command("status", "--json").stdout)["state"] == "running"
    with pytest.raises(Held, match=f"is being run by process {first.pid} on"):
        command(*words)
    wait(under_way)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    killed_at, before = time.time() * 1000, ended()

    machines.use(uri)
    second = subprocess.Popen(driver, stderr=subprocess.PIPE, text=True)
    wait(lambda: ended() > before and f"process {second.pid} " in holder())
    machines.use(uri)
    assert "is draining" in command("stop").stderr
    assert "drained" in second.communicate(timeout=60)[1]
    assert second.returncode == 130
    assert json.loads(command("status", "--json").stdout)["state"] == "stopped"

    machines.use(uri)
    last = command(*words)
    assert last.exit_code == 0, last.stderr
    machines.use(uri)
    assert json.loads(command("status", "--json").stdout)["arms"]["sgd"]["done"] == 4
    there = folders.find(object_store.near(uri), "@last")
    logs = [MetricLog(p).points() for p in (there.path / "trials").glob("*/metrics.jsonl")]
    assert any(log[0].time < killed_at < log[-1].time for log in logs), "one went on from before the kill"
    told = [line["trial_id"] for line in amendments.lines(there.path / "witness.jsonl")]
    assert sorted(told) == sorted(set(told)), "no trial twice"
    assert command("verify").exit_code == 0

    plain = swept(text, tmp_path / "local")
    assert command("export", "-o", str(tmp_path / "out")).exit_code == 0
    for name in ("trials", "metrics"):
        far, near = (timeless(pq.read_table(p / f"{name}.parquet")) for p in (tmp_path / "out", plain.results))
        assert far.equals(near), name
    assert json.loads(command("best", "--json").stdout)["arms"] == results.best(plain).document()["arms"]
    assert "is done; nothing to run" in command(*words).stderr


def ended() -> int:
    return sum(name.endswith("/result.json") for name in objects("killed"))


def holder() -> str:
    """Who says that it drives the sweep."""
    (name,) = (n for n in objects("killed") if n.endswith("/lock"))
    return boto3.client("s3").get_object(Bucket="bucket", Key=f"killed/{name}")["Body"].read().decode()


def under_way() -> bool:
    """Whether some trial has a checkpoint and a log, and no result."""
    found = objects("killed")
    trials = {name.rpartition("/")[0] for name in found if "/checkpoint" in name}
    return any(f"{t}/result.json" not in found and found.get(f"{t}/metrics.jsonl", 0) > 0 for t in trials)


def timeless(table: Any) -> Any:
    """The table without what a clock wrote."""
    if "name" in table.column_names:
        return table.filter([not name.startswith("time/") for name in table["name"].to_pylist()])
    return table.select([c for c in table.column_names if not c.startswith("time/") and c != "seconds"])


def wait(until: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_driver_at_a_time_whatever_becomes_of_the_database(bucket: str, postgres: Postgres, tmp_path: Path) -> None:
    uri, stops = f"{bucket}/lease", list[str]()
    one, other = (object_store.Far(uri, tmp_path / name) for name in ("one", "other"))

    def drive(far: object_store.Far, owner: str) -> Any:
        return lease.driving(far, postgres.url, owner, folders._shared, lambda: stops.append(owner))

    def cut() -> None:
        """Lose all connections that hold a lock."""
        with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    with drive(one, "the first"):
        with pytest.raises(lease.Taken, match="the first"), drive(other, "the second"):
            pass
        (one.folder / "outcome.json").write_text("{}")
        assert set(objects("lease")) == {"lock"}
    assert set(objects("lease")) == {"outcome.json"}, "uploaded at the end, and the lock is gone"

    held = lease.Lease(postgres.url, uri)
    cut()
    assert held.renew(), "nobody took it meanwhile"
    with pytest.raises(lease.Taken):
        lease.Lease(postgres.url, uri)
    held.close()

    with drive(one, "the first"):
        taken = None
        while taken is None:  # between the cut and the keeper's next look
            cut()
            with contextlib.suppress(lease.Taken):
                taken = lease.Lease(postgres.url, uri)
        (one.folder / "outcome.json").write_text("too late")
        wait(lambda: stops == ["the first"])
    assert objects("lease")["outcome.json"] == 2, "who lost the sweep leaves it alone"
    taken.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--root", "s3://bucket/x"], "name a PostgreSQL database with --storage"),
        (["--root", "s3://bucket/x", "--storage", "postgresql://x@127.0.0.1:9/x"], "cannot hold an MLflow store"),
        (["--root", "s3://bucket/x", "--storage", "sqlite:///x", "--no-tracking"], "in PostgreSQL"),
        (["--root", "s3://bucket/x", "--storage", "postgresql://x@127.0.0.1:9/x", "--no-tracking"], "does not answer"),
        (["--root", "s3://elsewhere/x", "--no-tracking"], "create the bucket first"),
        (["--root", "s3://bucket/../x"], "names no folder"),
        (
            ["--root", "nonsense://x/y", "--no-tracking", "--storage", "postgresql://x@127.0.0.1:9/x"],
            "install geosweep[cluster]",
        ),
    ],
)
def test_what_is_missing_is_named(
    words: list[str],
    says: str,
    bucket: str,
    postgres: Postgres,
    machines: Machines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machines.use(bucket)
    file = tmp_path / "sweep.yaml"
    file.write_text(sweep_text())
    if "elsewhere" in words[1]:
        words = [*words, "--storage", postgres.url]
    monkeypatch.setattr(sys, "argv", ["geosweep", "run", str(file), "--executor", "debug", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (2, 75)
    assert says in " ".join(capsys.readouterr().err.replace("│", " ").split())
