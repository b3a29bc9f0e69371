"""The optimizers by name, for your own training loop.

>>> import torch
>>> from geosweep import optimizers
>>> "sam" in optimizers.names()
True
>>> optimizers.hyperparameters("sam")["sam_radius"].default
0.05

>>> model = torch.nn.Linear(2, 1)
>>> optimizer = optimizers.build("sam", model, lr=0.1, sam_radius=0.05)
>>> inputs, targets = torch.ones(4, 2), torch.zeros(4, 1)
>>> def closure():
...     optimizer.zero_grad()
...     loss = torch.nn.functional.mse_loss(model(inputs), targets)
...     loss.backward()
...     return loss
>>> first = optimizer.step(closure)
>>> optimizer.grad_evals  # SAM takes two gradients per step
2.0
"""

from __future__ import annotations

from optim_core import build, hyperparameters, names

__all__ = ["build", "hyperparameters", "names"]
