"""Names and values of fields by the schema of KubeRay's CRD, which includes the Pods', and by lists of allowed words.

The schema is bundled (`schemas/`), so the check needs no cluster. It does not list allowed words for Pods or uniqueness
constraints: those are below.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.definition.errors import nearest
from orchestrator.kubernetes.profile_model import LABEL_KEY, LABEL_VALUE
from orchestrator.kubernetes.secret_shapes import shape_of

SCHEMA = Path(__file__).parent / "schemas" / "rayjob-1.7.0.json"
WORDS = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "protocol": ("TCP", "UDP", "SCTP"),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "mountPropagation": ("None", "HostToContainer", "Bidirectional"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "sessionAffinity": ("ClientIP", "None"),
    "ipFamilyPolicy": ("SingleStack", "PreferDualStack", "RequireDualStack"),
}
"""Field -> allowed words (kubernetes/pkg/apis/core, validation)."""
OPERATORS = {
    "tolerations": ("Exists", "Equal"),
    "matchExpressions": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    "matchFields": ("In", "NotIn"),
}
KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "hostAliases": "ip",
}
"""List -> what must be unique in its entries."""


@functools.cache
def _validator() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def schema_findings(job: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(code, field, message) for every field that the API server would reject."""
    for error in sorted(_validator().iter_errors(job), key=lambda e: [str(p) for p in e.absolute_path]):
        yield from _said(error)
    spec = job.get("spec")
    if isinstance(spec, dict):
        yield from _words(spec, "spec")


def _said(error: Any) -> Iterator[tuple[str, str, str]]:
    path = ".".join(str(part) for part in error.absolute_path) or "manifest"
    value = error.instance
    shown = "(a secret)" if isinstance(value, str) and shape_of(value) else repr(value)
    shown = shown if len(shown) < 80 else f"{shown[:77]}..."
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in sorted(set(value) - set(known)):
            way = nearest(str(key), known) if len(known) < 40 or _close(str(key), known) else "; leave it out"
            yield "KO115", path, f"has no field {key}{way}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in value]
        yield "KO115", path, f"is missing {', '.join(missing)}; add it"
    elif error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        quoted = f"; write '{value}' in quotes" if wanted == "string" and isinstance(value, int | float) else ""
        yield "KO116", path, f"{shown} is not of type {wanted}{quoted}"
    elif error.validator == "enum":
        yield "KO116", path, f"{shown} is not one of {', '.join(map(str, error.validator_value))}"
    elif error.validator == "pattern":
        yield "KO116", path, f"{shown} is not a quantity or name of the form {error.validator_value[:60]}"
    elif error.validator in ("minimum", "maximum"):
        yield "KO116", path, f"{shown} is out of range ({error.validator} {error.validator_value})"
    else:
        yield "KO116", path, error.message[:200]


def _close(word: str, known: Mapping[str, Any]) -> bool:
    return "did you mean" in nearest(word, known)


