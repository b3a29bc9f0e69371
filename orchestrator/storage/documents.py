"""Documents of a sweep's folder: JSON and text, read with their faults named, and written whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.storage import whole
from orchestrator.storage.errors import Damaged


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` so that `path` holds either the old or the complete new content; `durable`: also after a power
    failure.
    """
    whole.write({path: text}, durable=durable)


def read_json(path: Path, kind: type | tuple[type, ...] = dict) -> Any | None:
    """The JSON document at `path`, or None if there is none (or an empty file, after a power failure). Raises
    Damaged for another `kind` of document, too.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if text else None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise Damaged(path, "not UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise Damaged(path, f"not JSON ({error})") from None
    if found is not None and not isinstance(found, kind):
        raise Damaged(path, f"it holds {found!r:.80}")
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Damaged where the content of `path` lacks what the code in the context looks for, or has it of another type."""
    try:
        yield
    except Damaged:
        raise
    except KeyError as error:
        raise Damaged(path, f"it lacks {error}") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise Damaged(path, str(error)) from None
