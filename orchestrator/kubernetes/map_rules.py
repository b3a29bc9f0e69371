"""ConfigMaps of a manifest: their shape, and whether they hold the sweep that the entrypoint runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError, nearest

FIELDS = ("apiVersion", "kind", "metadata", "data", "binaryData", "immutable")


def shape_findings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(code, message) of what the API server would refuse, or drop."""
    if config.get("apiVersion") != "v1":
        yield "KO210", f"apiVersion is {config.get('apiVersion')}; a ConfigMap's is v1"
    for key in config:
        if key not in FIELDS:
            yield "KO210", f"a ConfigMap has no field {key}{nearest(str(key), FIELDS)}"
    for kind in ("data", "binaryData"):
        for key, value in (config.get(kind) or {}).items():
            if not isinstance(value, str):
                yield "KO210", f"{kind}.{key}: {value!r} is not text; put it in quotes"


def sweep_findings(job: Mapping[str, Any], there: Mapping[Any, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Whether the sweep file that the entrypoint reads is one; a file in an archive is not looked at."""
    words = str((job.get("spec") or {}).get("entrypoint", "")).split()
    if words[:2] != ["geosweep", "run"] or len(words) < 3 or any(w.startswith("--code") for w in words):
        return
    folder, _, file = words[2].rpartition("/")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    names = {m.get("name") for m in head["containers"][0].get("volumeMounts") or [] if m.get("mountPath") == folder}
    for volume in head.get("volumes") or []:
        config = there.get((volume.get("configMap") or {}).get("name"))
        text = ((config or {}).get("data") or {}).get(file)
        if volume.get("name") in names and isinstance(text, str):
            try:
                sweep_file.loads(text, file)
            except SpecError as error:
                yield "KO210", f"ConfigMap {(config or {})['metadata']['name']}: geosweep run would refuse it: {error}"
