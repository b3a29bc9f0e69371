"""The Dockerfile's own install lines, run in clean virtual environments: what they install works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kubernetes.manifests import K8S
from tests.kubernetes.test_operations import locked

REPOSITORY = K8S.parent
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@dataclass
class Stage:
    """One FROM: its instructions in order, as (COPY, RUN, ENV or another word; the rest of the line)."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def stages() -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    text = re.sub(r"\\\n\s*", " ", (K8S / "docker" / "Dockerfile").read_text())
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(base)
        elif word.isupper() and found:
            found[name].steps.append((word, rest))
    return found


def build(stage: Stage, place: Path) -> Path:
    """Take the stage's COPY steps and the commands of RUN that install, or list what is installed; returns its bin.

    /opt/geosweep and /src lie under `place`; a stage that installs into the image's own Python gets an environment for
    that. Packages come from wherever this machine's pip is told to look.
    """
    inside = {"/opt/geosweep": str(place / "environment"), "/src": str(place / "src"), "${TORCH_INDEX}": "$TORCH_INDEX"}

    def here(text: str) -> str:
        for theirs, ours in inside.items():
            text = text.replace(theirs, ours)
        return text

    commands = [c.strip() for word, rest in stage.steps if word == "RUN" for c in rest.split("&&")]
    if not any("-m venv" in command for command in commands):
        subprocess.run([sys.executable, "-m", "venv", str(place / "environment")], check=True)
    environment = {
        "PATH": f"{place / 'environment' / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TORCH": "cpu",
        "TORCH_INDEX": "https://pypi.org/simple",  # a build argument; the wheels for CPUs are this machine's own
        **{k: v for k, v in os.environ.items() if k.startswith("PIP_") or k in ("HOME", "SSL_CERT_FILE")},
    }
    for word, rest in stage.steps:
        if word == "COPY" and "--from" not in rest:
            *sources, target = rest.split()
            copy(sources, Path(here(target)), folder=target.endswith("/"))
        elif word == "RUN":
            for command in [rest] if "pip inspect" in rest else (c.strip() for c in rest.split("&&")):
                if any(part in command for part in ("pip install", "-m venv", "pip inspect")):
                    done = subprocess.run(
                        ["sh", "-ec", here(command)], env=environment, cwd=place, capture_output=True, text=True
                    )
                    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return place / "environment" / "bin"


def copy(sources: list[str], destination: Path, *, folder: bool) -> None:
    if folder:
        destination.mkdir(parents=True, exist_ok=True)
    for source in sources:
        path = REPOSITORY / source
        if path.is_dir():
            shutil.copytree(path, destination, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(path, destination)


def test_the_head_and_the_workers(tmp_path: Path) -> None:
    found = stages()
    assert found["worker"].base == "head"
    assert [rest for word, rest in found["head"].steps if word == "COPY"] == [
        "--from=build /opt/geosweep /opt/geosweep"
    ]
    installed = build(found["build"], tmp_path)
    environment = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    doctor = run("geosweep", "doctor", "--json", "--root", str(tmp_path / "runs"))
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    document = json.loads(doctor.stdout)
    assert document["ok"]
    assert "ray 2.60.0" in document["checks"]["versions"]["says"]
    origin = run("python", "-c", "import orchestrator, ray; print(orchestrator.__file__)").stdout.strip()
    assert origin.startswith(str(installed.parent))
    for module in ("psycopg", "kubernetes", "s3fs", "ray.dashboard.dashboard", "ray.job_submission"):
        assert run("python", "-c", f"import {module}").returncode == 0, module
    listed = json.loads((installed.parent / "packages.json").read_text())["installed"]
    said = {re.sub(r"[-_.]+", "-", p["metadata"]["name"]).lower(): p["metadata"]["version"] for p in listed}
    for name in ("requirements", "torch-cpu"):
        for package, (version, _) in locked(name).items():
            assert said[re.sub(r"[-_.]+", "-", package)].partition("+")[0] == version, package
    assert "geosweep" in said
    pinned = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line
    )
    for package in ("ray", "optuna", "mlflow", "pyarrow", "kubernetes"):
        version = run("python", "-c", f"import importlib.metadata as m; print(m.version('{package}'))").stdout.strip()
        assert version == pinned[package]


def test_the_mlflow_server(tmp_path: Path) -> None:
    installed = build(stages()["mlflow"], tmp_path)
    environment = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_DISABLE_TELEMETRY": "true"}
    said = subprocess.run(
        ["mlflow", "--version"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "3.17.2" in said.stdout, said.stderr
    drivers = subprocess.run(
        ["python", "-c", "import boto3, psycopg, mlflow.server"], env=environment, cwd=tmp_path, timeout=120
    )
    assert drivers.returncode == 0
