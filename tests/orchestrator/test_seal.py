"""Seals: what was changed after the fact is refused or stamped. Controls: a planted bug stops the sweep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import results, runner
from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.executors.debug import DebugExecutor
from orchestrator.protocol import controls, seal
from orchestrator.statistics.pairing import Refused
from orchestrator.storage.documents import read_json
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept


def run(root: Path, more: str = "", **changes: Any) -> SweepFolder:
    text = sweep_text(**{"trials": 1, "confirm": 6, "per_trial": 12, **changes}) + more
    return swept(text, root)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep; to be copied, not to be changed."""
    return run(tmp_path_factory.mktemp("original"))


@pytest.fixture
def finished(original: SweepFolder, tmp_path: Path) -> SweepFolder:
    """A copy of it."""
    shutil.copytree(original.root, tmp_path, dirs_exist_ok=True)
    return SweepFolder(tmp_path, original.sweep_id)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = read_json(path)
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.slow
def test_an_honest_sweep_is_intact(original: SweepFolder) -> None:
    folder = original
    document = seal.verify(folder)
    assert (document.intact, document.problems, document.exploratory) == (True, [], [])
    assert document.trials == 14
    assert answer(Evidence(folder)).exploratory == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, change, reason",
    [
        ("trials/sgd-0000-s1001/trial.json", lambda d: d.update(seed=1002), "not what they were"),
        ("trials/sgd-0000-s1001/trial.json", lambda d: d.update(seed=77), "seed 77 is not among the sealed"),
        ("trials/sgd-0000-s1001/trial.json", lambda d: d.update(budget=24), "its budget 24 is not the sealed 12"),
        ("trials/sgd-0000-s1001/trial.json", lambda d: d["parameters"].update(lr=5.0), "outside the sealed space"),
        (
            "trials/sgd-0000-s1001/trial.json",
            lambda d: d.update(metric="loss/train"),
            "was tuned on loss/train, not the",
        ),
        ("trials/sgd-0000-s1001/trial.json", lambda d: d.update(goal="maximize"), "not the sealed metric"),
        ("trials/sgd-0000-s1001/trial.json", lambda d: d.update(select="best"), "not the sealed metric"),
        ("trials/sgd-0000-s1001/result.json", lambda d: d["metrics"].update({"loss/val": 0.0}), "not what they were"),
        ("trials/sgd-0000-s1001/result.json", lambda d: d.update(data_digest="x"), "not what they were"),
        ("trials/sgd-0000-s1001/result.json", lambda d: d.update(grad_evals=24.0), "not what they were"),
        ("resolved.json", lambda d: d["definition"]["metric"].update(goal="maximize"), "metric is not what was sealed"),
        ("resolved.json", lambda d: d.update(report_metric="loss/train"), "report_metric is not what was sealed"),
        ("seal.json", lambda d: d["content"]["seeds"].update(confirm=[1]), "no longer matches its hash"),
    ],
)
def test_what_was_tampered_with_is_refused(
    finished: SweepFolder, file: str, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    folder = finished
    edit(folder.path / file, change)
    document = seal.verify(folder)
    assert not document.intact
    assert any(reason in problem for problem in document.problems), document.problems
    with pytest.raises(Refused, match="changed after the fact"):
        answer(Evidence(folder))


def test_a_removed_result_and_a_rewritten_witness_show(finished: SweepFolder) -> None:
    folder = finished
    (folder.trial("adamw-0000-s1003") / "result.json").unlink()
    assert seal.verify(folder).problems == ["adamw-0000-s1003: its result was removed"]
    witness = folder.path / "witness.jsonl"
    witness.write_text("".join(line for line in witness.read_text().splitlines(True) if "s1003" not in line))
    assert "its chain of digests is broken" in seal.verify(folder).problems[0]


def test_problems_come_in_the_order_of_trials(finished: SweepFolder) -> None:
    for path in finished.path.glob("trials/*/result.json"):
        path.unlink()
    problems = seal.verify(finished).problems
    assert len(problems) > 4
    assert problems == sorted(problems)


@pytest.mark.slow
def test_another_analysis_is_allowed_and_stamped(tmp_path: Path) -> None:
    folder = run(tmp_path, "\nanalysis: {margin: 0.5}\n")
    plain = answer(Evidence(folder))
    assert (plain.margin, plain.exploratory) == (0.5, [])
    asked = answer(Evidence(folder), margin=0.1, baseline="sgd")
    assert asked.exploratory == [
        "baseline sgd was requested, but None was declared",
        "margin 0.1 was requested, but 0.5 was declared",
    ]
    again = run(tmp_path, "\nanalysis: {margin: 0.2}\n")
    assert again.sweep_id == folder.sweep_id
    amended = answer(Evidence(again))
    assert amended.margin == 0.2
    assert "analysis changed after the seal" in amended.exploratory[0]


@pytest.mark.slow
def test_another_definition_on_seeds_whose_results_are_known_is_stamped(tmp_path: Path) -> None:
    first = run(tmp_path)

    def sealed(text: str) -> list[str]:
        return seal.stamps(runner.open_folder(sweep_file.loads(text), text, tmp_path, {}))

    larger = sweep_text(trials=1, confirm=6, per_trial=16)
    assert sealed(larger) == [
        f"budget changed after the results of {first.sweep_id} on these confirm seeds were known; "
        "fresh confirm seeds settle it"
    ]
    assert sealed(larger.replace("confirm: 6", "confirm: [31, 32, 33, 34, 35, 36]")) == []
    assert sealed(larger.replace("name: fit", "name: other")) == []
    assert seal.stamps(first) == []


@pytest.mark.slow
def test_a_sweep_of_an_earlier_version_is_stamped(tmp_path: Path) -> None:
    folder = run(tmp_path)
    (folder.path / "seal.json").unlink()
    assert "not sealed" in answer(Evidence(folder)).exploratory[0]
    run(tmp_path)
    assert "sealed after its first trials" in seal.stamps(folder)


CONTROLLED = """
schema_version: 1
name: controlled
task: {name: "tests.tasks:Fit"}
metric: {name: loss/val, goal: minimize}
arms:
  rotated: {optimizer: rotated_adamw, parameters: {lr: 0.01, rotation: {values: [identity, input, global]}}}
  climbing: {optimizer: OPTIMIZER, parameters: {lr: 0.01, sam_radius: 0.1}}
  learning: {optimizer: llqr, parameters: {lr: 0.01, refresh_interval: 10}}
method: {name: grid}
budget: {per_trial: 8}
seeds: {confirm: 6}
controls: auto
"""


def test_controls_hold_for_what_we_ship() -> None:
    definition = sweep_file.loads(CONTROLLED.replace("OPTIMIZER", "sam"))
    assert definition.controls == ("sgd_under_rotation", "identity_rotation", "sam_radius_0", "frozen_preconditioner")
    rows = list(controls.measure(definition))
    assert [(r.control, r.arm, r.cases) for r in rows] == [
        ("sgd_under_rotation", "rotated", 3),
        ("identity_rotation", "rotated", 1),
        ("sam_radius_0", "climbing", 1),
        ("frozen_preconditioner", "learning", 1),
    ]
    assert all(r.passed for r in rows), rows
    assert rows[2].deviation == 0.0


def test_a_planted_bug_stops_the_sweep_before_it_spends_anything(tmp_path: Path) -> None:
    text = CONTROLLED.replace("OPTIMIZER", "tests.tasks.StubbornSam")
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, tmp_path, {})
    for _ in range(2):  # the outcome is kept
        with folder.hold(), pytest.raises(controls.ControlFailed, match="sam_radius 0 is the base optimizer, but"):
            runner.run(definition, folder, DebugExecutor(), NoTracker())
    assert results.ended_trials(folder) == []
    with pytest.raises(Refused, match="control sam_radius_0 failed in arm climbing"):
        answer(Evidence(folder))


def test_a_user_declares_a_control() -> None:
    text = CONTROLLED.replace("OPTIMIZER, parameters: {lr: 0.01, sam_radius: 0.1}", "tests.tasks.Signed")
    definition = sweep_file.loads(text.replace("controls: auto", "controls: [unsigned]"))
    (row,) = controls.measure(definition)
    assert (row.control, row.arm, row.deviation) == ("unsigned", "climbing", 0.0)


@pytest.mark.parametrize(
    "line, message",
    [
        ("controls: [sam_radius_1]", "did you mean sam_radius_0"),
        (
            "controls: [sam_radius_0]",
            "a control of asam, fisher_sam, friendly_sam, gsam, looksam, sam, which no arm uses",
        ),
        ("analysis: {baseline: sgdd}", "did you mean sgd"),
        ("analysis: {margin: -1}", "margin"),
    ],
)
def test_wrong_controls_and_analyses_are_refused(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        sweep_file.loads(f"{sweep_text()}\n{line}\n")
