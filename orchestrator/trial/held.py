"""What a trial knows of the pack that trains it."""

from __future__ import annotations

from typing import Any, Protocol


class Held(Protocol):
    """The pack that trains a trial."""

    size: int
    """The number of its trials."""

    def state(self) -> dict[str, Any]:
        """`Training.state` of this trial."""
