"""What trials print: kept whole, in the right trial's folder, bounded, and shown by `logs`, `status` and MLflow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.storage.folder import SweepFolder, find
from orchestrator.tracking.mlflow import TRIAL, embedded_uri
from orchestrator.trial import log_files
from orchestrator.trial.log_files import CUT, bound, follow
from orchestrator.trial.record import read_result
from tests.orchestrator.command import REPOSITORY, fresh
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called, called

pytestmark = pytest.mark.slow

WAYS = {
    "stdout.log": ("python", "descriptor", "subprocess", "C"),
    "stderr.log": ("python to stderr", "subprocess to stderr", "record"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sweep in this process, of which the trial of seed 1001 fails."""
    place = tmp_path_factory.mktemp("talks")
    text = sweep_text(name="talks", trials=2, confirm=2, fail_seed=1001, max_failed=2, method="random")
    (place / "talks.yaml").write_text(text.replace("tests.tasks:Fit", "tests.tasks:Talks"))
    words = ["run", str(place / "talks.yaml"), "--root", str(place / "runs"), "--executor", "debug", "--json"]
    ran = fresh(*words, cwd=REPOSITORY, warnings="default")
    assert ran.returncode == 0, ran.stderr
    (place / "shown.txt").write_text(ran.stderr)
    assert ran.stdout.startswith("{"), "what trials print is not among the data"
    return place / "runs"


@pytest.fixture
def folder(root: Path) -> SweepFolder:
    return find(root, "@last")


def test_every_way_of_printing_is_kept_with_its_trial(root: Path, folder: SweepFolder) -> None:
    """Two arms, four trials each, one after another in one process: each has its own lines, once."""
    trials = [p.name for p in (folder.path / "trials").iterdir()]
    assert len(trials) == 8
    for trial in trials:
        seed = trial.rpartition("-s")[2]
        for name, ways in WAYS.items():
            lines = (folder.trial(trial) / name).read_text().splitlines()
            assert [lines.count(f"{way} {seed}") for way in ways] == [1] * len(ways), (trial, name, lines)
        assert f"UserWarning: warning {seed}" in (folder.trial(trial) / "stderr.log").read_text()
    shown = (root.parent / "shown.txt").read_text()
    assert shown.count("python 1000") == shown.count("subprocess 1000") == 2, "it is shown where it would have gone"


def test_a_failed_trial_shows_its_last_lines(
    root: Path, folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(*words: str) -> Called:
        return called(monkeypatch, capfd, *words, "--root", str(root))

    failed = sorted(p.parent.name for p in (folder.path / "trials").glob("*-s1001/result.json"))
    status = call("status", "--json").document
    assert sorted(status["last_lines"]) == failed
    assert "python 1001" in status["last_lines"][failed[0]]
    assert "record 1001" in call("status").out
    assert call("logs", "@last", failed[0]).out.splitlines() == [f"{way} 1001" for way in WAYS["stdout.log"]]
    assert "on fire" in call("logs", "@last", failed[0]).err
    assert "record 1001" in call("logs", "@last", failed[0], "--stderr", "--follow").out
    document = call("logs", "@last", failed[0], "--json").document
    assert (document["state"], "python 1001" in document["stdout"], "record" in document["stderr"]) == (
        "FAILED",
        True,
        True,
    )
    assert call("logs", "@last", "sgd").code == 4, "a prefix of several trials"
    assert call("logs", "@last", "--follow").code == 2
    client = MlflowClient(embedded_uri(root))
    experiment = client.get_experiment_by_name("talks")
    assert experiment is not None
    runs = {r.data.tags[TRIAL]: r for r in client.search_runs([experiment.experiment_id]) if TRIAL in r.data.tags}
    run = runs[failed[0]]
    assert "python 1001" in run.data.tags["geosweep.last_lines"]
    assert "on fire" in run.data.tags["mlflow.note.content"]
    assert [a.path for a in client.list_artifacts(run.info.run_id, "logs")] == ["logs/stderr.log", "logs/stdout.log"]
    assert read_result(folder.trial(failed[0]))


def test_a_worker_takes_one_trial_after_another(tmp_path: Path) -> None:
    """As in a worker of Ray: nothing is shown, what is printed between trials is no trial's, a crash loses no line."""
    script = """
import ctypes, os, sys
from pathlib import Path
from orchestrator.trial.logs import TrialLogs
for name in ("one", "two"):
    place = Path(name); place.mkdir()
    logs = TrialLogs(place)
    for part in range(2):
        with logs.attached():
            print(name, part); ctypes.CDLL(None).puts(f"C {name} {part}".encode())
        print("between")
    logs.close()
quiet = Path("quiet"); quiet.mkdir()
with (logs := TrialLogs(quiet)).attached():
    pass
logs.close()
crash = Path("crash"); crash.mkdir()
with TrialLogs(crash).attached():
    ctypes.CDLL(None).puts(b"of C"); print("last words")
    os.kill(os.getpid(), 9)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (-9, "between\n" * 4), ran.stderr
    for name in ("one", "two"):
        text = (tmp_path / name / "stdout.log").read_text().splitlines()
        assert sorted(text) == sorted(f"{c}{name} {part}" for c in ("", "C ") for part in range(2))
    assert (tmp_path / "crash" / "stdout.log").read_text() == "of C\nlast words\n"
    assert not list((tmp_path / "quiet").iterdir()), "no empty files"


def test_a_long_file_keeps_head_and_tail(tmp_path: Path) -> None:
    path, limit = tmp_path / "stdout.log", 1000
    with path.open("ab", buffering=0) as out:  # stays open, as in the process that prints
        for number in range(500):
            out.write(b"line %04d\n" % number)
            bound(path, limit)
    text = path.read_bytes()
    assert len(text) <= limit
    [cut] = CUT.finditer(text)
    head, tail = text[: cut.start() + 1], text[cut.end() :]
    assert int(cut[1]) == 500 * 10 - len(head) - len(tail)
    lines = [int(line.split()[1]) for line in (head + tail).decode().splitlines()]
    assert lines[: head.count(b"\n")] == list(range(head.count(b"\n")))
    assert lines[head.count(b"\n") :] == list(range(500 - tail.count(b"\n"), 500))


def test_follow_shows_what_is_added_even_where_it_is_cut(tmp_path: Path) -> None:
    path, number = tmp_path / "stdout.log", 0

    def look() -> bytes:
        nonlocal number
        with path.open("ab", buffering=0) as out:
            out.write(b"line %04d\n" % number)
        number += 1
        bound(path, 1000)
        return log_files.read(str(tmp_path), "stdout.log")

    parts = list(follow(look, lambda: number == 300, every_s=0.0))
    assert b"".join(parts) == b"".join(b"line %04d\n" % n for n in range(301))
