"""Fairness rules that only results can violate: an optimum at an edge, data that differs between arms."""

from __future__ import annotations

import json
from collections.abc import Iterator

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.tuning import edges
from orchestrator.definition.parts import TASK, in_section
from orchestrator.protocol.lint import Breach


def breaches(evidence: Evidence) -> Iterator[Breach]:
    """What `lint` reports from the results, in addition to the file."""
    yield from _edge(evidence)
    yield from _tied_data(evidence)


def _edge(evidence: Evidence) -> Iterator[Breach]:
    for arm in evidence.arms:
        for one in filter(lambda e: e.is_doubtful, edges(evidence, arm)):
            chosen = ", ".join(f"{evidence.chosen(arm)[study][one.parameter]:.3g}" for study in one.at)
            several = f" in {len(one.at)} of {one.studies} studies" if one.studies > 1 else ""
            message = f"the chosen {one.parameter} = {chosen} lies at the {one.where} edge of its range{several}"
            yield "GS103", ("arms", arm), f"{message}; move that bound by a factor of 4"


def _tied_data(evidence: Evidence) -> Iterator[Breach]:
    if evidence.is_program:
        return  # how a script's own parameters affect its data is reported with the verdict
    tasks = [json.dumps({n: t.job.values[n] for n in in_section(TASK, t.job.values)}) for t in evidence.records]
    for (stage, seed, _), rows in evidence.trials.assign(task=tasks).groupby(["stage", "seed", "task"]):
        if rows["data_digest"].nunique() > 1:
            message = f"{stage} seed {seed} gives the arms different data; the data may depend only on the seed"
            yield "GS116", ("task",), message
            return
