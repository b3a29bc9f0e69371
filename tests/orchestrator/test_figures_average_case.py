"""Figures of average-case methods say in words and lines what the numbers say."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

from orchestrator.compare.figures_average_case import (
    Course,
    Density,
    Slope,
    courses_figure,
    slopes_figure,
    spectra_figure,
)

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close() -> object:
    yield
    plt.close("all")


def test_spectra_show_fitted_edges() -> None:
    values = np.random.default_rng(0).beta(0.5, 1.5, 500)
    density = Density(name="Beta", eigenvalues=values * 3, left_exponent=-0.5, right_exponent=0.5, smoothness=3.0)
    axes = spectra_figure([density, density]).axes
    assert len(axes) == 6
    line = axes[1].lines[-1]
    x, y = np.log(line.get_xdata()), np.log(line.get_ydata())
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(0.5)
    assert "ξ = -0.50" in axes[1].get_title()


def test_courses_have_lines_of_the_theoretical_slope() -> None:
    t = np.arange(1.0, 101.0)
    courses = [
        Course(method="a", iterations=t, objective=t**-3, exponent=3.0, measured=2.98),
        Course(method="b", iterations=t, objective=t**-1),
    ]
    axis = courses_figure(courses, "title").axes[0]
    assert len(axis.lines) == 3
    x, y = np.log(axis.lines[1].get_xdata()), np.log(axis.lines[1].get_ydata())
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(-3)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a: t$^{-2.98}$ (theory 3.00)", "b"]


def test_slopes_have_a_point_for_each_trial_and_a_line_for_each_method() -> None:
    slopes = [Slope(method=m, left_exponent=x, measured=2 * x, theory=2 * x + 0.1) for m in "ab" for x in (0.5, -0.5)]
    axis = slopes_figure(slopes).axes[0]
    assert len(axis.lines) == 4
    assert axis.lines[0].get_xdata().tolist() == [-0.5, 0.5]
    assert axis.lines[1].get_ydata().tolist() == [-1.0, 1.0]
