"""Sweep files of W&B, Katib, Optuna and Ray Tune in our words: what each construct becomes, and what is named."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.convert import program, systems
from orchestrator.convert.draft import Draft
from orchestrator.convert.wandb_parameters import RANGES
from orchestrator.definition import foreign, sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.location import Where
from orchestrator.definition.parameter import parameter
from orchestrator.definition.parameter_models import ParameterModel
from orchestrator.definition.yaml12 import parse
from tests.verbs import Called

USUAL = """
program: train.py
name: Sweep Demo
project: vision
entity: team
method: bayes
metric: {name: val_loss, goal: minimize, target: 0.01}
parameters:
  learning_rate: {min: 0.0001, max: 0.1}
  batch_size: {values: [16, 32, 64]}
  epochs: {value: 27}
  seed: {values: [1, 2, 3]}
  optimizer: {values: ["first", "second"]}
early_terminate: {type: hyperband, max_iter: 27, s: 2}
run_cap: 50
command: ["${env}", "${interpreter}", "${program}", "--data=${envvar:DATA}", "${args_no_hyphens}"]
"""
KATIB = """
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {namespace: kubeflow, name: random}
spec:
  objective: {type: maximize, goal: 0.99, objectiveMetricName: val-accuracy, additionalMetricNames: [train-accuracy]}
  algorithm: {algorithmName: bayesianoptimization, algorithmSettings: [{name: random_state, value: "10"}]}
  parallelTrialCount: 3
  maxTrialCount: 12
  maxFailedTrialCount: 2
  parameters:
    - {name: rate, parameterType: double, feasibleSpace: {min: "0.01", max: "0.05", distribution: logUniform}}
    - {name: layers, parameterType: int, feasibleSpace: {min: "2", max: "6", step: "2"}}
    - {name: kind, parameterType: categorical, feasibleSpace: {list: [one, two]}}
  trialTemplate:
    primaryContainerName: main
    trialParameters:
      - {name: learningRate, reference: rate}
      - {name: numberLayers, reference: layers}
      - {name: kind, reference: kind}
    trialSpec:
      spec:
        template:
          spec:
            containers:
              - {name: sidecar, image: other}
              - name: main
                image: mine
                resources: {limits: {cpu: "2", nvidia.com/gpu: 1}}
                command: [python3, /opt/train.py, --batch=64, "--lr=${trialParameters.learningRate}",
                          --layers, "${trialParameters.numberLayers}", "--kind=${trialParameters.kind}"]
"""
OPTUNA = {
    "x": {"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 0.1, "log": True, "step": None}},
    "y": {"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0, "log": False, "step": 0.25}},
    "n": {"name": "IntDistribution", "attributes": {"low": 1, "high": 9, "log": False, "step": 2}},
    "old": {"name": "LogUniformDistribution", "attributes": {"low": 0.1, "high": 10}},
    "kind": {"name": "CategoricalDistribution", "attributes": {"choices": ["a", "b"]}},
}
RAY = """
experiment:
  run: train.py
  stop: {training_iteration: 100, reward: 150}
  num_samples: 4
  resources_per_trial: {cpu: 2, gpu: 1}
  scheduler: {type: async_hyperband, grace_period: 10, max_t: 100, reduction_factor: 4}
  config:
    rate: tune.loguniform(1e-4, 1e-1)
    width: "tune.randint(8, 64)"
    step: "tune.quniform(3.0, 5.0, 0.5)"
    kind: "tune.choice(['a', 'b'])"
    nested: {code: "lambda spec: 1", depth: 3}
