"""What has to hold before arms are compared: the same fresh seeds, proved by digests, at the same budget.

parity  (max B - min B) / mean B <= 2 %  over the gradient evaluations of all confirm trials that trained to the end
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.definition.states import Stage, State

FLOOR, PARITY = 6, 0.02
NOBODY: Mapping[str, int] = {}


class Refused(Exception):  # noqa: N818
    """The table does not allow an honest comparison; says why."""


def paired_values(
    trials: pd.DataFrame, metric: str, stopped: Mapping[str, int] = NOBODY
) -> dict[str, NDArray[np.float64]]:
    """Arm -> values of its confirm trials in the order of their seeds. Raises Refused unless they are comparable.

    An arm that a race `stopped` after so many seeds has the first ones of the others.
    """
    confirm = trials[trials["stage"] == Stage.CONFIRM]
    arms = sorted(confirm["arm"].unique())
    if len(arms) < 2:
        raise Refused(f"a comparison needs two arms with confirm trials; there is: {', '.join(arms) or 'none'}")
    if metric not in confirm:
        raise Refused(f"no trial has the metric {metric!r}")
    failed = confirm[confirm["state"] == State.FAILED]
    if len(failed):
        names = ", ".join(sorted(failed["trial_id"])[:3])
        raise Refused(f"{len(failed)} confirm trials failed ({names}); mend the cause and run the sweep again")
    _same_seeds(confirm, arms, stopped)
    _same_streams(confirm)
    _same_budget(confirm)
    ordered = confirm.sort_values("seed")
    found = {arm: ordered[ordered["arm"] == arm][metric].to_numpy(dtype=float) for arm in arms}
    for arm, values in found.items():
        if not np.isfinite(values).all():
            raise Refused(f"arm {arm} has a confirm trial without {metric}")
    return found


def _same_seeds(confirm: pd.DataFrame, arms: Sequence[str], stopped: Mapping[str, int]) -> None:
    seeds = {arm: sorted(confirm[confirm["arm"] == arm]["seed"]) for arm in arms}
    whole = next((arm for arm in arms if arm not in stopped), arms[0])
    for arm, found in seeds.items():
        if len(set(found)) < len(found):
            raise Refused(f"arm {arm} has a confirm seed twice: {found}")
        expected = seeds[whole][: stopped.get(arm)]
        if found != expected:
            raise Refused(f"arms {whole} and {arm} have other confirm seeds: {expected} and {found}")
    fewest = min(map(len, seeds.values()))
    if fewest < FLOOR:
        raise Refused(f"{fewest} confirm seeds; below {FLOOR} no exact test can reach p < 0.05")


def _same_streams(confirm: pd.DataFrame) -> None:
    """Every arm saw, on every seed, the same initial weights and the same data in the same order."""
    for digest in ("init_digest", "data_digest"):
        for seed, rows in confirm.groupby("seed"):
            seen: set[Any] = set(map(str, rows[digest]))
            if len(seen) > 1 or not rows[digest].iloc[0]:
                raise Refused(f"seed {seed} is not paired: {digest} is {', '.join(sorted(seen))}")


def _same_budget(confirm: pd.DataFrame) -> None:
    spent = confirm[confirm["state"] == State.COMPLETE]["grad_evals"]
    if len(spent) and (spent.max() - spent.min()) / spent.mean() > PARITY:
        means = confirm[confirm["state"] == State.COMPLETE].groupby("arm")["grad_evals"].mean()
        raise Refused(f"budgets differ by more than 2 %: {', '.join(f'{a} {b:g}' for a, b in means.items())}")
