"""`status`, `logs` and `stop` of a sweep on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.app import Exit, asked_of, data, emit, fail, talk
from orchestrator.definition.errors import SpecError
from orchestrator.storage.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.definition.model import Spec
    from orchestrator.remote import Attempt, Cluster, Parcel


def status(address: str, sweep: str, as_json: bool) -> None:
    """`status --address`."""
    show(cluster(address).status(sweep), as_json)


def logs(
    address: str,
    sweep: str,
    words: Sequence[str],
    as_json: bool,
    *,
    stream: str,
    profile: str,
    registry: str,
    elsewhere: Callable[[], bool],
) -> bool:
    """`logs --address`: the driver's output; of `words`, which `geosweep logs SWEEP` takes there, what they ask for.

    The driver's of a sweep that is over is read where the sweep is kept, once the cluster has it no more. False, if it
    has nothing and the sweep is `elsewhere`. Raises NotFound.
    """
    asked = cluster(in_namespace(address, profile, "") if profile else address, profile, registry)
    try:
        parts = asked.trial_log(sweep, words) if words else [asked.logs(sweep)]
        _print(parts, sweep, words, as_json, stream)
    except NotFound:
        if elsewhere():
            return False
        if words or not _is_over(asked, sweep):
            raise
        _print(asked.trial_log(sweep, ["--driver"]), sweep, words, as_json, stream)
        return True
    if not as_json and _on_kubernetes(address) and not words:
        stands = asked.status(sweep)
        if stands.state.is_living and stands.reason:
            said = f"{stands.sweep_id} {stands.state}: {stands.reason}"
            talk.print(said, highlight=False, markup=False, soft_wrap=True, style="yellow")
    return True


def _print(parts: Iterable[str], sweep: str, words: Sequence[str], as_json: bool, stream: str) -> None:
    if as_json:
        text = "".join(parts)
        found = {"trial_id": words[0], stream: text} if words and words[0] != "--driver" else {"text": text}
        return emit({"schema": "geosweep/logs/2", "sweep": sweep, **found})
    for part in parts:
        sys.stdout.write(part)
        sys.stdout.flush()


def _is_over(asked: Cluster, sweep: str) -> bool:
    try:
        return not asked.status(sweep).state.is_living
    except NotFound:  # its job was deleted
        return True


def _on_kubernetes(address: str) -> bool:
    return address.partition("://")[0] == "k8s"


def stop(address: str, sweep: str, as_json: bool) -> None:
    """`stop --address`."""
    asked = cluster(address)
    stopped = asked.stop(sweep)
    found = stopped or asked.status(sweep)
    if as_json:
        emit(
            {
                "schema": "geosweep/stop/1",
                "sweep_id": found.sweep_id,
                "draining": stopped is not None,
                "reason": found.reason,
            }
        )
    else:
        said = f"{found.sweep_id} {stopped.reason if stopped else 'is not running'}"
        talk.print(said, highlight=False, markup=False, soft_wrap=True)


def cluster(address: str, profile: str = "", registry: str = "") -> Cluster:
    """The cluster at a Ray dashboard's URL, or one of the kubeconfig: `k8s`, `k8s://CONTEXT`, `...?namespace=NAME`.

    `profile` and `registry` are for Kubernetes. A usage error for another address. Raises Unreachable when the cluster
    does not answer.
    """
    kind, _, rest = address.partition("://")
    if kind == "k8s":
        from orchestrator.kubernetes.cluster import KubernetesCluster

        context, _, options = rest.partition("?")
        word, _, namespace = options.partition("=")
        if options and (word != "namespace" or not namespace):
            fail(f"--address {address}: only namespace=NAME may follow ?", Exit.USAGE)
        return KubernetesCluster(context, namespace, profile, registry)
    if kind not in ("http", "https") or not rest:
        fail(
            f"--address {address}: name the URL of a Ray dashboard, http://HOST:8265, or a Kubernetes cluster, "
            "k8s or k8s://CONTEXT",
            Exit.USAGE,
        )
    from orchestrator.executors.job_api import RayCluster
    from orchestrator.remote import token

    try:
        return RayCluster(address, token())
    except ValueError as error:
        fail(str(error), Exit.USAGE)


def in_namespace(address: str, profile: str, namespace: str) -> str:
    """The address with the given namespace, or the profile's; other than Kubernetes addresses stay as they are.

    Raises SpecError for a profile that cannot be read.
    """
    kind, _, rest = address.partition("://")
    if kind != "k8s":
        return address
    from orchestrator.kubernetes import profiles

    context, _, options = rest.partition("?")
    named = namespace or (not options and profiles.load(profile).namespace)
    return f"k8s://{context}?namespace={named}" if named else address


def readable(file: Path, words: Sequence[str] | None = None) -> tuple[str, Spec]:
    """The text of a sweep file with its overrides, and the sweep.

    Only the description of a data set needs to be on this machine.
    """
    asked = asked_of(file, words)
    try:
        return asked.text, asked.load()
    except SpecError as error:
        if error.key != "task.data":
            raise
        fail(
            f"{error}. If the cluster has the data, dataset.json is enough on this machine to send the sweep",
            Exit.INVALID_FILE,
        )


def packed(spec: Spec, file: Path, root: Path) -> Parcel | None:
    """The user's own code for other machines, without the sweeps under `root`; reports what was left out."""
    from orchestrator.travel.code import parcel
    from orchestrator.trial.failure import printable

    found = parcel(spec, file, leave_out=[root])
    if found is not None:
        size = found.archive.stat().st_size / 1e3
        said = f"{found.files} files of {found.folder} will be uploaded with the sweep ({size:,.0f} kB)"
        if found.left_out:
            said += f"; left out because of their names: {', '.join(map(printable, found.left_out))}"
        talk.print(said, highlight=False, markup=False, soft_wrap=True)
    return found


def show(attempt: Attempt, as_json: bool) -> None:
    """Print the state of an attempt."""
    if as_json:
        emit(attempt.document())
        return
    reason = f" ({attempt.reason})" if attempt.reason else ""
    data.print(f"{attempt.sweep_id} {attempt.state}: job {attempt.job}{reason}", highlight=False, markup=False)
