"""Valid means that it runs: what breaks at a first step is refused beforehand, in a line, and nothing is disturbed."""

from __future__ import annotations

import copy
import os
import random
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import optim_core
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError, SpecErrors, errors_of
from orchestrator.protocol import rehearsal
from orchestrator.protocol.redrawn import same
from orchestrator.protocol.rehearsal import Rehearsed, rehearse
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called

FILES = sorted((Path(__file__).parent / "unrunnable").glob("*.yaml"))
LINE = re.compile(r"\((\w+\.py):\d+\)")


def fragile(**task: object) -> str:
    """The text of a sweep whose task breaks as it is told."""
    given = "".join(f", {key}: {value}" for key, value in task.items())
    return re.sub(r"task: .*", f'task: {{name: "tests.fragile:Fragile"{given}}}', sweep_text(trials=1, confirm=2))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_refused_with_place_and_way_out(path: Path) -> None:
    text = path.read_text()
    spec = sweep_file.loads(text, "FILE")
    with pytest.raises(SpecError) as caught:
        rehearse(spec, text)
    assert LINE.sub(r"(\1)", str(caught.value)) == "FILE:" + text.splitlines()[0].removeprefix("# expect: ")
    assert len(errors_of(caught.value)) == 1


@pytest.mark.parametrize(("optimizer", "at", "expected"), [
    ("Declared", "[0, 3]", []),
    ("Search", "[9999]", []),
    ("Search", "[0, 3]", ["declares 1 gradient evaluation for a step that took 3", "GRAD_EVALS = 3, or more"]),
    ("Wrong", "[3]", ["declares 2 gradient evaluations for a step that took 3", "next_cost(), and in cost_per_step()"]),
])  # fmt: skip
def test_a_step_costs_what_its_optimizer_declares(
    optimizer: str, at: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one and later ones, on a busy machine too."""
    for name in ("QUICK_S", "WATCHED_S"):
        monkeypatch.setattr(rehearsal, name, 60.0)
    text = (FILES[0].parent / "step_costs_more_than_declared.yaml").read_text()
    text = text.replace("fragile.Search", f"fragile.{optimizer}").replace("at: 0", f"at: {{values: {at}}}")
    said = ""
    try:
        assert rehearse(sweep_file.loads(text, "FILE"), text) == Rehearsed()
    except SpecError as error:
        said = str(error)
    assert bool(said) == bool(expected)
    assert all(words in said for words in expected)


@pytest.mark.parametrize("made", [
    torch.zeros(3, dtype=torch.bfloat16),
    torch.tensor([1.0, float("nan")]),
    np.array([1.0, float("nan")]),
    {"inputs": [torch.arange(3), "text"], "weight": (0.5, True, None)},
], ids=str)  # fmt: skip
def test_the_same_batch_is_the_same(made: object) -> None:
    assert same(made, copy.deepcopy(made))
    assert not same(made, [made])
    assert not same({"x": made, "y": torch.zeros(2)}, {"x": made, "y": torch.ones(2)})


def test_all_that_breaks_is_said_at_once() -> None:
    text = (FILES[0].parent / "no_step_of_one_kind.yaml").read_text().replace("[good, bad]", "[good, bad, odd]")
    text = text.replace("{kind:", "{beta: {min: 0.1, max: 0.9}, kind:")
    text = text.replace("{lr: {values", "{task.width: {values: [4, 3]}, lr: {values")
    with pytest.raises(SpecErrors) as caught:
        rehearse(sweep_file.loads(text, "FILE"), text)
    said = [(one.key, one.message.partition(":")[0]) for one in errors_of(caught.value)]
    assert said == [
        ("arms.sgd.parameters.task.width", "3"),
        ("arms.mine.parameters.beta", "0.9 with kind odd"),
        ("arms.mine.parameters.kind", "bad"),
    ]


def test_nothing_is_disturbed(capfd: pytest.CaptureFixture[str]) -> None:
    text = fragile()
    spec = sweep_file.loads(text, "FILE")
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(3), random.random()
    torch.manual_seed(3)
    random.seed(3)
    before = dict(os.environ), os.getcwd(), torch.get_num_threads(), signal.getsignal(signal.SIGALRM)
    assert rehearse(spec, text) == Rehearsed()
    assert (dict(os.environ), os.getcwd(), torch.get_num_threads(), signal.getsignal(signal.SIGALRM)) == before
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert capfd.readouterr().out == ""


def test_what_takes_too_long_is_left_out_and_said() -> None:
    """A task that waits for ten minutes."""
    text = fragile(breaks="batch waits")
    left_out, _ = rehearse(sweep_file.loads(text, "FILE"), text, limit_s=0.2)
    assert left_out == "0 of 4 corners of the search spaces took a step within 0.2 s; the others were not tried"


def test_what_catches_everything_and_waits_on_ends_too() -> None:
    """For a task that caught it the clock rings again; the second wait is ten minutes, too."""
    text = fragile(breaks="batch tries again")
    left_out, _ = rehearse(sweep_file.loads(text, "FILE"), text, limit_s=0.2)
    assert left_out.startswith("0 of 4 corners")


BAD_MODULES = {
    "raise RuntimeError('no\\nluck')": "importing broken_task ended in RuntimeError: no luck (broken_task.py:1)",
    "def f(:": "importing broken_task ended in SyntaxError: invalid syntax (broken_task.py, line 1)",
    "import sys; sys.exit(2)": "importing broken_task ended in SystemExit: 2 (broken_task.py:1); put code that "
    "runs under if __name__ == '__main__'",
    "from tests.tasks import Fit\nclass Own(Fit):\n    METRICS = {'loss/val': 'minimize'}": "METRICS of broken_task:"
    'Own has minimize for \'loss/val\'; expected a Metric: METRICS = {"loss/val": Metric(goal="minimize")}',
    "from tests.tasks import Fit\nclass Own(Fit):\n    METRICS = ['loss/val']": "METRICS of broken_task:Own is a list, "
    'but must give the direction of each metric: METRICS = {"loss/val": Metric(goal="minimize")}',
}


@pytest.mark.parametrize("source", BAD_MODULES)
def test_modules_that_break_when_imported(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_task.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_task", raising=False)
    text = re.sub(r"task: .*", 'task: {name: "broken_task:Own"}', sweep_text())
    with pytest.raises(SpecError) as caught:
        sweep_file.loads(text, "FILE")
    sys.modules.pop("broken_task", None)
    assert BAD_MODULES[source] in str(caught.value)
    assert str(caught.value).startswith("FILE:4:8: task.name: ")
    if "Own" not in source:
        with pytest.raises(KeyError, match="ended in"):
            optim_core.lookup("broken_task.Own")


def test_what_the_modules_of_a_sweep_print_is_not_in_its_document(
    call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "import os\nfrom tests.tasks import Fit\nprint('imported')\n"
    source += "class Own(Fit):\n    def model(self, seed):\n        os.system('echo from a child')\n"
    (tmp_path / "loud_task.py").write_text(f"{source}        return super().model(seed)\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "s.yaml").write_text(re.sub(r"task: .*", 'task: {name: "loud_task:Own"}', sweep_text()))
    assert call("validate", str(tmp_path / "s.yaml"), "--json").document["valid"]
    assert capfd.readouterr().out == ""
    sys.modules.pop("loud_task", None)


def test_constraints_say_what_is_not_tried() -> None:
    text = (FILES[0].parent / "no_step_together.yaml").read_text()
    text += 'constraints: ["beta < 0.5"]\n'
    assert rehearse(sweep_file.loads(text, "FILE"), text) == Rehearsed()


@pytest.mark.slow
def test_the_verbs(call: Callable[..., Called], tmp_path: Path) -> None:
    """`validate` and `run` refuse alike, before anything is there; a traceback only where it was asked for."""
    file = tmp_path / "fragile.yaml"
    file.write_text(fragile(breaks="model"))
    expected = f"{file}:4:1: task: model() of task tests.fragile:Fragile ended in RuntimeError: nothing goes any more ("
    for words in (["validate", str(file)], ["run", str(file), "--executor", "debug", "--no-tracking"]):
        found = call(*words)
        assert (found.code, found.out, len(found.err.splitlines())) == (3, "", 1)
        assert found.err.startswith(expected)
    assert not (tmp_path / "runs").exists()
    traced = call("validate", str(file), "--traceback").err
    assert "Traceback" in traced
    assert traced.splitlines()[-1].startswith(expected)
    assert [one["key"] for one in call("validate", str(file), "--json").document["errors"]] == ["task"]
    overridden = call("validate", str(file), "task.breaks=loss").err
    assert "RuntimeError: nothing goes any more" in overridden
    assert call("validate", str(file), "--skip-steps").code == 0
    assert call("run", str(file), "--executor", "debug", "--no-tracking", "--skip-steps").code == 8
    assert call("run", str(file), "--executor", "debug", "--no-tracking").code == 8  # begun: no new rehearsal


@pytest.mark.slow
def test_a_budget_that_steps_do_not_fill(call: Callable[..., Called], tmp_path: Path) -> None:
    """Of 45 gradient evaluations SAM spends 44: lint says so before, and what the file made certain is compared."""
    file = tmp_path / "uneven.yaml"
    sam = "sam: {optimizer: sam, parameters: {sam_radius: 0.05, lr:"
    text = sweep_text(trials=1, confirm=6, per_trial=45, method="random", max_lr=0.05)
    file.write_text(text.replace("adamw: {optimizer: adamw, parameters: {lr:", sam))
    said = [line for line in call("lint", str(file)).out.splitlines() if "GS102" in line]
    assert [line.partition("per_trial: ")[2] for line in said] == [
        "only whole steps are taken, so of 45 gradient evaluations the arms spend sgd 45, sam 44; write 44"
    ]
    assert "GS102" not in call("lint", str(file), "budget.per_trial=44").out
    assert call("run", str(file), "--executor", "debug", "--no-tracking").code == 0
    compared = call("compare", "@last")
    assert compared.code == 0
    assert "of 45 gradient evaluations the arms spent sam 44, sgd 45" in " ".join(compared.out.split())


def test_whole_numbers_by_chance_are_said(call: Callable[..., Called], tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text().replace("distribution: log_uniform_values, min: 0.01, max: 0.3", "min: 0, max: 1", 1))
    said = "lr from 0 to 1 is searched in whole numbers only, because both ends are whole; write 0.0 to search real"
    assert said in " ".join(call("validate", str(file)).err.split())
    assert said in " ".join(call("plan", str(file)).out.split())
    assert call("validate", str(file), "arms.sgd.parameters.lr.min=0.0").err == ""


def test_an_override_is_named(call: Callable[..., Called], tmp_path: Path) -> None:
    file = tmp_path / "fragile.yaml"
    file.write_text(fragile(dropout=0.5))
    found = call("validate", str(file), "task.dropout=1.5")
    assert found.code == 3
    assert found.err.startswith(f"{file}: in the override task.dropout=1.5: task.dropout: 1.5: model() of task")
