"""The blocks of code in the documentation, and what each may be given to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from docs.generate import command, links, sweep_file

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?[^\n]*\n(.*?)^```', re.DOTALL | re.MULTILINE)
LINE = re.compile(r"^ *(geosweep [^\n]*)$", re.MULTILINE)
INDENTED = re.compile(r"^ {4,}(geosweep [^\n]*)$", re.MULTILINE)
SPAN = re.compile(r"`(geosweep [a-z][^`\n]*)`")
GENERATED = {"reference/command.md": command.page, "reference/sweep_file.md": sweep_file.page}
BASE: dict[str, Any] = {
    "schema_version": 1,
    "name": "fragment",
    "task": {"name": "digits", "model": "vit"},
    "metric": {"name": "accuracy/val", "goal": "maximize"},
    "arms": {"sgd": {}, "sam": {"optimizer": "sam"}, "adam": {"optimizer": "torch.optim.AdamW"}},
    "parameters": {"lr": {"values": [0.01, 0.1]}},
    "budget": {"per_trial": 1000, "trials_per_arm": 3},
    "seeds": {"studies": 6, "tune": 1, "confirm": 1},
}
"""What a fragment of a sweep file is put into."""
LANGUAGE = {"task": {"name": "words:Words"}, "metric": {"name": "loss/val", "goal": "minimize"}}
"""And one about groups, which are of models with embeddings."""
WORDS = """
import torch
from torch import nn
from trainables import Metric, Task


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(8, 4), nn.Embedding(8, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 8)


class Words(Task):
    METRICS = {"loss/val": Metric(goal="minimize", worst=9.0)}

    def model(self, seed):
        return Embedded()

    def batch(self, seed, index):
        return torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, dtype=torch.long)

    def batch_identity(self, seed, index):
        return b""

    def loss(self, outputs, targets):
        return outputs.sum()

    def evaluate(self, model):
        return {"loss/val": 0.0}
"""
"""The task of that one."""


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    language: str
    title: str
    """The file that it is, if it says so."""
    text: str
    number: int

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def pages() -> dict[str, str]:
    """Page -> its Markdown, of everything that is documentation and of the pages made of commands and schema."""
    files = [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in (*links.ELSEWHERE, "README.md") if name.endswith(".md")),
    ]
    found = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(files)}
    return found | {name: make() for name, make in GENERATED.items()}


def blocks(language: str) -> Iterator[Block]:
    """The blocks of a language."""
    for page, text in pages().items():
        for found in FENCE.finditer(text):
            if found[1] == language:
                yield Block(page, found[1], found[2] or "", found[3], text[: found.start()].count("\n") + 2)


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words of a call of the command), of all blocks of commands."""
    for page, text in pages().items():
        shell = "".join(found[3] for found in FENCE.finditer(text) if found[1] == "sh")
        for found in (*LINE.finditer(shell), *INDENTED.finditer(FENCE.sub("", text))):
            line = re.sub(r"\s+#.*| +\|.*| &$", "", found[1])
            yield page, shlex.split(line.replace("...", ""))[1:]


def fragments(text: str) -> Iterator[dict[str, Any]]:
    """The sweep files that a block of YAML is, or is a part of. Lines with one key twice are alternatives."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    keys = [line.split(":")[0] for line in lines if not line.startswith((" ", "-", "}", "]"))]
    for part in [text] if len(keys) == len(set(keys)) else lines:
        given = yaml.safe_load(part)
        if "schema_version" in given:
            yield given
        elif set(given) <= set(sweep_file.schema()["properties"]):
            parameters = {**BASE["parameters"], **given.get("parameters", {})}
            yield {**BASE, **(LANGUAGE if "groups" in given else {}), **given, "parameters": parameters}
        else:
            yield {**BASE, "arms": {**BASE["arms"], "sam": {"optimizer": "sam", "parameters": given}}}
