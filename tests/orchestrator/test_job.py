"""`run --as-job`: what is meant gives code 0, what will come again ends at once, and faults are tried again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestrator import results
from orchestrator.cli.ending import NOTE
from orchestrator.cli.job import Supervisor
from orchestrator.storage import ending
from orchestrator.storage.folder import SweepFolder, find
from tests.orchestrator.command import REPOSITORY, Forked, fresh
from tests.orchestrator.sweep_files import sweep_text

DRIVER = f"""
import json, os, pathlib, signal, sys, time
count = pathlib.Path(sys.argv[1])
count.write_text(count.read_text() + "x" if count.exists() else "x")
number = len(count.read_text())
def ended(how, code, reason="said"):
    found = {{"ending": how, "exit_code": code, "reason": reason}}
    pathlib.Path(os.environ["{NOTE}"]).write_text(json.dumps({{"ended": found}}))
    sys.exit(code)
print("attempt", number, flush=True)
"""


class Clock:
    """Seconds that pass as they are told to."""

    def __init__(self, *times: float) -> None:
        self._times = list(times)

    def __call__(self) -> float:
        return self._times.pop(0) if self._times else 0.0


def supervised(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], script: str, pauses: int = 2
) -> tuple[int, int, ending.Ending, str]:
    """(code, attempts, how it ended, what was printed) of a driver that runs `script`."""
    count = tmp_path / "count"
    code = Supervisor([sys.executable, "-c", DRIVER + script, str(count)], pauses_s=[0.0] * pauses).run()
    out = capfd.readouterr().out
    found = ending.in_log(out)
    assert found is not None
    return code, len(count.read_text()), found, out


ENDS = [
    ("ended('done', 0)", 0, 1, "done", 0),
    ("ended('budget', 5)", 0, 1, "budget", 5),
    ("ended('stopped', 130)", 0, 1, "stopped", 130),
    ("ended('failed', 3)", 3, 1, "failed", 3),
    ("ended('failed', 6)", 6, 1, "failed", 6),
    ("ended('failed', 7)", 7, 1, "failed", 7),
    ("ended('failed', 8)", 8, 1, "failed", 8),
    ("ended('no workers', 75)", 75, 1, "no workers", 75),
    ("sys.exit(2)", 2, 1, "failed", 2),  # the command line itself is wrong
    ("ended('fault', 75)", 75, 3, "fault", 75),
    ("os.kill(os.getpid(), signal.SIGKILL)", 75, 3, "fault", -9),
    ("ended('fault', 1)", 1, 2, "failed", 1),  # the same words twice are no chance
    ("ended('fault', 1, f'in attempt {number}')", 1, 3, "fault", 1),
    ("ended('fault', 75) if number < 3 else ended('done', 0)", 0, 3, "done", 0),
    ("os.kill(os.getpid(), signal.SIGKILL) if number == 1 else ended('budget', 5)", 0, 2, "budget", 5),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "code", "attempts", "how", "laptop"), ENDS)
def test_every_ending(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], script: str, code: int, attempts: int, how: str, laptop: int
) -> None:
    found = supervised(tmp_path, capfd, script)
    assert found[:2] == (code, attempts)
    assert (found[2].ending, found[2].exit_code) == (how, laptop)
    assert found[3].splitlines()[0] == "attempt 1", "what the driver prints is passed on"


def test_an_attempt_that_lived_long_begins_the_count_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    count = tmp_path / "count"
    command = [sys.executable, "-c", DRIVER + "ended('fault', 75) if number < 5 else ended('done', 0)", str(count)]
    clock = Clock(0, 1, 2, 3, 4, 4000, 4001, 4002)
    assert Supervisor(command, pauses_s=[0.0, 0.0], clock=clock).run() == 0
    assert len(count.read_text()) == 5


@pytest.mark.slow
def test_what_holds_the_pipe_open_does_not_hold_the_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = "import subprocess\nsubprocess.Popen(['sleep', '60'])\nended('done', 0)"
    assert supervised(tmp_path, capfd, script)[:2] == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("driver_is_told_too", [False, True])
def test_a_stop_drains_and_nothing_follows(tmp_path: Path, driver_is_told_too: bool) -> None:
    """SIGTERM to the job alone, as of a container's first process, or to all of its processes, as Ray sends it."""
    file = tmp_path / "sweep.yaml"
    file.write_text(sweep_text(trials=20, pause_s=0.05, confirm=2))
    job = Forked("run", str(file), "--as-job", "--root", str(tmp_path / "runs"), "--executor", "debug", "--no-tracking")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/trials/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert job.poll() is None, job.said()
        time.sleep(0.05)
    if driver_is_told_too:
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        for pid in (*children, str(job.pid)):
            os.kill(int(pid), signal.SIGTERM)
    else:
        job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 0
    found = ending.in_log(job.said()[0])
    assert found is not None
    assert (found.ending, found.exit_code) == ("stopped", 130)
    assert "drained: every running trial wrote a checkpoint" in found.reason
    assert list(tmp_path.glob("runs/*/trials/*/checkpoint-*.pt"))
    sweep = find(tmp_path / "runs", "@last")
    assert ending.read(sweep) == found
    assert results.status(sweep).state == "stopped"
    (log,) = sweep.path.glob("driver-*.log")
    assert log.read_text().splitlines()[-1] == found.line()


