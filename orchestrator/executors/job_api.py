"""Sweeps on a running Ray cluster, through its job API (Ray 2.60, the dashboard's /api/jobs).

A job's id is the sweep's id and the number of the attempt. The sweep file, and the user's own code if there is any, are
uploaded as the job's working folder, from which its driver and its workers import.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import AuthenticationError, RayError

from orchestrator.definition.states import AttemptState
from orchestrator.executors.ray_environment import runtime_env
from orchestrator.remote import Attempt, Order, pick, state_of
from orchestrator.storage import ending
from orchestrator.storage.errors import NotFound, Unreachable
from orchestrator.storage.retry import retry

Answer = TypeVar("Answer")
READY_S = 60.0
"""How long to retry a head that has just started: its job agent comes up after its dashboard."""
POLL_S = 0.5
BEGUN = re.compile(r"^.*Running entrypoint for job .*\n", re.MULTILINE)
DRAIN_S = 60
"""How long a stopped driver may take to checkpoint its trials before Ray kills it (Ray's default: 3 s)."""
STATES = {
    "PENDING": AttemptState.WAITING,
    "RUNNING": AttemptState.RUNNING,
    "SUCCEEDED": AttemptState.DONE,
    "FAILED": AttemptState.FAILED,
    "STOPPED": AttemptState.STOPPED,
}
"""State of a Ray job -> of the attempt."""
NOT_READY = ("No available agent", "Failed to get head node agent")


class RayCluster:
    """The cluster whose dashboard is at `address` (see `orchestrator.remote.Cluster`); `token` may be empty."""

    def __init__(self, address: str, token: str = "") -> None:
        from ray.job_submission import JobSubmissionClient

        self._address = address
        headers = {"Authorization": f"Bearer {token}"} if token else None
        with _without("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # Ray prefers them to the address it is given
            self._client: Any = self._ask(lambda: JobSubmissionClient(address, headers=headers))

    def submit(self, order: Order) -> Attempt:
        """See `Cluster`. Two concurrent submissions start one job: the id can be taken only once."""
        mine = [a for a in self._attempts() if a.sweep_id == order.sweep_id]
        if mine and (mine[-1].state.is_living or self.status(order.sweep_id).state is AttemptState.DONE):
            return self.status(order.sweep_id)
        name, _, digest = order.sweep_id.rpartition("-")
        job = f"{order.sweep_id}.{len(mine) + 1}"
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sweep.yaml").write_text(order.text, encoding="utf-8")
            environment = {"working_dir": folder, **runtime_env(order.parcel, order.requirements)}
            variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(DRAIN_S), **environment.get("env_vars", {})}
            file = shlex.quote(order.parcel.sweep) if order.parcel else "sweep.yaml"
            options = f"--root {order.root} --address auto{' --fair' * order.fair} --as-job"
            asked = {
                "entrypoint": f"geosweep run {file} {options}",
                "submission_id": job,
                "runtime_env": {**environment, "env_vars": variables},
                "metadata": {"sweep": name, "definition": digest},
            }
            self._ask(lambda: self._when_ready(asked))
        return self.status(order.sweep_id)

    def status(self, name: str) -> Attempt:
        """See `Cluster`. For an ended job, with the ending reported by its driver."""
        found = pick(self._attempts(), name, self._address)
        if found.state.is_living:
            return found
        how = None
        with suppress(Unreachable):  # its log was lost with a machine; that it ended is known anyway
            how = ending.in_log(str(self._ask(lambda: self._client.get_job_logs(found.job))))
        if how is None:
            return found
        return replace(found, state=state_of(how), reason=how.reason or found.reason, ending=how)

    def logs(self, name: str) -> str:
        """See `Cluster`. If a job's log was lost with its machine, NotFound says where it is kept."""
        found = self.status(name)
        try:
            return str(self._ask(lambda: self._client.get_job_logs(found.job)))
        except Unreachable as error:
            if found.state.is_living:
                raise
            raise NotFound(
                f"{found.sweep_id} is {found.state}, and the cluster no longer has its log ({error}); its output is "
                f"stored under its root: geosweep logs {found.sweep_id} --driver --root ..."
            ) from None

    def trial_log(self, name: str, words: Sequence[str]) -> Iterator[str]:
        """See `Cluster`: a separate job reads it where the sweep is stored. Raises NotFound."""
        found = self.status(name)
        started = str(self._ask(lambda: self._client.get_job_info(found.job)).entrypoint)
        asked = re.search(r"--root[ =](\S+)", started)
        command = ["geosweep", "logs", found.sweep_id, *words, "--root", asked[1] if asked else "/runs"]
        job = self._ask(lambda: self._client.submit_job(entrypoint=shlex.join(command)))
        shown = ""
        try:
            while True:
                status = str(self._ask(lambda: self._client.get_job_status(job)).value)
                text = str(self._ask(lambda: self._client.get_job_logs(job)))
                text = text[begun.end() :] if (begun := BEGUN.search(text)) else ""  # Ray's own output comes first
                if status == "FAILED":
                    raise NotFound(_last_line(text) or f"{found.sweep_id}: the cluster cannot read its output")
                if text != shown:
                    yield text[len(shown) :]
                    shown = text
                if status not in ("PENDING", "RUNNING"):
                    return
                time.sleep(POLL_S)
        finally:
            with suppress(Exception):
                self._client.stop_job(job)
                self._client.delete_job(job)

    def stop(self, name: str) -> Attempt | None:
        """Send the driver SIGTERM, which drains the sweep. See `Cluster`."""
        found = self.status(name)
        if not found.state.is_living:
            return None
        self._ask(lambda: self._client.stop_job(found.job))
        return replace(found, reason="is draining")

    def _attempts(self) -> list[Attempt]:
        """Jobs that are sweeps, including those that KubeRay submitted from our manifest; oldest first."""
        jobs = [j for j in self._ask(self._client.list_jobs) if {"sweep", "definition"} <= set(j.metadata or {})]
        jobs.sort(key=lambda j: (j.start_time or 0, j.submission_id))
        return [
            Attempt(
                job=j.submission_id,
                sweep_id=f"{j.metadata['sweep']}-{j.metadata['definition']}",
                state=STATES[str(j.status.value)],
                reason=_first_line(j.message or ""),
            )
            for j in jobs
        ]

    def _when_ready(self, asked: dict[str, Any]) -> None:
        try:
            retry(lambda: self._client.submit_job(**asked), _not_ready, patience_s=READY_S, first_s=1.0, longest_s=1.0)
        except RuntimeError as error:
            if "already exists" not in str(error):  # a concurrent submission, or a lost response
                raise

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except AuthenticationError as error:
            raise Unreachable(
                f"{self._address} rejects the token ({_first_line(str(error))}); set RAY_AUTH_TOKEN, "
                "RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token to the cluster's"
            ) from error
        except (ConnectionError, RuntimeError, OSError, RayError) as error:
            raise Unreachable(f"{self._address}: {_last_line(str(error))}") from error


@contextmanager
def _without(*names: str) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _not_ready(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NOT_READY)


def _first_line(text: str) -> str:
    """The line of a failed job's message before its log is quoted."""
    line = (text.strip().splitlines() or [""])[0]
    return re.sub(r",? last available logs.*", "", line)


def _last_line(text: str) -> str:
    """The error in a server's traceback."""
    return (text.strip().splitlines() or [""])[-1].rstrip(".")
