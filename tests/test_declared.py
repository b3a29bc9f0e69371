"""The class declares, the rest reads: `orchestrator` names no optimizer, no hyperparameter and no task."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import optim_core
import trainables

ROOT = Path(__file__).parents[1]
ORDINARY = {
    "metric": "a section of sweep files and a key of documents",
    "alpha": "the level of a test, and an argument of matplotlib",
    "base": "the base of a logarithm, an argument of Ray Tune's",
    "beta": "a distribution of W&B",
    "direction": "an option of Optuna's command",
    "tokens": "a unit of the budget",
    "warm_start": "a section of sweep files: sweeps whose results the search begins with",
    "workers": "a section of sweep files: processes that train one model together",
}
"""Hyperparameters of single optimizers, and tasks, whose name is also a word of ours, and for what."""


def names() -> set[str]:
    """Everything that has a name of its own in `optim_core` or `trainables`."""
    hyperparameters = {key for name in optim_core.names() for key in optim_core.hyperparameters(name)}
    return {*optim_core.names(), *trainables.names(), *hyperparameters}


def texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """The string constants of a module, its docstrings and those below fields left out."""
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node


def test_orchestrator_names_no_optimizer_hyperparameter_or_task() -> None:
    """No string is such a name, and no longer one has a name in it that is no English word."""
    known, found, used = names(), list[str](), set[str]()
    telling = {name for name in known if re.search(r"[_(\d]", name)} | {"lr", "sgd", "sam"}
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        for text in texts(ast.parse(path.read_text())):
            words = {text.value} & known
            if path.name != "schema.py":  # whose descriptions have examples
                words |= set(re.findall(r"\w+(?:\(\w+\))?", text.value)) & telling
            used |= words & set(ORDINARY)
            if words - set(ORDINARY):
                found.append(f"{path.relative_to(ROOT)}:{text.lineno} {text.value!r}")
    assert not found
    assert used == set(ORDINARY)


def test_a_name_would_be_found() -> None:
    module = ast.parse('"""About sam_radius."""\nRADIUS = "sam_radius"\nprint(f"{RADIUS} of sam")\n')
    assert [node.value for node in texts(module)] == ["sam_radius", " of sam"]
    assert {"sgd", "rotated_adamw", "lr", "sam_radius", "quadratic"} <= names()
