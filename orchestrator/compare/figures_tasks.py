"""Figures of single tasks, connected to reports.

Affine games show their spectral shape, its image under each arm's chosen method, and measured convergence beside the
slope of theory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import Drawn, figure
from orchestrator.compare.figures_games import Curve, Image, Spectrum, convergence_figure, shapes_figure

NORMAL = ("shape_game", "bilinear")
"""Games whose J is normal, so that a method acts on its eigenvalues one by one."""
ACROSS = 4


@figure
def shapes(evidence: Evidence) -> Iterator[Drawn]:
    """Eigenvalues of the game of the first confirm seed and the roots of each arm's polynomial."""
    if evidence.task not in NORMAL:
        return
    eigenvalues = _eigenvalues(evidence)
    images = [image for arm in evidence.ranked() if (image := _image(evidence, arm, eigenvalues)) is not None]
    name = str(evidence.definition["task"]["parameters"].get("shape", evidence.task))
    rows = [images[i : i + ACROSS] for i in range(0, max(1, len(images)), ACROSS)]
    drawn = shapes_figure([Spectrum(name=name, eigenvalues=eigenvalues, images=row) for row in rows])
    yield Drawn(
        name="spectral-shape",
        section="geometry",
        caption="Left: eigenvalues of the game's Jacobian (first confirm seed). Right: where each arm's chosen method "
        "sends them; it converges when all roots lie inside the unit circle, at the rate of the outermost one.",
        figure=drawn,
    )


@figure
def convergence(evidence: Evidence) -> Iterator[Drawn]:
    """Residuals of the confirm trials beside the slope that theory gives the chosen parameters."""
    curves = evidence.curves[evidence.curves["stage"] == "confirm"]
    found = []
    for arm in evidence.ranked():
        mine = curves[curves["arm"] == arm]
        points = mine[mine["name"] == "residual/log10"].groupby("step")["value"].mean()
        theory = mine[mine["name"] == "geometry/rate_theory"]["value"]
        if len(points) < 2 or not len(theory):
            continue
        residuals = [float(10.0 ** min(v, 300.0)) for v in points]
        rate = float(theory.iloc[-1])
        found.append(Curve(method=arm, evaluations=[float(s) for s in points.index], residuals=residuals, rate=rate))
    if found:
        yield Drawn(
            name="convergence",
            section="geometry",
            caption="Residual |v| against gradient evaluations, geometric mean over the confirm seeds (thick), and the "
            "slope that theory gives the chosen parameters (thin).",
            figure=convergence_figure({evidence.task: found}),
        )


def _eigenvalues(evidence: Evidence) -> Any:
    import torch

    import trainables

    task: Any = trainables.build(evidence.task, **evidence.definition["task"]["parameters"])
    seed = (evidence.definition["seeds"]["confirm"] or evidence.definition["seeds"]["tune"])[0]
    first, second = task.model(seed)
    J = torch.cat([torch.cat([first.own, first.coupling], 1), torch.cat([second.coupling, second.own], 1)])
    return torch.linalg.eigvals(J).numpy()


def _image(evidence: Evidence, arm: str, eigenvalues: Any) -> Image | None:
    """What the arm's chosen configuration makes of the eigenvalues; None for a method that is no polynomial of J."""
    import torch

    import optim_core
    from optim_core.games.maps import POLYNOMIAL, roots
    from optim_core.games.rates import COSTS

    optimizer = evidence.definition["arms"][arm]["optimizer"]
    if optimizer not in POLYNOMIAL:
        return None
    known = optim_core.hyperparameters(optimizer)
    given = {name: evidence.chosen(arm).get(name, p.default) for name, p in known.items()}
    values: dict[str, float] = {
        k: float(given[k] if given[k] is not None else given["lr"]) for k in ("lr", "momentum") if k in given
    }
    if "extrapolation" in given:
        values["extrapolation"] = float(given["lr"] if given["extrapolation"] is None else given["extrapolation"])
    if given.get("consensus") is not None:
        values["consensus"] = float(given["consensus"])
    found = roots(optimizer, torch.from_numpy(eigenvalues), **values).numpy()
    rate = float(np.abs(found).max())
    return Image(method=arm, roots=found, rate=rate, per_evaluation=math.pow(rate, 1 / COSTS[optimizer]))
