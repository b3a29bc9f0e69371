"""How the last driver left a sweep: outcome.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from orchestrator.definition.states import SweepState
from orchestrator.storage.folder import SweepFolder, read_json, write_atomic
from orchestrator.storage.lease import LAST


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """Written when a driver comes to its end, however it does."""

    state: SweepState
    tracked: bool = False
    """Whether the tracker has everything."""
    limit: str = ""
    """The limit of the budget that ended the search, or everything."""
    complete: bool = False
    """Whether no trial is left to be started."""
    ending: str = ""
    """How that driver ended, as the tracker was told (see `storage.ending`)."""

    @property
    def is_over(self) -> bool:
        """Whether another driver would find nothing to train."""
        return self.state is SweepState.DONE or (self.state is SweepState.BUDGET and self.complete)

    @classmethod
    def read(cls, folder: SweepFolder) -> SweepOutcome | None:
        """The outcome of the last driver, or None when no driver has come to its end."""
        found = read_json(folder.path / LAST)
        if not found:
            return None
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
