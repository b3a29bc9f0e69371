"""A sweep of which every trial fails alike is given up; another attempt ends at once, with the same code and words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.model import Spec
from orchestrator.definition.states import Goal, Stage, State
from orchestrator.executors.debug import DebugExecutor
from orchestrator.scheduling import abort
from orchestrator.scheduling.abort import FEWEST, Alike, exception
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from orchestrator.trial.job import Job, Report, Result
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_cli import write

ON_FIRE = """Traceback (most recent call last):
  File "trial.py", line 10, in advance
    self._begin()
  File "tasks.py", line {line}, in batch
    raise {kind}("{says}")
{kind}: {says}
"""


def on_fire(kind: str = "RuntimeError", line: int = 53, says: str = "the disk is on fire") -> str:
    return ON_FIRE.format(kind=kind, line=line, says=says)


@pytest.mark.slow
def test_given_up_and_not_tried_again(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", method="random", trials=30, fail_at=5)
    first = call("run", file, "--executor", "debug", "--no-tracking")
    folder = next((tmp_path / "runs").glob("fit-*"))
    trained = sorted((folder / "trials").iterdir())
    assert first.code == 8
    assert f"the first {FEWEST} trials all failed in the same way" in first.err
    assert "RuntimeError: the disk of this test is on fire" in first.err
    assert len(trained) == FEWEST
    again = call("run", file, "--executor", "debug", "--no-tracking")
    assert (again.code, again.err.splitlines()) == (first.code, first.err.splitlines()[-2:])
    assert sorted((folder / "trials").iterdir()) == trained
    status = call("status", "@last", "--json").document
    assert status["state"] == "failed"
    assert "all failed in the same way" in status["waiting_reason"]


@pytest.mark.slow
def test_tried_again_once_something_changed(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", method="random", trials=10, fail_at=5)
    call("run", file, "--executor", "debug", "--no-tracking")
    folder = next((tmp_path / "runs").glob("fit-*"))
    write(tmp_path / "fit.yaml", method="random", trials=10, fail_at=5, max_failed=8)
    other = call("run", file, "--executor", "debug", "--no-tracking")
    assert "the first 9 trials all failed in the same way" in other.err
    (folder / "refused.json").unlink()
    call("run", file, "--executor", "debug", "--no-tracking")
    assert len(list((folder / "trials").iterdir())) == 20


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (on_fire(), ('RuntimeError at File "tasks.py", line 53, in batch', "RuntimeError: the disk is on fire")),
        (
            on_fire("FileNotFoundError"),
            ('FileNotFoundError at File "tasks.py", line 53, in batch', "FileNotFoundError"),
        ),
        (on_fire("torch.OutOfMemoryError"), ('OutOfMemoryError at File "tasks.py", line 53, in batch', "torch.Out")),
        (on_fire("ConnectionResetError"), ("", "")),
        (on_fire("TimeoutError"), ("", "")),
        (on_fire("OSError", says="[Errno 28] No space left on device"), ("", "")),
        ("its worker died more than 3 times", ("", "")),
        ("a step took longer than training.step_timeout and its process was ended\n" + on_fire(), ("", "")),
        ("", ("", "")),
    ],
)
def test_what_may_pass_by_itself_is_not_counted(error: str, found: tuple[str, str]) -> None:
    place, says = exception(error)
    assert (place, says.startswith(found[1])) == (found[0], True)


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[Spec, SweepFolder]:
    text = sweep_text()
    definition = sweep_file.loads(text)
    return definition, runner.open_folder(definition, text, tmp_path, {})


def hear(alike: Alike, folder: SweepFolder, ends: list[tuple[str, str, str]]) -> str:
    for number, (arm, state, error) in enumerate(ends):
        job = Job(
            trial_id=f"{arm}-{number}", arm=arm, stage=Stage.TUNE, configuration=number, seed=0, optimizer="sgd",
            parameters={}, task="digits", task_parameters={}, budget=1.0, evaluations=1, metric="loss/val",
            goal=Goal.MINIMIZE, select="last", folder=str(folder.trial(f"{arm}-{number}")), stop_file="",
        )  # fmt: skip
        end: Result | Report = Result(
            state=State(state), value=None, metrics={}, grad_evals=0.0, seconds=0.0, error=error
        )
        if end.state.is_resumable:
            end = Report(trial_id=job.trial_id, grad_evals=0.0, done=True, state=end.state)
        alike.on_end(job, end)
    return alike.refusal


FAIL = [(arm, "FAILED", on_fire(says=f"try {n}")) for n, arm in enumerate(["sgd", "adamw"] * 4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "given_up"),
    [
        (FAIL[:FEWEST], True),
        (FAIL[: FEWEST - 1], False),
        ([(arm, state, error) for arm, state, error in FAIL if arm == "sgd"] * 2, False),  # the other arm may be well
        ([*FAIL[:3], ("sgd", "DIVERGED", ""), *FAIL[3:]], False),
        ([*FAIL[:3], ("sgd", "FAILED", on_fire(line=7)), *FAIL[3:]], False),
        ([*FAIL[:3], ("sgd", "FAILED", "its worker died more than 3 times"), *FAIL[3:]], False),
        ([*FAIL[:3], ("sgd", "INTERRUPTED", ""), *FAIL[3:FEWEST]], True),
    ],
)
def test_only_when_all_fail_alike(
    sweep: tuple[Spec, SweepFolder], ends: list[tuple[str, str, str]], given_up: bool
) -> None:
    definition, folder = sweep
    assert bool(hear(Alike(definition, folder), folder, ends)) == given_up
    assert folder.stop_file.exists() == given_up
    assert bool(abort.standing(definition, folder)) == given_up


@pytest.mark.slow
def test_an_earlier_success_counts_and_an_earlier_failure_does_not(sweep: tuple[Spec, SweepFolder]) -> None:
    definition, folder = sweep
    job = Job(
        trial_id="x", arm="sgd", stage=Stage.TUNE, configuration=0, seed=0, optimizer="sgd", parameters={},
        task="digits", task_parameters={}, budget=1.0, evaluations=1, metric="loss/val", goal=Goal.MINIMIZE,
        select="last", folder="", stop_file="",
    )  # fmt: skip
    alike = Alike(definition, folder)
    failed = Result(state=State.FAILED, value=None, metrics={}, grad_evals=0.0, seconds=0.0, error=on_fire(line=1))
    alike.on_recover(job, failed)
    assert hear(alike, folder, FAIL)
    alike = Alike(definition, folder)
    alike.on_recover(job, replace(failed, state=State.COMPLETE, error=""))
    assert not hear(alike, folder, FAIL)


@pytest.mark.slow
def test_the_note_holds_for_the_same_circumstances_only(sweep: tuple[Spec, SweepFolder]) -> None:
    definition, folder = sweep
    said = abort.refuse(definition, folder, "all trials failed alike")
    assert str(folder.path / "refused.json") in said
    assert abort.standing(definition, folder) == said
    assert not abort.standing(replace(definition, max_failed=1), folder)


@pytest.mark.slow
def test_a_mended_module_is_another_circumstance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "mendable_task.py"
    module.write_text("from tests.tasks import Fit as Task\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = sweep_text().replace("tests.tasks:Fit", "mendable_task:Task")
    definition = sweep_file.loads(text)
    before = abort.circumstances(definition)
    assert before == abort.circumstances(definition)
    module.write_text("from tests.tasks import Fit as Task  # mended\n")
    assert before != abort.circumstances(definition)


def test_invalid_files_and_imports_end_every_attempt_the_same_way(call: Any, tmp_path: Path) -> None:
    for broken in ("no_such_module_anywhere:Task", "tests.tasks:NoSuchTask"):
        path = tmp_path / "broken.yaml"
        path.write_text(sweep_text().replace("tests.tasks:Fit", broken))
        first, second = (call("run", str(path), "--executor", "debug") for _ in range(2))
        assert first.code == second.code == 3
        assert first.err == second.err
        assert "broken.yaml:4" in first.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_success_before_keeps_the_sweep_going(tmp_path: Path) -> None:
    text = sweep_text(trials=8, method="random", fail_at=5, fail_seed=1001)  # one confirm seed fails
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, tmp_path, {})
    with folder.hold():
        outcome = runner.run(definition, folder, DebugExecutor(), NoTracker())
    assert (outcome.state, outcome.refusal) == ("done", "")
    assert results.status(folder).state == "done"
