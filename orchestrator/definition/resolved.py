"""resolved.json: what a sweep is, written into its folder when it is created and read by everything after that.

Files of earlier versions lack newer fields, which get their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from orchestrator.definition.planned import Plan

NAME = "resolved.json"
SCHEMA = "geosweep/resolved/1"
NEVER = -1
"""`first_trials_per_arm` of a sweep that was never extended."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Where the results of a sweep that others ran come from."""

    source: str
    kind: str
    """csv, parquet, ..."""
    pairing: str
    """declared, or none."""
    metrics: Mapping[str, str]
    """Metric -> its goal."""
    budget: str
    """The column that says what a run spent; empty: unknown."""
    notes: Sequence[str]
    not_compared: str
    """Why arms cannot be compared; empty: they can."""
    columns: Mapping[str, Any]
    """What each column was taken for."""
    imported_at: str

    @property
    def is_paired(self) -> bool:
        """Whether equal seeds, or studies, of two arms are paired."""
        return self.pairing != "none"


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """One sweep; all empty where no file was written."""

    sweep_id: str = ""
    definition: dict[str, Any] = field(default_factory=dict)
    """What changes results (`model.definition`)."""
    plan: Plan = field(default_factory=Plan)
    """What it costs; of imported results, the number of trials of each arm."""
    report_metric: str = ""
    tracking: str | None = None
    """MLflow's tracking URI; None: the store inside the root folder."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    declares: Mapping[str, Any] | None = None
    """See `task_record`."""
    optimizers: Mapping[str, Any] | None = None
    """Name -> see `optimizer_record`."""
    overrides: Sequence[str] = ()
    """Keys that were given on the command line."""
    program: Mapping[str, Any] | None = None
    """Of a script: its `folder`."""
    imported: Imported | None = None
    first_trials_per_arm: int | None = NEVER
    """Configurations per arm before the first extension."""

    @property
    def studies(self) -> int:
        """Independent searches of each arm."""
        return int(self.definition.get("seeds", {}).get("studies", 1))

    @property
    def is_script(self) -> bool:
        """Whether its trials run a script of the user's."""
        return bool(self.plan.script)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Resolved:
        """From the content of the file. Raises TypeError or KeyError for other content."""
        if not isinstance(document, Mapping):
            raise TypeError(f"expected the fields of a sweep, found {document!r:.80}")
        document["definition"]["arms"]
        found = {one.name: document[one.name] for one in fields(cls) if one.name in document}
        found["plan"] = Plan.of(found["plan"])
        if found.get("imported"):
            found["imported"] = Imported(**found["imported"])
        return cls(**found)

    def document(self) -> dict[str, Any]:
        """The content of the file."""
        found = {**asdict(self), "plan": self.plan.document()}
        for name in ("declares", "optimizers", "program", "imported"):
            if found[name] is None:
                del found[name]
        if not self.overrides:
            del found["overrides"]
        if self.first_trials_per_arm == NEVER:
            del found["first_trials_per_arm"]
        return {"schema": SCHEMA, **found}
