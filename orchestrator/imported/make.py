"""From foreign runs to a sweep that can be compared, in one call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.imported import record
from orchestrator.imported.design import Design, designed
from orchestrator.imported.roles import Question, Roles, roles
from orchestrator.imported.rows import rows
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.foreign_runs import ForeignRuns

LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True)
class Made:
    """The sweep, and how its source was read."""

    folder: SweepFolder
    was_there: bool
    role: Roles
    design: Design
    notes: list[str]
    """What was left out, and how runs are compared."""


def make(table: ForeignRuns, question: Question, root: Path, name: str, facts: Mapping[str, str]) -> Made:
    """Read the runs as asked and write the sweep's folder. Raises UnusableError before anything is written."""
    role = roles(table, question)
    found, notes = rows(table, role, question)
    design = designed(found, role, question)
    said = [*notes, *design.notes]
    if not role.budget:
        said.append("the cost of runs is not given, so equal budgets are not checked (--budget COLUMN)")
    folder, was_there = record.write(root, sweep_name(name), table, role, design, question, said, facts)
    return Made(folder=folder, was_there=was_there, role=role, design=design, notes=said)


def sweep_name(text: str) -> str:
    """A valid folder name, made from a file's or an experiment's."""
    found = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:LONGEST_NAME].rstrip("-_")
    return found or "imported"
