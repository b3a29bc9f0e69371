"""Fairness rules that only the results of a sweep can break: an optimum at an edge, data that differ between arms."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.tuning import edges
from orchestrator.protocol.lint import Breach


def breaches(evidence: Evidence) -> Iterator[Breach]:
    """What `lint` is told beside the file."""
    yield from _edge(evidence)
    yield from _tied_data(evidence)


def _edge(evidence: Evidence) -> Iterator[Breach]:
    for arm in evidence.arms:
        for name, where in edges(evidence, arm).items():
            chosen = evidence.chosen(arm)[name]
            message = f"the chosen {name} = {chosen:.3g} lies at the {where} edge of its range"
            yield "GS103", ("arms", arm), f"{message}; move that bound by a factor of 4"


def _tied_data(evidence: Evidence) -> Iterator[Breach]:
    for (stage, seed), rows in evidence.trials.groupby(["stage", "seed"]):
        if rows["data_digest"].nunique() > 1:
            message = f"{stage} seed {seed} shows its arms different data; only the seed may decide"
            yield "GS116", ("task",), message
            return
