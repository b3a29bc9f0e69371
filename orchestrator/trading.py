"""Carries out what a population decides at a rung: heirs take places, the others go on.

Heirs come first, then the ends of those who give way, then the note that all is done. A driver that was killed on the
way has its successor wait until all have come to the rung again; it decides the same and adds what is missing. Heirs of
a decision that is not settled are no members yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.arm import Arm
from orchestrator.folder import SweepFolder
from orchestrator.population import Exchange
from orchestrator.search.base import Configuration
from orchestrator.stopping import Stop


@dataclass(frozen=True, kw_only=True)
class Trade:
    """Places that change hands at a rung."""

    heirs: list[Configuration]
    stops: list[Stop]
    """Those who give way and had not diverged."""


def propose(arm: Arm, folder: SweepFolder, seed: int) -> Trade | None:
    """Once all of an arm's population have paused or ended: add the heirs, with what they inherit. Else None."""
    if arm.population is None or not arm.all_paused():
        return None
    found = arm.population.exchanges(arm.diverged(seed))
    heirs = [_heir(arm, folder, exchange, seed) for exchange in found]
    return Trade(heirs=heirs, stops=[e.stop for e in found if e.stop is not None])


def settle(arm: Arm, trade: Trade) -> list[Configuration]:
    """The stops were carried out: the trade stands. Returns the configurations that train on."""
    assert arm.population is not None
    stopped = {stop.number for stop in trade.stops}
    stay = [arm.configuration(n) for n in arm.population.carried_out() if n not in stopped]
    arm.study.decide(arm.population.decided)
    return [*stay, *trade.heirs]


def _heir(arm: Arm, folder: SweepFolder, exchange: Exchange, seed: int) -> Configuration:
    assert arm.population is not None
    donor = arm.configuration(exchange.donor)
    lineage = [*donor.lineage, (arm.population.until, donor.parameters)]
    heir = arm.study.add(arm.population.heir(exchange, donor.parameters), lineage, exchange.loser)
    folder.inherit(arm.trial_id(donor.number, seed), arm.trial_id(heir.number, seed))
    arm.welcome(heir.number)
    return heir
