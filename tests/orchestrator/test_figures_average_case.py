"""Figures of average-case methods say in words and lines what the numbers say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import geometry, tasks
from orchestrator.compare.figures.average_case import (
    Course,
    Density,
    Slope,
    courses_figure,
    slopes_figure,
    spectra_figure,
)
from tests.swept import swept


def test_spectra_show_fitted_edges() -> None:
    values = np.random.default_rng(0).beta(0.5, 1.5, 500)
    density = Density(name="Beta", eigenvalues=values * 3, left_exponent=-0.5, right_exponent=0.5, smoothness=3.0)
    axes = spectra_figure([density, density]).axes
    assert len(axes) == 6
    line = axes[1].lines[-1]
    x, y = np.log(line.get_xdata()), np.log(line.get_ydata())
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(0.5)
    assert axes[1].get_title() == "fitted ξ = -0.50"


def test_courses_have_lines_of_the_theoretical_slope() -> None:
    t = np.arange(1.0, 101.0)
    courses = [
        Course(method="a", iterations=t, objective=t**-3, exponent=3.0, measured=2.98),
        Course(method="b", iterations=t, objective=t**-1),
    ]
    figure = courses_figure(courses)
    axis = figure.axes[0]
    assert len(axis.lines) == 3
    x, y = np.log(axis.lines[1].get_xdata()), np.log(axis.lines[1].get_ydata())
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(-3)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a: 2.98 (3.00)", "b"]
    falls = [Course(method="a", iterations=t, objective=np.exp(-0.2 * t), exponent=0.2)]
    straight = courses_figure(falls, geometric=True).axes[0]
    x, y = straight.lines[1].get_xdata(), np.log(straight.lines[1].get_ydata())
    assert (straight.get_xscale(), (y[1] - y[0]) / (x[1] - x[0])) == ("linear", pytest.approx(-0.2))


def test_slopes_have_a_point_for_each_trial_and_a_line_for_each_method() -> None:
    slopes = [Slope(method=m, left_exponent=x, measured=2 * x, theory=2 * x + 0.1) for m in "ab" for x in (0.5, -0.5)]
    axis = slopes_figure(slopes).axes[0]
    assert len(axis.lines) == 4
    assert axis.lines[0].get_xdata().tolist() == [-0.5, 0.5]
    assert axis.lines[1].get_ydata().tolist() == [-1.0, 1.0]


SWEEP = """
schema_version: 1
name: tails
task: {name: quadratic, size: 100, LANDSCAPE}
metric: {name: objective/log10, goal: minimize}
arms: {gd: {}, nesterov: {}}
method: {name: grid}
budget: {per_trial: 60}
seeds: {confirm: 2}
evaluations: 6
diagnostics: {names: [average_case_rate], every: 6}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "landscape, names, scale",
    [
        ("left_exponent: [-0.9, 1.0]", ["exponents", "spectrum", "suboptimality"], "log"),
        ("strong_convexity: 0.1", ["spectrum", "suboptimality"], "linear"),
        ("spectrum: points, points: [0.1, 0.5, 1.0]", ["suboptimality"], "linear"),
    ],
)
def test_a_report_draws_what_the_task_has(tmp_path: Path, landscape: str, names: list[str], scale: str) -> None:
    text = SWEEP.replace("LANDSCAPE", landscape)
    folder = swept(text, tmp_path)
    draws = (tasks.spectra, tasks.courses, tasks.slopes)
    drawn = {d.name: d for draw in draws for d in draw(Evidence(folder))}
    assert sorted(drawn) == names
    (measured,) = geometry.geometry(Evidence(folder))  # measured once, at the end
    assert all(axis.has_data() for axis in measured.figure.axes if axis.get_visible())
    assert drawn["suboptimality"].figure.axes[0].get_xscale() == scale
    if "spectrum" in drawn:
        assert len(drawn["spectrum"].figure.axes) == (6 if "exponents" in drawn else 3)
        edge = drawn["spectrum"].figure.axes[1].get_title()
        fitted, known = (float(x) for x in re.findall(r"[-−]?\d+\.\d+", edge.replace("−", "-")))
        assert fitted == pytest.approx(known, abs=0.15)
