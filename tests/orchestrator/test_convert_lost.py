"""What a job of another system had besides its sweep is named; a program is answered with what to convert."""

from __future__ import annotations

import pytest

from orchestrator.convert import systems
from orchestrator.definition.errors import SpecError
from orchestrator.definition.yaml12 import parse


@pytest.mark.parametrize(("word", "file", "way"), [
    ("wandb", "sweep.py", "wandb.sweep"), ("optuna", "study.py", "geosweep import optuna"),
    ("ray", "tune.ipynb", "param_space"), ("katib", "client.py", "kubectl get experiment"),
])  # fmt: skip
def test_a_program_is_told_what_to_convert_instead(word: str, file: str, way: str) -> None:
    with pytest.raises(SpecError, match=way):
        systems.convert(word, "import optuna\n\nx = {a: 1}", file)


def test_environment_and_replicas_of_katib_are_named_without_values() -> None:
    container = (
        '{name: main, command: [python, train.py], env: [{name: RATE, value: "${trialParameters.r}"}, '
        "{name: TOKEN, value: hunter2}]}"
    )
    text = f"""
apiVersion: kubeflow.org/v1beta1
kind: Experiment
spec:
  objective: {{type: minimize, objectiveMetricName: loss}}
  parameters: [{{name: rate, parameterType: double, feasibleSpace: {{min: "0.1", max: "0.5"}}}}]
  trialTemplate:
    trialParameters: [{{name: r, reference: rate}}]
    trialSpec:
      kind: PyTorchJob
      spec:
        pytorchReplicaSpecs:
          Master: {{replicas: 1, template: {{spec: {{containers: [{container}]}}}}}}
          Worker: {{replicas: 2, template: {{spec: {{containers: [{container}]}}}}}}
"""
    draft = systems.convert("katib", text, "katib.yaml")
    said = [note.text for note in draft.notes if note.kind == "left out"]
    assert [one.partition(":")[0] for one in said] == [
        "env RATE, ${trialParameters.r}", "env TOKEN", "replicas (1 Master, 2 Worker)"
    ]  # fmt: skip
    assert "hunter2" not in draft.text() + " ".join(said)


def test_a_tuner_of_ray_keeps_its_scheduler_and_names_what_it_loses() -> None:
    text = """
param_space: {lr: "tune.loguniform(1e-4, 1e-1)"}
tune_config:
  {num_samples: 4, metric: loss, mode: min, scheduler: "ASHAScheduler(max_t=100, grace_period=5, reduction_factor=3)",
   reuse_actors: true}
run_config: {name: exp, stop: {acc: 0.98, training_iteration: 50}, failure_config: {max_failures: 3}}
"""
    draft = systems.convert("ray", text, "ray.yaml")
    made = parse(draft.text()).value
    assert made["early_terminate"] == {"type": "asha", "eta": 3, "min_budget": "5%"}
    assert made["budget"]["per_trial"] == 50
    assert {note.key for note in draft.notes if note.kind == "left out"} == {
        "tune_config.reuse_actors", "run_config.failure_config", "run_config.stop.acc"
    }  # fmt: skip
