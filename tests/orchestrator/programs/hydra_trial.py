"""The same as hydra_like.py with three lines; a budget in epochs of four steps."""

import torch

import geosweep

trial = geosweep.trial(**{"optim.lr": 0.1, "model.width": 4})
torch.manual_seed(trial.seed)
model = torch.nn.Sequential(torch.nn.Linear(4, trial.parameters["model.width"]), torch.nn.ReLU(), torch.nn.LazyLinear(1))
x = torch.randn(128, 4)
y = x.abs().sum(1, keepdim=True)
model(x)
optimizer = torch.optim.Adam(model.parameters(), lr=trial.parameters["optim.lr"])
for step in trial.steps(16, epoch=4):
    rows = torch.arange(128).chunk(4)[step % 4]
    optimizer.zero_grad(set_to_none=True)
    loss = torch.nn.functional.l1_loss(model(x[rows]), y[rows])
    loss.backward()
    optimizer.step()
    if (step + 1) % 4 == 0:
        trial.report(step, {"train/loss": loss})
