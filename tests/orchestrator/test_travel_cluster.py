"""A user's module on machines that never had it: a Ray cluster that knows nothing of the project."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from orchestrator import results
from orchestrator.executors.ray import RayExecutor
from orchestrator.protocol import seal
from orchestrator.storage.folder import find
from orchestrator.trial.workspace import NotShared
from tests.faults.services import ray_cluster
from tests.orchestrator.command import COMMAND, REPOSITORY, environment, fresh
from tests.orchestrator.sweep_files import sweep_text

TASK = """from pathlib import Path

from tests.tasks import Fit


class Own(Fit):
    def facts(self):
        return {"file": __file__, "table": Path(__file__).with_name("table.csv").read_text()}
"""


@pytest.mark.long  # what travels, and how it is unpacked, stands in test_travel.py
@pytest.mark.parametrize("machines", [1, 2])
def test_machines_train_a_module_that_they_never_had(machines: int, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "own_task.py").write_text(TASK)
    (project / "table.csv").write_text("1,2\n")
    document = yaml.safe_load(sweep_text(trials=2, confirm=2, method="random"))
    document |= {"task": {"name": "own_task:Own", "width": 4}, "cache": False}
    (project / "sweep.yaml").write_text(yaml.safe_dump(document))
    with ray_cluster(num_cpus=1) as (cluster, place):
        for _ in range(machines - 1):
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
    assert seal.verify(folder).intact
    facts = json.loads((folder.path / "resolved.json").read_text())["provenance"]
    assert len(facts["code"]) == 64


NEEDS = """from tests.tasks import Fit


class Needs(Fit):
    def facts(self):
        import tiny_for_trials

        return {"package": tiny_for_trials.__file__}
"""


def wheel(place: Path) -> str:
    """A requirement that is this wheel: a package that no index has."""
    place.mkdir()
    file, about = place / "tiny_for_trials-1-py3-none-any.whl", "tiny_for_trials-1.dist-info"
    parts = {
        "tiny_for_trials.py": "",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tiny-for-trials\nVersion: 1\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in {**parts, f"{about}/RECORD": "".join(f"{n},,\n" for n in parts)}.items():
            archive.writestr(name, text)
    return f"tiny-for-trials @ {file.as_uri()}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}"


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_packages_come_to_the_machines_that_train_or_the_start_says_why_not(tmp_path: Path) -> None:
    """Ray makes an environment of its own with pip; one that cannot be made ends the command before any trial."""
    (tmp_path / "needs.py").write_text(NEEDS)
    good = wheel(tmp_path / "wheels")
    document = yaml.safe_load(sweep_text(trials=2, confirm=2, method="random"))
    document |= {"task": {"name": "needs:Needs", "width": 4}, "cache": False}
    done = {}
    with ray_cluster(num_cpus=1) as (cluster, place):
        for name, line in (("gone", good.replace("-1-py3", "-2-py3")), ("there", good)):
            document |= {"name": name, "environment": {"requirements": [line]}}
            (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
            words = ["run", "sweep.yaml", "--root", str(tmp_path / "runs"), "--address", cluster.address]
            done[name] = subprocess.run(
                [*COMMAND, *words, "--no-tracking"],
                cwd=tmp_path,
                env=environment(GEOSWEEP_SCRATCH=str(tmp_path / "scratch"), PYTHONPATH=str(REPOSITORY)),
                capture_output=True,
                text=True,
                timeout=700,
                check=False,
            )
    assert done["gone"].returncode != 0
    assert "the cluster cannot set up the trials' environment" in done["gone"].stderr
    assert "tiny_for_trials-2-py3-none-any.whl" in done["gone"].stderr
    assert not list((tmp_path / "runs").glob("gone-*/trials/*"))
    assert done["there"].returncode == 0, done["there"].stderr
    ended = results.ended_trials(find(tmp_path / "runs", "there"))
    assert {t.result.state for t in ended} == {"COMPLETE"}
    assert all(t.result.facts["package"].startswith(place) for t in ended)