def job(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command of a job, in this process's place."""
    given = ("run", str(file), "--as-job", "--root", str(file.parent / "runs"), "--executor", "debug")
    return fresh(*given, *words, cwd=REPOSITORY)


@pytest.mark.slow
def test_the_ending_is_in_folder_status_and_mlflow(tmp_path: Path) -> None:
    """Refused before it takes the sweep in hand, a command says nothing of it; refused after that, both are told."""
    file, module, root = tmp_path / "own.yaml", tmp_path / "own_fit.py", tmp_path / "runs"
    module.write_text("from tests.tasks import Fit\n\n\nclass Own(Fit):\n    pass\n")
    slowly = sweep_text(trials=8, pause_s=0.02, confirm=2, wall_clock=", wall_clock: 1s")
    file.write_text(slowly.replace("tests.tasks:Fit", "own_fit:Own"))
    done = job(file)
    assert done.returncode == 0, done.stdout + done.stderr
    found = ending.in_log(done.stdout)
    assert found is not None
    assert (found.ending, found.exit_code) == ("budget", 5)
    assert "raise budget.wall_clock" in found.reason
    sweep: SweepFolder = find(root, "@last")
    assert json.loads((sweep.path / "ending.json").read_text()) == found.document()
    status = results.status(sweep)
    assert status.ending == found
    assert status.total.done
    assert parent_run(root).data.tags["geosweep.ending"] == "budget"
    with sweep.hold():  # a command that finds the sweep held says nothing of how it ends
        second = fresh("run", str(file), "--root", str(sweep.root), "--executor", "debug", cwd=REPOSITORY)
    assert second.returncode == 75
    assert "is being run by" in second.stderr
    assert ending.read(sweep) == found
    unfair = job(file, "--fair")
    assert unfair.returncode == 6
    refused = ending.in_log(unfair.stdout)
    assert refused is not None
    assert (refused.ending, refused.exit_code) == ("failed", 6)
    assert "GS120" in refused.reason
    assert ending.read(sweep) == found
    assert parent_run(root).data.tags["geosweep.ending"] == "budget"
    module.write_text(module.read_text().replace("pass", "EPSILON = 1e-3"))
    changed = job(file)
    assert changed.returncode == 7
    last = ending.read(sweep)
    assert last is not None
    assert last == ending.in_log(changed.stdout)
    assert (last.ending, last.exit_code) == ("failed", 7)
    parent = parent_run(root)
    assert parent.data.tags["geosweep.ending"] == "failed"
    assert parent.info.status == "KILLED", "nobody is at work on it"
    assert results.status(sweep).state == "budget", "what was trained stands"


def parent_run(root: Path) -> Run:
    """The parent run of the one sweep under a root."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`geosweep.stage` = 'sweep'")
    return parent


@pytest.mark.parametrize("document", [
    {}, [], None, "done", {"ending": "done"}, {"ending": "done", "exit_code": "0"},
    {"ending": "done", "exit_code": True},
    {"ending": "done", "exit_code": None}, {"ending": ["done"], "exit_code": 0}, {"ending": "well", "exit_code": 0},
    {"ending": "failed", "exit_code": 6, "reason": ["x"]}, {"ending": "failed", "exit_code": 6, "when": 3},
    {"ending": "failed", "exit_code": 6.0},
], ids=str)  # fmt: skip
def test_what_is_no_ending_is_taken_for_none(tmp_path: Path, document: object) -> None:
    assert ending.of(document) is None
    assert ending.in_log(f"training\n{ending.MARK}{json.dumps(document)}\n") is None
    folder = SweepFolder(tmp_path, "fit-12345678")
    folder.path.mkdir()
    (folder.path / ending.NAME).write_text(json.dumps(document))
    assert ending.read(folder) is None
