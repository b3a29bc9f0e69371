"""All settings in one YAML file; a CSV of results beside it."""

import csv
import sys
from pathlib import Path

import yaml

config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())

import torch  # noqa: E402

torch.manual_seed(config["seed"])
weight = torch.randn(8, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=config["lr"])
with (Path(config["output_dir"]) / "results.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["iteration", "objective", "note"])
    for iteration in range(1, config["iterations"] + 1):
        optimizer.zero_grad()
        loss = ((weight - torch.arange(8.0)) ** 2).sum()
        loss.backward()
        optimizer.step()
        writer.writerow([iteration, loss.item(), "fine, so far"])
        file.flush()
