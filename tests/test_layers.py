"""Who may know whom: arrows between packages and rooms point one way, and no circle is left at any level.

Imports inside functions and under TYPE_CHECKING count like all others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "optim_core": {"optim_core"},
    "trainables": {"trainables", "optim_core"},
    "orchestrator": {"orchestrator", "trainables", "optim_core"},
    "geosweep": {"geosweep", "orchestrator", "trainables", "optim_core"},
}
GROUND = {"definition", "storage", "statistics"}
ROOMS: Mapping[str, set[str]] = {
    "definition": set(),
    "storage": {"definition"},
    "statistics": {"definition"},
    "convert": {"definition"},
    "trial": {"definition", "storage"},
    "remote": {"definition", "storage"},
    "search": {"definition", "storage"},
    "travel": {"definition", "storage", "trial", "remote"},
    "tracking": {"definition", "storage", "trial"},
    "executors": {"definition", "storage", "trial", "remote"},
    "kubernetes": {"definition", "storage", "remote"},
    "protocol": GROUND | {"trial"},
    "results": {"definition", "storage", "trial", "protocol"},
    "parquet": {"definition", "storage", "trial", "protocol", "results"},
    "imported": GROUND | {"trial"},
    "compare": GROUND | {"trial", "protocol", "results", "parquet", "search", "tracking"},
    "scheduling": GROUND | {"trial", "search", "results"},
    "reconcile": GROUND | {"trial", "tracking", "protocol", "results", "parquet", "scheduling"},
    "terminal": {"definition"},
    "display": GROUND | {"terminal", "trial", "results", "scheduling"},
    "runner": GROUND | {"trial", "executors", "tracking", "protocol", "results", "parquet", "scheduling", "reconcile"},
    "notifying": GROUND | {"trial", "tracking", "results", "scheduling", "display", "runner"},
    "launch": GROUND
    | {
        "notifying",
        "trial",
        "remote",
        "travel",
        "executors",
        "tracking",
        "protocol",
        "results",
        "compare",
        "scheduling",
        "reconcile",
        "runner",
    },
    "cli": GROUND
    | {
        "trial",
        "executors",
        "tracking",
        "kubernetes",
        "remote",
        "travel",
        "protocol",
        "results",
        "parquet",
        "compare",
        "scheduling",
    }
    | {"terminal", "reconcile", "display", "runner", "launch", "convert", "imported", "search"},
}
"""Room of orchestrator/ (a folder, or a file on its floor) -> the rooms that it may know; the ground knows none."""
ADAPTERS = {
    "ray": "orchestrator/executors",
    "optuna": "orchestrator/search",
    "mlflow": "orchestrator/tracking",
    "kubernetes": "orchestrator/kubernetes",
}
FORBIDDEN: Mapping[str, set[str]] = {"optim_core": {"numpy", "pandas", "os", "logging", "pathlib"}}
REGISTRIES = {"optim_core.named", "optim_core.plugins"}
"""All that trainables knows of optim_core: how a thing gets its name."""
LATE = {
    ("orchestrator/launch.py", "_executor"): "Ray: a sweep on the debug executor 0.4 s sooner",
    ("orchestrator/launch.py", "_measured"): "Ray: likewise",
    ("orchestrator/launch.py", "_verdict"): "pandas: a sweep starts 0.5 s sooner",
    ("orchestrator/executors/ray_trial.py", "setup"): "torch, imported without looking for garbage: 0.4 s a worker",
    ("orchestrator/executors/ray_cluster.py", "settled"): "Tune, while Ray's processes start: `doctor` 0.3 s sooner",
    ("orchestrator/executors/ray.py", "run"): "Ray: `geosweep doctor --help` and files that are refused 2.7 s sooner",
    ("orchestrator/protocol/seal.py", "_grad_evals"): "torch: `geosweep status` and `verify` 1.5 s sooner",
    ("orchestrator/trial/source.py", "_class_of"): "torch: `geosweep status` 1.5 s sooner",
    ("orchestrator/definition/task_record.py", "of_sweep"): "torch: `geosweep compare` 1.0 s sooner",
    ("orchestrator/protocol/flops.py", "of_steps"): "torch: `geosweep compare` 1.0 s sooner",
    ("orchestrator/protocol/controls.py", "deviation"): "the same",
    ("orchestrator/protocol/controls.py", "_weights"): "the same",
    ("orchestrator/definition/isolated.py", "isolated"): "torch: commands on a script's sweep 1.0 s sooner",
    ("orchestrator/scheduling/race.py", "signed_rank"): "scipy.stats, statsmodels: a sweep without a race 1.0 s sooner",
}
"""(file, function) whose first-party imports wait, and the CPU seconds that this saves (one core of an Intel Xeon).

