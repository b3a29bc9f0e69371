"""RayJobs on Kubernetes, by the API server of the user's kubeconfig. The only import of the `kubernetes` client.

States: ray-operator/controllers/ray/rayjob_controller.go at v1.7.0. A RayJob whose attempts may be retried is waiting
until the operator has given up (`Failed`); the outcome of the driver is `jobStatus`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from orchestrator.kubernetes.fit import RenderError
from orchestrator.kubernetes.profiles import NAMESPACE, of_context
from orchestrator.kubernetes.render import render
from orchestrator.remote import LIVING, Attempt, Order, pick
from orchestrator.storage.errors import NotFound, Unreachable

MINE, SWEEP, COMPONENT = "app.kubernetes.io/part-of=geosweep", "geosweep.io/sweep", "app.kubernetes.io/component"
OUTCOMES = {"SUCCEEDED": "done", "FAILED": "failed", "STOPPED": "stopped"}
REQUEST_S, GONE_S = 30, 120.0
BAD, GONE, EXISTS, INVALID = 400, 404, 409, 422
NOTHING: Mapping[int, Exception | None] = {}


class KubernetesCluster:
    """Sweeps in a namespace (see `orchestrator.remote.Cluster`). `context` of the kubeconfig; empty: its own.

    `namespace`; empty: that of the context, and `sweeps` where it has none.
    Raises Unreachable without the client or without a kubeconfig.
    """

    def __init__(self, context: str = "", namespace: str = "") -> None:
        try:
            from kubernetes import client, config
        except ImportError:
            raise Unreachable("the kubernetes client is not installed: pip install 'geosweep[k8s]'") from None
        settings = client.Configuration()
        try:
            config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG") or None,  # the client reads it only once, at its import
                context=context or None,
                client_configuration=settings,
            )
        except config.ConfigException as error:
            raise Unreachable(
                f"kubeconfig: {str(error).rstrip('.')}; name it with KUBECONFIG, a context with k8s://CONTEXT"
            ) from None
        settings.retries = 1
        self._server = settings.host
        self._namespace = namespace or of_context(context) or NAMESPACE
        self._path = ("ray.io", "v1", self._namespace, "rayjobs")
        self._api = client.ApiClient(settings)
        self._rayjobs, self._core = client.CustomObjectsApi(self._api), client.CoreV1Api(self._api)

    def submit(self, order: Order) -> Attempt:
        """See `Cluster`. Raises RenderError for a manifest that the cluster cannot run."""
        text = render(
            order.text,
            order.file,
            profile=order.profile,
            namespace=self._namespace,
            queue=order.queue,
            priority=order.priority,
            elastic=order.elastic,
            registry=order.registry,
            root=order.root,
            parcel=order.parcel,
            code_at=order.code_at,
        )
        *configs, job = yaml.safe_load_all(text)
        name = job["metadata"]["name"]
        before = next((j for j in self._list() if j["metadata"]["name"] == name), None)
        if before is not None:
            attempt = _attempt(before)
            if attempt.state in LIVING or attempt.state == "done":
                return attempt
        self._create(lambda: self._create_job(job, dry_run="All"))
        if before is not None:
            self._delete(name)
            self._wait_until_gone(name)
        made = self._create(lambda: self._create_job(job))
        for config in configs:
            self._create_config(config, made)
        return self.status(order.sweep_id)

    def status(self, name: str) -> Attempt:
        """See `Cluster`."""
        return pick([_attempt(j) for j in self._list()], name, self._server)

    def logs(self, name: str) -> str:
        """The log of the newest submitter Pod, which follows the driver's. See `Cluster`."""
        found = self.status(name)
        chosen = f"{SWEEP}={found.sweep_id},{COMPONENT}=sweep-submitter"
        pods = self._ask(
            lambda: self._core.list_namespaced_pod(self._namespace, label_selector=chosen, _request_timeout=REQUEST_S)
        ).items
        if not pods:
            raise NotFound(f"{found.sweep_id} has no log yet: it is {found.state} ({found.reason or 'no Pod'})")
        newest = max(pods, key=lambda p: p.metadata.creation_timestamp).metadata.name
        return str(
            self._ask(
                lambda: self._core.read_namespaced_pod_log(newest, self._namespace, _request_timeout=REQUEST_S),
                {BAD: NotFound(f"{found.sweep_id} has no log yet: its Pod {newest} is starting")},
            )
        )

    def trial_log(self, name: str, words: Sequence[str]) -> Iterable[str]:
        """Not by the API server. Raises NotFound with the command that shows it."""
        found = self.status(name)
        raise NotFound(
            f"trial {words[0]}: the API server has the driver's log only. What trials print is under the sweep's root: "
            f"geosweep logs {found.sweep_id} {words[0]} --root s3://..., or where that is mounted: kubectl exec -n "
            f"{self._namespace} POD -- geosweep logs {found.sweep_id} {words[0]} --root /runs"
        )

    def stop(self, name: str) -> Attempt | None:
        """Delete the RayJob, and with it its Ray cluster; `submit` continues the sweep. See `Cluster`."""
        found = self.status(name)
        if found.state not in LIVING:
            return None
        self._delete(found.job)
        return replace(found, reason="is being deleted; submit goes on from its newest checkpoints")

    def _list(self) -> list[dict[str, Any]]:
        listed = self._ask(
            lambda: self._rayjobs.list_namespaced_custom_object(
                *self._path, label_selector=MINE, _request_timeout=REQUEST_S
            )
        )
        jobs = [j for j in listed["items"] if SWEEP in j["metadata"].get("labels", {})]
        return sorted(jobs, key=lambda j: str(j["metadata"].get("creationTimestamp", "")))

    def _create_config(self, config: dict[str, Any], job: Mapping[str, Any] | None) -> None:
        """It goes with its RayJob: Pods that come before it wait for it. One of an earlier attempt is taken over."""
        if job is not None:
            owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "controller": False}
            owner |= {key: job["metadata"][key] for key in ("name", "uid")}
            config["metadata"]["ownerReferences"] = [owner]
        name, owners = (
            config["metadata"]["name"],
            {"metadata": {"ownerReferences": config["metadata"].get("ownerReferences")}},
        )
        made = self._create(
            lambda: self._core.create_namespaced_config_map(self._namespace, config, _request_timeout=REQUEST_S)
        )
        if made is None and job is not None:
            self._ask(
                lambda: self._core.patch_namespaced_config_map(
                    name, self._namespace, owners, _request_timeout=REQUEST_S
                )
            )

    def _create_job(self, job: Mapping[str, Any], **options: Any) -> Any:
        return self._rayjobs.create_namespaced_custom_object(*self._path, job, _request_timeout=REQUEST_S, **options)

    def _create(self, call: Callable[[], Any]) -> Any:
        """What was made; None for one that exists: of the same submission, or another one at the same time."""
        refused = RenderError("the API server refuses the manifest")
        return self._ask(call, {BAD: refused, INVALID: refused, EXISTS: None})

    def _delete(self, name: str) -> None:
        self._ask(
            lambda: self._rayjobs.delete_namespaced_custom_object(*self._path, name, _request_timeout=REQUEST_S),
            {GONE: None},
        )

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + GONE_S
        while any(j["metadata"]["name"] == name for j in self._list()):
            if time.monotonic() > deadline:
                raise Unreachable(f"RayJob {name} of the last attempt is still being deleted; submit again later")
            time.sleep(0.5)

    def _ask(self, call: Callable[[], Any], expected: Mapping[int, Exception | None] = NOTHING) -> Any:
        """The answer; for an error code in `expected` that error with the server's words, or None."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            if error.status in expected:
                if (meant := expected[error.status]) is None:
                    return None
                raise type(meant)(f"{meant}: {_message(error)}") from None
            hint = "; is the KubeRay operator installed?" if error.status == GONE else ""
            raise Unreachable(f"{self._server} answers {error.status}: {_message(error)}{hint}") from None
        except HTTPError as error:
            raise Unreachable(f"{self._server} does not answer: {error}") from None


def _attempt(job: Mapping[str, Any]) -> Attempt:
    status: Mapping[str, Any] = job.get("status") or {}
    deployment, outcome = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    leaving = "deletionTimestamp" in job["metadata"]
    if leaving:
        state = "stopped"
    elif deployment in ("Complete", "Failed", "ValidationFailed"):
        state = OUTCOMES.get(outcome, "failed") if deployment != "ValidationFailed" else "failed"
        state = "failed" if deployment == "Failed" and state == "done" else state
    else:
        state = "running" if deployment == "Running" and outcome == "RUNNING" else "waiting"
    said = [
        "being deleted" if leaving else deployment if state == "waiting" else "",
        status.get("reason", ""),
        status.get("message", ""),
    ]
    if status.get("failed"):
        said.append(f"{status['failed']} attempts failed")
    return Attempt(
        job=job["metadata"]["name"],
        sweep_id=job["metadata"]["labels"][SWEEP],
        state=state,
        reason=": ".join(" ".join(str(part).split()) for part in said if part),
    )


def _message(error: Any) -> str:
    """The API server's own words, of a Status object where there is one."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
