"""RayJobs on Kubernetes, through the API server in the user's kubeconfig. The only import of the `kubernetes`
client.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import yaml

from orchestrator.definition.states import AttemptState
from orchestrator.kubernetes import profiles, reader
from orchestrator.kubernetes.fit import RenderError
from orchestrator.kubernetes.profiles import NAMESPACE, of_context
from orchestrator.kubernetes.reasons import QUEUE, Seen, living, names, reason
from orchestrator.kubernetes.render import render
from orchestrator.kubernetes.states import SWEEP, attempt
from orchestrator.remote import Attempt, Order, pick, state_of
from orchestrator.storage import ending
from orchestrator.storage.errors import NotFound, Unreachable

MINE, COMPONENT = "app.kubernetes.io/part-of=geosweep", "app.kubernetes.io/component"
REQUEST_S, GONE_S, FREED_S = 30, 120.0, 15.0
BAD, FORBIDDEN, GONE, EXISTS, INVALID = 400, 403, 404, 409, 422
EVENTS, TAIL = 1000, 50
KUEUE = ("v1beta2", "v1beta1")
FINALIZED = "the RayJob itself still exists: is the KubeRay operator running? It must remove its finalizer"
SUBMITTER = "sweep-submitter"
HOOK = "admission webhook"
"""In the message of a webhook's rejection, which has the same code as a missing permission."""
WHOLE = r".+-[0-9a-f]{8}"
"""A complete sweep id, not a prefix."""
NOTHING: Mapping[int, Exception | None] = {}


