"""Dependencies point one way only; ray, optuna, mlflow and kubernetes are each imported in one adapter folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "optim_core": {"optim_core"},
    "trainables": {"trainables"},
    "orchestrator": {"orchestrator", "trainables", "optim_core"},
}
ADAPTERS = {
    "ray": "orchestrator/executors",
    "optuna": "orchestrator/search",
    "mlflow": "orchestrator/tracking",
    "kubernetes": "orchestrator/kubernetes",
}
FORBIDDEN = {"optim_core": {"numpy", "pandas", "os", "logging", "pathlib"}, "trainables": set(), "orchestrator": set()}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows(package: str) -> None:
    ours = set(MAY_IMPORT)
    for path in modules(package):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ours - MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {name}"
            assert top not in FORBIDDEN[package], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("service", ADAPTERS)
def test_services_have_one_door(service: str) -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in MAY_IMPORT
        for path in modules(package)
        if any(name.split(".")[0] == service for name in imports(path))
    }
    assert found
    assert all(path.startswith(ADAPTERS[service]) for path in found), found


def test_interfaces_know_no_implementation() -> None:
    """Also not inside functions: whoever chooses one stands above both."""
    for interface in ("remote", "trial/job", "executors/base", "search/base", "tracking/base"):
        found = [name for name in imports(ROOT / "orchestrator" / f"{interface}.py") if name.startswith("orchestrator")]
        plain = ("definition.states", "storage.errors", "trial.job", "trial.record")
        allowed = {f"orchestrator.{name}" for name in plain}
        assert set(found) <= allowed, (interface, found)


def test_plain_modules_stay_light() -> None:
    for name in ("plan", "space", "model", "states"):
        path = ROOT / "orchestrator" / "definition" / f"{name}.py"
        top_level = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = {a.name for n in top_level if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in top_level if isinstance(n, ast.ImportFrom) and n.module}
        assert not any(n.split(".")[0] in {"torch", "ray", "optuna", "mlflow"} for n in names), (name, names)


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for package in [*MAY_IMPORT, "tests"]
        for path in modules(package)
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long
