"""Keys of a sweep file on the command line: put in their places, checked like the file, noted in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition import overrides
from orchestrator.definition.errors import SpecError
from orchestrator.definition.model import definition, sweep_id
from orchestrator.definition.sweep_file import loads
from orchestrator.definition.yaml12 import parse

TEXT = """# a question
schema_version: 1
name: asked
task: {name: digits, noise: 0.4, model: mlp}  # small
metric:
  name: accuracy/val
  goal: maximize
arms:
  sgd:
  sam:
    parameters:
      # how far
      sam_radius: {distribution: log_uniform_values, min: 0.02, max: 0.5}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-3, max: 0.3}
budget:
  unit: grad_evals
  per_trial: 320  # enough

seeds: {studies: 6, tune: 1, confirm: 2}
"""
GOOD = {
    "budget.trials_per_arm=4": (("budget", "trials_per_arm"), 4),
    "budget.per_trial=1e3": (("budget", "per_trial"), 1000.0),
    "arms.sam.parameters.sam_radius.max=1": (("arms", "sam", "parameters", "sam_radius", "max"), 1),
    "arms.sgd.parameters.momentum=0.9": (("arms", "sgd", "parameters", "momentum"), 0.9),
    "arms.adamw=": (("arms", "adamw"), None),
    "training.warmup=5%": (("training", "warmup"), "5%"),
    "seeds.studies=8": (("seeds", "studies"), 8),
    "seeds={studies: 2, confirm: 3}": (("seeds",), {"studies": 2, "confirm": 3}),
    "constraints=[lr * steps >= 1]": (("constraints",), ["lr * steps >= 1"]),
    "description='mine, yours: ours'": (("description",), "mine, yours: ours"),
    "metric={name: accuracy/val, goal: maximize, select: best}": (("metric", "select"), "best"),
    "parameters.weight_decay={values: [0, 1e-4]}": (("parameters", "weight_decay", "values"), [0, 1e-4]),
}


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("word", GOOD)
def test_a_value_gets_its_place_and_nothing_else_changes(word: str) -> None:
    path, value = GOOD[word]
    found = overrides.overridden(TEXT, "asked.yaml", [word])
    before, after = parse(TEXT).value, parse(found.text).value
    assert at(after, path) == value
    key = path[0]
    assert {k: v for k, v in after.items() if k != key} == {k: v for k, v in before.items() if k != key}
    for comment in ("# a question", "# small", "# how far", "# enough"):
        assert comment in found.text
    assert found.text.endswith(f"\n# given on the command line: {word}\n")


def test_a_group_may_get_another_hyperparameter() -> None:
    text = 'groups: {g: {match: ["*.bias"]}}\n'
    assert parse(overrides.overridden(text, "asked.yaml", ["groups.g.lr=1"]).text).value["groups"]["g"]["lr"] == 1


def test_an_effective_file_is_the_same_sweep() -> None:
    words = ["budget.trials_per_arm=4", "arms.sam.parameters.sam_radius.max=1", "budget.trials_per_arm=5"]
    found = overrides.overridden(TEXT, "asked.yaml", words)
    spec, again = found.load(), loads(found.text)
    assert sweep_id(spec) == sweep_id(again)
    assert spec.overrides == again.overrides == (words[1], words[2])
    assert spec.budget.trials_per_arm == 5
    assert "overrides" not in definition(spec)
    assert [found.line(i) for i, line in enumerate(found.text.splitlines(), 1) if "studies: 6" in line] == [
        TEXT.splitlines().index("seeds: {studies: 6, tune: 1, confirm: 2}") + 1
    ]


@pytest.mark.parametrize(
    "word, message",
    [
        ("budget.trails_per_arm=4", "budget.trails_per_arm: unknown; did you mean trials_per_arm?"),
        ("notes=1", "notes: unknown; available: "),
        ("arms.sma.parameters.lr.max=1", "arms.sma: unknown; did you mean sam?"),
        ("arms.sam.parameters.sam_raidus.max=1", "unknown; did you mean sam_radius?"),
        ("arms.sam.parameters.lr.max=1", "it is shared by the arms; write parameters.lr.max=..."),
        ("arms.sam.parameters.sam_raidus=1", "unknown to optimizer sam; did you mean sam_radius?"),
        ("arms.sma={}", "did you mean sam?"),
        ("task.nosie=1", "task digits has no parameter 'nosie'; did you mean noise?"),
        ("budget.per_trial=abc", "'abc' should be a valid"),
        ("budget.per_trial=", "should be a valid"),
        ("name.first=x", "name: is 'asked' and has no first"),
        ("seeds.studies=0", "seeds.studies: 0 should be greater"),
        ("arms.sam.parameters.sam_radius.max=0.001", "0.02 is not below max 0.001"),
        ("arms.sam={parameters: {", "not YAML"),
        ("budget..per_trial=1", "is not a key"),
    ],
)
def test_errors_name_the_override(word: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        overrides.overridden(TEXT, "asked.yaml", ["budget.trials_per_arm=4", word]).load()
    assert str(raised.value).startswith(f"asked.yaml: in the override {word}: ")
    assert message in str(raised.value)


def test_keys_of_a_script_that_the_file_leaves_out() -> None:
    text = TEXT.replace("{name: digits, noise: 0.4, model: mlp}", "{program: train.py}")
    found = overrides.overridden(text, "asked.yaml", ["task.env.LEVEL='2'", "task.goals.accuracy=maximize"])
    task = parse(found.text).value["task"]
    assert task == {"program": "train.py", "env": {"LEVEL": "2"}, "goals": {"accuracy": "maximize"}}
    with pytest.raises(SpecError, match=r"task\.evn: unknown; did you mean env\?"):
        overrides.overridden(text, "asked.yaml", ["task.evn.LEVEL=2"])


def test_errors_of_the_file_keep_their_place() -> None:
    text = TEXT.replace("noise: 0.4", "nosie: 0.4")
    found = overrides.overridden(text, "asked.yaml", ["budget.trials_per_arm=4", "arms.sam.parameters.lr=0.1"])
    with pytest.raises(SpecError, match=r"^asked.yaml:4:22: task.nosie: .*did you mean noise"):
        found.load()


def test_secrets_are_not_noted() -> None:
    words = ["budget.trials_per_arm=4", "tracking.mlflow=https://me:secret@host/path"]
    found = overrides.overridden(TEXT, "asked.yaml", words)
    assert found.load().overrides == (words[0], "tracking.mlflow=https://***@host/path")


@pytest.mark.slow
def test_verbs_take_overrides(call: Any, tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text(TEXT)
    file, word = str(tmp_path / "asked.yaml"), "budget.trials_per_arm=4"
    identity = call("validate", file, word, "--json").document["sweep_id"]
    plan = call("plan", file, word, "seeds.studies=8", "--json").document
    assert plan["arms"]["sam"]["trials"] == 8 * (4 + 2)
    assert (
        call("validate", file, "seeds.studies=8", word, "--json").document["sweep_id"] == plan["sweep_id"] != identity
    )
    assert call("lint", file, word).code in (0, 6)
    assert "seeds.studies=8" in call("k8s", "render", file, word, "seeds.studies=8").out
    assert call("validate", file, "budget").code == 2
    assert call("run", file, "budget.trials=4").code == 3
    assert not (tmp_path / "runs").exists()
