"""Rules that the API server does not know: of KubeRay (1.7), of Kueue and of our own security.

A RayJob that breaks one of KO1xx is accepted by the API server and then refused by the operator, with status
ValidationFailed and no Pod. Source: ray-operator/controllers/ray/utils/validation.go at v1.7.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.kubernetes.pod_rules import map_findings, pod_findings, secret_findings
from orchestrator.kubernetes.profile_model import ProfileModel
from orchestrator.kubernetes.schema_rules import schema_findings

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
NAME_LIMITS = {"RayJob": 47, "RayCluster": 53, "RayCronJob": 36}
GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
Rule = Callable[[Mapping[str, Any]], Iterator[str]]
RULES: dict[str, Rule] = {}


@dataclass(frozen=True)
class Finding:
    """A broken rule."""

    code: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.where}: {self.message}"


def lint(documents: list[Any], profile: ProfileModel | None = None) -> list[Finding]:
    """All broken rules of all RayJobs among the documents, in order; secrets in any document."""
    found: list[Finding] = []
    for document in documents:
        found += [Finding(code, "manifest", message) for code, message in secret_findings(document)]
    jobs = [d for d in documents if isinstance(d, dict) and d.get("kind") == "RayJob"]
    if not jobs:
        found.append(Finding("KO100", "manifest", "holds no RayJob"))
    configs = {
        _at(d, "metadata").get("name") for d in documents if isinstance(d, dict) and d.get("kind") == "ConfigMap"
    }
    for job in jobs:
        where = f"RayJob/{_at(job, 'metadata').get('name', '?')}"
        if job.get("apiVersion") != "ray.io/v1":
            found.append(Finding("KO100", where, f"apiVersion is {job.get('apiVersion')}, not ray.io/v1"))
        found += [Finding(code, f"{where} {field}", message) for code, field, message in schema_findings(job)]
        found += [Finding(code, where, message) for code, message in map_findings(job, configs)]
        for code, rule in RULES.items():
            try:
                found += [Finding(code, where, message) for message in rule(job)]
            except (AttributeError, TypeError, KeyError, ValueError) as error:
                found.append(Finding(code, where, f"cannot be checked, the manifest has another shape ({error})"))
        found += [Finding(code, where, message) for code, message in pod_findings(job)]
    return found


def _rule(code: str) -> Callable[[Rule], Rule]:
    def enter(rule: Rule) -> Rule:
        RULES[code] = rule
        return rule

    return enter


def _at(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    found: Any = document
    for key in path:
        found = found.get(key) or {}
    return found  # type: ignore[no-any-return]


def _spec(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return _at(job, "spec")


def _cluster(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return _at(job, "spec", "rayClusterSpec")


def _groups(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(_cluster(job).get("workerGroupSpecs") or [])


@_rule("KO101")
def _name(job: Mapping[str, Any]) -> Iterator[str]:
    name = str(_at(job, "metadata").get("name", ""))
    if len(name) > NAME_LIMITS["RayJob"]:
        yield f"the name has {len(name)} characters; the operator takes at most 47"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield "the name is no DNS-1035 label: lower case, digits and dashes, a letter first"


@_rule("KO102")
def _mode(job: Mapping[str, Any]) -> Iterator[str]:
    mode = _spec(job).get("submissionMode", "K8sJobMode")
    if mode not in MODES:
        yield f"submissionMode {mode}: there is: {', '.join(MODES)}"
    if mode == "HTTPMode":
        yield "HTTPMode posts the job again when the head came back without it; use K8sJobMode"


@_rule("KO103")
def _ttl(job: Mapping[str, Any]) -> Iterator[str]:
    ttl = _spec(job).get("ttlSecondsAfterFinished", 0)
    if ttl < 0:
        yield "ttlSecondsAfterFinished is negative"
    if ttl > 0 and not _spec(job).get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"


@_rule("KO104")
def _suspend(job: Mapping[str, Any]) -> Iterator[str]:
    queued = "kueue.x-k8s.io/queue-name" in _at(job, "metadata", "labels")
    if (_spec(job).get("suspend") or queued) and not _spec(job).get("shutdownAfterJobFinishes"):
        yield "suspend (and a Kueue queue) needs shutdownAfterJobFinishes: true"
    if queued and _spec(job).get("clusterSelector"):
        yield "a Kueue queue and clusterSelector exclude each other"
    if queued and len(_groups(job)) > 17:
        yield "Kueue takes at most 17 worker groups"
    if queued and _cluster(job).get("enableInTreeAutoscaling"):
        elastic = _at(job, "metadata", "annotations").get("kueue.x-k8s.io/elastic-job")
        if elastic != "true":
            yield "autoscaling under Kueue needs the annotation kueue.x-k8s.io/elastic-job: 'true' (Kueue 0.18)"


@_rule("KO105")
def _deletion(job: Mapping[str, Any]) -> Iterator[str]:
    rules = _at(job, "spec", "deletionStrategy").get("deletionRules") or []
    if rules and _spec(job).get("shutdownAfterJobFinishes"):
        yield "deletionRules and shutdownAfterJobFinishes exclude each other"
    if any(r.get("policy") == "DeleteWorkers" for r in rules) and _cluster(job).get("enableInTreeAutoscaling"):
        yield "DeleteWorkers is refused when autoscaling is on"
    order = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
    by_status: dict[str, dict[str, int]] = {}
    for rule in rules:
        condition = rule.get("condition") or {}
        status = str(condition.get("jobStatus") or condition.get("jobDeploymentStatus"))
        times = by_status.setdefault(status, {})
        if rule.get("policy") in times:
            yield f"two deletion rules {rule.get('policy')} for {status}"
        times[str(rule.get("policy"))] = int(condition.get("ttlSeconds", 0))
    for status, times in by_status.items():
        ttls = [times[policy] for policy in order if policy in times]
        if ttls != sorted(ttls):
            yield f"deletion times for {status} have to rise from workers over cluster to the job itself"


@_rule("KO106")
def _backoff(job: Mapping[str, Any]) -> Iterator[str]:
    limit = _spec(job).get("backoffLimit", 0)
    if limit < 0:
        yield "backoffLimit is negative"
    if limit > 0 and (_spec(job).get("clusterSelector") or _spec(job).get("submissionMode") == "InteractiveMode"):
        yield "backoffLimit is not allowed with clusterSelector or InteractiveMode"


@_rule("KO107")
def _submitter(job: Mapping[str, Any]) -> Iterator[str]:
    if _at(job, "spec", "submitterPodTemplate", "spec").get("restartPolicy", "Never") == "Always":
        yield "submitterPodTemplate: a Kubernetes Job takes restartPolicy Never or OnFailure"
    if _spec(job).get("submissionMode") == "SidecarMode":
        for key in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if _spec(job).get(key):
                yield f"SidecarMode does not take {key}"


@_rule("KO108")
def _replicas(job: Mapping[str, Any]) -> Iterator[str]:
    groups = _groups(job)
    names = [g.get("groupName") for g in groups]
    if len(set(names)) != len(names):
        yield "worker groups have the same name"
    for group in groups:
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not 0 <= low <= high:
            yield f"group {group.get('groupName')}: minReplicas {low} and maxReplicas {high} are no range"
        elif not low <= group.get("replicas", low) <= high:
            yield f"group {group.get('groupName')}: replicas {group.get('replicas')} is not in {low} to {high}"
        if group.get("suspend") and _cluster(job).get("enableInTreeAutoscaling"):
            yield f"group {group.get('groupName')}: suspend is not allowed with autoscaling"


@_rule("KO109")
def _autoscaler(job: Mapping[str, Any]) -> Iterator[str]:
    if not _cluster(job).get("enableInTreeAutoscaling"):
        return
    second = _at(_cluster(job), "autoscalerOptions").get("version") == "v2"
    for where, part in _ray_pods(job):
        policy = _at(part, "template", "spec").get("restartPolicy")
        if second and policy not in (None, "", "Never"):
            yield f"{where}: autoscaler v2 needs restartPolicy Never"
    for group in _groups(job):
        for key in ("idleTimeoutSeconds", "priority"):
            if key in group and not second:
                yield f"group {group.get('groupName')}: {key} needs autoscaler v2"


@_rule("KO110")
def _auth(job: Mapping[str, Any]) -> Iterator[str]:
    options = _at(_cluster(job), "authOptions")
    if _cluster(job) and options.get("mode") != "token":
        yield "authOptions.mode is not token: whoever reaches the dashboard runs code on the cluster"
    if options.get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is refused for a RayJob"
    parts = re.findall(r"\d+", str(_cluster(job).get("rayVersion", "")))[:2]
    if options.get("mode") == "token" and tuple(map(int, parts)) < (2, 52):
        yield "token authentication needs rayVersion 2.52 or newer"


@_rule("KO111")
def _resources_once(job: Mapping[str, Any]) -> Iterator[str]:
    for where, part in _ray_pods(job):
        params = part.get("rayStartParams") or {}
        if part.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(params):
            yield f"{where}: resources are set there and in rayStartParams"
        if part.get("labels") and "labels" in params:
            yield f"{where}: labels are set there and in rayStartParams"


@_rule("KO112")
def _gates(job: Mapping[str, Any]) -> Iterator[str]:
    for key in GATED:
        if _cluster(job).get(key):
            yield f"{key} sits behind a feature gate of the operator that is off by default"
    if _at(_cluster(job), "gcsFaultToleranceOptions").get("backend") not in (None, "redis", "Redis"):
        yield "gcsFaultToleranceOptions.backend sits behind a feature gate of the operator that is off by default"


@_rule("KO113")
def _deadline(job: Mapping[str, Any]) -> Iterator[str]:
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if key in _spec(job) and _spec(job)[key] <= 0:
            yield f"{key} has to be above 0"
    if "activeDeadlineSeconds" not in _spec(job):
        yield "activeDeadlineSeconds is missing: a sweep that hangs keeps its GPUs for ever"


@_rule("KO114")
def _entrypoint(job: Mapping[str, Any]) -> Iterator[str]:
    line = str(_spec(job).get("entrypoint", ""))
    if not line and _spec(job).get("submissionMode") != "InteractiveMode":
        yield "entrypoint is missing"
    if set(line) & set("$;&|<>`'\"*?()\\\n"):
        yield "entrypoint is pasted unquoted into two shells: one plain command, no quotes, $, ; or globs"
    if not _cluster(job) and not _spec(job).get("clusterSelector"):
        yield "rayClusterSpec is missing"
    head = _at(_cluster(job), "headGroupSpec", "rayStartParams")
    for key in ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources"):
        if _spec(job).get(key) and str(head.get("num-cpus")) == "0":
            yield f"{key}: a head with num-cpus 0 has nothing to reserve, the driver would wait for ever"


def _ray_pods(job: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if head := _cluster(job).get("headGroupSpec"):
        yield "head", head
    for group in _groups(job):
        yield f"group {group.get('groupName')}", group
