"""What surrounds the code says what is true: hooks and workflow call tools that exist, versions agree."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.definition import schema
from tests.orchestrator import test_searches

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def exists(command: str) -> bool:
    """Whether a line names a target of the Makefile, or files of the repository or tools of its environment."""
    tool, *words = command.split()
    if tool == "make":
        return set(words) <= TARGETS
    declared = {re.split(r"\W", name)[0] for name in PROJECT["optional-dependencies"]["dev"]}
    known = (
        tool.removeprefix(".venv/bin/") in {*declared, "python"}
        if tool.startswith(".venv/")
        else (ROOT / tool).exists()
    )
    return known and all((ROOT / word).exists() for word in words if word.endswith(".py"))


def test_hooks_call_what_is_there_and_need_no_network() -> None:
    repos = read(".pre-commit-config.yaml")["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(exists(hook["entry"]) for hook in hooks)
    assert not exists("make nothing")
    assert not exists(".venv/bin/flake8 x.py")


def test_the_workflow_calls_the_same_commands_as_people() -> None:
    jobs = read(".github/workflows/ci.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert set(commands) == {"make check", ".ci/run", "make faults"}
    assert all(exists(command) for command in commands)
    assert all(job["timeout-minutes"] for job in jobs.values())
    low, high = re.findall(r"3\.\d+", PROJECT["requires-python"])
    tested = [python for job in jobs.values() for python in job.get("strategy", {}).get("matrix", {}).get("python", [])]
    assert tested[0] == low
    assert int(tested[-1].split(".")[1]) == int(high.split(".")[1]) - 1


def test_the_citation_is_of_this_version() -> None:
    cited = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(cited), "what the format 1.2.0 requires"
    assert cited["cff-version"] == "1.2.0"
    assert (str(cited["version"]), cited["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")), ids=lambda p: p.stem)
def test_issue_templates_have_their_heads(path: Path) -> None:
    _, head, body = path.read_text().split("---", 2)
    assert {"name", "about"} <= set(yaml.safe_load(head))
    assert body.strip()


def methods(path: Path) -> dict[str, set[str]]:
    """Class -> its public methods, in a module."""
    return {
        node.name: {
            f.name for f in node.body if isinstance(f, ast.FunctionDef) and f.name[0] != "_" and not f.decorator_list
        }
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize("room, interface, suite", [
    ("executors", "Executor", "test_executors"), ("tracking", "Tracker", "test_trackers"),
])  # fmt: skip
def test_every_implementation_runs_the_contract_of_its_interface(room: str, interface: str, suite: str) -> None:
    folder = ROOT / "orchestrator" / room
    wanted = methods(folder / "base.py")[interface]
    found = {
        name
        for path in folder.glob("*.py")
        for name, own in methods(path).items()
        if own >= wanted and name != interface
    }
    assert len(found) == 2
    listed = (ROOT / "tests" / "orchestrator" / f"{suite}.py").read_text()
    assert not [name for name in found if name not in listed]


def test_every_search_method_runs_the_contract_of_a_study() -> None:
    assert set(test_searches.METHODS) == set(schema.METHODS)
