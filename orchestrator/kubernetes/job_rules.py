"""More rules for RayJobs: deletion strategies, fields unsuitable for sweeps or unsafe, labels, variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.definition.errors import nearest
from orchestrator.kubernetes.profile_model import LABEL_KEY, LABEL_VALUE, NAME
from orchestrator.kubernetes.rules import at_of, cluster_of, groups_of, ray_pods_of, rule, spec_of
from orchestrator.kubernetes.start_rules import PORTS

LEGACY = ("onSuccess", "onFailure")
NAME_LIMIT = 47
REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
OUTWARD = (
    "selector", "externalName", "loadBalancerIP", "loadBalancerClass", "externalTrafficPolicy", "healthCheckNodePort",
    "loadBalancerSourceRanges",
)  # fmt: skip
TEMPLATE = ("name", "namespace", "generateName")
OURS = ("app.kubernetes.io/component", "geosweep.io/sweep")


@rule("KO121")
def _legacy_deletion(job: Mapping[str, Any]) -> Iterator[str]:
    if "deletionStrategy" not in spec_of(job):
        return
    strategy = spec_of(job).get("deletionStrategy") or {}
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
            yield f"deletionStrategy.{key} has no policy; write DeleteCluster"
        if policy == "DeleteNone" and spec_of(job).get("shutdownAfterJobFinishes"):
            yield f"deletionStrategy.{key}: DeleteNone and shutdownAfterJobFinishes exclude each other; leave it out"
        if policy == "DeleteWorkers" and cluster_of(job).get("enableInTreeAutoscaling"):
            yield f"deletionStrategy.{key}: DeleteWorkers is refused when autoscaling is on; write DeleteCluster"
    for number, one in enumerate(rules or []):
        condition = one.get("condition") or {}
        if ("jobStatus" in condition) == ("jobDeploymentStatus" in condition):
            yield f"deletionRules.{number}: the condition takes one of jobStatus and jobDeploymentStatus"
        if int(condition.get("ttlSeconds", 0)) < 0:
            yield f"deletionRules.{number}: ttlSeconds is negative; write 0 or more"


METADATA: tuple[str, ...] = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "generateName",
)
METADATA += ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink")


@rule("KO101")
def _metadata(job: Mapping[str, Any]) -> Iterator[str]:
    metadata = at_of(job, "metadata")
    name = str(metadata.get("name", ""))
    if len(name) > NAME_LIMIT:
        yield f"the name has {len(name)} characters; the operator takes at most {NAME_LIMIT}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield "the name is not a DNS-1035 label: lower case, digits and dashes, a letter first"
    if not re.fullmatch(NAME, space := str(metadata.get("namespace", "sweeps"))):
        yield f"namespace {space!r} is not valid: lower case, digits and dashes, at most 63"
    if space.startswith("kube-"):
        yield f"namespace {space} is reserved for the cluster; use that of your sweeps"
    for key in metadata:
        if key not in METADATA:
            yield f"metadata has no field {key}{nearest(str(key), METADATA[:4])}"
    if metadata.get("finalizers"):
        yield "finalizers: nobody removes them, so neither stop nor delete would finish; leave them out"
    if metadata.get("ownerReferences"):
        yield "ownerReferences: the sweep would be deleted with an object that a manifest cannot know; leave them out"


@rule("KO122")
def _unsupported(job: Mapping[str, Any]) -> Iterator[str]:
    cluster = cluster_of(job)
    for where, part in (("spec", spec_of(job)), ("rayClusterSpec", cluster)):
        if part.get("managedBy") not in (None, "ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"):
            yield (
                f"{where}.managedBy: {part['managedBy']!r} is not ray.io/kuberay-operator or kueue.x-k8s.io/multikueue"
            )
    if cluster.get("upgradeStrategy"):
        yield "upgradeStrategy is for RayCluster and RayService; a RayJob with it stays in Initializing. Leave it out"
    if cluster.get("suspend"):
        yield "rayClusterSpec.suspend: the cluster would have no Pods; leave it out; suspend the RayJob instead"
    if spec_of(job).get("clusterSelector"):
        yield (
            "clusterSelector selects an existing cluster, without the sweep's image, mounts and shutdown; leave it out"
        )
    head = at_of(cluster, "headGroupSpec")
    service = head.get("serviceType") or at_of(head, "headService", "spec").get("type")
    if service not in (None, "", "ClusterIP"):
        yield (
            f"headGroupSpec: a Service of type {service} exposes the dashboard, which runs code, to a network; "
            "write ClusterIP"
        )
    if at_of(head, "headService", "spec").get("externalIPs"):
        yield "headGroupSpec: externalIPs expose the dashboard, which runs code, to a network; leave them out"
    if spec_of(job).get("jobId"):
        yield "jobId: every attempt needs its own, otherwise it follows the previous one's log; leave it out"
    for group in groups_of(job):
        if at_of(group, "scaleStrategy").get("workersToDelete"):
            yield f"group {group.get('groupName')}: workersToDelete is reserved for the autoscaler; leave it out"
        if group.get("suspend"):
            yield f"group {group.get('groupName')}: if suspended, it has no Pods and the sweep waits; leave suspend out"
    if head.get("enableIngress") or head.get("ingressOptions"):
        yield "headGroupSpec: an Ingress exposes the dashboard, which runs code, to a network; leave it out"
    if "rayClusterSpec" in spec_of(job) and not groups_of(job):
        yield "workerGroupSpecs is empty: the head runs no trials, so the sweep would wait forever; add a group"


@rule("KO126")
def _head_service(job: Mapping[str, Any]) -> Iterator[str]:
    """The user's specification of the head's Service, which the operator completes."""
    given = at_of(cluster_of(job), "headGroupSpec", "headService")
    metadata, spec = at_of(given, "metadata"), at_of(given, "spec")
    name, space = str(metadata.get("name", "head")), at_of(job, "metadata").get("namespace")
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        yield (
            f"headService: {name!r} is not a valid Service name: lower case, digits, dashes, a letter first, at most 63"
        )
    if metadata.get("namespace") not in (None, "", space):
        yield f"headService: namespace {metadata['namespace']} differs from the job's, {space}; leave it out"
    for key in OUTWARD:
        if spec.get(key):
            yield f"headService: {key} points away from the head, or does not apply to a ClusterIP; leave it out"
    if spec.get("clusterIP") not in (None, "", "None"):
        yield f"headService: clusterIP {spec['clusterIP']} may be taken or outside the cluster's ranges; leave it out"
    for key, value in (metadata.get("labels") or {}).items():
        if not re.fullmatch(LABEL_KEY, str(key)) or not re.fullmatch(LABEL_VALUE, str(value)):
            yield f"headService: {key}: {value} is not a valid label"
    ports = spec.get("ports") or []
    if len({port.get("name") for port in ports}) < len(ports) or (
        len(ports) > 1 and not all(p.get("name") for p in ports)
    ):
        yield "headService: with several ports, each needs its own name"
    for port in ports:
        if port.get("nodePort"):
            yield f"headService: nodePort {port['nodePort']} does not apply to a ClusterIP; leave it out"
        meant = PORTS.get(str(port.get("name")))
        if meant and {port.get("port", meant), port.get("targetPort", meant)} - {meant, port.get("name")}:
            yield f"headService: port {port['name']} must be {meant}, where Ray listens and the operator connects"


@rule("KO123")
def _labels(job: Mapping[str, Any]) -> Iterator[str]:
    sweep = at_of(job, "metadata", "labels").get(OURS[1])
    told = at_of(job, "spec", "metadata").get("definition")
    if sweep and told and not str(sweep).endswith(f"-{told}"):
        yield f"spec.metadata.definition {told} does not match the job's label, {sweep}; write its last 8 characters"
    places = [("metadata", at_of(job, "metadata"), "labels")]
    places += [(where, part, "labels") for where, part in ray_pods_of(job)]
    places += [(f"{where}.template", at_of(part, "template", "metadata"), "labels") for where, part in ray_pods_of(job)]
    places.append(("submitterPodTemplate", at_of(job, "spec", "submitterPodTemplate", "metadata"), "labels"))
    for where, part, kind in places:
        for key, value in (part.get(kind) or {}).items():
            if not re.fullmatch(LABEL_KEY, str(key)):
                yield f"{where}.{kind}: {key!r} is not a valid label key (letters, digits and . _ -, at most 63)"
            elif "template" in where.lower() and str(key).startswith("ray.io/"):
                yield f"{where}.{kind}: {key} is set by the operator; leave it out"
            elif not isinstance(value, str) or not re.fullmatch(LABEL_VALUE, value):
                yield (
                    f"{where}.{kind}.{key}: {value!r} is not a valid label value (letters, digits and . _ -, at most "
                    f"63)"
                )
        for key, value in (part.get("annotations") or {}).items():
            if not re.fullmatch(LABEL_KEY, str(key)) or not isinstance(value, str):
                yield f"{where}.annotations.{key}: a key of letters, digits and . _ -, with text as its value"
        if where != "metadata" and "template" not in where.lower():
            continue
        for key in TEMPLATE if where != "metadata" else ():
            if part.get(key):
                yield f"{where}.metadata.{key}: the operator names each Pod; leave it out"
        meant = {"head.template": "sweep-head", "submitterPodTemplate": "sweep-submitter", "metadata": "sweep"}
        component = meant.get(where, "sweep-worker")
        if (part.get("labels") or {}).get(OURS[0], component) != component:
            yield (
                f"{where}.labels.{OURS[0]} is not {component}, which logs and network policies use to find it; write "
                f"that"
            )
        if (part.get("labels") or {}).get(OURS[1], sweep) != sweep:
            yield f"{where}.labels.{OURS[1]} differs from the job's, {sweep}; write that"
        for key in OURS:
            if not (part.get("labels") or {}).get(key):
                yield (
                    f"{where}.labels has no {key}: status, logs and the network policies use it to find objects; put "
                    f"it "
                    "back"
                )


OVERRIDES = {
    "ray.io/overwrite-container-cmd": "the operator would not start Ray, and the sweep would wait forever",
    "ray.io/external-storage-namespace": "it belongs to fault tolerance by Redis, which a sweep does not need",
}
SET: tuple[str, ...] = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_CLUSTER_NAME", "RAY_IP", "FQ_RAY_IP")
SET += ("RAY_PORT", "RAY_CLUSTER_NAMESPACE", "RAY_CLOUD_INSTANCE_ID", "RAY_NODE_TYPE_NAME", "KUBERAY_GEN_RAY_START_CMD")
DEVICES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def _templates(job: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Metadata of the Pods that become Ray nodes."""
    for where, part in ray_pods_of(job):
        yield f"{where}.template", at_of(part, "template", "metadata")


