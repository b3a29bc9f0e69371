"""The same as config_file.py with three lines: the file has the settings that the sweep leaves alone."""

import sys
from pathlib import Path

import torch
import yaml

import geosweep

config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
trial = geosweep.trial(**config)
torch.manual_seed(trial.seed)
model = torch.nn.Linear(trial.parameters["size"], 1, bias=False)
optimizer = trial.optimizer(model)


def closure() -> torch.Tensor:
    """Loss and gradient."""
    optimizer.zero_grad()
    loss = ((model.weight - torch.arange(float(trial.parameters["size"]))) ** 2).sum()
    loss.backward()
    return loss


for iteration in trial.steps(trial.parameters["iterations"]):
    trial.report(iteration, objective=optimizer.step(closure))
