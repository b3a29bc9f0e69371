"""How the last driver left a sweep: outcome.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from orchestrator.definition.states import SweepState
from orchestrator.storage.documents import read_json, reading, write_atomic
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.lease import LAST


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """Written when a driver ends, for whatever reason."""

    state: SweepState
    tracked: bool = False
    """Whether everything was sent to the tracker."""
    limit: str = ""
    """The budget limit that ended the search, or the whole sweep."""
    complete: bool = False
    """Whether no trial is left to start."""
    ending: str = ""
    """How that driver ended, as reported to the tracker (see `storage.ending`)."""

    @property
    def is_over(self) -> bool:
        """Whether another driver would find nothing to train."""
        return self.state is SweepState.DONE or (self.state is SweepState.BUDGET and self.complete)

    @classmethod
    def read(cls, folder: SweepFolder) -> SweepOutcome | None:
        """The outcome of the last driver; None if no driver has ended yet."""
        found = read_json(folder.path / LAST)
        if not found:
            return None
        with reading(folder.path / LAST):
            return cls(
                state=SweepState(found["state"]),
                tracked=bool(found.get("tracked")),
                limit=found.get("limit") or "",
                complete=bool(found.get("complete")),
                ending=found.get("ending") or "",
            )

    def write(self, folder: SweepFolder) -> None:
        """Write outcome.json."""
        write_atomic(folder.path / LAST, json.dumps(asdict(self)))
