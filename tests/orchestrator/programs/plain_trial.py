"""The same script, which asks for its trial: the arm's optimizer, the budget's steps, checkpoints."""

import time

import torch
from torch import nn

import geosweep

trial = geosweep.trial(lr=0.1, batch_size=32)
torch.manual_seed(trial.seed)
x = torch.randn(512, 8)
y = (x @ torch.arange(1.0, 9.0)).unsqueeze(1)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = trial.optimizer(model)
trial.restore(model=model, optimizer=optimizer)
for step in trial.steps(40):
    rows = torch.randint(448, (trial.parameters["batch_size"],), generator=torch.Generator().manual_seed(step))

    time.sleep(trial.parameters.get("wait", 0.0))

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    if (step + 1) % 10 == 0:
        with torch.no_grad():
            val = nn.functional.mse_loss(model(x[448:]), y[448:]).item()
        trial.report(step, train_loss=loss, val_loss=val)
    trial.checkpoint(model=model, optimizer=optimizer)
