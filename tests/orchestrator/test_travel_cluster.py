"""A user's module on machines that never had it: a Ray cluster of two raylets that know nothing of the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from orchestrator import results
from orchestrator.executors.ray import RayExecutor
from orchestrator.protocol import seal
from orchestrator.storage.folder import find
from orchestrator.trial.workspace import NotShared
from tests.faults.services import ray_cluster
from tests.orchestrator.command import environment, fresh
from tests.orchestrator.sweep_files import sweep_text

TASK = """from pathlib import Path

from tests.tasks import Fit


class Own(Fit):
    def facts(self):
        return {"file": __file__, "table": Path(__file__).with_name("table.csv").read_text()}
"""


@pytest.mark.slow
def test_a_second_machine_trains_a_module_that_it_never_had(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "own_task.py").write_text(TASK)
    (project / "table.csv").write_text("1,2\n")
    document = yaml.safe_load(sweep_text(trials=2, confirm=2, method="random"))
    document |= {"task": {"name": "own_task:Own", "width": 4}, "cache": False}
    (project / "sweep.yaml").write_text(yaml.safe_dump(document))
    with ray_cluster(num_cpus=1) as (cluster, place):
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        words = ["run", "sweep.yaml", "--root", str(tmp_path / "runs"), "--address", cluster.address, "--no-tracking"]
        done = fresh(*words, cwd=project, env=environment(GEOSWEEP_SCRATCH=str(tmp_path / "scratch")))
        assert done.returncode == 0, done.stdout + done.stderr
        with pytest.raises(NotShared, match=r"workers would miss /no/such.csv on [\d.]+; own_nothing on [\d.]+: list"):
            RayExecutor(address=cluster.address).look_for_parts(["own_nothing", "numpy"], ["/no/such.csv", place])
    assert "files of" in done.stderr
    folder = find(tmp_path / "runs", "@last")
    ended = results.ended_trials(folder)
    assert [t.result.state for t in ended] == ["COMPLETE"] * 8
    trained_with = {t.result.facts["file"] for t in ended}
    assert all(f.startswith(place) and "working_dir_files" in f for f in trained_with), trained_with
    assert {t.result.facts["table"] for t in ended} == {"1,2\n"}
    assert seal.verify(folder)["intact"]
    facts = json.loads((folder.path / "resolved.json").read_text())["provenance"]
    assert len(facts["code"]) == 64
