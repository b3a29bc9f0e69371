"""A script may end, or not end, in any way: the sweep goes on, its message says which, and no process is left."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.states import State
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from orchestrator.trial import log_files, noticed
from orchestrator.trial.job import Result
from orchestrator.trial.record import TrialRecord

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parent / "programs"
WAYS = ("well", "silent", "usage", "raises", "memory", "cuda", "code", "killed", "segfault", "forks", "gigabyte",
        "long-line", "half", "cut", "diverges", "deaf")  # fmt: skip
TEXT = """
schema_version: 1
name: strange
task:
  program: strange.py
  seed_arg: --seed
  budget_arg: --steps
  metrics: [{pattern: 'step=(?P<step>\\d+) loss=(?P<loss>\\S+)'}]
  worst: 77
  grace: 1s
  env: {STRANGE_BLOCKS: "120"}
metric: {name: loss, goal: minimize}
arms: {only: {parameters: {how: {values: [%s]}}}}
method: {name: grid}
budget: {unit: steps, per_trial: 8}
seeds: {tune: 1, confirm: 1}
evaluations: 4
max_failed: 20
training: {step_timeout: 2s}
"""


def run(text: str, where: Path) -> SweepFolder:
    """The sweep in this process, from the folder of the scripts."""
    spec = sweep_file.loads(text, str(PROGRAMS / "sweep.yaml"))
    folder = runner.open_folder(spec, text, where, runner.provenance())
    with folder.hold():
        runner.run(spec, folder, DebugExecutor(), NoTracker())
    return folder


def records(folder: SweepFolder) -> dict[str, TrialRecord]:
    found = (TrialRecord.read(path.parent) for path in sorted((folder.path / "trials").glob("*/result.json")))
    return {one.trial_id: one for one in found if one is not None}


def mentioning(text: str, where: str = "cmdline") -> list[str]:
    """Command lines of other living processes that hold the text in their command line, or `environ`."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            with suppress(OSError):
                if text in place.joinpath(where).read_bytes().decode(errors="replace").replace("\0", " "):
                    found.append(place.joinpath("cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return run(TEXT % ", ".join(WAYS), tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def ended(strange: SweepFolder) -> dict[str, Result]:
    tuned = [one for one in records(strange).values() if one.job.stage == "tune"]
    return {str(one.job.parameters["how"]): one.result for one in tuned}


SAYS = {
    "silent": "strange.py ended with exit code 0 without reporting loss, which the sweep tunes: it reported no metrics",
    "usage": "strange.py ended with exit code 2",
    "raises": "strange.py raised ValueError: a rate of nothing (exit code 1)",
    "memory": "strange.py ran out of memory on the host (exit code 1)",
    "cuda": "strange.py ran out of memory on the GPU (exit code 1)",
    "code": "strange.py ended with exit code 7",
    "killed": "strange.py was killed (SIGKILL), but not by this sweep",
    "segfault": "strange.py was terminated by SIGSEGV",
    "deaf": "strange.py printed nothing for 2 s (training.step_timeout) and was killed",
}


def test_every_configuration_ended(ended: dict[str, Any]) -> None:
    assert set(ended) == set(WAYS)


@pytest.mark.parametrize("way", SAYS)
def test_a_failure_says_which(ended: dict[str, Result], way: str) -> None:
    assert ended[way].state is State.FAILED
    assert ended[way].error.splitlines()[0].startswith(SAYS[way])


def test_the_traceback_and_the_usage_are_shown(ended: dict[str, Result]) -> None:
    assert 'raise ValueError("a rate of nothing")' in ended["raises"].error
    assert "_run.py" not in ended["raises"].error, "the script's own frames"
    assert "unrecognized arguments: --lr" in ended["usage"].error


@pytest.mark.parametrize(("way", "value"), [("well", 1 / 8), ("forks", 1 / 8), ("gigabyte", 0.5), ("long-line", 0.25),
                                            ("half", 1 / 8)])  # fmt: skip
def test_what_went_well_has_its_last_value(ended: dict[str, Result], way: str, value: float) -> None:
    assert ended[way].state is State.COMPLETE
    assert ended[way].value == value
    assert ended[way].grad_evals == 8  # steps: the unit of its budget


def test_a_value_that_may_be_cut_off_is_told(strange: SweepFolder, ended: dict[str, Result]) -> None:
    """A last line without its end is read, as many scripts end so, but never in silence."""
    assert ended["cut"].facts["rest"] == "step=8 loss=9."
    assert "rest" not in ended["half"].facts
    said = noticed.unread(list(records(strange).values()))
    assert any("ends with 'step=8 loss=9.' and no line end" in one for one in said)


def test_what_a_failed_one_printed_last_is_shown_once(strange: SweepFolder, ended: dict[str, Result]) -> None:
    """Of one whose error says nothing more, in `status`, `logs` and MLflow."""
    assert ended["silent"].last_lines == "stdout, last lines:\n  all went well"
    assert not ended["raises"].last_lines
    assert "all went well" in "".join(results.status(strange).last_lines.values())


def test_a_metric_that_is_not_finite_is_a_result(ended: dict[str, Result]) -> None:
    assert ended["diverges"].state is State.DIVERGED
    assert ended["diverges"].value == 77


def test_nothing_is_left(strange: SweepFolder, ended: dict[str, Result]) -> None:
    assert not mentioning(f"GEOSWEEP_TRIAL_DIR={strange.path}/", where="environ")
    assert ended["forks"].facts["left"] == "2 processes were left behind when it ended, and killed"


def test_output_is_kept_and_bounded(strange: SweepFolder, ended: dict[str, Result]) -> None:
    tuned = [one for one in records(strange).values() if one.job.stage == "tune"]
    by_way = {str(one.job.parameters["how"]): one.trial_id for one in tuned}
    assert log_files.LIMIT < 12_000_000, "what was printed"
    [log] = strange.trial(by_way["gigabyte"]).glob("stdout.log*")
    assert log.stat().st_size <= log_files.LIMIT
    assert log.read_bytes().endswith(b"step=8 loss=0.5\n")
    assert (strange.trial(by_way["well"]) / "stdout.log").read_text().splitlines()[-1] == "step=8 loss=0.125"


def test_the_best_one_was_confirmed_on_a_fresh_seed(strange: SweepFolder) -> None:
    (confirmed,) = [one for one in records(strange).values() if one.job.stage == "confirm"]
    assert confirmed.job.parameters == {"how": "well"}
    assert confirmed.result.value == pytest.approx(1 / 8 + 10.0)  # the script was handed the seed


def test_an_optimizer_that_the_script_never_asked_for_is_no_result(tmp_path: Path) -> None:
    """Or arms that name optimizers would all train with the script's own, and be compared."""
    text = (TEXT % "well").replace("{only: {", "{only: {optimizer: sgd, ")
    ((_, one),) = records(run(text, tmp_path)).items()
    assert one.result.state is State.FAILED
    assert one.result.error.startswith("strange.py trained without sgd, the optimizer of its arm")
