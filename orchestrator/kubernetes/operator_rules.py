"""Rules that the API server does not check: those of KubeRay (1.7), of Kueue and of our own security.

A RayJob that breaks one of KO1xx is accepted by the API server and then refused by the operator, with status
ValidationFailed and no Pod. Source: ray-operator/controllers/ray/utils/validation.go at v1.7.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.definition.errors import nearest
from orchestrator.kubernetes import claim_rules, job_rules, scaler_rules  # noqa: F401  enter their rules
from orchestrator.kubernetes.field_rules import field_findings
from orchestrator.kubernetes.map_rules import shape_findings, sweep_findings
from orchestrator.kubernetes.platform_rules import There, platform_findings
from orchestrator.kubernetes.pod_rules import pod_findings, templates
from orchestrator.kubernetes.profile_model import ProfileModel
from orchestrator.kubernetes.profiles import load
from orchestrator.kubernetes.rules import RULES, at_of, cluster_of, groups_of, ray_pods_of, rule, spec_of
from orchestrator.kubernetes.schema_rules import schema_findings
from orchestrator.kubernetes.secret_rules import secret_findings
from orchestrator.kubernetes.start_rules import start_findings
from orchestrator.kubernetes.storage_rules import map_findings

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
DAY_S, WEEK_S, YEAR_S = 86400, 7 * 86400, 366 * 86400
LEGACY = ("onSuccess", "onFailure")
KUEUE = "kueue.x-k8s.io/"
QUEUE_LABELS = tuple(
    KUEUE + name for name in ("queue-name", "priority-class", "prebuilt-workload-name", "max-exec-time-seconds")
)
QUEUE_ANNOTATIONS = (f"{KUEUE}elastic-job", f"{KUEUE}admission-gated-by", f"{KUEUE}prebuilt-workload-name")
"""Metadata of a RayJob that Kueue 0.19 reads."""


@dataclass(frozen=True)
class Finding:
    """A broken rule."""

    code: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.where}: {self.message}"


def lint(documents: list[Any], profile: ProfileModel | None = None) -> list[Finding]:
    """All broken rules of all RayJobs in the documents, in order; and secrets in any document."""
    found: list[Finding] = []
    for document in documents:
        found += [Finding(code, "manifest", message) for code, message in secret_findings(document)]
    jobs = [d for d in documents if isinstance(d, dict) and d.get("kind") == "RayJob"]
    if not jobs:
        found.append(Finding("KO100", "manifest", "holds no RayJob"))
    configs = {
        at_of(d, "metadata").get("name"): d for d in documents if isinstance(d, dict) and d.get("kind") == "ConfigMap"
    }
    for name, config in configs.items():
        found += [Finding(code, f"ConfigMap/{name}", message) for code, message in shape_findings(config)]
    for job in jobs:
        where = f"RayJob/{at_of(job, 'metadata').get('name', '?')}"
        if job.get("apiVersion") != "ray.io/v1":
            found.append(Finding("KO100", where, f"apiVersion is {job.get('apiVersion')}, not ray.io/v1"))
        found += [Finding(code, f"{where} {field}", message) for code, field, message in schema_findings(job)]
        with suppress(AttributeError, TypeError, KeyError, ValueError):
            said = [*map_findings(job, configs), *sweep_findings(job, configs)]
            found += [Finding(code, where, message) for code, message in said]
        for path, template in templates(job):
            with suppress(AttributeError, TypeError, KeyError, ValueError):  # the schema rules report a wrong shape
                told = field_findings(template["spec"], f"{path}.spec")
                found += [Finding(code, f"{where} {field}", message) for code, field, message in told]
        for look in (start_findings, lambda j: platform_findings(j, There(profile or load("gpu-cluster")))):
            try:
                found += [Finding(code, where, message) for code, message in look(job)]
            except (AttributeError, TypeError, KeyError, ValueError):
                continue  # a wrong shape, reported by the schema rules
        for code, check in RULES.items():
            try:
                found += [Finding(code, where, message) for message in check(job)]
            except (AttributeError, TypeError, KeyError, ValueError) as error:
                found.append(
                    Finding(code, where, f"cannot be checked, because the manifest has an unexpected shape ({error})")
                )
        try:
            found += [Finding(code, where, message) for code, message in pod_findings(job)]
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            found.append(
                Finding(
                    "KO116", where, f"Pods cannot be checked, because the manifest has an unexpected shape ({error})"
                )
            )
    spaces = {
        str(at_of(d, "metadata").get("namespace"))
        for d in documents
        if isinstance(d, dict) and d.get("kind") in OBJECTS
    }
    if len(spaces) > 1:
        found.append(
            Finding("KO210", "manifest", f"objects in different namespaces ({', '.join(sorted(spaces))}); use one")
        )
    return found


OBJECTS = ("RayJob", "ConfigMap")
"""Kinds that are checked."""


@rule("KO102")
def _mode(job: Mapping[str, Any]) -> Iterator[str]:
    mode = spec_of(job).get("submissionMode", "K8sJobMode")
    if mode not in MODES:
        yield f"submissionMode {mode}: available: {', '.join(MODES)}"
    if mode == "HTTPMode":
        yield "HTTPMode has no Pod that follows the driver's log, which geosweep logs reads; use K8sJobMode"
    if mode == "InteractiveMode":
        yield "InteractiveMode waits for someone to submit a job by hand; use K8sJobMode"


@rule("KO103")
def _ttl(job: Mapping[str, Any]) -> Iterator[str]:
    ttl = spec_of(job).get("ttlSecondsAfterFinished", 0)
    if ttl < 0:
        yield "ttlSecondsAfterFinished is negative"
    if ttl > 0 and not spec_of(job).get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"
    if ttl > WEEK_S:
        yield f"ttlSecondsAfterFinished {ttl}: the cluster would keep its machines for {ttl // 86400} days"
    if ttl > 0 and "kueue.x-k8s.io/queue-name" in at_of(job, "metadata", "labels"):
        yield "ttlSecondsAfterFinished keeps Pods after the end that Kueue no longer counts; with a queue, write 0"
    strategy = at_of(job, "spec", "deletionStrategy")
    if not spec_of(job).get("shutdownAfterJobFinishes") and not spec_of(job).get("clusterSelector"):
        gone = {
            (r.get("condition") or {}).get("jobStatus")
            for r in strategy.get("deletionRules") or []
            if r.get("policy") in ("DeleteCluster", "DeleteSelf")
        }
        legacy = {(strategy.get(k) or {}).get("policy") for k in LEGACY} <= {"DeleteCluster", "DeleteSelf"}
        if not gone >= {"SUCCEEDED", "FAILED"} and not legacy:
            yield "nothing ends the Ray cluster, so it keeps its GPUs forever; write shutdownAfterJobFinishes: true"


@rule("KO104")
def _suspend(job: Mapping[str, Any]) -> Iterator[str]:
    queued = "kueue.x-k8s.io/queue-name" in at_of(job, "metadata", "labels")
    if (spec_of(job).get("suspend") or queued) and not spec_of(job).get("shutdownAfterJobFinishes"):
        yield "suspend (and a Kueue queue) needs shutdownAfterJobFinishes: true"
    if queued and spec_of(job).get("clusterSelector"):
        yield "a Kueue queue and clusterSelector exclude each other"
    if spec_of(job).get("suspend") and not queued:
        yield "suspend: true keeps the job waiting until someone sets it to false; leave it out (Kueue sets it itself)"
    if not queued and "kueue.x-k8s.io/elastic-job" in at_of(job, "metadata", "annotations"):
        yield "annotation kueue.x-k8s.io/elastic-job without a queue does nothing; add the queue, or leave it out"
    for kind, known in (("labels", QUEUE_LABELS), ("annotations", QUEUE_ANNOTATIONS)):
        for key in at_of(job, "metadata", kind):
            if str(key).startswith(KUEUE) and key not in known:
                yield f"metadata.{kind}.{key}: Kueue does not read it there{nearest(str(key), known)}"
    for where, part in [*ray_pods_of(job), ("submitter", {"template": spec_of(job).get("submitterPodTemplate") or {}})]:
        for key in at_of(part, "template", "metadata", "labels"):
            if key in QUEUE_LABELS:
                yield f"{where}: {key} on Pods would request quota twice; it belongs only on the RayJob"
    queue = str(at_of(job, "metadata", "labels").get("kueue.x-k8s.io/queue-name", "x"))
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", queue):
        yield f"kueue.x-k8s.io/queue-name: {queue!r} is not a valid LocalQueue name"
    if "kueue.x-k8s.io/priority-class" in at_of(job, "metadata", "labels") and not queued:
        yield "kueue.x-k8s.io/priority-class without kueue.x-k8s.io/queue-name does nothing; add the queue"
    for name in ("head", "submitter"):
        if queued and name in [group.get("groupName") for group in groups_of(job)]:
            yield f"group {name}: Kueue calls another set of Pods so, and refuses the name; take another"
    if queued and len(groups_of(job)) > 17:
        yield "Kueue accepts at most 17 worker groups"
    if queued and cluster_of(job).get("enableInTreeAutoscaling"):
        elastic = at_of(job, "metadata", "annotations").get("kueue.x-k8s.io/elastic-job")
        if elastic != "true":
            yield "autoscaling under Kueue needs the annotation kueue.x-k8s.io/elastic-job: 'true' (Kueue 0.18)"


@rule("KO105")
def _deletion(job: Mapping[str, Any]) -> Iterator[str]:
    rules = at_of(job, "spec", "deletionStrategy").get("deletionRules") or []
    if rules and spec_of(job).get("shutdownAfterJobFinishes"):
        yield "deletionRules and shutdownAfterJobFinishes exclude each other"
    if any(r.get("policy") == "DeleteWorkers" for r in rules) and cluster_of(job).get("enableInTreeAutoscaling"):
        yield "DeleteWorkers is refused when autoscaling is on"
    order = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
    by_status: dict[str, dict[str, int]] = {}
    for one in rules:
        condition = one.get("condition") or {}
        status = str(condition.get("jobStatus") or condition.get("jobDeploymentStatus"))
        times = by_status.setdefault(status, {})
        if one.get("policy") in times:
            yield f"two deletion rules {one.get('policy')} for {status}"
        times[str(one.get("policy"))] = int(condition.get("ttlSeconds", 0))
    for status, times in by_status.items():
        ttls = [times[policy] for policy in order if policy in times]
        if ttls != sorted(ttls):
            yield f"deletion times for {status} must increase from workers to cluster to the job itself"


@rule("KO106")
def _backoff(job: Mapping[str, Any]) -> Iterator[str]:
    limit = spec_of(job).get("backoffLimit", 0)
    if limit < 0:
        yield "backoffLimit is negative; write 0 or more"
    if limit > 0:
        yield (
            f"backoffLimit {limit}: a failure would recur on {limit + 1} clusters, each paid for; --as-job retries "
            "machine faults on one cluster. Write 0"
        )
    if limit > 0 and (spec_of(job).get("clusterSelector") or spec_of(job).get("submissionMode") == "InteractiveMode"):
        yield "backoffLimit is not allowed with clusterSelector or InteractiveMode"


@rule("KO107")
def _submitter(job: Mapping[str, Any]) -> Iterator[str]:
    if "submitterPodTemplate" in spec_of(job) and not at_of(job, "spec", "submitterPodTemplate", "spec").get(
        "containers"
    ):
        yield "submitterPodTemplate has no container; add one, with an image that contains ray"
    if "submitterPodTemplate" not in spec_of(job) and spec_of(job).get("submissionMode", "K8sJobMode") == "K8sJobMode":
        yield "submitterPodTemplate is missing: the operator's default violates Pod Security restricted; put it back"
    if not 0 <= at_of(job, "spec", "submitterConfig").get("backoffLimit", 2) <= 10:
        yield "submitterConfig.backoffLimit: the submitter is retried this many times; write 0 to 10"
    if len(at_of(job, "spec", "submitterPodTemplate", "spec").get("containers") or []) > 1:
        yield (
            "submitterPodTemplate: the Pod, and with it the submitter's Job, ends only with its last container; make "
            "any additional one an init container with restartPolicy Always"
        )
    if at_of(job, "spec", "submitterPodTemplate", "spec").get("restartPolicy", "Never") == "Always":
        yield "submitterPodTemplate: a Kubernetes Job takes restartPolicy Never or OnFailure"
    if spec_of(job).get("submissionMode") == "SidecarMode":
        for key in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if spec_of(job).get(key):
                yield f"SidecarMode does not support {key}"


@rule("KO108")
def _replicas(job: Mapping[str, Any]) -> Iterator[str]:
    groups = groups_of(job)
    names = [g.get("groupName") for g in groups]
    if len(set(names)) != len(names):
        yield "worker groups have the same name"
    for group in groups:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", str(group.get("groupName", ""))):
            yield f"group {group.get('groupName')!r}: use lower case, digits and dashes, at most 63 characters"
        if group.get("numOfHosts", 1) != 1:
            yield (
                f"group {group.get('groupName')}: numOfHosts {group['numOfHosts']}: a worker of a sweep is one "
                "Pod; write 1"
            )
        if not group.get("maxReplicas"):
            said = "missing, and the default is two billion Pods" if "maxReplicas" not in group else "0"
            yield f"group {group.get('groupName')}: maxReplicas is {said}; write the maximum number, 1 or more"
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not 0 <= low <= high:
            yield f"group {group.get('groupName')}: minReplicas {low} and maxReplicas {high} are not a range"
        elif not low <= group.get("replicas", low) <= high:
            yield f"group {group.get('groupName')}: replicas {group.get('replicas')} is not in {low} to {high}"
        if group.get("suspend") and cluster_of(job).get("enableInTreeAutoscaling"):
            yield f"group {group.get('groupName')}: suspend is not allowed with autoscaling"


@rule("KO109")
def _autoscaler(job: Mapping[str, Any]) -> Iterator[str]:
    places = [("autoscalerOptions", at_of(cluster_of(job), "autoscalerOptions"))]
    places += [(f"group {group.get('groupName')}", group) for group in groups_of(job)]
    for where, part in places:
        if isinstance(part.get("idleTimeoutSeconds"), int) and part["idleTimeoutSeconds"] < 0:
            yield f"{where}: idleTimeoutSeconds is negative; write 0 or more"
        if isinstance(part.get("idleTimeoutSeconds"), int) and part["idleTimeoutSeconds"] > DAY_S:
            yield f"{where}: idleTimeoutSeconds keeps idle machines for more than a day; write 120"
    if not cluster_of(job).get("enableInTreeAutoscaling"):
        for group in groups_of(job):
            if group.get("replicas", group.get("minReplicas", 0)) == 0 and not spec_of(job).get("suspend"):
                yield (
                    f"group {group.get('groupName')}: no replicas, and nothing adds any: set replicas, or "
                    "enableInTreeAutoscaling: true"
                )
        return
    options = at_of(cluster_of(job), "autoscalerOptions")
    if options.get("version", "v1") == "v1":
        yield (
            "autoscalerOptions.version is not v2, the version that this is written for: v1 restarts a lost head in "
            "place; write v2"
        )
    second = at_of(cluster_of(job), "autoscalerOptions").get("version") == "v2"
    for where, part in ray_pods_of(job):
        policy = at_of(part, "template", "spec").get("restartPolicy")
        if second and policy not in (None, "", "Never"):
            yield f"{where}: autoscaler v2 needs restartPolicy Never"
    for group in groups_of(job):
        for key in ("idleTimeoutSeconds", "priority"):
            if key in group and not second:
                yield f"group {group.get('groupName')}: {key} needs autoscaler v2"


@rule("KO110")
def _auth(job: Mapping[str, Any]) -> Iterator[str]:
    options = at_of(cluster_of(job), "authOptions")
    if cluster_of(job) and options.get("mode") != "token":
        yield "authOptions.mode is not token: anyone who reaches the dashboard can run code on the cluster"
    if options.get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is refused for a RayJob"
    parts = re.findall(r"\d+", str(cluster_of(job).get("rayVersion", "")))[:2]
    if options.get("mode") == "token" and tuple(map(int, parts)) < (2, 52):
        yield "token authentication needs rayVersion 2.52 or newer"


@rule("KO111")
def _resources_once(job: Mapping[str, Any]) -> Iterator[str]:
    for where, part in ray_pods_of(job):
        params = part.get("rayStartParams") or {}
        if part.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(params):
            yield f"{where}: resources are set both there and in rayStartParams"
        if "labels" in params:
            yield f"{where}: rayStartParams.labels is refused; write labels next to rayStartParams"


@rule("KO112")
def _gates(job: Mapping[str, Any]) -> Iterator[str]:
    for key in GATED:
        if key in cluster_of(job):
            yield f"{key} requires a feature gate of the operator that is off by default"
    if at_of(cluster_of(job), "gcsFaultToleranceOptions").get("backend") not in (None, "redis", "Redis"):
        yield "gcsFaultToleranceOptions.backend requires a feature gate of the operator that is off by default"


@rule("KO113")
def _deadline(job: Mapping[str, Any]) -> Iterator[str]:
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if key in spec_of(job) and spec_of(job)[key] <= 0:
            yield f"{key} must be above 0"
    most, begin = spec_of(job).get("activeDeadlineSeconds"), spec_of(job).get("preRunningDeadlineSeconds", 0)
    if most and most <= begin:
        yield f"activeDeadlineSeconds {most} ends the job before preRunningDeadlineSeconds {begin} lets it start"
    if most and most > YEAR_S:
        yield f"activeDeadlineSeconds {most} is more than a year: a hung sweep keeps its GPUs that long"
    if "activeDeadlineSeconds" not in spec_of(job):
        yield "activeDeadlineSeconds is missing: a hung sweep keeps its GPUs forever"


@rule("KO114")
def _entrypoint(job: Mapping[str, Any]) -> Iterator[str]:
    line = str(spec_of(job).get("entrypoint", ""))
    if not line and spec_of(job).get("submissionMode") != "InteractiveMode":
        yield "entrypoint is missing"
    if set(line) & set("$;&|<>`'\"*?()\\\n"):
        yield "entrypoint is inserted unquoted into two shells: write one plain command without quotes, $, ; or globs"
    if not cluster_of(job) and not spec_of(job).get("clusterSelector"):
        yield "rayClusterSpec is missing"
    head = at_of(cluster_of(job), "headGroupSpec", "rayStartParams")
    for key in ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources"):
        if spec_of(job).get(key) and str(head.get("num-cpus")) == "0":
            yield f"{key}: a head with num-cpus 0 has nothing to reserve; the driver would wait forever"
