"""What a sweep does not wait for before its first trial, and a command neither at its start nor at its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.app import VERBS, Exit, add_verbs, app


@pytest.mark.slow
def test_a_start_imports_only_what_it_needs() -> None:
    code = """
import sys
import orchestrator.display, orchestrator.launch, orchestrator.cli.run, orchestrator.executors.ray
print([m for m in ("scipy.stats", "matplotlib", "sklearn", "ray.tune", "mlflow") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.slow
def test_verbs_that_only_read_do_without_torch() -> None:
    code = """
import sys
import orchestrator.results, orchestrator.display, orchestrator.compare.answer
import orchestrator.cli.sweeps, orchestrator.cli.logs
print([m for m in ("torch", "mlflow", "optuna", "ray") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.slow
def test_the_list_of_verbs_does_without_numpy() -> None:
    code = """
import sys
from orchestrator.cli import main
sys.argv = ["geosweep", "--help"]
try:
    main()
finally:
    print([m for m in ("numpy", "pandas", "torch", "mlflow", "optuna", "ray") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_each_verb_comes_from_the_module_that_is_said_to_have_it() -> None:
    add_verbs()
    found = {str(c.name or c.callback.__name__): c.callback.__module__ for c in app.registered_commands if c.callback}
    for group in app.registered_groups:
        inner = [c.callback.__module__ for c in group.typer_instance.registered_commands if c.callback]
        found[str(group.name)] = inner[0]
    assert found == {verb: f"orchestrator.cli.{group}" for group, verbs in VERBS.items() for verb in verbs}


ENDING = """
import atexit, builtins, sys
from orchestrator.cli import command
plain = builtins.__import__
def importing(name, *rest):
    if name == "typer":
        builtins.__import__ = plain
        atexit.register(print, "while it ran")
    return plain(name, *rest)
builtins.__import__ = importing
if sys.argv.pop() == "before":
    atexit.register(print, "before")
command()
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_a_command_ends_with_its_code_after_what_is_to_run_at_exit(before: bool, tmp_path: Path) -> None:
    words = ["status", "--root", str(tmp_path / "none"), "before" if before else ""]
    done = subprocess.run([sys.executable, "-c", ENDING, *words], capture_output=True, text=True)
    assert done.returncode == Exit.NOT_FOUND
    assert "no sweep under" in done.stderr
    assert done.stdout.splitlines() == ["while it ran", *(["before"] if before else [])]
