"""`submit`: a sweep on a running Ray cluster, or on Kubernetes."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import follow
from orchestrator.cli.app import ROOT, Exit, File, Json, Overrides, app, fail, next_steps
from orchestrator.cli.k8s_options import Elastic, Fair, Namespace, Priority, Profile, Queue, Registry
from orchestrator.cli.remote import cluster, in_namespace, packed, readable, show


@app.command()
def submit(
    file: File,
    overrides: Overrides = None,
    *,
    address: Annotated[
        str, typer.Option(help="A Ray dashboard, http://HOST:8265; or k8s, k8s://CONTEXT of your kubeconfig.")
    ],
    root: Annotated[
        str, typer.Option(help="Folder that all machines of the cluster mount, or s3://BUCKET/FOLDER.")
    ] = "/runs",
    profile: Profile = "gpu-cluster",
    namespace: Namespace = "",
    queue: Queue = "",
    priority: Priority = "",
    elastic: Elastic = False,
    registry: Registry = "",
    fair: Fair = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end, and exit with the code of run.")] = False,
    as_json: Json = False,
) -> None:
    """Start a sweep on a cluster and return; a failed or stopped one continues, any other is left alone.

    Your own tasks, optimizers and programs are sent along: all that git has, or would add, in the sweep file's folder.

    The token of a Ray cluster is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.

    Example: geosweep submit sweeps/quickstart.yaml --address http://127.0.0.1:8265
    """
    from orchestrator.definition import model
    from orchestrator.definition.addresses import secrets
    from orchestrator.definition.overrides import without_secrets
    from orchestrator.kubernetes import profiles
    from orchestrator.kubernetes.code import fits
    from orchestrator.kubernetes.fit import RenderError
    from orchestrator.protocol import fair as fair_protocol
    from orchestrator.remote import Order
    from orchestrator.travel.arrival import store

    if not re.fullmatch(r"(s3:/)?/[A-Za-z0-9._/-]*", root):
        fail(
            f"--root {root}: name the absolute path of a folder that all machines of the cluster mount, "
            "or s3://BUCKET/FOLDER",
            Exit.USAGE,
        )
    text, spec = readable(file, overrides)
    for secret in secrets(text):
        where = "put NAME into the Secret geosweep-tracking"
        where = where if address.startswith("k8s") else "set NAME in the environment of the cluster's head"
        fail(f"{file}: {secret.refusal('what a job brings is read by many', where)}", Exit.CHECK_FAILED)
    on_kubernetes = address.partition("://")[0] == "k8s"
    if fair or (on_kubernetes and profiles.load(profile).fair):
        fair_protocol.check(text, str(file))
    parcel = packed(spec, file, Path(os.environ.get("GEOSWEEP_ROOT", ROOT)))
    stored = parcel is not None and on_kubernetes and "://" in root and not fits(parcel)
    order = Order(
        sweep_id=model.sweep_id(spec),
        text=without_secrets(text),
        file=str(file),
        root=root,
        profile=profile,
        queue=queue,
        priority=priority,
        elastic=elastic,
        registry=registry,
        fair=fair,
        parcel=parcel,
        code_at=store(parcel, root) if parcel is not None and stored else "",
        requirements=spec.environment.requirements,
    )
    address = in_namespace(address, profile, namespace)
    try:
        asked = cluster(address)
        before = follow.ending_at(asked, order.sweep_id, root) if wait else None
        attempt = asked.submit(order)
    except RenderError as error:
        fail(f"{file}: {error}", Exit.CHECK_FAILED)
    if wait:
        stale = before if attempt.state.is_living else None
        follow.wait(asked, order.sweep_id, root, address=address, as_json=as_json, before=stale)
    show(attempt, as_json)
    next_steps(shlex.join(["geosweep", "status", order.sweep_id, "--address", address]))
