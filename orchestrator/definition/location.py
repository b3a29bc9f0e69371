"""Places in a sweep file: errors that know where they are, and what the format has at a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args, get_origin

from pydantic import BaseModel

from orchestrator.definition.errors import SpecError
from orchestrator.definition.parameter_models import GroupModel, ParameterModel, RampModel
from orchestrator.definition.schema import ArmModel, SweepModel
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


def fields_at(path: Path, beside: Iterable[str] = (), root: type[BaseModel] = SweepModel) -> list[str]:
    """The keys that the format `root` allows instead of the unknown one at `path`; `beside`: its sibling keys."""
    found = _model_at(path[:-1], root)
    if found is ParameterModel and "schedule" in beside:
        found = RampModel
    return list(found.model_fields) if found else []


def description_of(path: Path, key: str, root: type[BaseModel] = SweepModel) -> str:
    """The sentence of a missing key."""
    found = _model_at(path, root)
    if found is ParameterModel and key not in found.model_fields:
        found = RampModel
    words = found.model_fields[key].description if found and key in found.model_fields else None
    return f"add it ({words.rstrip('.')})" if words else "add it"


NAMED: dict[tuple[type[BaseModel], str], type[BaseModel]] = {
    (SweepModel, "arms"): ArmModel,
    (SweepModel, "parameters"): ParameterModel,
    (SweepModel, "groups"): GroupModel,
    (ArmModel, "parameters"): ParameterModel,
    (ArmModel, "groups"): GroupModel,
}
"""(model, key) -> the model of the things that stand under names of the user's choice there."""


def _model_at(path: Path, root: type[BaseModel]) -> type[BaseModel] | None:
    model = root
    parts = list(path)
    while parts:
        key = str(parts.pop(0))
        if (model, key) in NAMED:
            if not parts:
                return None
            parts.pop(0)
            model = NAMED[model, key]
            continue
        if model is GroupModel and key not in model.model_fields:
            model = ParameterModel
            continue
        if model is ParameterModel and key in RampModel.model_fields:
            continue
        if key not in model.model_fields:
            return None
        kind = model.model_fields[key].annotation
        options = [kind, *get_args(kind)]
        if parts and root is not SweepModel and get_origin(kind) in (list, dict):
            parts.pop(0)
        inner = [k for k in options if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model
