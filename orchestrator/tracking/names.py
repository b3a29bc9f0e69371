"""Names that MLflow accepts: it rejects a whole batch for one key with `@`, brackets, `..` or over 250 characters."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.definition.kinds import text

LONGEST, LONGEST_VALUE = 250, 6000
REFUSED = re.compile(r"[^\w.\-/ ]")


def accepted(keys: Iterable[str]) -> dict[str, str]:
    """Key -> the name given to MLflow: the key itself wherever MLflow accepts it.

    If two keys map to one name, the alphabetically later one gets a hash, so that neither overwrites the other.
    """
    keys = sorted(set(keys))
    found = {key: key for key in keys if _plain(key) == key}
    taken = set(found)
    for key in keys:
        if key not in found:
            name = _plain(key)
            found[key] = name if name not in taken else _short(name, key)
            taken.add(found[key])
    return found


def params_of(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Any]:
    """A trial's own facts, then its hyperparameters; one of the same name is stored as `parameters.NAME`."""
    from mlflow.entities import Param

    own = {(f"parameters.{key}" if key in ours else key): value for key, value in theirs.items()}
    names = accepted(own)
    both = {**ours, **{names[key]: value for key, value in own.items()}}
    return [Param(key, text(value)[:LONGEST_VALUE]) for key, value in both.items()]


def _plain(key: str) -> str:
    """A path-safe name of letters, digits, `_`, `.`, `-`, `/` and spaces."""
    parts = [part for part in posixpath.normpath(REFUSED.sub("_", key)).split("/") if part not in ("", ".", "..")]
    name = "/".join(parts) or "_"
    return name if len(name) <= LONGEST else _short(name, key)


def _short(name: str, key: str) -> str:
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
