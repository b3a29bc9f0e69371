"""Validate says whose state a checkpoint would lose, and is silent about everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.definition import sweep_file
from orchestrator.protocol import rehearsal
from orchestrator.protocol.rehearsal import rehearse
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called

ATTRIBUTE = "keeps state that no checkpoint holds: 2 steps after one"


def text_of(task: str, *arms: str) -> str:
    text = re.sub(r"task: .*", f'task: {{name: "{task}"}}', sweep_text(trials=1, confirm=2, per_trial=40))
    rate = "{lr: {value: 0.01}}"
    own = "".join(f"  arm{i}: {{optimizer: {arm}, parameters: {rate}}}\n" for i, arm in enumerate(arms))
    return text.replace("arms:\n", f"arms:\n{own}", 1)


def notes(text: str) -> list[str]:
    left_out, found = rehearse(sweep_file.loads(text, "FILE"), text)
    assert left_out == ""
    return list(found)


def test_an_optimizer_that_forgets_is_named_with_its_place_and_the_way_out() -> None:
    text = text_of("digits", "tests.forgetful.Kept", "tests.forgetful.Forgetful", "torch.optim.NAdam")
    text = re.sub(r"metric: .*", "metric: {name: loss/val, goal: minimize}", text)
    [said] = notes(text)
    line = 1 + text.splitlines().index(next(one for one in text.splitlines() if "Forgetful" in one))
    assert said.startswith(f"FILE:{line}:3: arms.arm1: optimizer tests.forgetful.Forgetful {ATTRIBUTE}")
    assert "self.state" in said


@pytest.mark.parametrize("task", ["Counting", "Warming"])
def test_a_task_or_model_that_forgets_is_said_once(task: str) -> None:
    [said] = notes(text_of(f"tests.forgetful:{task}"))
    assert f"task tests.forgetful:{task} or its model {ATTRIBUTE}" in said


def test_the_one_of_both_that_explains_it_is_named() -> None:
    [said] = notes(text_of("tests.forgetful:Counting", "tests.forgetful.Kept"))
    assert "optimizer" not in said.partition(ATTRIBUTE)[0]
    [said] = notes(text_of("tests.tasks:Fit", "tests.forgetful.Forgetful"))
    assert "optimizer tests.forgetful.Forgetful, or task tests.tasks:Fit or its model," in said


@pytest.mark.parametrize("task", ["tests.tasks:Fit", "tests.forgetful:Moody"])
def test_nothing_is_said_of_what_goes_on_or_cannot_be_told(task: str) -> None:
    assert notes(text_of(task, "tests.forgetful.Kept")) == []


def test_validate_is_still_valid(call: Callable[..., Called], tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text_of("tests.tasks:Fit", "tests.forgetful.Forgetful"))
    found = call("validate", str(tmp_path / "s.yaml"))
    assert found.code == 0
    assert ATTRIBUTE in " ".join(found.err.split())
    document = json.loads(call("validate", str(tmp_path / "s.yaml"), "--json").out)
    assert document["valid"]
    assert ATTRIBUTE in document["notes"][0]


def test_a_later_step_that_hangs_is_left_to_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESUME_S", "WATCHED_S"):
        monkeypatch.setattr(rehearsal, name, 0.2)
    assert notes(text_of("tests.forgetful:Waiting", "tests.forgetful.Kept")) == []
