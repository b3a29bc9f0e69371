"""The interface of a search: one durable study for each arm, asked and told configuration by configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from orchestrator.definition.states import ConfigurationState


@dataclass(kw_only=True)
class Configuration:
    """One point of an arm's space."""

    number: int
    parameters: Mapping[str, Any]
    state: ConfigurationState
    value: float | None = None
    lineage: Sequence[tuple[int, Mapping[str, Any]]] = ()
    """See `Job.lineage`; only children in a population have one."""
    replaces: int | None = None
    """The member of the population that it replaced."""


class Study(Protocol):
    """One arm's study. Every method that changes something returns after the change is durable."""

    def configurations(self) -> Sequence[Configuration]:
        """All configurations asked so far, in order, whole ones only."""

    def ask(self) -> Configuration:
        """The next configuration."""

    def add(
        self, parameters: Mapping[str, Any], lineage: Sequence[tuple[int, Mapping[str, Any]]], replaces: int
    ) -> Configuration:
        """Another configuration, for a child in a population; the one added earlier if there is one."""

    def report(self, number: int, step: int, value: float) -> None:
        """The tuned metric at an intermediate evaluation (1, 2, ...)."""

    def tell(
        self,
        number: int,
        state: ConfigurationState,
        values: Sequence[float] = (),
        broken: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """The outcome: COMPLETE with its values (worst ones when diverged), PRUNED, or FAIL.

        `broken`: outcome constraint -> by how much it is violated.
        """

    def learn(
        self,
        source: str,
        told: Sequence[tuple[Mapping[str, Any], Sequence[float]]],
        broken: Sequence[Mapping[str, float]] = (),
    ) -> int:
        """Take in what an earlier sweep found; returns how many configurations lay in this space."""

    def decide(self, count: int) -> None:
        """Record how many decisions about the population are carried out."""

    def decided(self) -> int:
        """How many decisions about the population are carried out."""

    def choose(self, number: int) -> None:
        """Pin the configuration that proceeds to the confirm stage."""

    def reopen(self) -> None:
        """Forget which configuration is pinned."""

    def chosen(self) -> int | None:
        """The pinned configuration, if any."""