def _words(value: Any, path: str, within: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(value, dict):
        for key, part in value.items():
            here = f"{path}.{key}"
            allowed = WORDS.get(key) or (OPERATORS.get(within) if key == "operator" else None)
            if (key == "effect" and part == "") or within == "resizePolicy":
                allowed = None
            if allowed and isinstance(part, str) and part not in allowed:
                yield "KO117", here, f"{part!r} is not one of {', '.join(allowed)}{_nearly(part, allowed)}"
            if key in KEYS and isinstance(part, list):
                yield from _twice(part, KEYS[key], here)
            yield from _words(part, here, key)
        if within == "tolerations":
            yield from _toleration(value, path)
        yield from _chosen(value, path, within)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _words(part, f"{path}.{number}", within)


def _nearly(word: str, allowed: tuple[str, ...]) -> str:
    found = nearest(word, allowed)
    return found if "did you mean" in found else ""


def _twice(entries: list[Any], key: str, path: str) -> Iterator[tuple[str, str, str]]:
    seen: set[Any] = set()
    for entry in entries:
        name = entry.get(key) if isinstance(entry, dict) else None
        name = name.rstrip("/") if isinstance(name, str) and key == "mountPath" else name
        if isinstance(name, str) and name in seen:
            yield "KO117", path, f"{key} {name!r} appears twice; the second would be rejected or hide the first"
        seen.add(str(name))


def _toleration(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    if value.get("operator", "Equal") == "Exists" and value.get("value"):
        yield "KO117", path, "operator Exists takes no value; leave value out, or write operator: Equal"
    if not value.get("key") and value.get("operator") != "Exists":
        yield "KO117", path, "without a key the operator must be Exists"
    for part, pattern in (("key", LABEL_KEY), ("value", LABEL_VALUE)):
        if value.get(part) and not re.fullmatch(pattern, str(value[part])):
            yield "KO117", path, f"{part} {value[part]!r} cannot occur in a taint"
    if "tolerationSeconds" in value and value.get("effect") != "NoExecute":
        yield "KO117", path, "tolerationSeconds applies only to effect NoExecute"


def _chosen(value: Mapping[str, Any], path: str, within: str) -> Iterator[tuple[str, str, str]]:
    """Where Pods may go: affinities, selectors, spread, and name servers."""
    if within in ("matchExpressions", "matchFields"):
        wants = value.get("operator") in ("In", "NotIn", "Gt", "Lt")
        if wants != bool(value.get("values")):
            yield "KO117", path, f"operator {value.get('operator')} takes {'values' if wants else 'no values'}"
        elif value.get("operator") in ("Gt", "Lt") and not re.fullmatch(r"-?\d+", "/".join(map(str, value["values"]))):
            yield "KO117", path, f"operator {value['operator']} takes one whole number"
        if within == "matchExpressions" and not re.fullmatch(LABEL_KEY, str(value.get("key"))):
            yield "KO117", path, f"key {value.get('key')!r} is not a valid label key"
    if within == "nodeSelectorTerms" and not value.get("matchExpressions") and not value.get("matchFields"):
        yield "KO117", path, "an empty term matches no node; leave it out"
    for key, text in (value.get("matchLabels") or {}).items() if isinstance(value.get("matchLabels"), dict) else ():
        if not re.fullmatch(LABEL_KEY, str(key)) or not re.fullmatch(LABEL_VALUE, str(text)):
            yield "KO117", f"{path}.matchLabels", f"{key}: {text} is not a valid label"
    weight = value.get("weight", 1) if within == "preferredDuringSchedulingIgnoredDuringExecution" else 1
    if isinstance(weight, int) and not 1 <= weight <= 100:
        yield "KO117", path, f"weight {weight} is not in 1 to 100"
    if value.get("nodeSelectorTerms") == []:
        yield "KO117", path, "nodeSelectorTerms is empty, so no node matches; leave it out"
    if "topologyKey" in value and not value["topologyKey"]:
        yield "KO117", path, "topologyKey is empty; write a node label, such as kubernetes.io/hostname"
    if isinstance(value.get("maxSkew"), int) and value["maxSkew"] < 1:
        yield "KO117", path, f"maxSkew {value['maxSkew']}; write 1 or more"
    servers = value.get("dnsConfig") if isinstance(value.get("dnsConfig"), dict) else {}
    if value.get("dnsPolicy") == "None" and not (servers or {}).get("nameservers"):
        yield (
            "KO117",
            path,
            "dnsPolicy None needs dnsConfig.nameservers, otherwise workers never find the head; leave it out",
        )
    for key, text in (value.get("nodeSelector") or {}).items() if isinstance(value.get("nodeSelector"), dict) else ():
        if not re.fullmatch(LABEL_KEY, str(key)) or not re.fullmatch(LABEL_VALUE, str(text)):
            yield "KO117", f"{path}.nodeSelector", f"{key}: {text} cannot be a node label"
        if str(key).endswith("kubernetes.io/os") and text != "linux":
            yield "KO117", f"{path}.nodeSelector", f"{key}: {text}, but the images are for linux"
