"""Places in a sweep file: errors that know theirs, and what the format has at a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel

from orchestrator.definition.errors import SpecError
from orchestrator.definition.schema import ArmModel, ParameterModel, SweepModel
from orchestrator.definition.yaml12 import Document, Path


@dataclass(frozen=True)
class Where:
    """Makes errors that know their place in the file."""

    file: str
    document: Document

    def error(self, path: Path, message: str) -> SpecError:
        """The error of the key at `path`."""
        line, column = self.document.place(path)
        return SpecError(self.file, line, column, path, message)


def fields_at(path: Path) -> list[str]:
    """The keys that the format has beside the unknown one at `path`."""
    found = _model_at(path[:-1])
    return list(found.model_fields) if found else []


def description_of(path: Path, key: str) -> str:
    """The sentence of a missing key."""
    found = _model_at(path)
    words = found.model_fields[key].description if found and key in found.model_fields else None
    return f"add it ({words.rstrip('.')})" if words else "add it"


def _model_at(path: Path) -> type[BaseModel] | None:
    model: type[BaseModel] = SweepModel
    parts = list(path)
    while parts:
        key = parts.pop(0)
        if (model is SweepModel and key in ("arms", "parameters")) or (model is ArmModel and key == "parameters"):
            if not parts:
                return None
            parts.pop(0)
            model = ArmModel if key == "arms" else ParameterModel
            continue
        if key not in model.model_fields:
            return None
        kind = model.model_fields[str(key)].annotation
        options = [kind, *get_args(kind)]
        inner = [k for k in options if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model
