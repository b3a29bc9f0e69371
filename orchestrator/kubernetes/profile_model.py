"""A profile as pydantic models: what a cluster offers to sweeps, in a YAML file written by each team.

Node selectors, tolerations, affinities and volumes use Kubernetes' own syntax, and are checked in the Pods.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.definition.field_types import Seconds
from orchestrator.definition.parameter_models import Model
from orchestrator.kubernetes.quantities import quantity
from orchestrator.kubernetes.secret_shapes import secret_of

NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
LABEL_KEY = r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
IMAGE = r"([A-Za-z0-9.-]+(:\d+)?/)?[a-z0-9._/-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?"
REGISTRY = r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*/?"
MIG = r"nvidia\.com/mig-\d+g\.\d+gb(\.[a-z0-9.]+)?"
OURS = ("app.kubernetes.io/part-of", "app.kubernetes.io/component", "geosweep.io/sweep", "ray.io/", "kueue.x-k8s.io/")
OUR_VARIABLES = (
    "GEOSWEEP_STORAGE",
    "GEOSWEEP_DATA",
    "RAY_USAGE_STATS_ENABLED",
    "RAY_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_REDIS_ADDRESS",
    "RAY_enable_autoscaler_v2",
)


def _matching(pattern: str, what: str) -> Any:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"not a valid {what}")
        return value

    return AfterValidator(check)


def _amount(value: Any) -> Any:
    """A number of CPUs may be written without quotes."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not quantity(text) > 0:
        raise ValueError("not a quantity above 0, such as 2, 500m or 8Gi")
    return text


def _gibibytes(value: Any) -> Any:
    """Text with a unit is refused with the number to write."""
    if not isinstance(value, str):
        return value
    text = re.sub(r"\s+|B$", "", value)
    amount = float(text) if text.isdecimal() else quantity(text) / 2**30
    raise ValueError(f"the unit is GiB; write {math.ceil(amount) if 0 < amount < math.inf else 'a whole number'}")


def _pinned(value: str) -> str:
    if not re.fullmatch(IMAGE, value):
        raise ValueError("not an image reference, such as registry.example.com/team/name:1.0")
    last = value.rsplit("/", 1)[-1]
    if "@sha256:" not in value and (":" not in last or value.endswith(":latest")):
        raise ValueError("has no version; add a tag other than latest, or a digest")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not re.fullmatch(LABEL_KEY, key):
            raise ValueError(f"{key!r} is not a valid label key")
        if not re.fullmatch(LABEL_VALUE, text):
            raise ValueError(f"{text!r} is not a valid label value (letters, digits and . _ -, at most 63)")
        if key.startswith(OURS):
            raise ValueError(f"{key} is set by geosweep, KubeRay or Kueue; use another key")
    return value


