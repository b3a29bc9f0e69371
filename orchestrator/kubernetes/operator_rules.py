"""Rules that the API server does not know: of KubeRay (1.7), of Kueue and of our own security.

A RayJob that breaks one of KO1xx is accepted by the API server and then refused by the operator, with status
ValidationFailed and no Pod. Source: ray-operator/controllers/ray/utils/validation.go at v1.7.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.kubernetes.platform_rules import There, platform_findings
from orchestrator.kubernetes.pod_rules import pod_findings, secret_findings
from orchestrator.kubernetes.profile_model import LABEL_KEY, LABEL_VALUE, ProfileModel
from orchestrator.kubernetes.profiles import load
from orchestrator.kubernetes.schema_rules import schema_findings
from orchestrator.kubernetes.start_rules import start_findings
from orchestrator.kubernetes.storage_rules import map_findings

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
NAME_LIMITS = {"RayJob": 47, "RayCluster": 53, "RayCronJob": 36}
GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
LEGACY = ("onSuccess", "onFailure")
REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
OURS = ("app.kubernetes.io/component", "geosweep.io/sweep")
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
        _at(d, "metadata").get("name"): d for d in documents if isinstance(d, dict) and d.get("kind") == "ConfigMap"
    }
    for job in jobs:
        where = f"RayJob/{_at(job, 'metadata').get('name', '?')}"
        if job.get("apiVersion") != "ray.io/v1":
            found.append(Finding("KO100", where, f"apiVersion is {job.get('apiVersion')}, not ray.io/v1"))
        found += [Finding(code, f"{where} {field}", message) for code, field, message in schema_findings(job)]
        with suppress(AttributeError, TypeError, KeyError, ValueError):
            found += [Finding(code, where, message) for code, message in map_findings(job, configs)]
        for look in (start_findings, lambda j: platform_findings(j, There(profile or load("gpu-cluster")))):
            try:
                found += [Finding(code, where, message) for code, message in look(job)]
            except (AttributeError, TypeError, KeyError, ValueError):
                continue  # another shape, which the schema has named
        for code, rule in RULES.items():
            try:
                found += [Finding(code, where, message) for message in rule(job)]
            except (AttributeError, TypeError, KeyError, ValueError) as error:
                found.append(Finding(code, where, f"cannot be checked, the manifest has another shape ({error})"))
        try:
            found += [Finding(code, where, message) for code, message in pod_findings(job)]
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            found.append(Finding("KO116", where, f"Pods cannot be checked, the manifest has another shape ({error})"))
    spaces = {
        str(_at(d, "metadata").get("namespace")) for d in documents if isinstance(d, dict) and d.get("kind") in OBJECTS
    }
    if len(spaces) > 1:
        found.append(
            Finding("KO210", "manifest", f"objects in different namespaces ({', '.join(sorted(spaces))}); use one")
        )
    return found


OBJECTS = ("RayJob", "ConfigMap")
"""Kinds that are checked."""


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
        yield "HTTPMode leaves no Pod that follows the driver's log, which geosweep logs reads; use K8sJobMode"
    if mode == "InteractiveMode":
        yield "InteractiveMode waits for someone to submit a job by hand; use K8sJobMode"


@_rule("KO103")
def _ttl(job: Mapping[str, Any]) -> Iterator[str]:
    ttl = _spec(job).get("ttlSecondsAfterFinished", 0)
    if ttl < 0:
        yield "ttlSecondsAfterFinished is negative"
    if ttl > 0 and not _spec(job).get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"
    if ttl > 0 and "kueue.x-k8s.io/queue-name" in _at(job, "metadata", "labels"):
        yield "ttlSecondsAfterFinished keeps Pods that Kueue no longer counts after the end; with a queue write 0"
    strategy = _at(job, "spec", "deletionStrategy")
    if not _spec(job).get("shutdownAfterJobFinishes") and not _spec(job).get("clusterSelector"):
        gone = {
            (r.get("condition") or {}).get("jobStatus")
            for r in strategy.get("deletionRules") or []
            if r.get("policy") in ("DeleteCluster", "DeleteSelf")
        }
        legacy = {(strategy.get(k) or {}).get("policy") for k in LEGACY} <= {"DeleteCluster", "DeleteSelf"}
        if not gone >= {"SUCCEEDED", "FAILED"} and not legacy:
            yield "nothing ends the Ray cluster, and it keeps its GPUs for ever; write shutdownAfterJobFinishes: true"


@_rule("KO104")
def _suspend(job: Mapping[str, Any]) -> Iterator[str]:
    queued = "kueue.x-k8s.io/queue-name" in _at(job, "metadata", "labels")
    if (_spec(job).get("suspend") or queued) and not _spec(job).get("shutdownAfterJobFinishes"):
        yield "suspend (and a Kueue queue) needs shutdownAfterJobFinishes: true"
    if queued and _spec(job).get("clusterSelector"):
        yield "a Kueue queue and clusterSelector exclude each other"
    if _spec(job).get("suspend") and not queued:
        yield "suspend: true keeps the job waiting until someone sets it to false; leave it out (Kueue sets it itself)"
    queue = str(_at(job, "metadata", "labels").get("kueue.x-k8s.io/queue-name", "x"))
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", queue):
        yield f"kueue.x-k8s.io/queue-name: {queue!r} is no name of a LocalQueue"
    if "kueue.x-k8s.io/priority-class" in _at(job, "metadata", "labels") and not queued:
        yield "kueue.x-k8s.io/priority-class without kueue.x-k8s.io/queue-name does nothing; add the queue"
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


@_rule("KO121")
def _legacy_deletion(job: Mapping[str, Any]) -> Iterator[str]:
    if "deletionStrategy" not in _spec(job):
        return
    strategy = _spec(job).get("deletionStrategy") or {}
    rules, legacy = strategy.get("deletionRules"), [k for k in LEGACY if k in strategy]
    if not rules and len(legacy) != 2:
        yield (
            "deletionStrategy needs deletionRules, or both onSuccess and onFailure; leave it out for "
            "shutdownAfterJobFinishes"
        )
    if rules and legacy:
        yield "deletionStrategy: onSuccess, onFailure and deletionRules exclude each other; keep deletionRules"
    for key in legacy:
        policy = (strategy[key] or {}).get("policy")
        if policy is None:
            yield f"deletionStrategy.{key} names no policy; write DeleteCluster"
        if policy == "DeleteNone" and _spec(job).get("shutdownAfterJobFinishes"):
            yield f"deletionStrategy.{key}: DeleteNone and shutdownAfterJobFinishes exclude each other; leave it out"
        if policy == "DeleteWorkers" and _cluster(job).get("enableInTreeAutoscaling"):
            yield f"deletionStrategy.{key}: DeleteWorkers is refused when autoscaling is on; write DeleteCluster"
    for number, rule in enumerate(rules or []):
        condition = rule.get("condition") or {}
        if ("jobStatus" in condition) == ("jobDeploymentStatus" in condition):
            yield f"deletionRules.{number}: the condition takes one of jobStatus and jobDeploymentStatus"
        if int(condition.get("ttlSeconds", 0)) < 0:
            yield f"deletionRules.{number}: ttlSeconds is negative; write 0 or more"


@_rule("KO122")
def _unsupported(job: Mapping[str, Any]) -> Iterator[str]:
    cluster = _cluster(job)
    for where, part in (("spec", _spec(job)), ("rayClusterSpec", cluster)):
        if part.get("managedBy") not in (None, "ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"):
            yield (
                f"{where}.managedBy: {part['managedBy']!r} is not ray.io/kuberay-operator or kueue.x-k8s.io/multikueue"
            )
    if cluster.get("upgradeStrategy"):
        yield "upgradeStrategy is for RayCluster and RayService; a RayJob with it stays in Initializing. Leave it out"
    if cluster.get("suspend"):
        yield "rayClusterSpec.suspend: the cluster would have no Pods; leave it out, it is the RayJob that is suspended"
    if _spec(job).get("clusterSelector"):
        yield "clusterSelector takes a cluster that is there, without a sweep's image, mounts and end; leave it out"
    head = _at(cluster, "headGroupSpec")
    service = head.get("serviceType") or _at(head, "headService", "spec").get("type")
    if service not in (None, "", "ClusterIP"):
        yield (
            f"headGroupSpec: a Service of type {service} opens the dashboard, which runs code, to a network; "
            "write ClusterIP"
        )
    if head.get("enableIngress") or head.get("ingressOptions"):
        yield "headGroupSpec: an Ingress opens the dashboard, which runs code, to a network; leave it out"
    if "rayClusterSpec" in _spec(job) and not _groups(job):
        yield "workerGroupSpecs is empty: the head runs no trial, and the sweep would wait for ever; add a group"


@_rule("KO123")
def _labels(job: Mapping[str, Any]) -> Iterator[str]:
    sweep = _at(job, "metadata", "labels").get(OURS[1])
    places = [("metadata", _at(job, "metadata"), "labels")]
    places += [(where, part, "labels") for where, part in _ray_pods(job)]
    places += [(f"{where}.template", _at(part, "template", "metadata"), "labels") for where, part in _ray_pods(job)]
    places.append(("submitterPodTemplate", _at(job, "spec", "submitterPodTemplate", "metadata"), "labels"))
    for where, part, kind in places:
        for key, value in (part.get(kind) or {}).items():
            if not re.fullmatch(LABEL_KEY, str(key)):
                yield f"{where}.{kind}: {key!r} is no key of a label (letters, digits and . _ -, at most 63)"
            elif not isinstance(value, str) or not re.fullmatch(LABEL_VALUE, value):
                yield f"{where}.{kind}.{key}: {value!r} is no value of a label (letters, digits and . _ -, at most 63)"
        for key, value in (part.get("annotations") or {}).items():
            if not re.fullmatch(LABEL_KEY, str(key)) or not isinstance(value, str):
                yield f"{where}.annotations.{key}: a key of letters, digits and . _ -, with text as its value"
        if where != "metadata" and "template" not in where.lower():
            continue
        meant = {"head.template": "sweep-head", "submitterPodTemplate": "sweep-submitter", "metadata": "sweep"}
        component = meant.get(where, "sweep-worker")
        if (part.get("labels") or {}).get(OURS[0], component) != component:
            yield f"{where}.labels.{OURS[0]} is not {component}, by which logs and network policies find it; write that"
        if (part.get("labels") or {}).get(OURS[1], sweep) != sweep:
            yield f"{where}.labels.{OURS[1]} is not that of the job, {sweep}; write that"
        for key in OURS:
            if not (part.get("labels") or {}).get(key):
                yield (
                    f"{where}.labels has no {key}: status, logs and the network policies find objects by it; put it "
                    "back"
                )


@_rule("KO124")
def _environment(job: Mapping[str, Any]) -> Iterator[str]:
    scaling = _cluster(job).get("enableInTreeAutoscaling")
    tolerant = _cluster(job).get("gcsFaultToleranceOptions")
    if _at(job, "metadata", "annotations").get("ray.io/ft-enabled"):
        yield (
            "annotation ray.io/ft-enabled: a sweep's driver is not kept by it, its storage keeps the sweep; "
            "leave it out"
        )
    if tolerant:
        yield "gcsFaultToleranceOptions: a lost head is made anew and the sweep goes on from its storage; leave it out"
    for key in ("redis-username", "redis-password"):
        if key in (_at(_cluster(job), "headGroupSpec").get("rayStartParams") or {}):
            yield f"headGroupSpec.rayStartParams.{key}: the operator refuses it; leave it out"
    for where, part in _ray_pods(job):
        for container in _at(part, "template", "spec").get("containers") or []:
            for entry in container.get("env") or []:
                name, value = str(entry.get("name")), entry.get("value")
                if not re.fullmatch(r"[A-Za-z_.][A-Za-z0-9_.-]*", name):
                    yield f"{where}: {name!r} is no name of a variable"
                if value is not None and entry.get("valueFrom"):
                    yield f"{where}: {name} has value and valueFrom; keep one"
                if name in REDIS:
                    yield (
                        f"{where}: {name} asks for fault tolerance by Redis, which the operator refuses here; leave it "
                        "out"
                    )
                if name == "RAY_enable_autoscaler_v2":
                    which = "autoscalerOptions.version says it" if scaling else "autoscaling is off"
                    yield f"{where}: {name}: {which}, and the operator refuses both; leave it out"
                if name in (
                    "RAY_AUTH_MODE",
                    "RAY_AUTH_TOKEN",
                    "RAY_ADDRESS",
                    "RAY_CLUSTER_NAME",
                    "RAY_IP",
                    "FQ_RAY_IP",
                ):
                    yield f"{where}: {name} is set by the operator; leave it out"


@_rule("KO106")
def _backoff(job: Mapping[str, Any]) -> Iterator[str]:
    limit = _spec(job).get("backoffLimit", 0)
    if limit < 0:
        yield "backoffLimit is negative; write 0 or more"
    if limit > 20:
        yield f"backoffLimit {limit}: each retry makes a whole cluster; write 20 or less"
    if limit > 0 and (_spec(job).get("clusterSelector") or _spec(job).get("submissionMode") == "InteractiveMode"):
        yield "backoffLimit is not allowed with clusterSelector or InteractiveMode"


@_rule("KO107")
def _submitter(job: Mapping[str, Any]) -> Iterator[str]:
    if "submitterPodTemplate" in _spec(job) and not _at(job, "spec", "submitterPodTemplate", "spec").get("containers"):
        yield "submitterPodTemplate has no container; add one, with an image that holds ray"
    if "submitterPodTemplate" not in _spec(job) and _spec(job).get("submissionMode", "K8sJobMode") == "K8sJobMode":
        yield "submitterPodTemplate is missing: the operator's own breaks Pod Security restricted; put it back"
    if not 0 <= _at(job, "spec", "submitterConfig").get("backoffLimit", 2) <= 10:
        yield "submitterConfig.backoffLimit: the submitter is tried again so often; write 0 to 10"
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
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", str(group.get("groupName", ""))):
            yield f"group {group.get('groupName')!r}: a name of lower case, digits and dashes, at most 63"
        if group.get("numOfHosts", 1) != 1:
            yield (
                f"group {group.get('groupName')}: numOfHosts {group['numOfHosts']}: a worker of a sweep is one "
                "Pod; write 1"
            )
        if not group.get("maxReplicas"):
            said = "missing, and the default is two thousand million Pods" if "maxReplicas" not in group else "0"
            yield f"group {group.get('groupName')}: maxReplicas is {said}; write how many there may be, 1 or more"
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not 0 <= low <= high:
            yield f"group {group.get('groupName')}: minReplicas {low} and maxReplicas {high} are no range"
        elif not low <= group.get("replicas", low) <= high:
            yield f"group {group.get('groupName')}: replicas {group.get('replicas')} is not in {low} to {high}"
        if group.get("suspend") and _cluster(job).get("enableInTreeAutoscaling"):
            yield f"group {group.get('groupName')}: suspend is not allowed with autoscaling"


@_rule("KO109")
def _autoscaler(job: Mapping[str, Any]) -> Iterator[str]:
    places = [("autoscalerOptions", _at(_cluster(job), "autoscalerOptions"))]
    places += [(f"group {group.get('groupName')}", group) for group in _groups(job)]
    for where, part in places:
        if isinstance(part.get("idleTimeoutSeconds"), int) and part["idleTimeoutSeconds"] < 0:
            yield f"{where}: idleTimeoutSeconds is negative; write 0 or more"
    if not _cluster(job).get("enableInTreeAutoscaling"):
        for group in _groups(job):
            if group.get("replicas", group.get("minReplicas", 0)) == 0 and not _spec(job).get("suspend"):
                yield (
                    f"group {group.get('groupName')}: no replicas, and nothing adds any: write replicas, or "
                    "enableInTreeAutoscaling: true"
                )
        return
    options = _at(_cluster(job), "autoscalerOptions")
    if options.get("version", "v1") == "v1":
        yield (
            "autoscalerOptions.version is not v2, which this was written for: v1 restarts a lost head in "
            "place; write v2"
        )
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
        if "labels" in params:
            yield f"{where}: rayStartParams.labels is refused; write labels beside rayStartParams"


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
