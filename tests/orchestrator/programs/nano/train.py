"""A training loop in the manner of nanoGPT: globals for settings, code of a neighbor executed on them."""

import os
import sys  # noqa: F401

out_dir = "out"
eval_interval = 8
max_iters = 24
learning_rate = 1e-2
gradient_accumulation_steps = 2
seed = 1337
init_from = "scratch"
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "configurator.py")).read())

import torch  # noqa: E402
from model import TinyGPT  # noqa: E402

os.makedirs(out_dir, exist_ok=True)
torch.manual_seed(seed)
data = torch.arange(4096).remainder(29)
model = TinyGPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95))


def get_batch():
    ix = torch.randint(len(data) - 9, (8,))
    return torch.stack([data[i : i + 8] for i in ix]), torch.stack([data[i + 1 : i + 9] for i in ix])


iter_num = 0
if init_from == "resume":
    checkpoint = torch.load(os.path.join(out_dir, "ckpt.pt"))
    model.load_state_dict(checkpoint["model"])
    iter_num = checkpoint["iter_num"]
while iter_num <= max_iters:
    if iter_num % eval_interval == 0:
        with torch.no_grad():
            losses = torch.stack([model(*get_batch())[1] for _ in range(4)])
        print(f"step {iter_num}: train loss {losses[:2].mean():.4f}, val loss {losses[2:].mean():.4f}")
        torch.save({"model": model.state_dict(), "iter_num": iter_num}, os.path.join(out_dir, "ckpt.pt"))
    if iter_num == max_iters:
        break
    for _ in range(gradient_accumulation_steps):
        _, loss = model(*get_batch())
        (loss / gradient_accumulation_steps).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    iter_num += 1
    print(f"iter {iter_num}: loss {loss.item():.4f}, time 1.00ms, mfu 0.01%")