def _annotations(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not re.fullmatch(LABEL_KEY, key):
            raise ValueError(f"{key!r} is not a valid annotation key")
    return value


def _selector(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not re.fullmatch(LABEL_KEY, key) or not re.fullmatch(LABEL_VALUE, text):
            raise ValueError(f"{key}: {text} cannot be a node label")
    return value


Name = Annotated[str, _matching(NAME, "Kubernetes name: lower case, digits and dashes, at most 63")]
ObjectName = Annotated[
    str, _matching(rf"{NAME}(\.{NAME})*", "Kubernetes name: lower case, digits, dashes and dots between them")
]
Amount = Annotated[str, BeforeValidator(_amount)]
Gibibytes = Annotated[int, BeforeValidator(_gibibytes)]
Image = Annotated[str, AfterValidator(_pinned)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_annotations)]
Registry = Annotated[
    str,
    _matching(f"({REGISTRY})?", "registry; write it as in image names, registry.example.com/team, without https://"),
]
Device = Annotated[
    str,
    _matching(
        r"[a-z0-9.-]+\.[a-z]+/[A-Za-z0-9._-]+",
        "device resource name, such as nvidia.com/gpu, amd.com/gpu or nvidia.com/mig-1g.10gb",
    ),
]


class FromSecret(Model):
    """Where the value of a variable comes from."""

    secret: ObjectName = Field(description="Name of the Secret in the sweep's namespace.")
    key: str = Field(min_length=1, description="The key in it.")


def _variable(given: Any) -> Any:
    """A mapping must be a complete FromSecret; for a union the error message would ask for text."""
    if isinstance(given, dict) and set(given) != set(FromSecret.model_fields):
        raise ValueError("write text, or {secret: NAME, key: KEY}")
    return given


def _wrong_variable(name: str, given: str | FromSecret) -> str:
    """What is wrong with a variable; its value is never shown."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return "not a valid variable name"
    if name in OUR_VARIABLES:
        return f"{name} is set by geosweep or the operator; leave it out"
    if isinstance(given, str) and (what := secret_of(name, given)):
        return f"holds {what} in plain text; write {{secret: NAME, key: KEY}}"
    return ""


class VolumeModel(Model):
    """An additional volume of Pods."""

    name: Name = Field(description="Its name in the Pod.")
    mount: Annotated[str, _matching(r"/[^:\s]*", "absolute path")] = Field(description="Folder where it is mounted.")
    source: dict[str, Any] = Field(
        min_length=1, max_length=1, description="As a Pod names it, such as {persistentVolumeClaim: {claimName: data}}."
    )
    read_only: bool = Field(True, description="Whether it is read-only.")


class PodModel(Model):
    """Settings for Pods: for all of them, and in addition for head, submitter or a group of workers."""

    node_selector: Annotated[dict[str, str], AfterValidator(_selector)] = Field(
        {}, description="Labels required of a node."
    )
    tolerations: list[str | dict[str, Any]] = Field(
        [], description="Tolerated taints: a key (NoSchedule), or a toleration in Kubernetes' syntax."
    )
    affinity: dict[str, Any] = Field({}, description="An affinity in Kubernetes' syntax.")
    priority_class: ObjectName | None = Field(None, description="A PriorityClass of the cluster.")
    runtime_class: ObjectName | None = Field(None, description="A RuntimeClass of the cluster, such as nvidia.")
    labels: Labels = Field({}, description="Further labels.")
    annotations: Annotations = Field({}, description="Further annotations.")
    env: dict[str, Annotated[str | FromSecret, BeforeValidator(_variable)]] = Field(
        {}, description="Variables: text, or {secret: NAME, key: KEY}."
    )
    env_from: list[ObjectName] = Field([], description="Secrets whose keys all become variables.")
    volumes: list[VolumeModel] = Field([], description="Further volumes.")


class SizedModel(PodModel):
    """A Pod of fixed size."""

    cpu: Amount = Field(description="CPUs, request and limit.")
    memory: Amount = Field(description="Memory, request and limit, such as 8Gi.")


class GroupModel(PodModel):
    """Workers of one kind: the largest Pod, and the maximum number."""

    cpu: int = Field(gt=0, description="CPUs of the largest Pod.")
    gpu: int = Field(0, ge=0, description="GPUs of the largest Pod.")
    gpu_resource: Device = Field("nvidia.com/gpu", description="The device's resource name in limits.")
    gpu_claim: ObjectName | None = Field(
        None,
        description="A ResourceClaimTemplate in the namespace (DRA) that provides `gpu` devices, used instead of it.",
    )
    min_pods: int = Field(0, ge=0, description="Minimum number of Pods, busy or not.")
    max_pods: int = Field(gt=0, description="Maximum number of Pods.")
    memory_per_cpu: Gibibytes = Field(gt=0, description="GiB per CPU of a Pod.")
    memory_per_gpu: Gibibytes = Field(0, ge=0, description="Additional GiB per GPU of a Pod.")
    image: Image | None = Field(None, description="Image of its Pods; default: images.worker.")


class ImagesModel(Model):
    """Images; `registry` is prefixed to those that name none."""

    head: Image = Field("geosweep-head:0.1.0", description="Of head and submitter.")
    worker: Image = Field("geosweep-worker:0.1.0", description="Of workers.")
    pull_secrets: list[ObjectName] = Field([], description="Secrets for a private registry.")
    pull_policy: (
        Annotated[str, _matching("Always|IfNotPresent|Never", "policy: Always, IfNotPresent or Never")] | None
    ) = Field(None, description="Always, IfNotPresent or Never.")


class AccountsModel(Model):
    """ServiceAccounts of Pods. KubeRay lets the head's account request workers when the cluster autoscales."""

    head: ObjectName = Field("sweep-head", description="Of the head.")
    worker: ObjectName = Field("sweep-runner", description="Of workers.")
    submitter: ObjectName = Field("sweep-runner", description="Of the Pod that submits the job and follows its log.")


class AutoscalingModel(Model):
    """How a cluster grows and shrinks."""

    idle_timeout: Seconds = Field("2m", validate_default=True, description="An idle worker is removed after this time.")
    elastic: bool = Field(
        False, description="Under Kueue: grow and shrink within the quota instead of a fixed size (Kueue 0.18)."
    )


def _no_claim(value: str) -> str:
    if "@" in value:
        raise ValueError("holds credentials; put them in the Secret geosweep-tracking")
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?", value):
        raise ValueError("not a server; write it as http(s)://HOST:PORT")
    return value


class ProfileModel(PodModel):
    """A kind of cluster; a trial goes to the first worker group that it fits."""

    extends: str | None = Field(None, description="A bundled profile that this one modifies.")
    namespace: Name | None = Field(
        None, description="Default: that of the kubeconfig's context, or sweeps if it names none."
    )
    registry: Registry = Field("", description="Registry and path prefixed to images that name none.")
    images: ImagesModel = Field(ImagesModel.model_validate({}), description="Images and how they are pulled.")
    accounts: AccountsModel = Field(AccountsModel.model_validate({}), description="ServiceAccounts.")
    head: SizedModel = Field(description="The head: runs the driver, no trials.")
    submitter: SizedModel = Field(
        SizedModel.model_validate({"cpu": "500m", "memory": "1Gi"}),
        description="The Pod that submits the job and follows its log.",
    )
    groups: dict[Name, GroupModel] = Field(min_length=1, description="Kinds of workers.")
    autoscaling: AutoscalingModel = Field(
        AutoscalingModel.model_validate({}), description="How a cluster grows and shrinks."
    )
    queue: Name | None = Field(None, description="Kueue LocalQueue.")
    priority: ObjectName | None = Field(None, description="Kueue WorkloadPriorityClass.")
    ttl: Seconds = Field(
        "10m",
        validate_default=True,
        description="The Ray cluster is deleted this long after the end; with a queue, at once.",
    )
    deadline: Seconds = Field(
        "7d", validate_default=True, description="For a sweep without a wall-clock budget in its file."
    )
    tracking: Annotated[str, AfterValidator(_no_claim)] | None = Field(
        None, description="MLflow server; default: Service mlflow of the namespace."
    )
    fair: bool = Field(False, description="Whether sweeps with an unfair protocol are refused, as with --fair.")
    claim: ObjectName = Field("geosweep-runs", description="The claim at /runs.")

    def problems(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Problems across keys: (path, message)."""
        found: list[tuple[tuple[str | int, ...], str]] = []
        if self.priority and not self.queue:
            found.append((("priority",), "is for Kueue and needs a queue; for Pods without one use priority_class"))
        for name, group in self.groups.items():
            if group.min_pods > group.max_pods:
                found.append(
                    (("groups", name, "min_pods"), f"{group.min_pods} is more than max_pods, {group.max_pods}")
                )
            if group.gpu_claim and not group.gpu:
                found.append((("groups", name, "gpu_claim"), "set gpu to the number of devices that it provides"))
            if group.gpu > 1 and re.fullmatch(MIG, group.gpu_resource):
                found.append(
                    (
                        ("groups", name, "gpu"),
                        f"{group.gpu}, but a process sees at most one MIG slice; write 1: one Pod per trial",
                    )
                )
        parts: list[tuple[tuple[str | int, ...], PodModel]] = [(("head",), self.head), (("submitter",), self.submitter)]
        parts += [(("groups", name), group) for name, group in self.groups.items()]
        for path, part in [((), self), *parts]:
            for name, given in part.env.items():
                if wrong := _wrong_variable(name, given):
                    found.append(((*path, "env", name), wrong))
            beside = self.volumes if path else []
            taken = {v.name: v.mount for v in beside} | {"runs": "/runs", "ray": "/tmp", "shm": "/dev/shm"}
            taken |= {"sweep": "/etc/sweep", "code": "/etc/sweep-code", "gpu": ""}
            for i, volume in enumerate(part.volumes):
                if volume.name in taken or volume.mount.rstrip("/") in taken.values():
                    at = (*path, "volumes", i)
                    found.append((at, f"{volume.name} at {volume.mount}: the name or the folder is already taken"))
                taken[volume.name] = volume.mount
        return found
