"""The sweep's root and its file: on writable storage that outlives Pods, the same for head and workers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.kubernetes.entrypoint_rules import options_of

STUDIES, STORAGE = "geosweep-studies", "GEOSWEEP_STORAGE"


def storage_findings(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The --root folder must be on a claim, in the head and in every worker, or in an object store.

    For an object store, the studies are in a database that the head has the address of.
    """
    spec = job.get("spec") or {}
    words = str(spec.get("entrypoint", "")).split()
    given = options_of(words)
    if not given.get("--root", [""])[-1]:
        if "geosweep" in words[:1]:
            yield (
                "KO209",
                "the entrypoint has no --root; the default is a folder in the Pod, lost with it: write --root /runs",
            )
        return
    root = given["--root"][-1]
    if ".." in root.split("/"):
        yield "KO209", f"--root {root} leads outside its folder; write it without .."
    cluster = spec.get("rayClusterSpec") or {}
    parts = [("headGroupSpec", cluster.get("headGroupSpec") or {})]
    parts += [(f"workerGroupSpecs[{i}]", g) for i, g in enumerate(cluster.get("workerGroupSpecs") or [])]
    claims: dict[str, str] = {}
    for where, part in parts:
        pod = (part.get("template") or {}).get("spec") or {}
        containers = pod.get("containers") or []
        path = f"{where}.template"
        if where == "headGroupSpec":
            yield from _file(words, pod, path)
            variables = [e for c in containers for e in c.get("env") or []]
            yield from _studies(variables, path)
            told = {e.get("name") for e in variables} | set(given)
            if "://" in root and not told & {STORAGE, "--storage"}:
                yield (
                    "KO209",
                    f"{path}: --root {root} cannot hold the studies, and {STORAGE} names no database for them",
                )
        if "://" in root:
            if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_-][A-Za-z0-9._-]*)+", root):
                yield "KO209", f"--root {root}: write s3://BUCKET/FOLDER"
            sources = {(e.get("secretRef") or {}).get("name") for c in containers for e in c.get("envFrom") or []}
            if root.startswith("s3://") and "geosweep-s3" not in sources and not _has_keys(containers):
                yield "KO209", f"{path}: --root {root} without Secret geosweep-s3 in envFrom; add it (optional: true)"
            continue
        found = _claim(root, pod, containers)
        if found is None:
            yield "KO209", f"{path}: --root {root} is not on a mounted claim; checkpoints there are lost with the Pod"
            continue
        claim, read_only = found
        hidden = [
            str(m.get("mountPath"))
            for c in containers[:1]
            for m in c.get("volumeMounts") or []
            if str(m.get("mountPath")).startswith(f"{root.rstrip('/')}/") and not m.get("readOnly")
        ]
        for inner in hidden:
            yield "KO209", f"{path}: {inner} is mounted inside the root and hides the sweeps' files there; move it"
        claims[where] = claim
        if read_only:
            yield "KO209", f"{path}: {root} is mounted read-only, but trials write there; remove readOnly"
    if len(set(claims.values())) > 1:
        said = ", ".join(f"{where} {claim}" for where, claim in claims.items())
        yield (
            "KO209",
            f"--root {root} is on different claims ({said}): the Pods would not see each other's files; use one",
        )


def _studies(variables: list[Any], path: str) -> Iterator[tuple[str, str]]:
    """The database of studies in a variable that no driver reads."""
    for entry in variables:
        told = entry.get("name") == STORAGE and entry.get("valueFrom") is None
        if told and not re.match(r"postgres(ql)?(\+\w+)?://", str(entry.get("value") or "")):
            yield "KO209", f"{path}: {STORAGE} is not a PostgreSQL database; take it from Secret {STUDIES}, key url"
        source = (entry.get("valueFrom") or {}).get("secretKeyRef") or {}
        if source.get("name") == STUDIES and entry.get("name") != STORAGE:
            yield (
                "KO209",
                f"{path}: {entry.get('name')} takes the database of Secret {STUDIES}, but the driver reads only "
                f"{STORAGE}; write that",
            )