The verbs of the command all load what they need when they are called: `geosweep --help` takes 0.2 s, else 3.7 s.
"""
LAZY = ("orchestrator/cli/", "geosweep/")
"""Verbs, and the front door for Python: a script that asks for its trial imports what it uses alone."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


KNOWN = {dotted(path) for package in PACKAGES for path in modules(package)}


def named(node: ast.AST) -> list[str]:
    """The modules that an import statement names, as deep as they are known."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in KNOWN else node.module for name in inner]
    return []


@cache
def imports(path: Path) -> tuple[str, ...]:
    return tuple(name for node in ast.walk(ast.parse(path.read_text())) for name in named(node))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """A way from a node back to itself, or nothing."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for following in sorted(arrows.get(node, ())):
            if found := walk(following, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(arrows) if (found := walk(node, []))), [])


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_know_those_below(package: str) -> None:
    for path in modules(package):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in set(PACKAGES) - PACKAGES[package], f"{path.relative_to(ROOT)} imports {name}"
            assert top not in FORBIDDEN.get(package, set()), f"{path.relative_to(ROOT)} imports {name}"


def test_tasks_know_no_optimizer() -> None:
    found = {name for path in modules("trainables") for name in imports(path) if name.split(".")[0] == "optim_core"}
    assert found == REGISTRIES


def test_rooms_know_the_rooms_of_the_table() -> None:
    assert set(ROOMS) == {room(dotted(p)) for p in modules("orchestrator")} - {"orchestrator"}
    for path in modules("orchestrator"):
        mine = room(dotted(path))
        for name in imports(path):
            if name.split(".")[0] == "orchestrator" and room(name) != mine:
                assert room(name) in ROOMS[mine], f"{path.relative_to(ROOT)} imports {name}"


def test_the_table_has_no_circle() -> None:
    assert not circle(ROOMS)


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_have_no_circle(package: str) -> None:
    arrows = {dotted(p): {n for n in imports(p) if n in KNOWN and n != dotted(p)} for p in modules(package)}
    assert not circle(arrows)


def test_imports_stand_at_the_top() -> None:
    """First-party imports inside functions only where LATE says what they save."""
    late: set[tuple[str, str]] = set()
    for path in (p for package in PACKAGES for p in modules(package)):
        file = str(path.relative_to(ROOT))

        def visit(node: ast.AST, function: str, file: str = file) -> None:
            for child in ast.iter_child_nodes(node):
                inner = function
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    inner = getattr(child, "name", "lambda")
                if function and any(name.split(".")[0] in PACKAGES for name in named(child)):
                    late.add((file, function))
                visit(child, inner)

        visit(ast.parse(path.read_text()), "")
    found = {key for key in late if not key[0].startswith(LAZY)}
    assert found == set(LATE)


@pytest.mark.parametrize("service", ADAPTERS)
def test_services_have_one_door(service: str) -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in modules(package)
        if any(name.split(".")[0] == service for name in imports(path))
    }
    assert found
    assert all(path.startswith(ADAPTERS[service]) for path in found), found


def test_interfaces_know_no_implementation() -> None:
    """Whoever chooses an executor, a search or a tracker stands above both."""
    for interface in ("executors/base", "search/base", "tracking/base"):
        home = interface.split("/")[0]
        path = ROOT / "orchestrator" / f"{interface}.py"
        assert not [name for name in imports(path) if name.startswith(f"orchestrator.{home}.")]


def test_files_stay_readable() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for package in [*PACKAGES, "tests"]
        for path in modules(package)
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_the_architecture_document_shows_this_table() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs" / "architecture.md").read_text().splitlines() if "`" in line]
    shown = {
        cells[1].strip("` "): {word.strip("` |") for word in cells[3].split(",")} - {"nothing"}
        for cells in rows
        if len(cells) == 4 and cells[0].removeprefix("| ").isdigit()
    }
    assert shown == {name: set(known) for name, known in ROOMS.items()}
