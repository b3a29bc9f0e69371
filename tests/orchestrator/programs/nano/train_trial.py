"""The same loop with three lines: the trial's settings and seed, the budget's steps, a report at each evaluation."""

import torch
from model import TinyGPT

import geosweep

trial = geosweep.trial(learning_rate=1e-2, gradient_accumulation_steps=2)
config = trial.parameters
torch.manual_seed(trial.seed)
data = torch.arange(4096).remainder(29)
model = TinyGPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], betas=(0.9, 0.95))


def get_batch():
    ix = torch.randint(len(data) - 9, (8,))
    return torch.stack([data[i : i + 8] for i in ix]), torch.stack([data[i + 1 : i + 9] for i in ix])


for iter_num in trial.steps(24):
    for _ in range(config["gradient_accumulation_steps"]):
        _, loss = model(*get_batch())
        (loss / config["gradient_accumulation_steps"]).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if (iter_num + 1) % 4 == 0:
        with torch.no_grad():
            trial.report(iter_num, val_loss=torch.stack([model(*get_batch())[1] for _ in range(4)]).mean())
