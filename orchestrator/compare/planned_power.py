"""Power of the design in a sweep file: can its confirm seeds find an effect of a given size?

The spread of paired differences comes from earlier sweeps of the same task and budget under the root (root mean square
over all their pairs of arms), or is given; without it the answer is in units of that spread.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.compare.evidence import Evidence
from orchestrator.definition.model import Spec, definition
from orchestrator.statistics import power
from orchestrator.statistics.significance import floor_of_seeds, standard_deviation
from orchestrator.storage.folder import sweeps


def design(spec: Spec, *, effect: float, root: Path, sd: float | None = None) -> dict[str, Any]:
    """The `power` part of a plan. `effect` and `sd` in units of the reported metric, above 0."""
    arms, n, alpha = len(spec.arms), len(spec.seeds.confirm), spec.analysis.alpha
    comparisons = max(1, arms - 1 if spec.analysis.baseline else arms * (arms - 1) // 2)
    source = "given"
    if sd is None:
        sd, source = earlier_spread(spec, root)
    known = None if sd is None else effect / sd
    reach = power.detectable(n, comparisons, alpha)
    return {
        "metric": spec.report_metric,
        "effect": effect,
        "seeds": n,
        "comparisons": comparisons,
        "floor": floor_of_seeds(comparisons, alpha),
        "sd": sd,
        "sd_from": source,
        "power": None if known is None else power.power(known, n, comparisons, alpha),
        "seeds_needed": None if known is None else power.seeds_needed(known, comparisons, alpha),
        "detectable_sd": reach,
        "detectable": None if reach is None or sd is None else reach * sd,
    }


def earlier_spread(spec: Spec, root: Path) -> tuple[float | None, str]:
    """Spread of paired differences in earlier sweeps of this task, and which sweeps those were."""
    wanted = json.loads(json.dumps(definition(spec)))
    found, names = list[float](), list[str]()
    for folder in sweeps(root):
        one = Evidence(folder)
        same = one.definition["task"] == wanted["task"]
        if not same or any(one.definition["budget"][key] != wanted["budget"][key] for key in ("unit", "per_trial")):
            continue
        folder.level()
        values = [np.array(v) for v in one.confirmed(spec.report_metric).values()]
        pairs = [a - b for a, b in itertools.combinations(values, 2) if len(a) == len(b) > 2]
        if pairs:
            found += [standard_deviation(d) ** 2 for d in pairs]
            names.append(folder.sweep_id)
    if not found:
        return None, "no earlier sweep of this task"
    return float(np.sqrt(np.mean(found))), ", ".join(names)
