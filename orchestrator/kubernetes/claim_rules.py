"""Devices by Dynamic Resource Allocation: a Pod's `resourceClaims`, and what Ray is told about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.kubernetes.rules import at_of, cluster_of, groups_of, rule


@rule("KO127")
def _claims(job: Mapping[str, Any]) -> Iterator[str]:
    head = at_of(cluster_of(job), "headGroupSpec", "template", "spec")
    if head.get("resourceClaims"):
        yield "headGroupSpec: resourceClaims: no trial runs on the head, so the device would be idle; leave them out"
    for group in groups_of(job):
        pod, where = at_of(group, "template", "spec"), f"group {group.get('groupName')}"
        claims, boxes = pod.get("resourceClaims") or [], pod.get("containers") or []
        if not claims or not boxes:
            continue
        used = {c.get("name") for box in boxes for c in at_of(box, "resources").get("claims") or []}
        for claim in claims:
            name = claim.get("name")
            if name not in used:
                yield f"{where}: no container uses claim {name}; add it to the container's resources.claims"
            if claim.get("resourceClaimName"):
                yield (
                    f"{where}: claim {name} is one ResourceClaim, which all Pods of the group would share; use "
                    f"resourceClaimTemplateName to give each its own"
                )
        if len({claim.get("name") for claim in claims}) < len(claims):
            yield f"{where}: two resourceClaims have the same name"
        limits = at_of(boxes[0], "resources", "limits")
        for name in [n for n in limits if "/" in str(n) and not str(n).startswith("rdma/")]:
            yield (
                f"{where}: {name} in addition to a claim gives the Pod two devices, one of which Ray never uses; keep "
                f"one"
            )
        if str((group.get("rayStartParams") or {}).get("num-gpus", "0")) == "0":
            yield f"{where}: Ray is not told about the claim's device; write rayStartParams: {{num-gpus: '1'}}"
