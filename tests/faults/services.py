"""A cluster that can lose nodes, and what a killed worker was holding."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def ray_cluster(num_cpus: int) -> Iterator[tuple[Any, str]]:
    """(a cluster of one node, the folder whose name its processes carry); its files stay out of Ray's usual place."""
    with (
        tempfile.TemporaryDirectory(prefix="gs-cluster-", dir="/tmp", ignore_cleanup_errors=True) as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(place) / "ray").mkdir()
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setenv("RAY_TMPDIR", place)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": num_cpus, "include_dashboard": False})
        try:
            yield cluster, place
        finally:
            cluster.shutdown()


def trials_of(process: int) -> list[Path]:
    """Folders of the trials that a process holds locked."""
    found = []
    for descriptor in Path(f"/proc/{process}/fd").glob("*"):
        try:
            target = Path(os.readlink(descriptor))
        except OSError:
            continue
        if target.name == "lock" and target.parent.parent.name == "trials":
            found.append(target.parent)
    return found
