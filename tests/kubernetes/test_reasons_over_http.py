"""The same reasons by the verbs, for whoever has nothing but the API server, which is asked anew each time."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.kubernetes.api_server import CLUSTERS, EVENTS, JOBS, PODS, WORKLOADS, ApiServer
from tests.kubernetes.objects import NAME
from tests.kubernetes.test_reasons import CASES
from tests.verbs import Called

KINDS = (
    "head over quota",
    "workers over quota",
    "limit range",
    "image",
    "no node",
    "volume claim not bound",
    "Kueue, full",
    "account of a worker",
    "account of the head, which the operator looks for",
    "Pod Security",
)
OWN = {"app.kubernetes.io/part-of": "geosweep", "geosweep.io/sweep": NAME}


def entered(place: dict[str, Any], found: Mapping[str, Any] | None, **labels: str) -> None:
    """As a server holds it."""
    if found is None:
        return
    held = copy.deepcopy(dict(found))
    metadata = held.setdefault("metadata", {})
    name = metadata.setdefault("name", f"object-{len(place)}")
    metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
    metadata["labels"] = {**labels, **metadata.get("labels", {})}
    for box in (held.get("status") or {}).get("containerStatuses", ()):
        box.update({"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0} | box)
    for box in (held.get("spec") or {}).get("containers", ()):
        box.setdefault("name", "c")
    place[name] = held


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS)
def test_status_and_logs_say_why_nothing_runs(server: ApiServer, call: Callable[..., Called], case: str) -> None:
    seen, words = CASES[case]
    entered(server.objects[JOBS], seen.job, **OWN)
    if seen.cluster is not None:
        entered(server.objects[CLUSTERS], seen.cluster)
    for found in seen.workloads:
        entered(server.objects[WORKLOADS], found)
    for found in seen.pods:
        entered(server.objects[PODS], found, **OWN)
        server.logs[found["metadata"]["name"]] = "sweep fit\n"
    for found in seen.events:
        entered(server.objects[EVENTS], found)
    status = json.loads(call("status", NAME, "--json").out)
    assert [word for word in words if word not in status["reason"]] == [], status
    logs = call("logs", NAME)
    assert [word for word in words if word not in " ".join(logs.err.split())] == [], logs.err
    server.asked.clear()
    assert call("status", NAME).out.count("\n") == 1
    assert len(server.asked) <= 6, "a look costs the API server little"