class KubernetesCluster:
    """Sweeps in a namespace (see `orchestrator.remote.Cluster`). `context` of the kubeconfig; empty: its own.

    `namespace`; empty: that of the context, and `sweeps` where it has none.
    `profile` and `registry` locate images and claim for the logs of a sweep without a RayJob.
    Raises Unreachable without the client or without a kubeconfig.
    """

    def __init__(self, context: str = "", namespace: str = "", profile: str = "", registry: str = "") -> None:
        try:
            from kubernetes import client, config
        except ImportError:
            raise Unreachable("the kubernetes client is not installed: pip install 'geosweep[k8s]'") from None
        settings = client.Configuration()
        try:
            config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG") or None,  # the client reads it only once, on import
                context=context or None,
                client_configuration=settings,
            )
        except config.ConfigException as error:
            raise Unreachable(
                f"kubeconfig: {str(error).rstrip('.')}; name it with KUBECONFIG, a context with k8s://CONTEXT"
            ) from None
        settings.retries, settings.client_side_validation = 1, False
        self._server = settings.host
        self._namespace = namespace or of_context(context) or NAMESPACE
        self._path = ("ray.io", "v1", self._namespace, "rayjobs")
        self._api = client.ApiClient(settings)
        self._rayjobs, self._core = client.CustomObjectsApi(self._api), client.CoreV1Api(self._api)
        self._batch = client.BatchV1Api(self._api)
        self._profile, self._registry = profile, registry

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
            fair=order.fair,
            parcel=order.parcel,
            code_at=order.code_at,
        )
        *configs, job = yaml.safe_load_all(text)
        name = job["metadata"]["name"]
        before = next((j for j in self._list() if j["metadata"]["name"] == name), None)
        if before is not None:
            found = self._seen(before)
            spent = found.state is AttemptState.BUDGET and _same(before, job)
            if found.state.is_living or found.state is AttemptState.DONE or spent:
                return found
        self._create(lambda: self._create_job(job, dry_run="All"))
        if before is not None:
            self._delete(name)
            self._wait_until_gone(name)
        made = self._create(lambda: self._create_job(job))
        for config in configs:
            self._create_config(config, made)
        return self.status(order.sweep_id)

    def status(self, name: str) -> Attempt:
        """See `Cluster`; with the reason if it waits or the operator lost it, and with its ending if it ended."""
        jobs = self._list()
        found = pick([attempt(j) for j in jobs], name, self._server)
        return self._seen(next(j for j in jobs if j["metadata"]["name"] == found.job))

    def logs(self, name: str) -> str:
        """The log of the newest submitter Pod, which follows the driver's. See `Cluster`."""
        found = self.status(name)
        newest = self._submitter(found.sweep_id)
        if not newest:
            raise NotFound(f"{found.sweep_id} has no log: it is {found.state} ({found.reason or 'no Pod'})")
        return self._log(newest, f"{found.sweep_id} has no log yet: its Pod {newest} is starting")

    def _submitter(self, sweep_id: str) -> str:
        """The newest submitter Pod; empty if there is none."""
        pods = [pod for pod in self._pods(sweep_id) if pod["metadata"].get("labels", {}).get(COMPONENT) == SUBMITTER]
        return str(max(pods, key=lambda p: str(p["metadata"]["creationTimestamp"]))["metadata"]["name"]) if pods else ""

    def _log(self, pod: str, none: str, **more: Any) -> str:
        return str(
            self._ask(
                lambda: self._core.read_namespaced_pod_log(pod, self._namespace, _request_timeout=REQUEST_S, **more),
                {BAD: NotFound(none), GONE: NotFound(none)},
            )
        )

    def trial_log(self, name: str, words: Sequence[str]) -> Iterator[str]:
        """See `Cluster`: a separate Job reads it from the sweep's claim or object store.

        For a sweep without a RayJob: by its complete id, on the profile's claim.
        """
        jobs = self._list()
        try:
            found = pick([attempt(j) for j in jobs], name, self._server)
        except NotFound:
            if not re.fullmatch(WHOLE, name):
                raise
            asked = reader.of_profile(profiles.load(self._profile or "gpu-cluster"), self._registry, name, words)
        else:
            asked = reader.of_job(next(j for j in jobs if j["metadata"]["name"] == found.job), words)
        refused = NotFound(self._by_hand(asked["spec"]["template"]["spec"]["containers"][0]["command"]))
        made = self._ask(
            lambda: self._api.sanitize_for_serialization(self._batch.create_namespaced_job(self._namespace, asked)),
            {FORBIDDEN: refused, BAD: refused, INVALID: refused},
        )
        try:
            yield from reader.Reader(self._core, self._ask, self._of_reader).read(made)
        finally:
            with suppress(Exception):
                name = made["metadata"]["name"]
                self._batch.delete_namespaced_job(name, self._namespace, propagation_policy="Background")

    def _by_hand(self, command: Sequence[str]) -> str:
        """What to do if the API server rejects the Job that reads a log."""
        heads = [p for p in living(self._pods(command[2])) if "head" in p["metadata"]["labels"].get(COMPONENT, "")]
        way = (
            f"while its head runs: kubectl -n {self._namespace} exec {heads[0]['metadata']['name']} -c ray-head -- "
            f"{shlex.join(command)}"
            if heads
            else f"where the claim is mounted: {shlex.join(command)}"
        )
        return f"the Job that reads the log was rejected (Role {SUBMITTER} may create one); {way}"

    def _of_reader(self, job: Mapping[str, Any]) -> Seen:
        """A Job that reads a log, with its Pods, oldest first."""
        chosen = f"job-name={job['metadata']['name']}"
        found = self._ask(
            lambda: self._core.list_namespaced_pod(self._namespace, label_selector=chosen, _request_timeout=REQUEST_S)
        )
        pods = list(self._api.sanitize_for_serialization(found)["items"])
        pods.sort(key=lambda p: str(p["metadata"]["creationTimestamp"]))
        unseen: list[str] = []
        workloads = () if pods else self._workloads(job, unseen)
        return Seen(job=job, pods=pods, workloads=workloads, events=self._warnings(unseen), unseen=unseen)

    def stop(self, name: str) -> Attempt | None:
        """Delete the RayJob, in any state, and its Ray cluster; `submit` continues the sweep.

        See `Cluster`.
        """
        found = self.status(name)
        if not found.state.is_living and not living(self._pods(found.sweep_id)):
            return None
        self._delete(found.job)
        deadline = time.monotonic() + FREED_S
        while (left := living(self._pods(found.sweep_id))) and time.monotonic() < deadline:
            time.sleep(0.5)
        return replace(found, reason="; ".join(self._after(found, left)))

    def _after(self, found: Attempt, left: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """The message after a stop: what remains, and how to free it."""
        yield "is being deleted; submit continues from its newest checkpoints"
        if not left:
            return
        yield f"{len(left)} Pods are not gone yet: {', '.join(names(left))}. They may take a minute to end"
        pods = " ".join(pod["metadata"]["name"] for pod in left)
        if any(j["metadata"]["name"] == found.job for j in self._list()):
            yield FINALIZED
        force = "with --grace-period=0 --force if a node is gone"
        yield f"if they remain: kubectl -n {self._namespace} delete pod {pods}, {force}"

    def _seen(self, job: Mapping[str, Any]) -> Attempt:
        """The state of a RayJob, with everything else the API server knows about it."""
        found = attempt(job)
        if found.state.is_living or found.state is AttemptState.LOST:
            why = reason(self._objects(job, found.sweep_id))
            return replace(found, reason=f"{found.reason}: {why}" if found.reason and why else why or found.reason)
        if "deletionTimestamp" in job["metadata"] or not (pod := self._submitter(found.sweep_id)):
            return found
        with suppress(NotFound, Unreachable):  # its log was lost with a node, or this account may not read it
            how = ending.in_log(self._log(pod, "", tail_lines=TAIL))
            if how is not None:
                return replace(found, state=state_of(how), reason=how.reason or found.reason, ending=how)
        return found

    def _objects(self, job: Mapping[str, Any], sweep_id: str) -> Seen:
        unseen: list[str] = []
        cluster = (job.get("status") or {}).get("rayClusterName")
        return Seen(
            job=job,
            cluster=self._look(
                "rayclusters",
                self._rayjobs.get_namespaced_custom_object,
                *self._path[:3],
                "rayclusters",
                cluster,
                to=unseen,
            )
            if cluster
            else None,
            workloads=self._workloads(job, unseen),
            pods=self._pods(sweep_id),
            events=self._warnings(unseen),
            unseen=unseen,
        )

    def _workloads(self, job: Mapping[str, Any], unseen: list[str]) -> Sequence[Mapping[str, Any]]:
        """Kueue's Workloads of the namespace, for a job in a queue."""
        found: Any = None
        if QUEUE in job["metadata"].get("labels", {}):
            for version in KUEUE:
                place = ("kueue.x-k8s.io", version, self._namespace, "workloads")
                found = found or self._look("workloads", self._rayjobs.list_namespaced_custom_object, *place, to=unseen)
        return list((found or {}).get("items", ()))

    def _warnings(self, unseen: list[str]) -> Sequence[Mapping[str, Any]]:
        """Warning events of the namespace."""
        only = {"field_selector": "type=Warning", "limit": EVENTS}
        found = self._look("events", self._core.list_namespaced_event, self._namespace, to=unseen, **only)
        return list((found or {}).get("items", ()))

    def _look(self, kind: str, call: Callable[..., Any], *given: Any, to: list[str], **more: Any) -> Any:
        """The objects as plain JSON; None, recorded in `to`, for a kind that this account may not read."""
        found = self._ask(lambda: call(*given, _request_timeout=REQUEST_S, **more), {FORBIDDEN: None, GONE: None})
        if found is None:
            to.append(kind)
        return self._api.sanitize_for_serialization(found)

    def _pods(self, sweep_id: str) -> list[dict[str, Any]]:
        """All Pods of a sweep: head, workers, submitters."""
        chosen = f"{SWEEP}={sweep_id}"
        found = self._ask(
            lambda: self._core.list_namespaced_pod(self._namespace, label_selector=chosen, _request_timeout=REQUEST_S)
        )
        return list(self._api.sanitize_for_serialization(found)["items"])

    def _list(self) -> list[dict[str, Any]]:
        listed = self._ask(
            lambda: self._rayjobs.list_namespaced_custom_object(
                *self._path, label_selector=MINE, _request_timeout=REQUEST_S
            )
        )
        jobs = [j for j in listed["items"] if SWEEP in j["metadata"].get("labels", {})]
        return sorted(jobs, key=lambda j: str(j["metadata"].get("creationTimestamp", "")))

    def _create_config(self, config: dict[str, Any], job: Mapping[str, Any] | None) -> None:
        """Create the ConfigMap, owned by its RayJob (its Pods wait for it), or adopt one from an earlier attempt."""
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
        """The created object; None if it exists, from this submission or a concurrent one."""
        refused = RenderError("the API server rejects the manifest")
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
        """The response; for an error code in `expected`, that error with the server's message, or None."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            if error.status == FORBIDDEN and expected.get(INVALID) and HOOK in _message(error):
                raise type(expected[INVALID])(f"{expected[INVALID]}: {_message(error)}{_way(error)}") from None  # type: ignore[misc]
            if error.status in expected:
                if (meant := expected[error.status]) is None:
                    return None
                raise type(meant)(f"{meant}: {_message(error)}") from None
            hint = "; is the KubeRay operator installed?" if error.status == GONE else ""
            raise Unreachable(f"{self._server} responds with {error.status}: {_message(error)}{hint}") from None
        except HTTPError as error:
            raise Unreachable(f"{self._server} does not answer: {error}") from None


def _same(before: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether it was made from the same text: the name of a sweep file's ConfigMap contains its hash."""
    volumes = [
        str(j["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].get("volumes")) for j in (before, job)
    ]
    return volumes[0] == volumes[1]


def _way(error: Any) -> str:
    """Kueue takes a job that names no queue where a namespace has one called `default`, or all jobs are its own."""
    managed = "kueue managed job" in _message(error)
    return "; Kueue admits all jobs here: name the queue with --queue (and --elastic to grow within it)" * managed


def _message(error: Any) -> str:
    """The API server's message, from a Status object if there is one."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
