"""A control trains with the optimizer that the trials get, the seed of the run included."""

from __future__ import annotations

import ast
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from orchestrator.definition import sweep_file
from orchestrator.definition.model import Spec
from orchestrator.protocol import controls
from orchestrator.trial.job import Job
from orchestrator.trial.training import build_training
from tests.orchestrator.sweep_files import sweep_text

DENSE = {"lr": 0.05, "rotation": "dense"}
SEED = 7


def spec() -> Spec:
    sweep: dict[str, Any] = yaml.safe_load(sweep_text())
    sweep["arms"] = {"rotated_adamw": {"parameters": DENSE}}
    sweep["seeds"] = {"tune": [SEED], "confirm": 1}
    return sweep_file.loads(yaml.safe_dump(sweep))


def trained(sweep: Spec, seed: int) -> torch.Tensor:
    """The weights of a trial with this seed after as many steps as a control takes."""
    job = Job(
        trial_id="t", arm="a", stage="tune", configuration=0, seed=seed, optimizer="rotated_adamw", parameters=DENSE,
        task=sweep.task.name, task_parameters=sweep.task.parameters, budget=1e9, evaluations=1, metric="loss/val",
        goal="minimize", select="last", folder="", stop_file="",
        training={**asdict(sweep.training.recipe), "schedule": "constant", "warmup": 0.0, "final_lr": 0.0},
    )  # fmt: skip
    training, _ = build_training(job)
    training.advance(lambda: training.step >= controls.STEPS)
    assert isinstance(training.model, torch.nn.Module)
    return torch.cat([p.detach().double().flatten() for p in training.model.parameters()])


def test_a_control_trains_as_a_trial_does() -> None:
    sweep = spec()
    _, after = controls._weights(sweep, "rotated_adamw", DENSE)
    assert torch.equal(after, trained(sweep, SEED))
    assert not torch.equal(after, trained(sweep, SEED + 1))


def test_there_is_one_way_to_build_an_optimizer() -> None:
    """Whoever builds one in another way forgets the run's seed, or the batches."""
    root = Path(__file__).parents[2]
    found = [
        path.relative_to(root).as_posix()
        for path in sorted((root / "orchestrator").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "optim_core.build"
    ]
    assert found == ["orchestrator/definition/built.py"]
