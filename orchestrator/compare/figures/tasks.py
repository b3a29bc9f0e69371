"""Task-specific figures for reports.

Affine games: the spectral shape, its image under each arm's chosen method, and measured convergence next to the
predicted slope. Quadratics and least squares: the spectrum with fitted edges, suboptimality next to the predicted
slopes, and, when seeds draw the spectrum, measured exponents against its exponent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import optim_core
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures.average_case import (
    Course,
    Density,
    Slope,
    courses_figure,
    slopes_figure,
    spectra_figure,
)
from orchestrator.compare.figures.games import Curve, Image, Spectrum, convergence_figure, shapes_figure
from orchestrator.compare.figures.register import Drawn, figure
from orchestrator.definition import built
from orchestrator.definition.states import Stage

FEWEST_EIGENVALUES = 30


@figure
def shapes(evidence: Evidence) -> Iterator[Drawn]:
    """Eigenvalues of the first confirm seed's game and the roots of each arm's polynomial."""
    if "spectral-shape" not in evidence.declares.figures:
        return
    eigenvalues = _eigenvalues(evidence)
    images = [image for arm in evidence.ranked() if (image := _image(evidence, arm, eigenvalues)) is not None]
    name = str(evidence.definition["task"]["parameters"].get("shape", evidence.task))
    drawn = shapes_figure([Spectrum(name=name, eigenvalues=eigenvalues, images=images)], evidence.arms)
    yield Drawn(
        name="spectral-shape",
        section="geometry",
        caption="First: eigenvalues of the game's Jacobian (first confirm seed). Then: where each arm's chosen method "
        f"{'(of study 1) ' if evidence.studies > 1 else ''}"
        "sends them; it converges when all roots lie inside the unit circle (dashed), and its error falls by the "
        "radius r of the outermost one (shaded disc) at each step.",
        figure=drawn,
    )


@figure
def convergence(evidence: Evidence) -> Iterator[Drawn]:
    """Residuals of the confirm trials and the slope that theory predicts for the chosen parameters."""
    curves = evidence.curves[evidence.curves["stage"] == Stage.CONFIRM]
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
            "slope that theory predicts for the chosen parameters (thin, black).",
            figure=convergence_figure({evidence.task: found}, evidence.arms),
        )


@figure
def spectra(evidence: Evidence) -> Iterator[Drawn]:
    """The density of the first confirm seed (and of those with the extreme exponents, when seeds draw them)."""
    if "spectrum" not in evidence.declares.figures:
        return
    models = {seed: _model(evidence, seed) for seed in _seeds(evidence)}
    ordered = sorted(models, key=lambda seed: models[seed].spectrum.get("left_exponent", 0.0))
    drawn = dict.fromkeys((ordered[0], ordered[-1])) if _exponents(models) else ordered[:1]
    densities = [found for seed in drawn if (found := _density(models[seed], f"seed {seed}")) is not None]
    if densities:
        yield Drawn(
            name="spectrum",
            section="geometry",
            caption="Spectrum of the Hessian at the starting point. Left: density of the eigenvalues (bars) and "
            "λ^ξ (L − λ)^τ with the exponents of the edges (line): where they differ, the density in the bulk has "
            "another form. "
            "Right: share of the spectrum near either edge, log-log (dots), and the edge fitted to the outermost "
            "eigenvalues by Hill's estimator (lines of slope ξ + 1 and τ + 1).",
            figure=spectra_figure(densities),
        )


@figure
def courses(evidence: Evidence) -> Iterator[Drawn]:
    """Suboptimality of the confirm trials with the predicted slopes, first confirm seed."""
    if "suboptimality" not in evidence.declares.figures:
        return
    seed = _seeds(evidence)[0]
    found = []
    for arm in evidence.ranked():
        mine = evidence.curves
        mine = mine[(mine["arm"] == arm) & (mine["stage"] == Stage.CONFIRM) & (mine["seed"] == seed)]
        points = mine[mine["name"] == "objective/log10"].sort_values("step")
        if len(points) < 2:
            continue
        last = {name: rows["value"].iloc[-1] for name, rows in mine.groupby("name")}
        found.append(
            Course(
                method=arm,
                iterations=points["step"].to_numpy(dtype=float),
                objective=10.0 ** points["value"].to_numpy(dtype=float).clip(-300, 4),
                exponent=last.get("geometry/rate_theory"),
                measured=last.get("geometry/rate_measured"),
            )
        )
    if found:
        geometric = optim_core.average_case.Problem.of(_model(evidence, seed).spectrum, order=1).strong_convexity > 0
        yield Drawn(
            name="suboptimality",
            section="geometry",
            caption=f"Objective above its minimum against gradient evaluations, seed {seed}, "
            f"{'logarithmic' if geometric else 'log-log'}. Black: the slope that theory predicts for the chosen "
            "parameters, through the last point. Evaluations used to estimate the spectrum are included.",
            figure=courses_figure(found, evidence.arms, geometric=geometric),
        )


@figure
def slopes(evidence: Evidence) -> Iterator[Drawn]:
    """Exponents of every confirm trial against the exponent of the spectrum drawn by its seed."""
    if "exponents" not in evidence.declares.figures:
        return
    known = _exponents({seed: _model(evidence, seed) for seed in _seeds(evidence)})
    rows = evidence.trials[evidence.trials["stage"] == Stage.CONFIRM]
    names = ["geometry/rate_measured", "geometry/rate_theory"]
    if not known or not set(names) <= set(rows):
        return
    found = [
        Slope(method=arm, left_exponent=known[seed], measured=measured, theory=theory)
        for arm, seed, measured, theory in rows[["arm", "seed", *names]].dropna().itertuples(index=False)
    ]
    if found:
        yield Drawn(
            name="exponents",
            section="geometry",
            caption="Exponent of the objective, measured (points) and by theory (lines), for each confirm seed against "
            "the exponent ξ of the spectrum drawn by the seed.",
            figure=slopes_figure(found, evidence.arms),
        )


def _seeds(evidence: Evidence) -> list[int]:
    return list(evidence.definition["seeds"]["confirm"] or evidence.definition["seeds"]["tune"])


def _task(evidence: Evidence) -> Any:
    """As in the first trial, where trials choose parts of it."""
    chosen = evidence.records[0].job.task_parameters if evidence.records else {}
    return built.build(evidence.task, {**evidence.definition["task"]["parameters"], **chosen})


def _model(evidence: Evidence, seed: int) -> Any:
    return _task(evidence).model(seed)


def _exponents(models: Mapping[int, Any]) -> dict[int, float]:
    """Seed -> xi, when seeds draw different ones."""
    found = {seed: m.spectrum["left_exponent"] for seed, m in models.items() if "left_exponent" in m.spectrum}
    return found if len(set(found.values())) > 1 else {}


def _density(model: Any, name: str) -> Density | None:
    """The spectrum and its edges; None without enough eigenvalues or without an upper edge."""
    import torch

    eigenvalues, squares = model.modes()
    known = optim_core.average_case.Problem.of(model.spectrum, order=1)
    if len(eigenvalues) < FEWEST_EIGENVALUES or not math.isfinite(known.smoothness):
        return None
    drawn = "left_exponent" in model.spectrum
    weights = squares if drawn else torch.full_like(eigenvalues, 1 / len(eigenvalues))
    top, low = (known.smoothness, known.strong_convexity) if drawn else (float(eigenvalues.max()), 0.0)
    return Density(
        name=name,
        eigenvalues=eigenvalues.numpy(),
        weights=weights.numpy(),
        lower=low,
        left_exponent=optim_core.spectrum.hill(eigenvalues - low, weights=weights),
        right_exponent=optim_core.spectrum.hill(top - eigenvalues, weights=weights),
        smoothness=top,
        known=(known.left_exponent, known.right_exponent) if drawn else None,
    )


def _eigenvalues(evidence: Evidence) -> Any:
    import torch

    task = _task(evidence)
    return torch.linalg.eigvals(task.jacobian(task.model(_seeds(evidence)[0]))).numpy()


def _image(evidence: Evidence, arm: str, eigenvalues: Any) -> Image | None:
    """How the arm's configuration of the first study maps them; None for a method that is not a polynomial of J."""
    import torch

    method = evidence.optimizer(arm)
    if not issubclass(method, optim_core.games.GameOptimizer):
        return None
    known = optim_core.hyperparameters(evidence.definition["arms"][arm]["optimizer"])
    chosen = evidence.chosen(arm).get(1, {})
    given = {name: chosen.get(name, p.default) for name, p in known.items()}
    found = method.roots(torch.from_numpy(eigenvalues), **given)
    if found is None:
        return None
    rate = float(found.abs().max())
    return Image(
        method=arm, roots=found.numpy(), rate=rate, per_evaluation=math.pow(rate, 1 / method.cost_per_step(**given))
    )
