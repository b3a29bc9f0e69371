"""Whether the machines of a cluster see a sweep's folder: each is asked, for a mounted path looks like any other."""

from __future__ import annotations

import os
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PATIENCE_S = 60.0


def blind(file: Path) -> list[str]:
    """Addresses of the machines on which `file` is not there. One that does not answer in time is not among them."""
    look = ray.remote(num_cpus=0)(os.path.exists)
    calls = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            calls[look.options(scheduling_strategy=there).remote(str(file))] = node["NodeManagerAddress"]
    ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=PATIENCE_S)
    return sorted({calls[call] for call in ready if not _seen(call)})


def _seen(call: ray.ObjectRef[bool]) -> bool:
    try:
        return bool(ray.get(call))
    except RayError:  # a machine that went away meanwhile
        return True
