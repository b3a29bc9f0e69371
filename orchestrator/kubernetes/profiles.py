"""Profiles: what a cluster offers, bundled or a team's own; errors name file and line."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.definition.errors import KeyedError, SpecError, nearest, read
from orchestrator.definition.location import Where
from orchestrator.definition.messages import explained
from orchestrator.definition.yaml12 import Document, YamlError, parse
from orchestrator.kubernetes.profile_model import ProfileModel

NAMESPACE = "sweeps"
"""Used if neither flag, profile nor kubeconfig names one."""
ROOT = "/runs"
"""Where the claim of the profile is mounted in the head and in every worker."""
DATA = f"{ROOT}/data"
"""Where data sets are on that volume: GEOSWEEP_DATA of Pods with a task that reads one."""
FOLDER = Path(__file__).parent / "bundled"


def names() -> list[str]:
    """The bundled profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def tracking(namespace: str) -> str:
    """The MLflow server of `k8s/base/mlflow`."""
    return f"http://mlflow.{namespace}.svc.cluster.local:5000"


def load(given: str) -> ProfileModel:
    """The bundled profile of that name, or the one in a file: a name with a dot or a slash is a path.

    Raises SpecError with the location of the error.
    """
    if "/" not in given and "." not in given:
        if given not in names():
            raise KeyedError(
                f"--profile {given}", (), f"no bundled profile{nearest(given, names())}; or name a file, ./{given}.yaml"
            )
        return _bundled(given)
    return _read(Path(given))


@cache
def _bundled(name: str) -> ProfileModel:
    return _read(FOLDER / f"{name}.yaml")


def _read(file: Path) -> ProfileModel:
    where, merged = _merged(file, ())
    try:
        found = ProfileModel.model_validate(merged)
    except ValidationError as error:
        raise explained(error, Document(merged, where.document.places), where, ProfileModel) from None
    for path, message in found.problems():
        raise where.error(path, message)
    return found


def _merged(file: Path, within: tuple[str, ...]) -> tuple[Where, dict[str, Any]]:
    """The content of the file, merged over the profile that it extends."""
    try:
        document = parse(read(file))
    except YamlError as error:
        raise SpecError(str(file), error.line, error.column, error.path, str(error)) from None
    where, own = Where(str(file), document), document.value
    if not isinstance(own, dict):
        raise where.error((), "is not a profile: it must have keys such as head and groups, or extends: gpu-cluster")
    base = own.get("extends")
    if base is None:
        return where, own
    if base not in names():
        raise where.error(("extends",), f"{base!r} is not a bundled profile{nearest(str(base), names())}")
    if base in within:
        raise where.error(("extends",), f"{base} extends itself")
    return where, _over(_merged(FOLDER / f"{base}.yaml", (*within, base))[1], own)


def _over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; anything else is replaced; null removes a key of a mapping."""
    found = dict(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = _over(found[key], value)
        else:
            found[key] = value
    return {key: value for key, value in found.items() if value is not None}


def of_context(context: str = "") -> str:
    """The namespace of that context in the user's kubeconfig, or of the current one; empty if it has none.

    Read as kubectl does: KUBECONFIG may name several files; the first one that sets a value wins.
    """
    paths = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    held = [found for path in paths.split(os.pathsep) if path and (found := _kubeconfig(Path(path)))]
    chosen = context or next((str(f["current-context"]) for f in held if f.get("current-context")), "")
    for found in held:
        for entry in found.get("contexts") or []:
            if isinstance(entry, dict) and entry.get("name") == chosen:
                return str((entry.get("context") or {}).get("namespace") or "")
    return ""


def _kubeconfig(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
