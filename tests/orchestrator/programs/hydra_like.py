"""Settings as `group.key=value`, no optimizer, and a log of JSON lines in the folder that it is given."""

import json
import sys
from pathlib import Path

config = {"optim.lr": 0.1, "model.width": 4, "seed": 0, "trainer.max_epochs": 4, "out": "."}
for word in sys.argv[1:]:
    key, _, value = word.partition("=")
    if key not in config:
        raise SystemExit(f"Key '{key}' is not in struct")
    config[key] = value if key == "out" else json.loads(value.lower())

import torch  # noqa: E402

torch.manual_seed(config["seed"])
model = torch.nn.Sequential(torch.nn.Linear(4, config["model.width"]), torch.nn.ReLU(), torch.nn.LazyLinear(1))
x = torch.randn(128, 4)
y = x.abs().sum(1, keepdim=True)
model(x)
with (Path(config["out"]) / "log.jsonl").open("w") as log:
    for epoch in range(1, config["trainer.max_epochs"] + 1):
        for rows in torch.randperm(128).split(32):
            model.zero_grad(set_to_none=True)
            loss = torch.nn.functional.l1_loss(model(x[rows]), y[rows])
            loss.backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= config["optim.lr"] * weight.grad
        log.write(json.dumps({"epoch": epoch, "train": {"loss": loss.item()}, "lr": config["optim.lr"]}) + "\n")
        log.flush()
