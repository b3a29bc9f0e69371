"""What a sweep does not wait for before its first trial."""

from __future__ import annotations

import subprocess
import sys

import pytest


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
