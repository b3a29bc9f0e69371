"""Which worker Pods a sweep needs: one trial per Pod, or as many as share a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.definition import plan
from orchestrator.definition.model import Spec
from orchestrator.kubernetes.profile_model import GroupModel, ProfileModel


class RenderError(ValueError):
    """The sweep cannot run on that cluster; the message says why and what to change."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Worker Pods of one group."""

    name: str
    group: GroupModel
    cpu: int
    gpu: int
    memory: int
    """GiB."""
    trials_per_pod: int
    max_pods: int

    @property
    def max_concurrent(self) -> int:
        """Concurrent trials when all Pods are up."""
        return self.trials_per_pod * self.max_pods


def fit(spec: Spec, profile: ProfileModel) -> Fit:
    """The Pod for the sweep's trials, in the first group it fits. Raises RenderError if it fits none."""
    if spec.budget.unit == "seconds" and not spec.task.is_program:
        raise RenderError(
            "budget.unit seconds: the driver calibrates the arms on its own machine, but here trials run on others; "
            "use "
            "grad_evals, steps or tokens"
        )
    wanted = spec.resources
    share = int(1 / wanted.gpu + 1e-9) if 0 < wanted.gpu < 1 else 1
    if wanted.max_concurrent:
        share = min(share, wanted.max_concurrent)
    gpu = math.ceil(wanted.gpu)
    one = wanted.cpu * wanted.processes
    reasons = []
    for name, group in profile.groups.items():
        if (gpu > 0) != (group.gpu > 0):
            reasons.append(f"{name}: has {'no ' if not group.gpu else ''}GPUs")
        elif gpu > group.gpu or one > group.cpu:
            reasons.append(f"{name}: a Pod has at most {group.cpu} CPU and {group.gpu} GPU")
        elif group.gpu_claim and gpu != group.gpu:
            reasons.append(f"{name}: its claim gives every Pod {group.gpu} GPU, not {gpu}")
        else:
            trials = min(share, group.cpu // one)
            pods = min(group.max_pods, math.ceil(_most_trials(spec) / trials))
            if wanted.max_concurrent:
                pods = min(pods, math.ceil(wanted.max_concurrent / trials))
            memory = one * trials * group.memory_per_cpu + gpu * group.memory_per_gpu
            return Fit(
                name=name,
                group=group,
                cpu=one * trials,
                gpu=gpu,
                memory=memory,
                trials_per_pod=trials,
                max_pods=pods,
            )
    raise RenderError(
        f"a trial needs {one} CPU and {wanted.gpu:g} GPU ({wanted.processes} processes) and fits no worker group "
        f"({'; '.join(reasons)}); lower resources in the sweep file, or use another --profile"
    )


def _most_trials(spec: Spec) -> int:
    """Concurrent trials if nothing limited them: every study of every arm in its larger stage."""
    tune, confirm = len(spec.seeds.tune), len(spec.seeds.confirm)  # of all studies together
    return max(1, sum(max(plan.configurations(spec, arm) * tune, confirm) for arm in spec.arms.values()))