"""


def drafted(word: str, text: str, **options: Any) -> tuple[Draft, dict[str, Any]]:
    """The draft, and the sweep that it says."""
    draft = systems.convert(word, text, "FILE", **options)
    return draft, parse(draft.text()).value


def wandb(words: str) -> dict[str, Any]:
    """What a W&B parameter becomes."""
    text = f"method: random\nprogram: train.py\nparameters:\n  p: {words}\n"
    found: dict[str, Any] = drafted("wandb", text)[1]["parameters"]["p"]
    return found


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("{min: 1, max: 8}", {"distribution": "int_uniform", "min": 1, "max": 8}),
        ("{min: 0, max: 0.5}", {"distribution": "uniform", "min": 0, "max": 0.5}),
        ("{distribution: uniform, min: 0, max: 1}", {"distribution": "uniform", "min": 0.0, "max": 1.0}),
        (
            "{distribution: log_uniform_values, min: 1e-5, max: 0.1}",
            {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        ),
        (
            "{distribution: inv_log_uniform_values, min: 0.01, max: 1}",
            {"distribution": "log_uniform_values", "min": 0.01, "max": 1},
        ),
        (
            "{distribution: q_log_uniform_values, min: 32, max: 256, q: 8}",
            {"distribution": "q_log_uniform_values", "min": 32, "max": 256, "q": 8},
        ),
        (
            "{distribution: q_uniform, min: 3, max: 17, q: 5}",
            {"distribution": "int_uniform", "min": 5, "max": 15, "q": 5},
        ),
        (
            "{distribution: q_uniform, min: 0.03, max: 1.0, q: 0.1}",
            {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.1},
        ),
        ("{distribution: normal, mu: 2, sigma: 0.5}", {"distribution": "uniform", "min": 1.0, "max": 3.0}),
        (
            "{distribution: q_normal, mu: 10, sigma: 2, q: 1}",
            {"distribution": "int_uniform", "min": 6, "max": 14, "q": 1},
        ),
        ("{distribution: beta, a: 2, b: 5}", {"distribution": "uniform", "min": 0.0, "max": 1.0}),
        ("{values: [1, 2, 2], probabilities: [0.2, 0.4, 0.4]}", {"values": [1, 2]}),
        ("{distribution: categorical, values: [a, b]}", {"values": ["a", "b"]}),
        ("{values: [yes, no]}", {"values": [True, False]}),
        ("{value: 3}", 3),
        ("{distribution: constant, value: text}", "text"),
        ('{min: "1e-4", max: "1"}', {"distribution": "uniform", "min": 1e-4, "max": 1}),
        ("{min: 2, max: 2}", {"value": 2}),
        ("5", 5),
    ],
)
def test_parameters_of_wandb(theirs: str, ours: Any) -> None:
    assert wandb(theirs) == ours


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("log_uniform", -9.0, -2.0), ("inv_log_uniform", 2.0, 9.0), ("log_normal", -5.5 - 1.75, -5.5 + 1.75)],
)
def test_exponents_become_values(kind: str, low: float, high: float) -> None:
    """All three draw exp(u) with u, or -u, between the same ends."""
    words = "mu: -5.5, sigma: 0.875" if kind == "log_normal" else f"min: {low}, max: {high}"
    found = wandb(f"{{distribution: {kind}, {words}}}")
    ends = sorted(math.log(found[key]) for key in ("min", "max"))
    assert found["distribution"] == "log_uniform_values"
    assert ends == pytest.approx(sorted([low, high]) if kind != "inv_log_uniform" else [-high, -low])


@pytest.mark.parametrize("kind", RANGES)
def test_every_distribution_of_wandb_gives_a_parameter_of_ours(kind: str) -> None:
    found = wandb(f"{{distribution: {kind}, min: 1, max: 4, mu: 1, sigma: 0.5, q: 1, a: 1, b: 2}}")
    made = parameter("p", ParameterModel(**found), Where("FILE", parse("p: 1")), ("p",))
    assert made.low < made.high


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        ("{distribution: log_uniform, min: 100, max: 1000}", "takes exponents"),
        ("{distribution: gauss, min: 0, max: 1}", "not one of W&B's"),
        ("{distribution: uniform, min: 1}", "max is missing"),
        ("{distribution: log_uniform_values, min: 0, max: 1}", "starts above 0"),
        ("{values: []}", "without values"),
        ("{min: 3.5, max: 1.5}", "is above max"),
        ("{}", "empty"),
    ],
)
def test_what_has_no_counterpart_is_named(theirs: str, why: str) -> None:
    draft = systems.convert("wandb", f"method: random\nprogram: train.py\nparameters:\n  p: {theirs}\n", "FILE")
    (note,) = [n for n in draft.notes if n.kind == "left out"]
    assert (note.key, note.line) == ("parameters.p", 4)
    assert why in note.text
    assert f"#   4: parameters.p: {note.text}"[:60] in draft.text()


def test_a_usual_sweep_of_wandb() -> None:
    draft, found = drafted("wandb", USUAL)
    assert found["name"] == "Sweep-Demo"
    assert found["task"] == {
        "program": "train.py",
        "command": ["${env}", "${interpreter}", "${program}", "--data=${envvar:DATA}", "${args_no_hyphens}"],
        "seed_arg": "seed",
        "budget_arg": "epochs",
    }
    assert found["metric"] == {"name": "val_loss", "goal": "minimize"}
    assert found["method"] == {"name": "tpe"}
    assert found["budget"] == {"unit": "epochs", "per_trial": 27, "trials_per_arm": 50}
    assert found["seeds"] == {"tune": 3}
    assert found["early_terminate"] == {"type": "asha", "eta": 3, "min_budget": "11.1%"}
    assert set(found["parameters"]) == {"learning_rate", "batch_size", "optimizer"}
    assert {n.key for n in draft.notes if n.kind == "left out"} == {"project", "entity", "metric.target"}


def test_a_list_becomes_arms() -> None:
    _, found = drafted("wandb", USUAL, by="optimizer")
    assert found["arms"] == {name: {"parameters": {"optimizer": name}} for name in ("first", "second")}
    assert "optimizer" not in found["parameters"]
    with pytest.raises(program.NoListError, match="batch_size, optimizer"):
        systems.convert("wandb", USUAL, "FILE", by="learning_rate")


def test_nested_parameters_get_names_with_dots() -> None:
    nested = "{parameters: {b: {parameters: {c: {values: [1, 2]}}}, d: {value: 3}}}"
    text = f"method: grid\nprogram: t.py\nparameters:\n  a: {nested}\n"
    draft, found = drafted("wandb", text)
    assert found["parameters"] == {"a.b.c": {"values": [1, 2]}, "a.d": 3}
    assert "trials_per_arm" not in found["budget"]
    assert any(n.key == "parameters.a" and n.kind == "changed" for n in draft.notes)


def test_min_iter_of_wandb() -> None:
    text = "program: t.py\nparameters: {p: {values: [1]}}\nearly_terminate: {type: hyperband, min_iter: 3, eta: 2}\n"
    draft, found = drafted("wandb", text)
    assert found["early_terminate"]["eta"] == 2
    assert [n.key for n in draft.notes if n.kind == "to fill in" and n.key.startswith("early")] == [
        "early_terminate.min_iter"
    ]


def test_every_word_of_wandb_is_translated_or_named() -> None:
    words = dict.fromkeys(("controller", "imports", "job", "image_uri", "queue", "settings", "whatever"), 1)
    text = USUAL + "\n".join(f"{key}: {value}" for key, value in words.items())
    named = {n.key for n in drafted("wandb", text)[0].notes}
    assert set(words) <= named


def test_katib() -> None:
    draft, found = drafted("katib", KATIB)
    assert found["task"] == {
        "program": "/opt/train.py",
        "command": ["${interpreter}", "${program}", "--batch=64", "${args}"],
    }
    assert found["parameters"] == {
        "lr": {"distribution": "log_uniform_values", "min": 0.01, "max": 0.05},
        "layers": {"distribution": "int_uniform", "min": 2, "max": 6, "q": 2},
        "kind": {"values": ["one", "two"]},
    }
    assert found["method"] == {"name": "gp", "seed": 10}
    assert found["metric"] == {"name": "val-accuracy", "goal": "maximize", "select": "best"}
    assert found["resources"] == {"max_concurrent": 3, "cpu": 2, "gpu": 1}
    assert (found["budget"]["trials_per_arm"], found["max_failed"]) == (12, 2)
    named = {n.key for n in draft.notes if n.kind == "left out"}
    assert {"spec.objective.goal", "metadata.namespace", "spec.trialTemplate.trialSpec"} <= named


def test_katib_of_a_shell_line() -> None:
    line = "'cd /src && python train.py --lr=${trialParameters.learningRate}'"
    text = KATIB[: KATIB.index("                command:")] + f"                command: [sh, -c, {line}]\n"
    _, found = drafted("katib", text)
    assert found["task"]["program"] == "train.py"
    assert "lr" in found["parameters"]


@pytest.mark.parametrize("whole", [False, True])
def test_optuna(whole: bool) -> None:
    text = json.dumps(
        {
            "study_name": "mine",
            "direction": "maximize",
            "n_trials": 7,
            "sampler": "CmaEsSampler",
            "search_space": OPTUNA,
        }
        if whole
        else OPTUNA
    )
    draft, found = drafted("optuna", text)
    assert found["parameters"] == {
        "x": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "y": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        "n": {"distribution": "int_uniform", "min": 1, "max": 9, "q": 2},
        "old": {"distribution": "log_uniform_values", "min": 0.1, "max": 10.0},
        "kind": {"values": ["a", "b"]},
    }
    if whole:
        assert (found["name"], found["metric"]["goal"], found["method"]) == ("mine", "maximize", {"name": "cmaes"})
        assert found["budget"]["trials_per_arm"] == 7
    assert any("metrics:" in n.text for n in draft.notes if n.kind == "to fill in")


def test_ray() -> None:
    draft, found = drafted("ray", RAY)
    assert found["parameters"] == {
        "rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1},
        "width": {"distribution": "int_uniform", "min": 8, "max": 63},
        "step": {"distribution": "q_uniform", "min": 3.0, "max": 5.0, "q": 0.5},
        "kind": {"values": ["a", "b"]},
        "nested.depth": 3,
    }
    assert found["early_terminate"] == {"type": "asha", "eta": 4, "min_budget": "10%"}
    assert found["budget"] == {"unit": "steps", "per_trial": 100, "trials_per_arm": 4}
    assert {n.key for n in draft.notes if n.kind == "left out"} == {
        "experiment.config.nested.code",
        "experiment.stop.reward",
    }


@pytest.mark.parametrize(
    ("text", "word"), [(USUAL, "wandb"), (KATIB, "katib"), (json.dumps(OPTUNA), "optuna"), (RAY, "ray")]
)
def test_a_file_of_theirs_is_told_at_once(text: str, word: str) -> None:
    """One error, which names the command, in place of one for each key."""
    with pytest.raises(SpecError) as caught:
        sweep_file.loads(text, "theirs.yaml")
    (line,) = str(caught.value).splitlines()
    assert f"geosweep convert {word} theirs.yaml" in line
    other = "katib" if word == "wandb" else "wandb"
    with pytest.raises(SpecError, match=f"convert {word}"):
        systems.convert(other, text, "theirs.yaml")


def test_a_file_of_ours_is_nobody_elses() -> None:
    for path in sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml")):
        assert foreign.system(parse(path.read_text()).value) is None
        with pytest.raises(SpecError, match="is already a geosweep sweep"):
            systems.convert("wandb", path.read_text(), "FILE")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("katib", KATIB.replace("objective: {type", "objective: [1] #")),
        ("katib", KATIB.replace('min: "0.01", max: "0.05"', "min: .nan, max: []")),
        ("optuna", json.dumps({**OPTUNA, "x": {"name": "FloatDistribution", "attributes": [1]}})),
        ("ray", RAY.replace("resources_per_trial: {cpu: 2, gpu: 1}", "resources_per_trial: [2]")),
        ("wandb", USUAL.replace("parameters:", "early_terminate2: [1]\nparameters:")),
    ],
)
def test_a_file_of_another_shape_is_an_error_or_is_named(word: str, text: str) -> None:
    try:
        draft = systems.convert(word, text, "FILE")
    except SpecError as error:
        assert "FILE:" in str(error)
    else:
        assert [n for n in draft.notes if n.kind == "left out"]
        assert parse(draft.text()).value["schema_version"] == 1


def test_the_command(call: Any, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(USUAL)
    words = ["convert", "wandb", str(tmp_path / "sweep.yaml")]
    done = call(*words, "-o", str(tmp_path / "new.yaml"))
    assert done.code == 0, done.err
    assert "left out: 3" in done.err
    assert parse((tmp_path / "new.yaml").read_text()).value["name"] == "Sweep-Demo"
    again = call(*words, "-o", str(tmp_path / "new.yaml"))
    assert (again.code, "already exists" in again.err) == (2, True)
    document = call(*words, "--json").document
    assert document["schema"] == "geosweep/convert/1"
    assert {note["kind"] for note in document["notes"]} == {"changed", "left out", "to fill in"}


def test_the_command_for_a_file_of_another_system_can_be_copied(call: Callable[..., Called], tmp_path: Path) -> None:
    file = tmp_path / "their sweep.yaml"
    file.write_text("method: random\nmetric: {name: loss, goal: minimize}\nparameters: {lr: {values: [1, 2]}}\n")
    for verb in (["validate"], ["convert", "katib"]):
        found = call(*verb, str(file))
        [command] = [line for line in found.err.splitlines() if line.startswith("  geosweep convert wandb ")]
        assert shlex.split(command)[3] == str(file)
