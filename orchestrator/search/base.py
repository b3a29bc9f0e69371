"""The interface of a search: one durable study for each arm, asked and told configuration by configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(kw_only=True)
class Configuration:
    """One point of an arm's space."""

    number: int
    parameters: Mapping[str, Any]
    state: str
    """RUNNING, COMPLETE or FAIL."""
    value: float | None = None


class Study(Protocol):
    """One arm's study. Every method that changes something returns after the change is durable."""

    def configurations(self) -> list[Configuration]:
        """All configurations asked so far, in order, whole ones only."""

    def ask(self) -> Configuration:
        """The next configuration."""

    def tell(self, number: int, value: float | None) -> None:
        """The configuration's value, or None when it failed (the sampler never hears of a failure)."""

    def choose(self, number: int) -> None:
        """Pin the configuration that goes on to the confirm stage."""

    def chosen(self) -> int | None:
        """The pinned configuration, if any."""
