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
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from orchestrator.kubernetes import pods, reasons
from orchestrator.kubernetes.profile_model import ProfileModel
from orchestrator.kubernetes.profiles import ROOT
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
    """Runs such a Job; `core` and `batch` are the client's APIs, `ask` converts its errors to ours.

    `seen` returns the Pods of a Job and the namespace's warnings.
    """

    def __init__(
        self,
        core: Any,
        batch: Any,
        namespace: str,
        ask: Callable[..., Any],
        seen: Callable[[str], tuple[list[dict[str, Any]], Sequence[Mapping[str, Any]]]],
    ) -> None:
        self._core, self._batch, self._namespace, self._ask, self._seen = core, batch, namespace, ask, seen

    def read(self, job: Mapping[str, Any], refused: Mapping[int, Exception]) -> Iterator[str]:
        """Its output in chunks. Raises NotFound with its last line if it fails, and the exceptions in `refused`.

        Raises Unreachable, with the reason, if its Pod does not start within two minutes.
        """
        name = job["metadata"]["name"]
        self._ask(lambda: self._batch.create_namespaced_job(self._namespace, job), refused)
        try:
            pod = self._started(name)
            live, held = "--follow" in job["spec"]["template"]["spec"]["containers"][0]["command"], ""
            for part in self._printed(pod):
                if live or held:
                    yield part if live else held
                held = part or held
            if self._phase(name) == "Failed":
                raise NotFound((held.strip().splitlines() or ["it printed nothing"])[-1])
            if not live:
                yield held
        finally:
            with suppress(Exception):
                self._batch.delete_namespaced_job(name, self._namespace, propagation_policy="Background")

    def _started(self, name: str) -> str:
        """The name of its Pod, once it has started."""
        deadline = time.monotonic() + START_S
        while True:
            found, events = self._seen(name)
            if found and (found[-1].get("status") or {}).get("phase") in ("Running", *ENDED):
                return str(found[-1]["metadata"]["name"])
            job = {"metadata": {"name": name, "namespace": self._namespace, "labels": LABELS}}
            why = reasons.reason(reasons.Seen(job=job, pods=found, events=events))
            refused = bool(why) and not found
            if refused or time.monotonic() > deadline:
                raise Unreachable(f"the log cannot be read: {why or 'the Pod that reads it does not start'}")
            time.sleep(LOOK_S)

    def _printed(self, pod: str) -> Iterator[str]:
        answer = self._ask(
            lambda: self._core.read_namespaced_pod_log(pod, self._namespace, follow=True, _preload_content=False)
        )
        parts, decoder = answer.stream(1 << 16), codecs.getincrementaldecoder("utf-8")("replace")
        while (part := self._ask(lambda: next(parts, None))) is not None:
            yield decoder.decode(part)
        if last := decoder.decode(b"", final=True):
            yield last

    def _phase(self, name: str) -> str:
        """The phase in which its Pod ended; its log ends a moment earlier."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found, _ = self._seen(name)
            phase = (found[-1].get("status") or {}).get("phase") if found else "Failed"
            if phase in ENDED:
                return str(phase)
            time.sleep(LOOK_S)
        return "Succeeded"
