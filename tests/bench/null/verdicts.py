"""How often whole sweeps (see `pipeline`) tell two arms apart: identical ones, and ones of a known difference."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np

from orchestrator.statistics import studies
from orchestrator.statistics.studies import Design
from tests.bench.null import pipeline
from tests.bench.null.designs import label
from tests.bench.null.pipeline import REPEATED, SEARCHES, SINGLE, Said, Values

KNOWN = Design(studies=8, configurations=2, tune=1, confirm=2)
EFFECTS = (0.01, 0.015, 0.02)
"""True differences: about 0.6 to 1.3 standard deviations of a study's mean difference."""


def many(search: str, design: Design, sweeps: int, values: Values | None = None, effect: float = 0.0) -> list[Said]:
    """What so many sweeps said."""
    return [pipeline.said(search, design, number, values=values, effect=effect) for number in range(sweeps)]


def margin(share: float, sweeps: int) -> float:
    """Two standard errors of a share."""
    return 2 * math.sqrt(share * (1 - share) / sweeps)


def false_verdicts(sweeps: int) -> Iterator[str]:
    """Two identical arms, each tuned by its own searches."""
    yield (
        f"Two identical arms through the whole pipeline, {sweeps} sweeps each: settled, coverage (95 %), sd of the "
        f"difference, CPU s a sweep; at most {0.05 + margin(0.05, sweeps):.1%} may settle"
    )
    for search, design in (*((search, REPEATED) for search in SEARCHES), ("random", SINGLE)):
        start = time.process_time()
        found = many(search, design, sweeps)
        each = (time.process_time() - start) / sweeps
        (unit,) = {one.unit for one in found}
        about = "methods" if unit == "study" else "configurations; none for methods"
        yield (
            f"{search:<11}{label(design):<22}{np.mean([s.settled for s in found]):6.1%} settled for {about}  "
            f"{np.mean([s.within for s in found]):6.1%}  {np.std([s.difference for s in found]):.4f}  {each:.2f}"
        )


def predicted_power(sweeps: int) -> Iterator[str]:
    """A known difference: the power that the components of these sweeps predict against what the sweeps say."""
    values = pipeline.normal()
    said = {effect: many("random", KNOWN, sweeps, values, effect) for effect in EFFECTS}
    found = studies.components([d - effect for effect, ones in said.items() for one in ones for d in one.differences])
    assert found is not None
    yield (
        f"A known difference between arms of normal results, {label(KNOWN)}, {sweeps} sweeps each: in sd of a study's "
        "mean, predicted power, verdicts for the right sign (two standard errors), for the wrong one, coverage"
    )
    for effect, ones in said.items():
        right = float(np.mean([s.verdict == "better" for s in ones]))
        yield (
            f"{effect:+.3f}  {effect / math.sqrt(found.variance(KNOWN.confirm)):.2f} sd  "
            f"{studies.power_of(KNOWN, effect, found):6.1%}  {right:6.1%} ({margin(right, sweeps):.1%})  "
            f"{np.mean([s.verdict == 'worse' for s in ones]):6.1%}  {np.mean([s.within for s in ones]):6.1%}"
        )
