"""`status`, `logs` and `stop` of a sweep on a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from orchestrator.cli.app import Exit, data, emit, fail, talk

if TYPE_CHECKING:
    from orchestrator.remote import Attempt, Cluster


def status(address: str, sweep: str, as_json: bool) -> None:
    """`status --address`."""
    show(cluster(address).status(sweep), as_json)


def logs(address: str, sweep: str, trial: str, as_json: bool) -> None:
    """`logs --address`: what the driver printed."""
    if trial:
        fail(f"trial {trial}: a cluster is asked for the driver's log only; trials log under its --root", Exit.USAGE)
    text = cluster(address).logs(sweep)
    if as_json:
        emit({"schema": "geosweep/logs/1", "sweep": sweep, "text": text})
    else:
        sys.stdout.write(text)


def stop(address: str, sweep: str, as_json: bool) -> None:
    """`stop --address`."""
    asked = cluster(address)
    stopped = asked.stop(sweep)
    found = stopped or asked.status(sweep)
    if as_json:
        emit({"schema": "geosweep/stop/1", "sweep_id": found.sweep_id, "draining": stopped is not None})
    else:
        talk.print(f"{found.sweep_id} {'is draining' if stopped else 'is not running'}", highlight=False)


def cluster(address: str) -> Cluster:
    """What is at `address`; a usage error when that is no address."""
    from orchestrator.remote import connect

    try:
        return connect(address)
    except ValueError as error:
        fail(str(error), Exit.USAGE)


def show(attempt: Attempt, as_json: bool) -> None:
    """Print where an attempt stands."""
    if as_json:
        emit(attempt.document())
        return
    reason = f" ({attempt.reason})" if attempt.reason else ""
    data.print(f"{attempt.sweep_id} {attempt.state}: job {attempt.job}{reason}", highlight=False, markup=False)
