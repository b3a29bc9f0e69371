"""Sweeps on a remote cluster: the interface behind `submit`, `status`, `logs` and `stop`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.definition.states import AttemptState
from orchestrator.storage.ending import Ending
from orchestrator.storage.errors import NotFound

CODE = "GEOSWEEP_CODE"
"""Environment variable with the digest of the uploaded code archive."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The user's files that go to the cluster with a sweep (see `travel`)."""

    archive: Path
    """`code-DIGEST.zip` on this machine."""
    digest: str
    sweep: str
    """Name of the sweep file in the archive."""
    paths: tuple[str, ...] = ()
    """Folders in the archive, besides its root, from which modules are imported."""
    folder: str = ""
    """The folder it was made from, and its number of files."""
    files: int = 0
    left_out: tuple[str, ...] = ()
    """Files that were left out because their names suggest secrets."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A sweep to start."""

    sweep_id: str
    text: str
    """The sweep file."""
    file: str
    """Its name, for messages."""
    root: str
    """Root folder of sweeps as seen by the cluster's machines."""
    profile: str = ""
    """A profile, bundled or a file (Kubernetes only), as are `queue`, `priority`, `elastic` and `registry`."""
    queue: str = ""
    priority: str = ""
    elastic: bool = False
    registry: str = ""
    fair: bool = False
    """Whether the driver refuses an unfair protocol (`run --fair`)."""
    parcel: Parcel | None = None
    code_at: str = ""
    """Kubernetes: URI of the parcel in an object store; empty: it goes in a ConfigMap."""
    requirements: tuple[str, ...] = ()
    """Additional packages, each pinned."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The cluster's latest attempt at a sweep."""

    job: str
    """The cluster's name for the job."""
    sweep_id: str
    state: AttemptState
    reason: str = ""
    """What the cluster reports, or why it is waiting and what to do."""
    ending: Ending | None = None
    """How its driver ended, if known."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        if self.ending is None:
            del found["ending"]
        return {"schema": "geosweep/job/1", **found}


class Cluster(Protocol):
    """Every method raises Unreachable (no answer, or access denied) and NotFound for a sweep that does not exist."""

    def submit(self, order: Order) -> Attempt:
        """Start the sweep. One that waits, runs or is done is left alone; one that failed or was stopped is
        continued.
        """

    def status(self, name: str) -> Attempt:
        """The sweep named by id, unique prefix or `@last`."""

    def logs(self, name: str) -> str:
        """The output of the sweep's driver so far."""

    def trial_log(self, name: str, words: Sequence[str]) -> Iterable[str]:
        """The output of `geosweep logs SWEEP WORDS` there, in chunks; the first of `words` is the trial."""

    def stop(self, name: str) -> Attempt | None:
        """End the sweep's job and free its machines; None if it had already ended and holds none.

        The attempt's reason says how it ended and what remains; `submit` continues it.
        """


def token() -> str:
    """The token for Ray clusters, from where Ray's own commands look for it; empty if there is none.

    Raises ValueError for a RAY_AUTH_TOKEN_PATH that cannot be read.
    """
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return Path(named or Path.home() / ".ray" / "auth_token").read_text(encoding="utf-8").strip()
    except OSError as error:
        if named:
            raise ValueError(f"RAY_AUTH_TOKEN_PATH={named}: {error.strerror}") from None
        return ""


def state_of(how: Ending) -> AttemptState:
    """The state of a sweep, from how its driver ended."""
    return AttemptState(how.ending) if how.is_meant else AttemptState.FAILED


def pick(attempts: Sequence[Attempt], name: str, where: str) -> Attempt:
    """The newest attempt (`attempts` is oldest first) at the sweep named by id, unique prefix or `@last`."""
    newest = {a.sweep_id: a for a in attempts}
    if not newest:
        raise NotFound(f"no sweep on {where}; start one with: geosweep submit FILE")
    if name == "@last":
        return attempts[-1]
    matches = [i for i in newest if i == name] or [i for i in newest if name and i.startswith(name)]
    if len(matches) == 1:
        return newest[matches[0]]
    listing = ", ".join(matches or newest)
    raise NotFound(
        f"{name!r} names {f'{len(matches)} sweeps' if matches else 'no sweep'} on {where}; available: {listing}"
    )
