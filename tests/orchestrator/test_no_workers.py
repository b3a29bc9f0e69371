"""A Ray cluster without room for a single trial, and then with some: time without workers is not charged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import launch, results
from orchestrator.definition import sweep_file
from orchestrator.storage.errors import NoWorkers
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.sweep_files import sweep_text

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def cluster() -> Iterator[object]:
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_sweep_without_workers_gives_up_waiting_and_goes_on_later(cluster: object, tmp_path: Path) -> None:
    waiting = "resources: {cpu: 2, max_concurrent: 1, wait: 12s}\n"
    text = sweep_text(trials=2, confirm=2, wall_clock=", wall_clock: 8s", extra=waiting)
    spec = sweep_file.loads(text, "sweep.yaml")
    options = launch.Options(address=cluster.address, tracking=False)  # type: ignore[attr-defined]
    said: list[str] = []

    def run() -> SweepFolder:
        return launch.launch(spec, text, tmp_path, options, say=lambda line, *, warns=False: said.append(line)).folder

    with pytest.raises(
        NoWorkers, match=r"no worker was available for 0:12 \(resources.wait.* 8 trials are waiting, each for 2 CPU"
    ):
        run()
    (folder,) = (SweepFolder(tmp_path, path.parent.name) for path in tmp_path.glob("*/resolved.json"))
    assert folder.seconds() < 1.0
    cluster.add_node(num_cpus=2)  # type: ignore[attr-defined]
    assert results.status(run()).state == "done"
    assert results.status(folder).total.done == 8
    assert folder.seconds() < 8.0
