"""The README of optim_core: its loop is short and trains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

import optim_core

README = Path(optim_core.__file__).parent / "README.md"


def test_the_loop_has_at_most_twelve_lines_and_trains() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert len(lines) <= 12
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    optimizer, model, loss_of = names["optimizer"], names["model"], names["loss_of"]
    assert optimizer.refreshes >= 1
    assert optimizer.grad_evals > 2 * 200
    trained = sum(float(loss_of(model(a), b).detach()) for a, b in names["batches"]) / 8
    assert trained < 0.5 * torch.log(torch.tensor(10.0))
