"""Read files under a sweep's root, which the API server cannot: with a Job that mounts the claim and prints a log.

It runs `geosweep logs` in the sweep's own image, read-only, and needs neither the sweep's Pods nor its Ray cluster: it
also works after the time to live, a lost head or `stop`. Kubernetes deletes it a minute after its end, even if the
client is gone by then.
"""

from __future__ import annotations

import codecs
import copy
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from orchestrator.kubernetes import pods, reasons
from orchestrator.kubernetes.profile_model import ProfileModel
from orchestrator.kubernetes.profiles import ROOT
from orchestrator.kubernetes.reasons import Seen
from orchestrator.kubernetes.states import SWEEP
from orchestrator.storage.errors import NotFound, Unreachable

NAME = "geosweep-logs"
LABELS = {"app.kubernetes.io/part-of": "geosweep", reasons.COMPONENT: "sweep-logs"}
START_S, LOOK_S, KEEP_S = 120.0, 0.5, 60
"""How long its Pod may take to start; how often it is checked; how long Kubernetes keeps the ended Job."""
READ_S, FOLLOW_S = 600, 86_400
"""Maximum run time, and with `--follow`."""
LEFT_OUT = ("GEOSWEEP_STORAGE", "RAY_USAGE_STATS_ENABLED")
ENDED = ("Succeeded", "Failed")


def of_job(job: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The Job that runs `geosweep logs SWEEP WORDS` on the root of a RayJob. Raises NotFound if it has no root."""
    spec = job["spec"]
    asked = re.search(r"--root[ =](\S+)", str(spec.get("entrypoint", "")))
    head = ((spec.get("rayClusterSpec") or {}).get("headGroupSpec") or {}).get("template")
    if not asked or not head:
        raise NotFound(f"RayJob {job['metadata']['name']} has no --root in its entrypoint, or no head")
    pod = copy.deepcopy(spec.get("submitterPodTemplate") or head)
    box = head["spec"]["containers"][0]
    kept = {key: box[key] for key in ("image", "imagePullPolicy", "envFrom") if key in box}
    kept["env"] = [e for e in box.get("env", ()) if e["name"] not in LEFT_OUT]
    mounted = [m for m in box.get("volumeMounts", ()) if PurePosixPath(asked[1]).is_relative_to(m["mountPath"])]
    names = [m["name"] for m in mounted]
    volumes = [v for v in head["spec"].get("volumes", ()) if v["name"] in names]
    return _job(pod, kept, volumes, mounted, [str(job["metadata"]["labels"][SWEEP]), *words, "--root", asked[1]])


def of_profile(profile: ProfileModel, registry: str, sweep: str, words: Sequence[str]) -> dict[str, Any]:
    """The same for a stopped sweep without a RayJob, under `/runs` on the profile's claim."""
    nothing = pods.Sweep(labels={"sweep-submitter": LABELS}, config="", image="", root=ROOT, data=False, fixed=False)
    pod = pods.submitter(nothing, profile, registry or profile.registry)
    kept = {key: value for key, value in pod["spec"]["containers"][0].items() if key.startswith("image")}
    claim = {"name": "runs", "persistentVolumeClaim": {"claimName": profile.claim}}
    mounted = [{"name": "runs", "mountPath": ROOT}]
    return _job(pod, kept, [claim], mounted, [sweep, *words, "--root", ROOT])


def _job(
    pod: dict[str, Any],
    kept: Mapping[str, Any],
    volumes: Sequence[Mapping[str, Any]],
    mounted: Sequence[Mapping[str, Any]],
    words: Sequence[str],
) -> dict[str, Any]:
    box = {
        "name": "logs",
        **kept,
        "command": ["geosweep", "logs", *words],
        "resources": pods.resources("500m", "1Gi"),
        "securityContext": pods.security(),
        "volumeMounts": [*({**m, "readOnly": True} for m in mounted), {"name": "scratch", "mountPath": "/tmp"}],
    }
    labels = {k: v for k, v in pod["metadata"].get("labels", {}).items() if k != SWEEP} | LABELS
    metadata = {key: value for key, value in pod["metadata"].items() if key == "annotations"} | {"labels": labels}
    spec = pod["spec"] | {
        "containers": [box],
        "volumes": [*volumes, {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{NAME}-{secrets.token_hex(4)}", **metadata},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": FOLLOW_S if "--follow" in words else READ_S,
            "ttlSecondsAfterFinished": KEEP_S,
            "template": {"metadata": metadata, "spec": spec},
        },
    }


class Reader:
    """Shows the output of such a Job; `core` is the client's API, `ask` converts its errors to ours.

    `seen` returns the Job's current state, with its Pods, oldest first.
    """

    def __init__(self, core: Any, ask: Callable[..., Any], seen: Callable[[Mapping[str, Any]], Seen]) -> None:
        self._core, self._ask, self._seen = core, ask, seen

    def read(self, job: Mapping[str, Any]) -> Iterator[str]:
        """Its output in chunks. Raises NotFound with its last line if it fails.

        Raises Unreachable, with the reason, if its Pod does not start within two minutes.
        """
        pod = self._started(job)
        live, held = "--follow" in job["spec"]["template"]["spec"]["containers"][0]["command"], ""
        for part in self._printed(pod):
            if live or held:
                yield part if live else held
            held = part or held
        if self._phase(job) == "Failed":
            raise NotFound((held.strip().splitlines() or ["it printed nothing"])[-1])
        if not live:
            yield held

    def _started(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Its Pod's metadata, once it has started."""
        deadline = time.monotonic() + START_S
        while True:
            found = self._seen(job)
            if found.pods and found.pods[-1]["status"].get("phase") in ("Running", *ENDED):
                return found.pods[-1]["metadata"]  # type: ignore[no-any-return]
            why, held = reasons.reason(found), job["spec"].get("suspend")
            if (why and not found.pods and not held) or time.monotonic() > deadline:
                raise Unreachable(f"the log cannot be read: {why or 'the Pod that reads it does not start'}")
            time.sleep(LOOK_S)

    def _printed(self, pod: Mapping[str, Any]) -> Iterator[str]:
        place = (pod["name"], pod["namespace"])
        answer = self._ask(lambda: self._core.read_namespaced_pod_log(*place, follow=True, _preload_content=False))
        parts, decoder = answer.stream(1 << 16), codecs.getincrementaldecoder("utf-8")("replace")
        while (part := self._ask(lambda: next(parts, None))) is not None:
            yield decoder.decode(part)
        if last := decoder.decode(b"", final=True):
            yield last

    def _phase(self, job: Mapping[str, Any]) -> str:
        """The phase in which its Pod ended; its log ends a moment earlier."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = self._seen(job).pods
            phase = found[-1]["status"].get("phase") if found else "Failed"
            if phase in ENDED:
                return str(phase)
            time.sleep(LOOK_S)
        return "Succeeded"
