"""Figures of games from plain numbers: a panel for each shape and method, measured curves beside slopes of theory."""

from __future__ import annotations

import io

import numpy as np
import pytest

from orchestrator.compare.figures.games import Curve, Image, Spectrum, convergence_figure, shapes_figure


@pytest.mark.slow
def test_a_panel_for_every_method_within_its_circle() -> None:
    z = np.array([0.5 + 0.5j, 0.5 - 0.5j])
    images = [
        Image(method="gda", roots=1 - z, rate=0.71, per_evaluation=0.71),
        Image(method="optimistic", roots=2 * z, rate=1.41, per_evaluation=1.41),
        Image(method="gda", roots=z / abs(z), rate=1.0, per_evaluation=1.0),
    ]
    figure = shapes_figure(
        [Spectrum(name="pair", eigenvalues=z, images=images), Spectrum(name="none", eigenvalues=z, images=[])]
    )
    titles = [axis.get_title() for axis in figure.axes]
    assert "r = 0.710 per step\n0.710 per evaluation" in titles[1]
    assert "diverges" in titles[2]
    assert "does not converge" in titles[3]
    assert [axis.axison for axis in figure.axes] == [True] * 5 + [False] * 3
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.slow
def test_the_slope_of_theory_passes_through_the_measured_curve() -> None:
    x = [float(i) for i in range(50)]
    exact = [0.9**i for i in x]
    games = {
        "a": [Curve(method="gda", evaluations=x, residuals=exact, rate=0.9)],
        "b": [
            Curve(method="optimistic", evaluations=x, residuals=exact, rate=0.8),
            Curve(method="gda", evaluations=x, residuals=exact, rate=0.9),
        ],
    }
    figure = convergence_figure(games)
    measured, theory = figure.axes[0].get_lines()[:2]
    assert np.asarray(theory.get_ydata()) == pytest.approx(np.asarray(measured.get_ydata()))
    assert measured.get_color() == figure.axes[1].get_lines()[2].get_color()
    assert figure.axes[0].get_yscale() == "log"
    figure.savefig(io.BytesIO(), format="png")
