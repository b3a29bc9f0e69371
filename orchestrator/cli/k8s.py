"""`k8s render`: manifests of a sweep for a cluster with the KubeRay operator."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.app import ROOT, Exit, Overrides, app, beside, data, fail
from orchestrator.cli.k8s_options import Elastic, Fair, Namespace, Priority, Profile, Queue, Registry
from orchestrator.cli.remote import packed, readable
from orchestrator.definition.errors import read

k8s = typer.Typer(help="Sweeps on Kubernetes, by the KubeRay operator.", no_args_is_help=True)
app.add_typer(k8s, name="k8s")


@k8s.callback()
def _group() -> None:
    """Keeps `render` a subcommand while it is the only one."""


@k8s.command()
def render(
    file: Annotated[
        Path | None, typer.Argument(help="A sweep file (YAML).", show_default=False, callback=beside)
    ] = None,
    overrides: Overrides = None,
    profile: Profile = "gpu-cluster",
    namespace: Namespace = "",
    queue: Queue = "",
    priority: Priority = "",
    elastic: Elastic = False,
    registry: Registry = "",
    fair: Fair = False,
    root: Annotated[
        str, typer.Option(help="Folder for sweeps: on the volume shared at /runs, or s3://BUCKET/FOLDER.")
    ] = "/runs",
    check: Annotated[
        Path | None, typer.Option(help="Check this manifest, edited by hand; nothing is rendered.", show_default=False)
    ] = None,
) -> None:
    """Print a ConfigMap and a RayJob; the same file gives the same bytes. Invalid output is never printed.

    Example: geosweep k8s render sweeps/quickstart.yaml | kubectl apply -f -
    """
    from orchestrator.kubernetes import profiles
    from orchestrator.kubernetes.fit import RenderError
    from orchestrator.kubernetes.render import render as rendered
    from orchestrator.protocol import fair as fair_protocol

    if (file is None) == (check is None):
        fail("name either a sweep file, or a manifest with --check", Exit.USAGE)
    if check is not None:
        _check(check, profile)
        return
    assert file is not None
    asked, spec = readable(file, overrides)
    if fair or profiles.load(profile).fair:
        fair_protocol.check(asked, str(file))
    parcel = packed(spec, file, Path(os.environ.get("GEOSWEEP_ROOT", ROOT)))
    try:
        text = rendered(
            asked,
            str(file),
            profile=profile,
            namespace=namespace or profiles.load(profile).namespace or profiles.of_context(),
            queue=queue,
            priority=priority,
            elastic=elastic,
            registry=registry,
            root=root,
            fair=fair,
            parcel=parcel,
        )
    except RenderError as error:
        fail(f"{file}: {error}", Exit.CHECK_FAILED)
    sys.stdout.write(text)


def _check(path: Path, profile: str) -> None:
    import yaml

    from orchestrator.kubernetes import profiles
    from orchestrator.kubernetes.operator_rules import lint

    there = profiles.load(profile)
    try:
        documents = list(yaml.safe_load_all(read(path)))
    except yaml.YAMLError as error:
        fail(f"{path}: not YAML: {error}", Exit.INVALID_FILE)
    if found := lint(documents, there):
        fail("\n".join(f"{path}: {finding}" for finding in found), Exit.CHECK_FAILED)
    data.print(
        f"{path}: breaks no rule{_unchecked(documents)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _unchecked(documents: list[Any]) -> str:
    """The parts of the file that were not checked."""
    from orchestrator.kubernetes.operator_rules import OBJECTS

    kinds = sorted({str(d.get("kind")) for d in documents if isinstance(d, dict)} - set(OBJECTS))
    return f"; checked only for secrets: {', '.join(kinds)}" if kinds else ""
