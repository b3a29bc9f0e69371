"""Options of `submit` and `k8s render` for the place of a sweep on Kubernetes."""

from __future__ import annotations

from typing import Annotated

import typer

Profile = Annotated[
    str, typer.Option(help="Kubernetes: a bundled profile, such as gpu-cluster, kind or queue, or a FILE of your own.")
]
Namespace = Annotated[
    str, typer.Option(help="Kubernetes: default is the profile's, else the kubeconfig's.", show_default=False)
]
Queue = Annotated[str, typer.Option(help="Kubernetes: Kueue LocalQueue that admits it.", show_default=False)]
Priority = Annotated[str, typer.Option(help="Kubernetes: Kueue WorkloadPriorityClass.", show_default=False)]
Elastic = Annotated[
    bool, typer.Option("--elastic", help="Kubernetes: grow and shrink within the queue's quota (Kueue 0.18).")
]
Fair = Annotated[
    bool,
    typer.Option("--fair", help="Refuse a sweep that breaks a lint rule without a stated reason (analysis.waive)."),
]
Registry = Annotated[
    str,
    typer.Option(envvar="GEOSWEEP_REGISTRY", help="Kubernetes: registry and path of the images.", show_default=False),
]
