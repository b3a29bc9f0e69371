"""Check from a worker on each machine of a cluster whether it sees a sweep's folder, modules and files."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PATIENCE_S, MADE_S = 60.0, 900.0


def without_file(file: Path) -> list[str]:
    """Addresses of the machines that do not have `file`. A machine that does not answer in time is not included."""
    return sorted({machine for machine, seen in _everywhere(os.path.exists, str(file)) if not seen})


def missing_parts(modules: Sequence[str], files: Sequence[str]) -> dict[str, list[str]]:
    """Module or file -> addresses of the machines whose workers do not find it.

    Raises RuntimeEnvSetupError if the trials' environment cannot be set up.
    """
    found: dict[str, list[str]] = {}
    for machine, names in _everywhere(_not_here, list(modules), list(files)):
        for name in names:
            found.setdefault(name, []).append(machine)
    return found


def make_environment() -> None:
    """Return once every machine has installed what the trials need, or after MADE_S; slower ones continue meanwhile.

    Raises RuntimeEnvSetupError if it cannot be set up.
    """
    _everywhere(_nothing, patience_s=MADE_S)


def _nothing() -> None:
    """A worker that can run this has its environment."""


def _not_here(modules: list[str], files: list[str]) -> list[str]:
    return [name for name in modules if not _is_found(name)] + [name for name in files if not os.path.exists(name)]


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _everywhere(act: Callable[..., Any], *given: Any, patience_s: float = PATIENCE_S) -> list[tuple[str, Any]]:
    """(address, result of `act`) for every machine that answers in time."""
    look = ray.remote(num_cpus=0)(act)
    calls = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            calls[look.options(scheduling_strategy=there).remote(*given)] = node["NodeManagerAddress"]
    ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=patience_s)
    said = []
    for call in ready:
        try:
            said.append((calls[call], ray.get(call)))
        except RuntimeEnvSetupError:
            raise
        except RayError:  # a machine that disappeared meanwhile
            continue
    return said