@rule("KO124")
def _environment(job: Mapping[str, Any]) -> Iterator[str]:
    scaling = cluster_of(job).get("enableInTreeAutoscaling")
    tolerant = cluster_of(job).get("gcsFaultToleranceOptions")
    for where, part in (("metadata", at_of(job, "metadata")), *_templates(job)):
        for key in (k for k in part.get("annotations") or {} if k in OVERRIDES):
            yield f"{where}.annotations.{key}: {OVERRIDES[key]}; leave it out"
    if at_of(job, "metadata", "annotations").get("ray.io/ft-enabled"):
        yield (
            "annotation ray.io/ft-enabled: it does not preserve a sweep's driver; the sweep is preserved by its "
            "storage; "
            "leave it out"
        )
    if tolerant:
        yield (
            "gcsFaultToleranceOptions: a lost head is recreated and the sweep continues from its storage; leave it out"
        )
    for key in ("redis-username", "redis-password"):
        if key in (at_of(cluster_of(job), "headGroupSpec").get("rayStartParams") or {}):
            yield f"headGroupSpec.rayStartParams.{key}: the operator rejects it; leave it out"
    for where, part in ray_pods_of(job):
        for container in at_of(part, "template", "spec").get("containers") or []:
            for entry in container.get("env") or []:
                name, value = str(entry.get("name")), entry.get("value")
                if not re.fullmatch(r"[A-Za-z_.][A-Za-z0-9_.-]*", name):
                    yield f"{where}: {name!r} is not a valid variable name"
                if value is not None and entry.get("valueFrom"):
                    yield f"{where}: {name} has value and valueFrom; keep one"
                if name in REDIS:
                    yield (
                        f"{where}: {name} requests fault tolerance with Redis, which the operator rejects here; leave "
                        f"it "
                        "out"
                    )
                if name == "RAY_enable_autoscaler_v2":
                    which = "autoscalerOptions.version sets it" if scaling else "autoscaling is off"
                    yield f"{where}: {name}: {which}, and the operator rejects it; leave it out"
                if name in SET:
                    yield f"{where}: {name} is set by the operator; leave it out"
                if name in DEVICES:
                    yield f"{where}: {name}: Ray assigns each trial its own from those of the Pod; leave it out"
                if name == "PATH":
                    yield f"{where}: PATH overrides that of the image, which contains geosweep and ray; leave it out"