def _has_keys(containers: list[Any]) -> bool:
    return any(str(e.get("name", "")).startswith("AWS_") for c in containers for e in c.get("env") or [])


def _claim(root: str, pod: Mapping[str, Any], containers: list[Any]) -> tuple[str, bool] | None:
    """The claim that holds a folder, with the mounted part of it, and whether it is read-only."""
    volumes = {
        v.get("name"): v["persistentVolumeClaim"] for v in pod.get("volumes") or [] if v.get("persistentVolumeClaim")
    }
    mounts = {str(m.get("mountPath")).rstrip("/"): m for c in containers[:1] for m in c.get("volumeMounts") or []}
    for place in sorted(mounts, key=len, reverse=True):  # the innermost mount is visible
        mount = mounts[place]
        if root == place or root.startswith(f"{place}/"):
            if mount.get("name") not in volumes:
                return None
            claim = volumes[mount["name"]]
            within = f"{claim.get('claimName')}/{mount.get('subPath', '')}".rstrip("/")
            if place != "/runs":
                within = f"{within} at {place}"
            return within, bool(mount.get("readOnly") or claim.get("readOnly"))
    return None


def _file(words: list[str], pod: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """The sweep file, or the archive that holds it, must come from a ConfigMap or an object store."""
    named = options_of(words).get("--code", [words[2] if len(words) > 2 else ""])[-1]
    if words[:2] != ["geosweep", "run"] or "://" in named:
        return
    if named and not named.startswith("/"):
        yield (
            "KO210",
            f"{path}: the entrypoint reads {named} relative to the folder where Ray starts it; give its mount path",
        )
        return
    folder, _, file = named.rpartition("/")
    volumes = {v.get("name"): v for v in pod.get("volumes") or []}
    for mount in [m for c in (pod.get("containers") or [])[:1] for m in c.get("volumeMounts") or []]:
        place = str(mount.get("mountPath")).rstrip("/")
        if named == place or named.startswith(f"{place}/"):
            source = volumes.get(mount.get("name"), {})
            items = (source.get("configMap") or {}).get("items")
            if items and file not in [i.get("path") for i in items]:
                yield "KO210", f"{path}: {named} is not among the items of volume {mount.get('name')}; add it"
            return
    yield (
        "KO210",
        f"{path}: the entrypoint reads {named}, but nothing is mounted there; mount its ConfigMap at {folder}",
    )


def map_findings(job: Mapping[str, Any], there: Mapping[Any, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """ConfigMaps that Pods mount but that are missing from a manifest with others; `there`: name -> ConfigMap."""
    words = str((job.get("spec") or {}).get("entrypoint", "")).split()
    for path, pod in _pods(job):
        for volume in pod.get("volumes") or []:
            name = (volume.get("configMap") or {}).get("name")
            if there and name and name not in there:
                yield (
                    "KO210",
                    f"{path}: volume {volume.get('name')} mounts ConfigMap {name}, which is not in this manifest; use "
                    f"one that is",
                )
        mounts = {
            m.get("mountPath"): m.get("name") for c in pod.get("containers") or [] for m in c.get("volumeMounts") or []
        }
        for word in words[2:]:
            folder, _, file = word.rpartition("/")
            if not folder or folder not in mounts:
                continue
            source: Mapping[str, Any] = next(
                (v for v in pod.get("volumes") or [] if v.get("name") == mounts[folder]), {}
            )
            held = there.get((source.get("configMap") or {}).get("name"))
            if held and file not in {**(held.get("data") or {}), **(held.get("binaryData") or {})}:
                yield (
                    "KO210",
                    f"{path}: ConfigMap {held['metadata']['name']} has no key {file}, which the entrypoint reads",
                )


def _pods(job: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    cluster = (job.get("spec") or {}).get("rayClusterSpec") or {}
    for where, part in [("headGroupSpec", cluster.get("headGroupSpec") or {})] + [
        (f"workerGroupSpecs[{i}]", g) for i, g in enumerate(cluster.get("workerGroupSpecs") or [])
    ]:
        yield f"{where}.template", (part.get("template") or {}).get("spec") or {}
