"""The files that a script's result depends on, found from its text: itself, its imports and files named in it.

Starting from the script, every import statement is followed to modules in the script's own folder; strings that name a
file there (a configuration, code that is executed) or a folder of configurations count too, as do files named on the
command line. Installed packages are covered by their versions.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.definition.program_keys import filled
from orchestrator.trial import source
from orchestrator.trial.job import Job

OURS = Path(__file__).parents[3] / "geosweep"
NAMED = (".py", ".yaml", ".yml", ".json", ".toml", ".ini", ".cfg", ".sh")
"""Suffixes of code and configuration files; data files are ignored."""
LARGEST, MOST = 1_000_000, 500


def files(folder: Path, task: Mapping[str, Any]) -> dict[str, Path]:
    """Name relative to the script's folder -> file."""
    program = folder / task["program"]
    base = program.parent
    named = [base / word for word in task["command"] or () if "$" not in word and "/" not in word.strip("./")[:1]]
    waiting, found = [program, *(path for path in named if path.suffix in NAMED)], dict[str, Path]()
    while waiting and len(found) < MOST:
        path = waiting.pop()
        name = _name(path, base)
        if name in found or not path.is_file() or (path != program and path.stat().st_size > LARGEST):
            continue
        found[name] = path
        if path.suffix == ".py":
            waiting += _beside(path, base)
    return found


def digests(folder: Path, task: Mapping[str, Any]) -> dict[str, str]:
    """Name -> sha256 of the files as they are now, and of what a script may import from this project."""
    found = {f"program/{name}": path for name, path in files(folder, task).items()}
    found |= {f"geosweep/{path.name}": path for path in OURS.glob("_*.py")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(found.items())}


def digest_of_job(job: Job) -> str:
    """The digest of everything that a script's trial depends on."""
    ours = source.digests((job.task, job.optimizer))
    return source.combined({**ours, **digests(Path(job.program["folder"]), filled(job.task_parameters))})


def _name(path: Path, base: Path) -> str:
    try:
        return path.resolve().relative_to(base.resolve()).as_posix()
    except ValueError:
        return path.name


def _beside(path: Path, base: Path) -> Iterator[Path]:
    """Files in the script's folder that a Python file imports or names."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, base)
        elif isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if node.level else base
            if node.module:
                yield from _module(node.module, start)
            for alias in node.names:
                yield from _module(f"{node.module}.{alias.name}" if node.module else alias.name, start)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _text(node.value, base)


def _module(name: str, start: Path) -> Iterator[Path]:
    """The file of a module, and those of its parent packages."""
    place = start
    for part in name.split("."):
        place = place / part
        yield from (path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file())


def _text(value: str, base: Path) -> Iterator[Path]:
    """A file, or a folder of configurations, named by a string."""
    if not value or len(value) > 200 or "\n" in value or "\0" in value or value.startswith(("/", ".", "~")):
        return
    path = base / value
    try:
        if path.suffix in NAMED and path.is_file():
            yield path
        elif path != base and path.is_dir():
            yield from (inner for inner in sorted(path.rglob("*"))[:MOST] if inner.suffix in (".yaml", ".yml"))
    except OSError:
        return
