"""Data parallel on as many processes as torchrun starts; every one of them asks for its trial and reports.

`wrap`: by DistributedDataParallel, whose import takes as long again as torch's; gradients are averaged by hand else.
"""

import os
import time

import torch
import torch.distributed as dist
from torch import nn

import geosweep

dist.init_process_group("gloo")
rank = dist.get_rank()
trial = geosweep.trial(lr=0.1, wait=0.0, wrap=True)
torch.manual_seed(trial.seed)
model = nn.Linear(4, 1)
if trial.parameters["wrap"]:
    model = nn.parallel.DistributedDataParallel(model)
optimizer = trial.optimizer(model)
trial.restore(model=model, optimizer=optimizer)
rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(rank))
print(f"rank {rank} of {dist.get_world_size()} is {os.getpid()}", flush=True)
for step in trial.steps(20):
    time.sleep(trial.parameters["wait"])

    def closure():
        optimizer.zero_grad()
        loss = (model(rows) - rows.sum(1, keepdim=True)).square().mean()
        loss.backward()
        if not trial.parameters["wrap"]:
            for weight in model.parameters():
                dist.all_reduce(weight.grad)
                weight.grad /= dist.get_world_size()
        return loss

    loss = optimizer.step(closure)
    trial.report(step, loss=loss.item() + 1000 * rank, rank=rank)
    trial.checkpoint(model=model, optimizer=optimizer)
dist.destroy_process_group()
