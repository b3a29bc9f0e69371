"""Python programs that use geosweep, run in processes of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.orchestrator.command import REPOSITORY, environment, fresh

RING = '''
import torch
from torch import nn

import geosweep

SIDES = 4


def rows(seed, index):
    return torch.randint(64, (16,), generator=torch.Generator().manual_seed(seed * 1003 + index))


class Ring(geosweep.Task):
    """Needs a function and a number that stand beside it."""

    METRICS = {"loss/val": geosweep.Metric(goal="minimize", worst=1e4)}

    def __init__(self, *, scale: float = 1.0):
        self.x = torch.randn(64, SIDES, generator=torch.Generator().manual_seed(7))
        self.y = scale * self.x.sum(1, keepdim=True)

    def model(self, seed):
        torch.manual_seed(seed)
        return nn.Linear(SIDES, 1)

    def batch(self, seed, index):
        return self.x[rows(seed, index)], self.y[rows(seed, index)]

    def batch_identity(self, seed, index):
        return rows(seed, index).numpy().tobytes()

    def loss(self, outputs, targets):
        return ((outputs - targets) ** 2).mean()

    def evaluate(self, model):
        return {"loss/val": float(self.loss(model(self.x), self.y))}


class Plain(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr=lr)
'''
"""A task and an optimizer of a user's."""


def sweep(task: Any, **more: Any) -> dict[str, Any]:
    """A small sweep over a task that reports loss/val."""
    return {
        "schema_version": 1,
        "name": "door",
        "task": {"name": task},
        "metric": {"name": "loss/val", "goal": "minimize"},
        "arms": {"sgd": {}, "adamw": {}},
        "parameters": {"lr": {"values": [0.01, 0.1]}},
        "method": {"name": "grid"},
        "budget": {"per_trial": 16},
        "seeds": {"tune": 1, "confirm": 6},
        "evaluations": 2,
        **more,
    }


def python(program: str, *paths: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a file of its own, in a process that has imported ours; `paths` come first on its path."""
    file = cwd / "program.py"
    file.write_text(program)
    path = ":".join(map(str, (*paths, REPOSITORY)))
    return fresh(program=file, env=environment(PYTHONPATH=path), cwd=cwd)


def answer(program: str, *paths: Path, cwd: Path) -> Any:
    """What a program prints last, as JSON."""
    done = python(program, *paths, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
