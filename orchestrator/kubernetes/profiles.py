"""What a kind of cluster offers: images, worker groups and the storage that all its Pods share."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMESPACE = "sweeps"
ROOT = "/runs"
"""Where the claim CLAIM is mounted in the head and in every worker."""
CLAIM = "geosweep-runs"
DATA = f"{ROOT}/data"
"""Where data sets lie on that volume: GEOSWEEP_DATA of Pods whose task reads one."""
TRACKING = "http://mlflow.sweeps.svc.cluster.local:5000"


@dataclass(frozen=True, kw_only=True)
class WorkerGroup:
    """The largest Pod of a kind, and how many there may be."""

    name: str
    cpu: int
    """CPUs of the largest Pod."""
    gpu: int
    """GPUs of the largest Pod."""
    max_pods: int
    memory_per_cpu: int
    """GiB for each CPU of a Pod."""
    memory_per_gpu: int = 0
    """GiB more for each GPU of a Pod."""
    image: str = "geosweep-worker:0.1.0"
    tolerations: tuple[str, ...] = ()
    """Taints, NoSchedule, that its Pods bear."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A kind of cluster; worker groups in the order in which a trial tries them."""

    groups: tuple[WorkerGroup, ...]
    head_cpu: str
    head_memory: str
    head_image: str = "geosweep-head:0.1.0"
    deadline_s: int = 7 * 86400
    """Of a sweep whose file names no wall-clock budget."""
    labels: dict[str, str] = field(default_factory=dict)


SPOT = "geosweep.io/spot"
PROFILES: dict[str, Profile] = {
    "kind": Profile(
        head_cpu="1",
        head_memory="4Gi",
        groups=(WorkerGroup(name="cpu", cpu=2, gpu=0, max_pods=2, memory_per_cpu=2),),
    ),
    "gpu-cluster": Profile(
        head_cpu="2",
        head_memory="8Gi",
        groups=(
            WorkerGroup(name="cpu", cpu=32, gpu=0, max_pods=64, memory_per_cpu=4, tolerations=(SPOT,)),
            WorkerGroup(
                name="gpu",
                cpu=64,
                gpu=8,
                max_pods=32,
                memory_per_cpu=4,
                memory_per_gpu=16,
                image="geosweep-worker-gpu:0.1.0",
                tolerations=(SPOT, "nvidia.com/gpu"),
            ),
        ),
    ),
}
