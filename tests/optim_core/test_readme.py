"""The README of optim_core: its loop is short and trains, its tables name every optimizer and every source."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

import optim_core

README = Path(optim_core.__file__).parent / "README.md"
AGREEMENT = Path(__file__).parents[1] / "golden" / "agreement"


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


def test_every_optimizer_is_listed() -> None:
    (listed,) = re.findall(r"## Optimizers\n(.*?)\n## ", README.read_text(), re.DOTALL)
    assert set(optim_core.names()) == set(re.findall(r"`([^`]+)`", listed)) - {"rotated(...)"}


def test_every_source_of_values_is_in_the_table_of_agreement() -> None:
    text, found = README.read_text(), set[str]()
    for path in AGREEMENT.glob("*/*.json"):
        document = json.loads(path.read_text())
        source = document.get("source", document)
        found.add(f"{source['repository'].removeprefix('github.com/')}@{source['commit'][:7]}")
    assert found == set(re.findall(r"[\w-]+/[\w-]+@[0-9a-f]{7}", text))


def test_every_optimizer_has_its_comparison_or_the_reason_why_not() -> None:
    rows = [line.split("|")[1:-1] for line in README.read_text().splitlines() if line.startswith("| ")]
    table = [row for row in rows if len(row) == 4 and "`" in row[0]]
    compared = {name for row in table for name in re.findall(r"`([^`]+)`", row[0])}
    assert set(optim_core.names()) - {"rotated(sgd)"} <= compared
    assert all(row[2].strip().startswith("yes") or row[2].strip() or row[3].strip() for row in table)
