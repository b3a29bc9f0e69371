"""Long names of arms beside the axes and in the legends of figures: whole, on several lines, with room for the data."""

from __future__ import annotations

import pytest

from orchestrator.compare.figures.register import png
from orchestrator.compare.figures.style import LONGEST, NARROW, fit_names, lines_of, panels

NAMES = ["a_very_long_name_of_an_arm_that_somebody_chose", "x" * 70, "mom", "llqr.sam-with/everything that there is"]


@pytest.mark.parametrize("name", [*NAMES, f"{NAMES[0]} − {NAMES[1]}", f"{NAMES[0]} −\nmom"])
def test_lines_hold_the_whole_name(name: str) -> None:
    lines = lines_of(name).split("\n")
    assert "".join(lines).replace(" ", "") == name.replace(" ", "").replace("\n", "")
    assert all(0 < len(line.rstrip("_./− -")) <= LONGEST for line in lines)


def test_a_short_name_stays_as_it_is() -> None:
    assert lines_of("sgd −\nadam w") == "sgd −\nadam w"


@pytest.mark.filterwarnings("error")
def test_the_axes_keep_most_of_the_width() -> None:
    figure, axes = panels(1, 1, height=2.5, width=NARROW)
    ax = axes[0, 0]
    for i, name in enumerate(NAMES):
        ax.plot([0, 1], [-i, -i], label=name)
    ax.set_yticks([-i for i in range(len(NAMES))], NAMES)
    figure.legend(loc="outside upper center")
    fit_names(figure)
    png(figure)
    assert ax.get_position().width > 0.5
    assert ax.get_yticklabels()[2].get_text() == "mom"


def test_a_numeric_axis_is_left_alone() -> None:
    figure, axes = panels(1, 1, height=2.5)
    axes[0, 0].plot([0, 1], [1e-9, 1e9])
    before = axes[0, 0].yaxis.get_major_locator()
    fit_names(figure)
    assert axes[0, 0].yaxis.get_major_locator() is before
