"""Sweeps that run on somebody else's machines: what `submit`, `status`, `logs` and `stop` need of a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.storage.ending import Ending
from orchestrator.storage.errors import NotFound

LIVING = ("waiting", "running", "suspended")
CODE = "GEOSWEEP_CODE"
"""Variable of a process whose code travelled: the digest of the archive."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What of the user's own goes to the cluster with a sweep (see `travel`)."""

    archive: Path
    """`code-DIGEST.zip` on this machine."""
    digest: str
    sweep: str
    """Name of the sweep file in it."""
    paths: tuple[str, ...] = ()
    """Folders in it, beside its root, from which modules are imported."""
    folder: str = ""
    """Where it was taken from, and how many files it has."""
    files: int = 0
    left_out: tuple[str, ...] = ()
    """Files that were left out because their names say that they hold secrets."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A sweep to be started."""

    sweep_id: str
    text: str
    """The sweep file."""
    file: str
    """Its name, for messages."""
    root: str
    """Folder for sweeps as the cluster's machines see it."""
    profile: str = ""
    """A profile, bundled or a file (Kubernetes only), as `queue`, `priority`, `elastic` and `registry`."""
    queue: str = ""
    priority: str = ""
    elastic: bool = False
    registry: str = ""
    fair: bool = False
    """Whether the driver refuses an unfair protocol (`run --fair`)."""
    parcel: Parcel | None = None
    code_at: str = ""
    """Kubernetes: where the parcel lies in an object store; empty: it goes in a ConfigMap."""
    requirements: tuple[str, ...] = ()
    """Further packages, each pinned."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The newest try of the cluster at a sweep."""

    job: str
    """The cluster's name for it."""
    sweep_id: str
    state: str
    """waiting, suspended, running, done, budget (a limit ended it), stopped, failed; lost: its machines unwatched."""
    reason: str = ""
    """What the cluster says of it, or why it waits and the way out."""
    ending: Ending | None = None
    """How its driver ended, where that is known."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        if self.ending is None:
            del found["ending"]
        return {"schema": "geosweep/job/1", **found}


class Cluster(Protocol):
    """Every verb raises Unreachable (no answer, or the caller is refused), NotFound for a sweep that is not there."""

    def submit(self, order: Order) -> Attempt:
        """Start the sweep; one that waits, runs or is done is left alone, one that failed or was stopped goes on."""

    def status(self, name: str) -> Attempt:
        """The sweep named by id, unique prefix or `@last`."""

    def logs(self, name: str) -> str:
        """What the sweep's driver printed so far."""

    def trial_log(self, name: str, words: Sequence[str]) -> Iterable[str]:
        """What `geosweep logs SWEEP WORDS` prints there, part by part; the first of `words` is the trial."""

    def stop(self, name: str) -> Attempt | None:
        """End the sweep's job and free its machines; None when it had ended and holds none.

        The attempt's reason says how, and what remains: it goes on with `submit`.
        """


def token() -> str:
    """The token for Ray clusters, found where Ray's own commands look for it; empty when there is none.

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


def state_of(how: Ending) -> str:
    """The state of a sweep whose driver said how it ended."""
    return how.ending if how.is_meant else "failed"


def pick(attempts: Sequence[Attempt], name: str, where: str) -> Attempt:
    """The newest attempt (they come oldest first) at the sweep named by id, unique prefix or `@last`."""
    newest = {a.sweep_id: a for a in attempts}
    if not newest:
        raise NotFound(f"no sweep on {where}; start one with: geosweep submit FILE")
    if name == "@last":
        return attempts[-1]
    matches = [i for i in newest if i == name] or [i for i in newest if i.startswith(name)]
    if len(matches) == 1:
        return newest[matches[0]]
    listing = ", ".join(matches or newest)
    raise NotFound(
        f"{name!r} names {f'{len(matches)} sweeps' if matches else 'no sweep'} on {where}; there is: {listing}"
    )
