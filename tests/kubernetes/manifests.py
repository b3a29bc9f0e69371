"""Manifests as the tests read them: overlays built by kubectl, and the strict schema that a CRD stands for."""

from __future__ import annotations

import functools
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("kind", "gpu-cluster", "with-kueue", "guarded", "mlflow-auth")
TEAMS = ("team-a", "team-b")
CRDS = next(
    (p for p in (r / "shared" / "k8s" / "crds" for r in ROOT.parents[:2]) if p.exists()),
    ROOT.parent / "shared/k8s/crds",
)
PLACES = {
    "RayJob": "ray.io_rayjobs.yaml",
    "ClusterQueue": "kueue/kueue.x-k8s.io_clusterqueues.yaml",
    "LocalQueue": "kueue/kueue.x-k8s.io_localqueues.yaml",
    "ResourceFlavor": "kueue/kueue.x-k8s.io_resourceflavors.yaml",
}


@functools.cache
def overlay(name: str) -> tuple[dict[str, Any], ...]:
    """The overlay's documents, built by kubectl."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(K8S / "overlays" / name)], check=True, capture_output=True, text=True, timeout=60
    )
    return tuple(yaml.load_all(built.stdout, yaml.CSafeLoader))


@functools.cache
def open_schema(kind: str, version: str) -> dict[str, Any]:
    """The CRD's OpenAPI schema of that version."""
    crd = yaml.load((CRDS / PLACES[kind]).read_text(), Loader=yaml.CSafeLoader)
    (found,) = (v for v in crd["spec"]["versions"] if v["name"] == version)
    return found["schema"]["openAPIV3Schema"]


@functools.cache
def validator(kind: str, version: str) -> Any:
    """A validator of the strict schema."""
    import jsonschema

    return jsonschema.Draft202012Validator(_strict(open_schema(kind, version), top=True))


def _strict(schema: dict[str, Any], top: bool = False) -> dict[str, Any]:
    """JSON Schema of a structural schema, as the API server reads it with strict field validation."""
    keep = ("enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
    found: dict[str, Any] = {k: schema[k] for k in keep if k in schema}
    for word in ("allOf", "anyOf", "oneOf"):
        if word in schema and not schema.get("x-kubernetes-int-or-string"):
            found[word] = [_strict(s) | {"additionalProperties": True} for s in schema[word]]
    if schema.get("x-kubernetes-int-or-string"):
        return found | {"type": ["integer", "string"]}
    if "type" in schema:
        found["type"] = [schema["type"], "null"] if schema.get("nullable") else schema["type"]
    if schema.get("format") == "int32":
        found |= {"minimum": found.get("minimum", -(2**31)), "maximum": found.get("maximum", 2**31 - 1)}
    if "items" in schema:
        found["items"] = _strict(schema["items"])
    inner = schema.get("properties", {})
    if inner:
        found["properties"] = {k: _strict(v) for k, v in inner.items()}
        if top:
            found["properties"]["metadata"] = {"type": "object"}
    if "required" in schema:
        found["required"] = [k for k in schema["required"] if "default" not in inner.get(k, {})]
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        found["additionalProperties"] = _strict(extra)
    elif inner and extra is None and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def vendored() -> dict[str, Any]:
    """The strict schema of a RayJob as geosweep ships it: parts that stand in it twice or more are written once."""
    whole = _strict(open_schema("RayJob", "v1"), top=True)
    counts: Counter[str] = Counter()

    def count(part: Any) -> None:
        if isinstance(part, dict):
            counts[json.dumps(part, sort_keys=True)] += 1
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            count(inner)

    count(whole)
    names: dict[str, str] = {}
    kept: dict[str, Any] = {}

    def short(part: Any, top: bool = False) -> Any:
        if isinstance(part, list):
            return [short(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        text = json.dumps(part, sort_keys=True)
        if top or counts[text] < 2 or len(text) < 120 or "type" not in part:
            return {key: short(inner) for key, inner in part.items()}
        if text not in names:
            names[text] = f"p{len(names)}"
            kept[names[text]] = short(part, top=True)
        return {"$ref": f"#/$defs/{names[text]}"}

    found = short(whole, top=True)
    note = "RayJob, ray.io/v1, of KubeRay 1.7.0 (Apache-2.0): types and names of its CRD, without descriptions"
    return {"$comment": note, **found, "$defs": kept}


def schema_errors(document: dict[str, Any]) -> list[str]:
    """What the API server would refuse by the schema and by the CEL rules of the CRD."""
    version = document["apiVersion"].split("/")[1]
    kind = document["kind"]
    found = [f"{e.json_path}: {e.message[:200]}" for e in validator(kind, version).iter_errors(document)]
    return found or list(_cel(open_schema(kind, version), document, "$"))


def _cel(schema: dict[str, Any], value: Any, path: str) -> Any:
    """Rules about a transition (oldSelf) are left out: there is no earlier object."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for key, part in value.items():
            inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            if isinstance(inner, dict):
                yield from _cel(inner, part, f"{path}.{key}")
    elif isinstance(value, list) and "items" in schema:
        for number, part in enumerate(value):
            yield from _cel(schema["items"], part, f"{path}[{number}]")


@functools.cache
def _program(rule: str) -> Any:
    import celpy

    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _holds(rule: str, value: Any) -> bool:
    import celpy

    return bool(_program(rule).evaluate({"self": celpy.json_to_cel(value)}))


if __name__ == "__main__":
    target = ROOT / "orchestrator" / "kubernetes" / "schemas" / "rayjob-1.7.0.json"
    target.write_text(json.dumps(vendored(), separators=(",", ":")) + "\n")


def right_of(method: str, path: str) -> tuple[str, str]:
    """(resource, verb) of a request, in the words of RBAC."""
    kind, *names = path.split("/namespaces/sweeps/")[1].split("/")
    verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(method, "get" if names else "list")
    return (f"{kind}/log" if path.endswith("/log") else kind, verb)


def rights() -> set[tuple[str, str]]:
    """What k8s/base grants to the account that starts sweeps."""
    documents = yaml.safe_load_all((K8S / "base" / "team" / "rbac.yaml").read_text())
    (role,) = (d for d in documents if d["kind"] == "Role" and d["metadata"]["name"] == "sweep-submitter")
    return {(kind, verb) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
