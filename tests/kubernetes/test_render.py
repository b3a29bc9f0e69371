"""`k8s render`: valid by the CRDs and by the operator's rules for any sweep, the same bytes twice, no secret, no local
root."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.definition import sweep_file
from orchestrator.kubernetes.fit import RenderError, fit
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.profiles import load
from orchestrator.kubernetes.render import job_name, render
from tests.kubernetes.manifests import CRDS, K8S, schema_errors
from tests.orchestrator.command import REPOSITORY, fresh
from tests.trainables.data import canonical
from tests.verbs import Called, called

EXAMPLES = K8S / "examples"
with_crds = pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay and Kueue are not beside this checkout")
GOLDEN = {
    "quickstart.rayjob.yaml": ("quickstart", {}),
    "quickstart.kind.rayjob.yaml": ("quickstart", {"profile": "kind"}),
    "gpu.rayjob.yaml": ("gpu", {}),
    "gpu.queue.rayjob.yaml": ("gpu", {"queue": "sweeps"}),
    "gpu.s3.rayjob.yaml": ("gpu", {"root": "s3://sweeps/runs"}),
    "gpu.elastic.rayjob.yaml": ("gpu", {"profile": "queue-elastic"}),
    "gpu.team-a.rayjob.yaml": ("gpu", {"profile": str(EXAMPLES / "team-a.profile.yaml")}),
    "gpu.team-b.rayjob.yaml": ("gpu", {"profile": str(EXAMPLES / "team-b.profile.yaml")}),
}
SWEEP = """schema_version: 1
name: {name}
task: {{name: digits, model: mlp}}
metric: {{name: loss/val, goal: minimize}}
arms: {{sgd: {{parameters: {{lr: {{values: [0.1, 0.2]}}}}}}}}
method: {{name: grid}}
budget: {{unit: grad_evals, per_trial: 40{clock}}}
seeds: {{tune: 1, confirm: {confirm}}}
resources: {{cpu: {cpu}, gpu: {gpu}, max_concurrent: {concurrent}}}
tracking: {{mlflow: {tracking}}}
"""


def sweep(**given: Any) -> str:
    defaults = {"name": "s", "clock": "", "confirm": 3, "cpu": 1, "gpu": 0, "concurrent": "auto", "tracking": "null"}
    return SWEEP.format(**{**defaults, **given})


def job_of(text: str) -> dict[str, Any]:
    return next(d for d in yaml.load_all(text, yaml.CSafeLoader) if d["kind"] == "RayJob")


@pytest.mark.parametrize("golden", GOLDEN)
def test_golden(golden: str) -> None:
    name, options = GOLDEN[golden]
    file = EXAMPLES / f"{name}.sweep.yaml"
    assert render(file.read_text(), str(file), **options) == (EXAMPLES / golden).read_text()


def test_the_quickstart_example_is_the_quickstart() -> None:
    bundled = (K8S.parent / "sweeps" / "quickstart.yaml").read_text()
    assert bundled.partition("\n")[2] == (EXAMPLES / "quickstart.sweep.yaml").read_text()  # but for its editor line


@pytest.mark.slow
@pytest.mark.parametrize("golden", GOLDEN)
@with_crds
def test_golden_obeys_the_crds(golden: str) -> None:
    assert not schema_errors(job_of((EXAMPLES / golden).read_text()))


NAMES = st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9_-]{0,38}[A-Za-z0-9])?\Z")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=NAMES,
    cpu=st.integers(1, 40),
    gpu=st.sampled_from([0, 0, 0.1, 0.25, 0.5, 1, 2, 8, 9]),
    concurrent=st.one_of(st.just("auto"), st.integers(1, 500)),
    clock=st.one_of(st.just(""), st.integers(1, 300).map(lambda h: f", wall_clock: {h}h")),
    confirm=st.integers(2, 40),
    profile=st.sampled_from(["gpu-cluster", "kind", "cpu-small"]),
    queue=st.sampled_from(["", "sweeps"]),
    root=st.sampled_from(["/runs", "/runs/team", "s3://bucket/runs"]),
)
def test_any_sweep_renders_to_a_valid_manifest(profile: str, queue: str, root: str, **given: Any) -> None:
    text = sweep(**{**given, "name": f"'{given['name']}'"})
    asked = sweep_file.loads(text)
    try:
        found = fit(asked, load(profile))
    except RenderError:
        wanted = asked.resources
        groups = [g for g in load(profile).groups.values() if (g.gpu > 0) == (wanted.gpu > 0)]
        too_big = all(wanted.cpu * wanted.processes > g.cpu or wanted.gpu > g.gpu for g in groups)
        assert too_big
        with pytest.raises(RenderError):
            render(text, "x", profile=profile, queue=queue)
        return
    out = render(text, "x", profile=profile, queue=queue, root=root)
    config, job = yaml.load_all(out, yaml.CSafeLoader)
    assert config["data"]["sweep.yaml"] == text
    assert not lint([config, job])
    assert job["metadata"]["name"] == job_name(asked)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    trials = found.trials_per_pod
    assert int(limits["cpu"]) == trials * asked.resources.cpu * asked.resources.processes
    assert int(limits.get("nvidia.com/gpu", 0)) >= trials * asked.resources.gpu - 1e-9
    concurrent = int(job["spec"]["entrypoint"].split("--max-concurrent ")[1].split()[0])
    assert (group["maxReplicas"] - 1) * trials < concurrent <= group["maxReplicas"] * trials
    assert concurrent <= (asked.resources.max_concurrent or concurrent)
    if CRDS.exists() and given["confirm"] % 25 == 2:
        assert not schema_errors(job)


@pytest.mark.slow
def test_the_same_bytes_in_another_process() -> None:
    file = EXAMPLES / "gpu.sweep.yaml"
    assert command(str(file), "--queue", "sweeps").stdout == (EXAMPLES / "gpu.queue.rayjob.yaml").read_text()


def test_the_name_follows_the_definition_and_the_config_map_the_text() -> None:
    one, other = render(sweep(), "x"), render(sweep(confirm=4), "x")
    commented = render(sweep() + "# a remark\n", "x")
    assert job_of(one)["metadata"]["name"] != job_of(other)["metadata"]["name"]
    assert job_of(one)["metadata"]["name"] == job_of(commented)["metadata"]["name"]
    assert yaml.safe_load_all(one).__next__()["metadata"] != yaml.safe_load_all(commented).__next__()["metadata"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "options", "word"),
    [
        ({"cpu": 40}, {}, "fits no worker group"),
        ({"gpu": 1}, {"profile": "kind"}, "fits no worker group"),
        ({"gpu": 9}, {}, "fits no worker group"),
        ({}, {"root": "runs"}, "local folder"),
        ({}, {"root": "/tmp/runs"}, "local folder"),
        ({}, {"root": "/runs/../tmp"}, "local folder"),
        ({}, {"root": "/runs/$(id)"}, "local folder"),
        ({}, {"root": "s3://bucket"}, "BUCKET/FOLDER"),
        ({}, {"root": "s3://bucket/../runs"}, "BUCKET/FOLDER"),
        ({}, {"root": "s3://bucket/$(id)"}, "BUCKET/FOLDER"),
        ({}, {"queue": "A b"}, "LocalQueue"),
        ({}, {"registry": "https://registry.example.com"}, "as in image names"),
        ({}, {"registry": "a b"}, "as in image names"),
        ({"tracking": "null}\n#" + 262_000 * "x" + "\ncontrols: [] #"}, {}, "as stored by kubectl apply"),
        ({"tracking": "'https://me:word@mlflow.example.com'"}, {}, "credentials"),
        ({"tracking": "'sqlite:///x.db'"}, {}, "server"),
    ],
)
def test_refused(given: dict[str, Any], options: dict[str, str], word: str) -> None:
    with pytest.raises(RenderError, match=word):
        render(sweep(**given), "x", **options)


def test_an_object_store_takes_the_place_of_the_volume() -> None:
    job = job_of(render(sweep(), "x", root="s3://bucket/runs"))
    assert "--root s3://bucket/runs " in job["spec"]["entrypoint"]
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"][0]["template"]["spec"]]
    for pod in pods:
        assert not [v for v in pod["volumes"] if "persistentVolumeClaim" in v]
        assert {"secretRef": {"name": "geosweep-s3", "optional": True}} in pod["containers"][0]["envFrom"]
    head = pods[0]["containers"][0]
    head["env"] = [e for e in head["env"] if e["name"] != "GEOSWEEP_STORAGE"]
    assert [f.code for f in lint([job])] == ["KO209"]


SHIPPED = sorted([*(K8S.parent / "sweeps").glob("*.yaml"), *(K8S.parent / "sweeps/own_data").glob("*.yaml")])


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of which only the descriptions are there."""
    place = tmp_path_factory.mktemp("data")
    canonical.raw_images(place / "cifar100", {"train": 300, "test": 9}, shape=(3, 32, 32))
    canonical.raw_images(place / "imagenet", {"train": 1200, "val": 9}, shape=(3, 16, 16))
    canonical.tokens(
        place / "openwebtext", {"train": np.arange(9000), "val": np.arange(3000)}, vocabulary=50257, block=1000
    )
    for shard in place.glob("*/*.parquet"):
        shard.unlink()
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    "path, root",
    [
        pytest.param(path, root, id=f"{path.stem}-{root}", marks=() if here else pytest.mark.long)
        for path in SHIPPED
        for root, here in (("/runs", True), ("s3://sweeps/runs", path.parent.name == "own_data" or path == SHIPPED[0]))
    ],
)
def test_every_shipped_sweep_renders(path: Path, root: str, described: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that reads a data set needs its description alone here; in the Pods the set lies on the claim."""
    monkeypatch.setenv("GEOSWEEP_DATA", str(described))
    job = job_of(render(path.read_text(), str(path), root=root))
    cluster = job["spec"]["rayClusterSpec"]
    for part in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = part["template"]["spec"]
        (box,) = pod["containers"]
        told = {e["name"]: e.get("value") for e in box["env"]}
        needs = path.parent.name == "own_data"
        assert told.get("GEOSWEEP_DATA") == ("/runs/data" if needs else None)
        mounted = [v for v in pod["volumes"] if v.get("persistentVolumeClaim") == {"claimName": "geosweep-runs"}]
        assert bool(mounted) == (needs or root == "/runs")
        assert ("/runs" in [m["mountPath"] for m in box["volumeMounts"]]) == bool(mounted)


@pytest.mark.slow
def test_data_of_this_machine_are_refused(tmp_path: Path) -> None:
    canonical.raw_images(tmp_path / "set", {"train": 300, "test": 9}, shape=(3, 32, 32))
    text = sweep().replace("name: digits, model: mlp", f"name: images, data: {tmp_path}/set, model: resnet18")
    with pytest.raises(RenderError, match="a folder on this machine; give a path relative to GEOSWEEP_DATA"):
        render(text, "x")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return fresh("k8s", "render", *arguments, cwd=REPOSITORY)


@pytest.mark.slow
def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def render_(*words: str) -> Called:
        return called(monkeypatch, capfd, "k8s", "render", *words)

    golden = EXAMPLES / "quickstart.rayjob.yaml"
    assert render_(str(EXAMPLES / "quickstart.sweep.yaml")).out == golden.read_text()
    assert render_("--check", str(golden)).code == 0
    edited = tmp_path / "edited.yaml"
    edited.write_text(golden.read_text().replace("submissionMode: K8sJobMode", "submissionMode: K8SJobMode"))
    refused = render_("--check", str(edited))
    assert (refused.code, refused.out) == (6, "")
    assert "KO102" in refused.err
    for words, code, says in (
        ([str(tmp_path)], 3, "is a folder"),
        (["--check", str(tmp_path)], 3, "is a folder"),
        ([], 2, "name either a sweep file"),
        ([str(K8S.parent / "sweeps/own_data/cifar100_sam.yaml")], 3, "dataset.json is enough"),
    ):
        refused = render_(*words)
        assert (refused.code, refused.out, says in refused.err) == (code, "", True), refused.err
    large = tmp_path / "large.yaml"
    large.write_text(sweep(gpu=1))
    refused = render_(str(large), "--profile", "kind")
    assert (refused.code, refused.out) == (6, "")
    assert "fits no worker group" in refused.err


@pytest.mark.parametrize("seeds, trials", [
    ("{tune: 1, confirm: 3}", 3 + 4),
    ("{studies: 3, tune: 1, confirm: 3}", 3 * (3 + 4)),
    ("{studies: 3, tune: 2, confirm: 3}", 3 * (4 + 8)),
])  # fmt: skip
def test_pods_for_every_study_in_its_larger_stage(seeds: str, trials: int) -> None:
    """Arm a has a grid of two, arm b one of four; each study of each is on its own."""
    grids = {"a": [1, 2], "b": [1, 2, 3, 4]}
    arms = str({name: {"optimizer": "sgd", "parameters": {"lr": {"values": found}}} for name, found in grids.items()})
    text = sweep().replace("{sgd: {parameters: {lr: {values: [0.1, 0.2]}}}}", arms)
    asked = sweep_file.loads(text.replace("{tune: 1, confirm: 3}", seeds))
    profile = load("gpu-cluster")
    cpu = next(group for group in profile.groups.values() if not group.gpu)
    assert cpu.max_pods > 36
    assert fit(asked, profile).max_pods == trials


@pytest.mark.parametrize("name", ["My_Sweep", "A", "UPPER-and_under", "a_b_c"])
def test_a_name_with_capitals_becomes_one_of_kubernetes(name: str) -> None:
    text = sweep(name=name)
    config, job = yaml.load_all(render(text, "x"), yaml.CSafeLoader)
    assert not lint([config, job])
    assert job["metadata"]["name"].startswith(name.lower().replace("_", "-"))
    assert job["metadata"]["labels"]["geosweep.io/sweep"].startswith(name)
