"""seal.json, which says what a sweep promised before its first trial; only this module reads and writes it.

Files of earlier versions lack newer fields, which get their defaults; unknown fields are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from orchestrator.storage.documents import read_json, reading, write_atomic
from orchestrator.storage.folder import SweepFolder

NAME, SCHEMA = "seal.json", "geosweep/seal/1"


@dataclass(frozen=True, kw_only=True)
class Code:
    """The source that trials import."""

    files: Mapping[str, str]
    """Source file -> sha256, of all arms."""
    arms: Mapping[str, str]
    """Arm -> the digest that its trials report."""

    def changed(self, after: Code) -> list[str]:
        """Files that are in only one of the two versions, or differ."""
        a, b = self.files, after.files
        return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What was promised, part by part, and when."""

    sweep_id: str = ""
    hash: str = ""
    """Of the content."""
    sealed_at: str | None = None
    late: bool = False
    """Whether trials had ended by then."""
    follows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Sweep whose results on some of the same confirm seeds were known -> what was changed since."""
    content: dict[str, Any] = field(default_factory=dict)
    code: Code | None = None
    overrides: Sequence[str] = ()
    """Keys that were given on the command line."""

    def document(self) -> dict[str, Any]:
        """The content of the file."""
        found = asdict(self)
        if self.code is None:
            del found["code"]
        if not self.overrides:
            del found["overrides"]
        return {"schema": SCHEMA, **found}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A sweep compared with its seal."""

    sweep_id: str
    hash: str | None
    """None: it was never sealed."""
    sealed_at: str | None
    trials: int
    """That ended."""
    problems: Sequence[str]
    """What was changed after the fact; the sweep is not compared then."""
    changed_files: Sequence[str]
    """Source files that differ from those sealed."""
    exploratory: Sequence[str]
    source_compared: bool

    @property
    def intact(self) -> bool:
        """Whether nothing was changed."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": "geosweep/verify/1",
            "sweep_id": self.sweep_id,
            "hash": self.hash,
            "sealed_at": self.sealed_at,
            "trials": self.trials,
            "intact": self.intact,
            "problems": self.problems,
            "changed_files": self.changed_files,
            "exploratory": self.exploratory,
            "source_compared": self.source_compared,
        }


def read(folder: SweepFolder) -> Seal | None:
    """The seal of a sweep; None without one. Raises Damaged."""
    path = folder.path / NAME
    document = read_json(path)
    if document is None:
        return None
    with reading(path):
        document["hash"]
        found = {one.name: document[one.name] for one in fields(Seal) if one.name in document}
        if found.get("code"):
            found["code"] = Code(**found["code"])
        return Seal(**found)


def write(seal: Seal, folder: SweepFolder) -> None:
    """Write the seal of a sweep."""
    write_atomic(folder.path / NAME, json.dumps(seal.document(), indent=1, sort_keys=True))
